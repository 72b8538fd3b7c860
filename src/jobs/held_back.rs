//! What the next job waits for.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use super::limiter::Limiter;
use super::tasks::TaskShortage;
use crate::vocabulary::Verdict;

/// The reason why the next job is not started yet, or never will be. Its text says it with the numbers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum HeldBack {
    /// The monitor has refused it.
    Verdict(Verdict),
    /// A limit on tasks is too near: that of a control group, or of the user.
    Tasks(TaskShortage),
    /// As many jobs run as the CPUs bear.
    Cpus {
        /// The jobs that run.
        running: usize,
        /// The CPUs that this process may use.
        cpus: usize,
    },
    /// As many jobs run as the host has [allowed](crate::JobsBuilder::width).
    Width(usize),
    /// The first job of this kind runs, and it is not known yet what one costs.
    Learning(String),
    /// The next job had too little room before, and waits for all others to end.
    Alone,
    /// What jobs write is not printed as fast as they write it ([`JobOutput`](crate::JobOutput)).
    Output,
    /// The host holds back its jobs for this reason ([`hold`](crate::Jobs::hold)).
    Host(&'static str),
    /// It could not be started, for a reason that may pass: want of tasks, memory, or descriptors.
    NotStarted(Arc<io::Error>),
}

impl HeldBack {
    /// The same without its numbers.
    pub fn limiter(&self) -> Limiter {
        match self {
            HeldBack::Verdict(verdict) => verdict.resource().map_or(Limiter::Monitor, Limiter::Resource),
            HeldBack::Tasks(_) => Limiter::Tasks,
            HeldBack::Cpus { .. } => Limiter::Cpus,
            HeldBack::Width(_) => Limiter::Width,
            HeldBack::Learning(_) => Limiter::Learning,
            HeldBack::Alone => Limiter::Alone,
            HeldBack::Output => Limiter::Output,
            HeldBack::Host(reason) => Limiter::Host(reason),
            HeldBack::NotStarted(_) => Limiter::NotStarted,
        }
    }
}

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeldBack::Verdict(verdict) => write!(f, "{verdict}"),
            HeldBack::Tasks(shortage) => write!(f, "{shortage}"),
            HeldBack::Cpus { running: 1, cpus } => write!(f, "1 job runs on {}", counted(*cpus, "CPU")),
            HeldBack::Cpus { running, cpus } => write!(f, "{running} jobs run on {}", counted(*cpus, "CPU")),
            HeldBack::Width(1) => f.write_str("1 job runs, as many as may"),
            HeldBack::Width(width) => write!(f, "{width} jobs run, as many as may"),
            HeldBack::Learning(kind) => write!(f, "the first job of kind {kind:?} shows what one costs"),
            HeldBack::Alone => f.write_str("the next job is to run alone, for it had too little room before"),
            HeldBack::Output => f.write_str("what jobs write is not read as fast"),
            HeldBack::Host(reason) => f.write_str(reason),
            HeldBack::NotStarted(error) => write!(f, "could not be started: {error}"),
        }
    }
}

impl Error for HeldBack {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            HeldBack::NotStarted(error) => Some(&**error),
            _ => None,
        }
    }
}

fn counted(number: usize, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {what}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_says_what_is_waited_for() {
        let refused = Arc::new(io::Error::from_raw_os_error(libc::EAGAIN));
        for (held_back, text) in [
            (HeldBack::Cpus { running: 1, cpus: 1 }, "1 job runs on 1 CPU"),
            (HeldBack::Cpus { running: 4, cpus: 2 }, "4 jobs run on 2 CPUs"),
            (HeldBack::Width(8), "8 jobs run, as many as may"),
            (HeldBack::Learning("cc".into()), "the first job of kind \"cc\" shows what one costs"),
        ] {
            assert_eq!(held_back.to_string(), text);
        }
        assert!(HeldBack::NotStarted(refused).to_string().starts_with("could not be started: "));
    }
}
