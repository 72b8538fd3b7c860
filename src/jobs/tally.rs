//! How many jobs stand where.

use std::fmt;

use super::outcome::{JobStep, Outcome};

/// The numbers of jobs, since they were built. A job is counted at its end once. Its text is for a line that is seen all the time:
/// `running 3, paused 1, done 5, failed 0`, in which those that are paused do not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Tally {
    /// Those that wait to be started.
    pub waiting: usize,
    /// Those that run, paused ones included.
    pub running: usize,
    /// Those that are paused until there is memory for them.
    pub paused: usize,
    /// Those that have ended with success.
    pub done: usize,
    /// Those that have ended in another way, but for cancelled ones.
    pub failed: usize,
    /// Those that were cancelled.
    pub cancelled: usize,
    /// The times that a job was put back into the queue, as it was shed, killed for memory, or has failed.
    pub run_again: usize,
}

impl Tally {
    pub(super) fn note(&mut self, step: &JobStep) {
        match step {
            JobStep::Started { .. } => {}
            JobStep::Requeued { .. } | JobStep::Failed { .. } => self.run_again += 1,
            JobStep::Ended { outcome, .. } if outcome.is_success() => self.done += 1,
            JobStep::Ended { outcome: Outcome::Cancelled, .. } => self.cancelled += 1,
            JobStep::Ended { .. } => self.failed += 1,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { running, paused, done, failed, .. } = self;
        write!(f, "running {}, paused {paused}, done {done}, failed {failed}", running.saturating_sub(*paused))
    }
}
