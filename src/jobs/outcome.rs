//! The ends of jobs, and what happens on the way there.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use std::{error, fmt};

use super::cost::Cost;
use super::held_back::HeldBack;
use crate::vocabulary::{Resource, WorkUsage};

/// The end of a job. Each job has exactly one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Outcome {
    /// The program has ended by itself, or by a signal of somebody else's. Nothing that it started is left.
    Ended(ExitStatus),
    /// The program could not be started: it is not there, is not executable, or its arguments are too long. Where only
    /// the means were lacking (`EAGAIN`, `ENOMEM`), the job waits instead.
    NotStarted(Arc<io::Error>),
    /// It could never be started under the limits, even alone: those of the monitor, or one on tasks.
    NeverFits(HeldBack),
    /// It was ended to make room as often as it may be.
    Shed(Tries),
    /// The kernel has killed it for want of memory as often as it may be.
    KilledForMemory(Tries),
    /// It took longer than it may, and was ended.
    TimedOut(Duration),
    /// It wanted the terminal (`SIGTTIN`, `SIGTTOU`), which no job has, and was ended: it would be stopped for ever.
    WantsTerminal,
    /// The host has cancelled it.
    Cancelled,
    /// It has ended, and somebody else has taken its exit status: a `waitpid(-1)` of the host's. Or it is the job of the
    /// parent of this process. Or it was told to end and killed, and goes on, since it may not be signalled: a set-user-ID
    /// program that has changed its user. Then it is nobody's job any more.
    Lost(Arc<io::Error>),
}

impl Outcome {
    pub(super) fn lost(why: &str) -> Outcome {
        Outcome::Lost(Arc::new(io::Error::new(io::ErrorKind::Other, why)))
    }

    /// The status that the program has ended with by itself, if it has.
    pub fn status(&self) -> Option<ExitStatus> {
        match self {
            Outcome::Ended(status) => Some(*status),
            _ => None,
        }
    }

    /// Returns `true` if the program has ended with exit code 0.
    pub fn is_success(&self) -> bool {
        self.status().is_some_and(|status| status.success())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Ended(status) => write!(f, "{status}"),
            Outcome::NotStarted(error) => write!(f, "could not be started: {error}"),
            Outcome::NeverFits(reason) => write!(f, "{reason}"),
            Outcome::Shed(tries) => write!(f, "shed {tries}"),
            Outcome::KilledForMemory(tries) => write!(f, "killed for memory {tries}"),
            Outcome::TimedOut(timeout) => write!(f, "ended after {timeout:?}, which is its timeout"),
            Outcome::WantsTerminal => f.write_str("it wants the terminal, which no job has"),
            Outcome::Cancelled => f.write_str("cancelled"),
            Outcome::Lost(error) => write!(f, "{error}"),
        }
    }
}

impl error::Error for Outcome {}

/// The tries of a job that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tries {
    /// The number of times that it was started.
    pub tries: u32,
    /// The usage of the last try, as the last check saw it.
    pub usage: WorkUsage,
    /// The resource that it was shed for; `None` if it was the kernel that killed it.
    pub critical: Option<Resource>,
}

impl fmt::Display for Tries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tries {
            1 => f.write_str("once")?,
            tries => write!(f, "{tries} times")?,
        }
        if let Some(critical) = self.critical {
            write!(f, ", {critical} critical")?;
        }
        write!(f, ", at most {} measured", Cost::peak_of(self.usage))
    }
}

/// Something that has happened to a job. See [`Jobs::events`](super::Jobs::events).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JobEvent {
    /// The job's number.
    pub id: u64,
    /// What has happened.
    pub what: JobStep,
}

/// What happens to jobs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum JobStep {
    /// It was started, perhaps again, as this process.
    Started {
        /// The process id, which is that of the process group as well.
        pid: u32,
    },
    /// It was ended to make room, or killed for want of memory, and waits to be run again, alone. It will have been
    /// `Started` once more before its end, unless it is cancelled.
    Requeued {
        /// The tries so far, and the usage of the last.
        tries: Tries,
    },
    /// It has failed by itself, and waits to be run again ([`Job::retries`](super::Job::retries)).
    Failed {
        /// How it has failed.
        outcome: Outcome,
    },
    /// It has ended.
    Ended {
        /// The end.
        outcome: Outcome,
        /// The usage of the last try, as the last check saw it. All 0 if it was not started.
        usage: WorkUsage,
        /// The time that its last try took.
        took: Duration,
    },
}

/// What is said of the job after its name: `failed: exit status: 3`.
impl fmt::Display for JobStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobStep::Started { pid } => write!(f, "was started as process {pid}"),
            JobStep::Requeued { tries } => write!(f, "waits to be run again, as it had too little room {tries}"),
            JobStep::Failed { outcome } => write!(f, "failed and is run again: {outcome}"),
            JobStep::Ended { outcome, .. } if outcome.is_success() => f.write_str("is done"),
            JobStep::Ended { outcome: Outcome::Cancelled, .. } => f.write_str("was cancelled"),
            JobStep::Ended { outcome, .. } => write!(f, "failed: {outcome}"),
        }
    }
}
