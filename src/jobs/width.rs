//! How many jobs run at once where nobody has said how many: as many as there are CPUs, for more of those that compute
//! would take more memory and end no sooner; and more than that while CPUs are idle although so many run, as jobs that
//! wait do.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::held_back::HeldBack;

/// The time over which idle CPUs are counted: ten ticks of the kernel's.
const WINDOW: Duration = Duration::from_millis(100);

/// The CPUs that must be idle for more jobs to run: a quarter of one can come of jobs that start and end.
const IDLE: f64 = 0.25;

/// The share of the time in percent in which a task waits for a CPU, from which on fewer jobs run. Two that compute on
/// two CPUs make less than 5 % of it, three make 50.
const CROWDED: f64 = 25.0;

/// The share of the CPUs from which on, idle over a second, they are not crowded whatever that is: jobs that fill their memory
/// at the same moment, and wait for the rest of their time, have one wait for another and the CPUs for both.
const UNUSED: f64 = 0.25;
const SECOND: Duration = Duration::from_secs(1);

/// How long the width stays after it was too large; twice as long the next time, up to the last.
const HOLD: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(8)];

/// The most jobs that run at once.
#[derive(Debug)]
pub(super) struct Width {
    cpus: usize,
    jobs: usize,
    is_fixed: bool,
    /// Whether a job was held back by it since the last look.
    is_felt: bool,
    looked: Option<(Instant, Ticks)>,
    /// The CPUs that were idle in the last second or so.
    idle_cpus: f64,
    hold: Duration,
    hold_until: Option<Instant>,
}

/// The time of all CPUs together since boot, in ticks, as the first line of `/proc/stat` counts it (proc_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    idle: u64,
    all: u64,
}

impl Width {
    /// As wide as the CPUs bear, or as given.
    pub(super) fn new(fixed: Option<usize>) -> Width {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        Width {
            cpus,
            jobs: fixed.unwrap_or(cpus),
            is_fixed: fixed.is_some(),
            is_felt: false,
            looked: None,
            idle_cpus: 0.0,
            hold: HOLD[0],
            hold_until: None,
        }
    }

    /// Whether another job may be started beside so many.
    pub(super) fn has_room(&mut self, running: usize) -> bool {
        self.is_felt |= running >= self.jobs;
        running < self.jobs
    }

    /// Says that it has no room beside so many.
    pub(super) fn refusal(&self, running: usize) -> HeldBack {
        if self.is_fixed {
            HeldBack::Width(self.jobs)
        } else {
            HeldBack::Cpus { running, cpus: self.cpus }
        }
    }

    /// Looks whether the CPUs have become idle or crowded, if it is time to. The pressure is the share of the time in
    /// percent in which some task waited for a CPU.
    pub(super) fn look(&mut self, now: Instant, pressure: Option<f64>) {
        if self.is_fixed || self.looked.is_some_and(|(at, _)| now - at < WINDOW) {
            return;
        }
        let Some(ticks) = fs::read("/proc/stat").ok().as_deref().and_then(parse) else { return };
        if let Some((at, before)) = self.looked.replace((now, ticks)) {
            let all = thread::available_parallelism().map_or(self.cpus, usize::from);
            let idle_cpus = ticks.idle_since(before) * all as f64;
            self.judge(now, now - at, idle_cpus, pressure.unwrap_or_default());
        }
    }

    /// These CPUs were idle for so long, up to now.
    fn judge(&mut self, now: Instant, during: Duration, idle_cpus: f64, pressure: f64) {
        let weight = (during.as_secs_f64() / SECOND.as_secs_f64()).min(1.0);
        self.idle_cpus += (idle_cpus - self.idle_cpus) * weight;
        let is_crowded = pressure >= CROWDED && self.idle_cpus < self.cpus as f64 * UNUSED;
        let is_held = self.hold_until.is_some_and(|until| now < until);
        if is_crowded && self.jobs > self.cpus && !is_held {
            self.jobs = self.cpus.max(self.jobs - (self.jobs / 4).max(1));
            self.hold_until = Some(now + self.hold);
            self.hold = (self.hold * 2).min(HOLD[1]);
        } else if !is_crowded && idle_cpus >= IDLE && self.is_felt && !is_held {
            self.jobs += (self.jobs / 2).max(1);
        }
        self.is_felt = false;
    }
}

impl Ticks {
    /// The share of the CPUs that were idle, on average.
    fn idle_since(self, before: Ticks) -> f64 {
        let idle = self.idle.saturating_sub(before.idle) as f64;
        idle / self.all.saturating_sub(before.all).max(1) as f64
    }
}

/// `cpu  user nice system idle iowait irq softirq steal guest guest_nice`; time of guests is in `user` and `nice` too.
fn parse(stat: &[u8]) -> Option<Ticks> {
    let line = stat.split(|byte| *byte == b'\n').next()?;
    let fields = std::str::from_utf8(line).ok()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = fields.split_ascii_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    let idle = *ticks.get(3)?;
    let waiting = ticks.get(4).copied().unwrap_or_default();
    let all = ticks.iter().fold(0, |all: u64, ticks| all.saturating_add(*ticks));
    Some(Ticks { idle: idle.saturating_add(waiting), all })
}

/// What is idle is part of all.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let Some(ticks) = parse(bytes) else { return };
    assert!(ticks.idle <= ticks.all && bytes.starts_with(b"cpu "));
    assert_eq!(parse(&[bytes, b"\ncpu 1 2 3 4"].concat()), Some(ticks));
    assert!((0.0..=1.0).contains(&ticks.idle_since(Ticks { idle: 0, all: 0 })));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_that_of_all_cpus_and_includes_waits_for_disks() {
        let before = parse(b"cpu  10 0 10 100 10 0 0 0 5 0\ncpu0 1 2 3\n").unwrap();
        assert_eq!(before, Ticks { idle: 110, all: 130 });
        let after = parse(b"cpu  60 0 10 140 20 0 0 0 5 0\n").unwrap();
        assert_eq!(after.idle_since(before), 0.5);
        assert_eq!(before.idle_since(before), 0.0);
        for text in ["", "cpu ", "cpu 1 2 3", "cpu0 1 2 3 4", "cpu 1 2 3 x"] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn it_grows_while_cpus_are_idle_and_jobs_are_held_back_and_shrinks_when_crowded() {
        let mut width = Width { cpus: 4, jobs: 4, ..Width::new(None) };
        let mut now = Instant::now();
        let mut judge = |width: &mut Width, running, idle, pressure| {
            now += WINDOW;
            width.has_room(running);
            width.judge(now, WINDOW, idle, pressure);
            width.jobs
        };
        assert_eq!(judge(&mut width, 3, 4.0, 0.0), 4); // nobody was held back
        assert_eq!(judge(&mut width, 4, 0.1, 0.0), 4); // nothing was idle
        assert_eq!(judge(&mut width, 4, 3.0, 0.0), 6);
        assert_eq!(judge(&mut width, 6, 0.1, 30.0), 5);
        assert_eq!(judge(&mut width, 5, 1.0, 0.0), 5); // not again at once
    }

    #[test]
    fn cpus_that_are_idle_for_long_are_not_crowded_by_moments_in_which_they_are_not() {
        let mut width = Width { cpus: 4, jobs: 8, idle_cpus: 3.0, ..Width::new(None) };
        let now = Instant::now();
        for look in 1..=6 {
            width.has_room(7);
            width.judge(now + WINDOW * look, WINDOW, 0.0, 60.0);
            assert_eq!(width.jobs, 8, "after {look} looks");
        }
        width.has_room(8);
        width.judge(now + WINDOW * 7, WINDOW, 3.0, 60.0);
        assert_eq!(width.jobs, 12, "idle again");
        for look in 8..=20 {
            width.judge(now + WINDOW * look, WINDOW, 0.0, 60.0);
        }
        assert!(width.jobs < 12, "not idle for a second");
    }

    #[test]
    fn a_given_width_stays() {
        let mut width = Width::new(Some(7));
        assert!(width.has_room(6));
        assert!(!width.has_room(7));
        let now = Instant::now();
        width.look(now, Some(100.0));
        width.look(now + WINDOW, Some(100.0));
        assert!(width.has_room(6));
    }
}
