//! How long the jobs that are left will take.
//!
//! # The need
//!
//! Jobs of one kind may take very different times, and as many run at once as fit. A number alone would say more than is
//! known, and so would one that is told before anything has ended.
//!
//! # The obvious way, and why not
//!
//! The time so far, times those that are left, through those that have ended: it is wrong at the beginning, where only short
//! ones have ended, and at the end, where a long one runs alone; and where kinds come one after the other.
//!
//! # What is done instead
//!
//! The time that all jobs that are left take together, through the number that runs at once, is the least that any order of
//! them takes; what the longest takes beyond its share is the most that is wasted at the end (Graham's bound for list
//! scheduling). The time of a kind is the mean of the last of it, those included that run and are longer already; all
//! tries of a job count, and the time in which it was paused.
//!
//! # The cost
//!
//! A job longer than all before it is not foreseen.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

/// The jobs of a kind that are remembered.
const REMEMBERED: usize = 256;

/// The ends over which the width is averaged.
const WINDOW: usize = 32;

/// The ends before which nothing is said.
const ENOUGH: usize = 5;

/// How far the ends of a range may be apart to be told as one figure.
const ALIKE: f64 = 1.25;

/// The time that jobs will take. Its text is rounded: `about 40 s`, `2 to 5 min`, or `at least 3 min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remaining {
    /// The time that it takes at least.
    pub at_least: Duration,
    /// The time that it takes at most. `None`: it is not known how many jobs are to come
    /// ([`expect_no_more`](super::Jobs::expect_no_more)).
    pub at_most: Option<Duration>,
}

/// The speed at which jobs end.
#[derive(Debug)]
pub(super) struct Pace {
    kinds: BTreeMap<String, VecDeque<f64>>,
    ended: usize,
    /// The jobs that run, since when, and the seconds of all jobs together until then.
    running: usize,
    since: Instant,
    job_seconds: f64,
    /// The times of the last ends, and the seconds of all jobs by then. The first of all is that of the first start.
    marks: VecDeque<(Instant, f64)>,
}

/// How long jobs took that stand for those that are left, in seconds.
#[derive(Debug, Default)]
struct Sample(Vec<f64>);

impl Pace {
    pub(super) fn new(now: Instant) -> Pace {
        Pace { kinds: BTreeMap::new(), ended: 0, running: 0, since: now, job_seconds: 0.0, marks: VecDeque::new() }
    }

    /// From now on, so many jobs run.
    pub(super) fn turn_to(&mut self, running: usize, now: Instant) {
        (self.job_seconds, self.since, self.running) = (self.job_seconds_until(now), now, running);
        if self.marks.is_empty() {
            self.marks.push_back((now, self.job_seconds));
        }
    }

    /// Leaves out a time in which everything stood still, which is over now.
    pub(super) fn leave_out(&mut self, stopped: Duration) {
        self.since += stopped;
        self.marks.iter_mut().for_each(|(at, _)| *at += stopped);
    }

    /// A job has ended now, of which all tries together took so long.
    pub(super) fn note(&mut self, kind: &str, took: Duration, now: Instant) {
        // Looked up first: the name is copied once a kind.
        if !self.kinds.contains_key(kind) {
            self.kinds.insert(kind.into(), VecDeque::new());
        }
        if let Some(times) = self.kinds.get_mut(kind) {
            push(times, took.as_secs_f64(), REMEMBERED);
        }
        let mark = (now, self.job_seconds_until(now));
        push(&mut self.marks, mark, WINDOW);
        self.ended += 1;
    }

    /// What is known of jobs that run for so long already, of those that wait, and of so many that are to come.
    pub(super) fn remaining<'a>(
        &self,
        now: Instant,
        running: impl Iterator<Item = (&'a str, Duration)>,
        waiting: impl Iterator<Item = &'a str>,
        more: usize,
    ) -> Option<Remaining> {
        let running: Vec<(&str, f64)> = running.map(|(kind, age)| (kind, age.as_secs_f64())).collect();
        let mut left: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        waiting.for_each(|kind| *left.entry(Some(kind)).or_default() += 1);
        *left.entry(None).or_default() += more;
        left.retain(|_, count| *count > 0);
        let is_over = running.is_empty() && left.is_empty();
        if is_over || self.ended < ENOUGH.max(running.len()) {
            return None;
        }

        let (mut seconds, mut variance, mut longest) = (0.0, 0.0, 0.0_f64);
        for (kind, age) in &running {
            let rest = self.ended_of(Some(kind)).beyond(*age);
            seconds += rest.mean();
            variance += rest.variance();
            longest = longest.max(rest.longest());
        }
        for (kind, count) in &left {
            let (sample, count) = (self.ended_of(*kind).and_longer(*kind, &running), *count as f64);
            seconds += count * sample.mean();
            // That of a sum, and that of the mean itself, which is known from so few.
            variance += (count + count * count / sample.0.len().max(1) as f64) * sample.variance();
            longest = longest.max(sample.longest());
        }
        let width = if left.is_empty() { running.len() as f64 } else { self.width(now) };
        let (even, deviation) = (seconds / width, variance.sqrt() / width);
        let at_least = Duration::try_from_secs_f64((even - deviation).max(0.0)).ok()?;
        let at_most = Duration::try_from_secs_f64(even + deviation + longest * (1.0 - 1.0 / width)).ok()?;
        Some(Remaining { at_least, at_most: Some(at_most) })
    }

    /// The number of jobs that ran at once lately, on average.
    fn width(&self, now: Instant) -> f64 {
        let Some((since, job_seconds)) = self.marks.front() else { return 1.0 };
        let seconds = now.saturating_duration_since(*since).as_secs_f64();
        let width = (self.job_seconds_until(now) - job_seconds) / seconds;
        if width.is_finite() {
            width.max(1.0)
        } else {
            1.0
        }
    }

    fn job_seconds_until(&self, now: Instant) -> f64 {
        self.job_seconds + self.running as f64 * now.saturating_duration_since(self.since).as_secs_f64()
    }

    /// The jobs of a kind that have ended; those of every kind for one that is not known.
    fn ended_of(&self, kind: Option<&str>) -> Sample {
        match kind.and_then(|kind| self.kinds.get(kind)) {
            Some(times) => Sample(times.iter().copied().collect()),
            None => Sample(self.kinds.values().flatten().copied().collect()),
        }
    }
}

impl Sample {
    /// With those that run and are longer than the mean already.
    fn and_longer(mut self, kind: Option<&str>, running: &[(&str, f64)]) -> Sample {
        let mean = self.mean();
        let is_longer = |job: &&(&str, f64)| job.1 > mean && kind.map_or(true, |kind| kind == job.0);
        self.0.extend(running.iter().filter(is_longer).map(|(_, age)| *age));
        self
    }

    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len().max(1) as f64
    }

    fn variance(&self) -> f64 {
        let mean = self.mean();
        self.0.iter().map(|took| (took - mean).powi(2)).sum::<f64>() / self.0.len().max(1) as f64
    }

    fn longest(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max)
    }

    /// How long one goes on that runs for so long already: as those did that were longer. One that is longer than all may
    /// be over at once, or be half of its way.
    fn beyond(&self, age: f64) -> Sample {
        let longer: Vec<f64> = self.0.iter().map(|took| took - age).filter(|rest| *rest > 0.0).collect();
        Sample(if longer.is_empty() { vec![0.0, 2.0 * (age - self.longest()).min(age / 2.0)] } else { longer })
    }
}

/// Adds to those that are remembered, of which there are so many at most.
fn push<T>(remembered: &mut VecDeque<T>, new: T, most: usize) {
    if remembered.len() == most {
        remembered.pop_front();
    }
    remembered.push_back(new);
}

impl fmt::Display for Remaining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_least = self.at_least.as_secs_f64();
        let Some(at_most) = self.at_most.map(|at_most| at_most.as_secs_f64()) else {
            let (number, unit) = rounded(at_least, f64::floor);
            return write!(f, "at least {number} {unit}");
        };
        let ((low, low_unit), (high, high_unit)) = (rounded(at_least, f64::floor), rounded(at_most, f64::ceil));
        if at_most <= at_least * ALIKE || (low, low_unit) == (high, high_unit) {
            let (number, unit) = rounded((at_least + at_most) / 2.0, f64::round);
            write!(f, "about {number} {unit}")
        } else if low == 0.0 {
            write!(f, "at most {high} {high_unit}")
        } else if low_unit == high_unit {
            write!(f, "{low} to {high} {high_unit}")
        } else {
            write!(f, "{low} {low_unit} to {high} {high_unit}")
        }
    }
}

/// A figure that people say: no finer than a tenth of it or so.
fn rounded(seconds: f64, round: fn(f64) -> f64) -> (f64, &'static str) {
    let (step, unit_seconds, unit) = match seconds {
        seconds if seconds < 10.0 => (1.0, 1.0, "s"),
        seconds if seconds < 100.0 => (5.0, 1.0, "s"),
        seconds if seconds < 20.0 * 60.0 => (1.0, 60.0, "min"),
        seconds if seconds < 100.0 * 60.0 => (5.0, 60.0, "min"),
        seconds if seconds < 10.0 * 3600.0 => (0.5, 3600.0, "h"),
        _ => (1.0, 3600.0, "h"),
    };
    (round(seconds / unit_seconds / step) * step, unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs jobs of these lengths in seconds, so many at once, and looks after each end: the number of those that have
    /// ended, what remains, how long it takes in fact, and whether no job is left that is longer than all that have ended.
    fn estimates(lengths: &[f64], width: usize) -> Vec<(usize, Option<Remaining>, f64, bool)> {
        let began = Instant::now();
        let at = |seconds: f64| began + Duration::from_secs_f64(seconds);
        let mut pace = Pace::new(began);
        let (mut looks, mut longest) = (Vec::new(), 0.0);
        let (mut now, mut running, mut next): (f64, Vec<(f64, f64)>, _) = (0.0, Vec::new(), 0);
        loop {
            while running.len() < width && next < lengths.len() {
                running.push((now, lengths[next]));
                next += 1;
                pace.turn_to(running.len(), at(now));
            }
            let ages = running.iter().map(|(since, _)| ("cc", Duration::from_secs_f64(now - since)));
            let waiting = lengths[next..].iter().map(|_| "cc");
            let remaining = pace.remaining(at(now), ages, waiting, 0);
            let left = running.iter().map(|(_, length)| length).chain(&lengths[next..]);
            looks.push((next - running.len(), remaining, now, left.copied().fold(0.0, f64::max) <= longest));
            running.sort_by(|a, b| (b.0 + b.1).total_cmp(&(a.0 + a.1)));
            let Some((since, length)) = running.pop() else { break };
            now = since + length;
            longest = length.max(longest);
            pace.note("cc", Duration::from_secs_f64(length), at(now));
            pace.turn_to(running.len(), at(now));
        }
        looks.into_iter().map(|(ended, remaining, at, is_foreseen)| (ended, remaining, now - at, is_foreseen)).collect()
    }

    /// Lengths that a generator without a seed of its own scatters: numbers in [0, 1).
    fn scattered(count: usize) -> Vec<f64> {
        (1..=count).map(|index| (index as f64 * 0.618_033_988_749_895).fract()).collect()
    }

    #[test]
    fn nothing_is_said_before_enough_have_ended_and_once_all_have() {
        let estimates = estimates(&[1.0; 40], 8);
        assert!(estimates.iter().all(|(ended, remaining, ..)| remaining.is_some() == (8..40).contains(ended)));
        assert!(self::estimates(&[1.0; 4], 1).iter().all(|(_, remaining, ..)| remaining.is_none()));
    }

    #[test]
    fn the_truth_is_in_the_range_or_near_it_all_the_time_however_much_jobs_differ() {
        let alike = vec![10.0; 100];
        let even: Vec<f64> = scattered(100).iter().map(|part| 1.0 + 19.0 * part).collect();
        // Most take a second, and some a minute.
        let heavy: Vec<f64> = scattered(200).iter().map(|part| 1.0 / (1.0 - part).max(1.0 / 60.0)).collect();
        let mut outlier = vec![2.0; 100];
        outlier[60] = 30.0;
        for (name, lengths) in [("alike", alike), ("even", even), ("heavy", heavy), ("outlier", outlier)] {
            for width in [1, 4, 16] {
                for (ended, remaining, truth, is_foreseen) in estimates(&lengths, width) {
                    let Some(Remaining { at_least, at_most: Some(at_most) }) = remaining else { continue };
                    let (at_least, at_most) = (at_least.as_secs_f64(), at_most.as_secs_f64());
                    let told =
                        format!("{name} at width {width}, {ended} ended: {at_least} to {at_most}, in fact {truth}");
                    let is_middle = ended > lengths.len() / 4 && ended < lengths.len() * 4 / 5;
                    let allowed = if is_middle { 1.5 } else { 4.0 };
                    assert!(at_least <= truth * allowed + 1.0, "{told}");
                    assert!(!is_foreseen || at_most * allowed + 1.0 >= truth, "{told}");
                    assert!(!is_middle || at_most <= truth * 3.0 + 2.0, "{told}");
                }
            }
        }
    }

    #[test]
    fn kinds_that_are_left_count_at_what_they_took() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        pace.turn_to(1, began);
        for (kind, seconds) in [("cc", 1), ("cc", 1), ("cc", 1), ("cc", 1), ("ld", 60)] {
            pace.note(kind, Duration::from_secs(seconds), began + Duration::from_secs(64));
        }
        let remaining = |waiting: &[&'static str], more| {
            let now = began + Duration::from_secs(64);
            pace.remaining(now, std::iter::empty(), waiting.iter().copied(), more).unwrap().to_string()
        };
        assert_eq!(remaining(&["cc"; 50], 0), "about 50 s");
        assert_eq!(remaining(&["ld", "ld"], 0), "about 2 min");
        assert_eq!(remaining(&["as"], 0), remaining(&[], 1));
    }

    #[test]
    fn a_figure_is_rounded_as_people_say_it() {
        for (at_least, at_most, text) in [
            (0.2, Some(0.9), "at most 1 s"),
            (3.2, Some(3.9), "about 4 s"),
            (12.0, Some(34.0), "10 to 35 s"),
            (31.0, Some(38.0), "about 35 s"),
            (60.0, Some(300.0), "60 s to 5 min"),
            (150.0, Some(300.0), "2 to 5 min"),
            (4000.0, Some(9000.0), "65 min to 2.5 h"),
            (1e6, Some(1.1e6), "about 292 h"),
            (200.0, None, "at least 3 min"),
        ] {
            let remaining = Remaining {
                at_least: Duration::from_secs_f64(at_least),
                at_most: at_most.map(Duration::from_secs_f64),
            };
            assert_eq!(remaining.to_string(), text);
        }
    }
}
