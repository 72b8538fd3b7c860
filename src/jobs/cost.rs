//! What jobs have been seen to cost, by kind.
//!
//! # The need
//!
//! A job is admitted by what it will cost, which nobody has declared. Jobs of one kind are alike, but for outliers.
//!
//! # The obvious way, and why not
//!
//! The maximum of all that were seen is safe, and one outlier of 300 MB has sixty jobs of 5 MB run two at a time. A
//! maximum that decays forgets it after tens of jobs, which are run two at a time meanwhile; and where sizes are
//! scattered, it keeps half of the room empty.
//!
//! # What is done instead
//!
//! A job counts at the median of the last jobs of its kind, and once for all that run there is [headroom](Kind::headroom)
//! for one that is as large as the largest of them. A job in flight that has outgrown the median counts at what it uses;
//! and so does each that has not grown for longer than any of its kind [paused](Kind::longest_pause) on the way to its peak.
//!
//! # The cost
//!
//! Two outliers at once are beyond what was foreseen: then the youngest is [held](super::growth) until there is room.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write as _};
use std::io;
use std::time::Duration;

use super::growth::Growth;
use crate::vocabulary::{Work, WorkUsage, MB};

/// The jobs of a kind that are remembered.
const REMEMBERED: usize = 32;

/// The jobs of a kind that must have ended for it to be known how long they pause.
const SUFFICIENT: usize = 8;

/// The first line of a file of costs.
const HEADER: &str = "# highwater costs 3: memory in bytes, processes, tasks, longest pause in milliseconds, kind";

/// The cost of a job at its peak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cost {
    pub(super) memory_bytes: u64,
    pub(super) processes: u64,
    /// A process is one task for each of its threads.
    pub(super) tasks: u64,
}

impl Cost {
    /// The cost of a job of which nothing is known: one process.
    pub(super) const UNKNOWN: Cost = Cost { memory_bytes: 0, processes: 1, tasks: 1 };

    pub(super) fn peak_of(usage: WorkUsage) -> Cost {
        let processes = usage.peak_processes.max(1);
        Cost { memory_bytes: usage.peak_memory_bytes, processes, tasks: processes }
    }

    /// The same with so many tasks, if that is more.
    pub(super) fn with_tasks(self, tasks: u64) -> Cost {
        Cost { tasks: self.tasks.max(tasks), ..self }
    }

    /// The larger of both, resource by resource.
    pub(super) fn max(self, other: Cost) -> Cost {
        Cost {
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            processes: self.processes.max(other.processes),
            tasks: self.tasks.max(other.tasks),
        }
    }

    /// The part of it that is beyond `other`, resource by resource.
    pub(super) fn beyond(self, other: Cost) -> Cost {
        Cost {
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            processes: self.processes.saturating_sub(other.processes),
            tasks: self.tasks.saturating_sub(other.tasks),
        }
    }

    /// Both together.
    pub(super) fn and(self, other: Cost) -> Cost {
        Cost {
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            processes: self.processes.saturating_add(other.processes),
            tasks: self.tasks.saturating_add(other.tasks),
        }
    }

    pub(super) fn twice(self) -> Cost {
        self.and(self)
    }

    /// Whether a monitor has nothing to reserve for it: of tasks it knows nothing.
    pub(super) fn reserves_nothing(self) -> bool {
        self.memory_bytes == 0 && self.processes == 0
    }

    /// What was declared, where it is more.
    pub(super) fn at_least_in(self, declared: Work) -> Work {
        let Cost { memory_bytes, processes, .. } = self.max(Cost::declared(&declared));
        declared.memory_bytes(memory_bytes).processes(processes)
    }

    pub(super) fn work(self) -> Work {
        Work::new().memory_bytes(self.memory_bytes).processes(self.processes)
    }

    pub(super) fn declared(work: &Work) -> Cost {
        use crate::vocabulary::Resource::{Memory, Processes};
        let processes = work.of(Processes);
        Cost { memory_bytes: work.of(Memory), processes, tasks: processes }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.processes == 1 { "" } else { "es" };
        let Cost { memory_bytes, processes, tasks } = self;
        let mb = *memory_bytes as f64 / MB as f64;
        if tasks == processes {
            write!(f, "{mb:.1} MB and {processes} process{s}")
        } else {
            write!(f, "{mb:.1} MB, {processes} process{s} and {tasks} tasks")
        }
    }
}

/// A job that has ended.
#[derive(Debug, Clone, Copy)]
struct Seen {
    peak: Cost,
    longest_pause: Duration,
}

/// The last jobs of one kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Kind {
    /// The oldest first.
    seen: VecDeque<Seen>,
}

impl Kind {
    fn note(&mut self, seen: Seen) {
        if self.seen.len() == REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back(seen);
    }

    fn peaks(&self) -> impl Iterator<Item = &Cost> {
        self.seen.iter().map(|seen| &seen.peak)
    }

    /// The longest time for which one has not grown before it grew again; `None` before enough have ended to tell.
    fn longest_pause(&self) -> Option<Duration> {
        self.seen.iter().map(|seen| seen.longest_pause).max().filter(|_| self.seen.len() >= SUFFICIENT)
    }

    /// The median, resource by resource; of two, the larger.
    fn typical(&self) -> Cost {
        let median = |part: fn(&Cost) -> u64| {
            let mut parts: Vec<u64> = self.peaks().map(part).collect();
            parts.sort_unstable();
            parts.get(parts.len() / 2).copied().unwrap_or_default()
        };
        Cost {
            memory_bytes: median(|cost| cost.memory_bytes),
            processes: median(|cost| cost.processes),
            tasks: median(|cost| cost.tasks),
        }
    }

    fn largest(&self) -> Cost {
        self.peaks().fold(Cost::default(), |largest, peak| largest.max(*peak))
    }

    /// What the largest was beyond a typical one.
    fn headroom(&self) -> Cost {
        self.largest().beyond(self.typical())
    }
}

/// What is known of every kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Costs {
    kinds: BTreeMap<String, Kind>,
}

impl Costs {
    /// Takes note of the peak of a job that has ended, and of the longest pause on the way there.
    pub(super) fn note(&mut self, kind: &str, peak: Cost, longest_pause: Duration) {
        let seen = Seen { peak, longest_pause };
        // Looked up first: the name is copied once a kind.
        match self.kinds.get_mut(kind) {
            Some(known) => known.note(seen),
            None => self.kinds.entry(kind.into()).or_default().note(seen),
        }
    }

    /// What a job of this kind is taken to cost; `None` before one has ended.
    pub(super) fn typical(&self, kind: &str) -> Option<Cost> {
        self.kinds.get(kind).map(Kind::typical)
    }

    /// Whether a job of this kind is taken to grow no more. Before enough have ended to tell, none is.
    pub(super) fn has_grown(&self, kind: &str, growth: &Growth) -> bool {
        let longest_pause = self.kinds.get(kind).and_then(Kind::longest_pause);
        longest_pause.is_some_and(|longest_pause| growth.pause() > longest_pause)
    }

    /// What the largest job of this kind has cost.
    pub(super) fn largest(&self, kind: &str) -> Cost {
        self.kinds.get(kind).map(Kind::largest).unwrap_or_default()
    }

    /// What the largest job of this kind was beyond a typical one.
    pub(super) fn headroom(&self, kind: &str) -> Cost {
        self.kinds.get(kind).map(Kind::headroom).unwrap_or_default()
    }

    /// As a text that [`parse`](Self::parse) reads. A kind whose name has a line feed is left out.
    pub(super) fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for (name, kind) in self.kinds.iter().filter(|(name, _)| !name.contains('\n')) {
            for Seen { peak: Cost { memory_bytes, processes, tasks }, longest_pause } in &kind.seen {
                // To write to a string cannot fail.
                let _ = writeln!(text, "{memory_bytes} {processes} {tasks} {} {name}", longest_pause.as_millis());
            }
        }
        text
    }

    /// Reads what `to_text` has written. The error names the line.
    pub(super) fn parse(text: &str) -> io::Result<Costs> {
        let malformed = |line: usize| {
            let error = format!("line {line} is no cost: `memory processes tasks milliseconds kind`");
            io::Error::new(io::ErrorKind::InvalidData, error)
        };
        // Not `lines`, which takes a carriage return off the end of a name.
        let mut lines = text.split_terminator('\n');
        if lines.next() != Some(HEADER) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it does not begin with `{HEADER}`")));
        }
        let mut costs = Costs::default();
        for (index, line) in lines.enumerate() {
            let mut fields = line.splitn(5, ' ');
            let mut number = || fields.next()?.parse().ok();
            match (number(), number(), number(), number(), fields.next()) {
                (Some(memory_bytes), Some(processes), Some(tasks), Some(pause), Some(kind)) => {
                    costs.note(kind, Cost { memory_bytes, processes, tasks }, Duration::from_millis(pause));
                }
                _ => return Err(malformed(index + 2)),
            }
        }
        Ok(costs)
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, kind)) in self.kinds.iter().enumerate() {
            let line_feed = if index == 0 { "" } else { "\n" };
            let (typical, largest) = (kind.typical(), kind.largest());
            write!(f, "{line_feed}{name}: {typical}")?;
            if typical != largest {
                write!(f, ", at most {largest}")?;
            }
            write!(f, " (the last {})", kind.seen.len())?;
        }
        Ok(())
    }
}

/// What was read is written so that it is read again, and no job is larger than the largest of its kind.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // Most bytes are no file of costs, and a text that begins like one is more of a trial.
    for text in [&*text, &format!("{HEADER}\n{text}")] {
        let Ok(costs) = Costs::parse(text) else { continue };
        let written = costs.to_text();
        assert!(Costs::parse(&written)
            .is_ok_and(|again| again.to_text() == written && again.kinds.len() == costs.kinds.len()));
        for (name, kind) in &costs.kinds {
            assert!(kind.seen.len() <= REMEMBERED && text.contains(&**name));
            assert_eq!(kind.typical().and(kind.headroom()), kind.largest());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(7);

    fn cost(mb: u64, processes: u64) -> Cost {
        Cost { memory_bytes: mb * MB, processes, tasks: processes }
    }

    fn costs(kind: &str, mbs: &[u64]) -> Costs {
        let mut costs = Costs::default();
        mbs.iter().for_each(|mb| costs.note(kind, cost(*mb, 1), SOON));
        costs
    }

    #[test]
    fn a_kind_is_unknown_until_one_of_it_has_ended() {
        let costs = costs("cc", &[20]);
        assert_eq!(costs.typical("cc"), Some(cost(20, 1)));
        assert_eq!(costs.headroom("cc"), Cost::default());
        assert_eq!(costs.typical("ld"), None);
        assert_eq!(costs.headroom("ld"), Cost::default());
    }

    #[test]
    fn an_outlier_is_headroom_after_two_others_and_forgotten_after_thirty_two() {
        let mut costs = costs("cc", &[300]);
        costs.note("cc", cost(5, 1), SOON);
        assert_eq!(costs.typical("cc"), Some(cost(300, 1)));
        costs.note("cc", cost(5, 1), SOON);
        assert_eq!(costs.typical("cc"), Some(cost(5, 1)));
        assert_eq!(costs.headroom("cc"), cost(295, 0));
        (0..29).for_each(|_| costs.note("cc", cost(5, 1), SOON));
        assert_eq!(costs.headroom("cc"), cost(295, 0));
        costs.note("cc", cost(5, 1), SOON);
        assert_eq!(costs.headroom("cc"), Cost::default());
    }

    /// What was seen of a job each second.
    fn growth(bytes: &[u64]) -> Growth {
        let mut growth = Growth::default();
        (1..).zip(bytes).for_each(|(second, bytes)| growth.note(*bytes, Duration::from_secs(second)));
        growth
    }

    #[test]
    fn a_job_has_grown_once_it_pauses_for_longer_than_any_of_enough_others() {
        let mut costs = Costs::default();
        for seconds in [0, 2, 0, 0, 1, 0, 0] {
            costs.note("cc", cost(5, 1), Duration::from_secs(seconds));
            assert!(!costs.has_grown("cc", &growth(&[5; 60])));
        }
        costs.note("cc", cost(5, 1), Duration::ZERO);
        assert!(!costs.has_grown("cc", &growth(&[5, 9, 9, 9])) && costs.has_grown("cc", &growth(&[5, 9, 9, 9, 9])));
        (0..32).for_each(|_| costs.note("cc", cost(5, 1), Duration::ZERO));
        assert!(!costs.has_grown("cc", &growth(&[5, 9])) && costs.has_grown("cc", &growth(&[5, 9, 9])));
        assert!(!costs.has_grown("ld", &growth(&[5; 60])));
    }

    #[test]
    fn memory_processes_and_tasks_are_judged_apart() {
        let mut costs = Costs::default();
        for each in [cost(1, 9), cost(2, 8), cost(30, 1).with_tasks(40)] {
            costs.note("make", each, SOON);
        }
        assert_eq!(costs.typical("make"), Some(cost(2, 8).with_tasks(9)));
        assert_eq!(costs.headroom("make"), Cost { tasks: 31, ..cost(28, 1) });
    }

    #[test]
    fn a_text_of_costs_is_read_again() {
        let mut costs = costs("a kind of three words", &[1, 2, 3]);
        costs.note("", cost(7, 2).with_tasks(16), SOON);
        costs.note("two\nlines", cost(9, 1), SOON);
        costs.note("of a file from elsewhere\r", cost(9, 1), SOON);
        let text = costs.to_text();
        let again = Costs::parse(&text).unwrap();
        assert_eq!(again.to_text(), text);
        assert_eq!(again.typical("a kind of three words"), Some(cost(2, 1)));
        assert_eq!(again.typical(""), Some(cost(7, 2).with_tasks(16)));
        assert_eq!(again.typical("two\nlines"), None);
        assert_eq!(again.typical("of a file from elsewhere\r"), Some(cost(9, 1)));
    }

    #[test]
    fn a_damaged_text_is_an_error_that_names_the_line() {
        for (text, error) in [
            ("", "it does not begin with"),
            ("1 2 3 cc\n", "it does not begin with"),
            ("12 1 1 9 cc\n3 1 9 cc\n", "line 3 is no cost"),
            ("12 1 1 9\n", "line 2 is no cost"),
            ("-1 1 1 9 cc\n", "line 2 is no cost"),
            ("99999999999999999999 1 1 9 cc\n", "line 2 is no cost"),
        ] {
            let text = if error.starts_with("line") { format!("{HEADER}\n{text}") } else { text.to_string() };
            let found = Costs::parse(&text).unwrap_err().to_string();
            assert!(found.starts_with(error), "{text:?}: {found}");
        }
    }

    #[test]
    fn what_is_known_is_a_line_for_each_kind() {
        let mut costs = costs("cc", &[5, 5, 300]);
        costs.note("ld", cost(7, 2), SOON);
        costs.note("lto", cost(9, 1).with_tasks(16), SOON);
        assert_eq!(
            costs.to_string(),
            "cc: 5.0 MB and 1 process, at most 300.0 MB and 1 process (the last 3)\n\
             ld: 7.0 MB and 2 processes (the last 1)\n\
             lto: 9.0 MB, 1 process and 16 tasks (the last 1)"
        );
    }
}
