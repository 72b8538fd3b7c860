//! What a host tells people of its jobs: how things stand, and what came of a run.

use std::fmt;
use std::time::Duration;

use super::held_back::HeldBack;
use super::limiter::Limiters;
use super::remaining::Remaining;
use super::tally::Tally;
use crate::jobserver::TokenTally;
use crate::vocabulary::ResourceSnapshot;

/// What jobs and their host use together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Extent {
    /// The processes below the host.
    pub processes: usize,
    /// The memory that is judged, in MB of 1024 x 1024 bytes.
    pub memory_mb: f64,
}

impl Extent {
    pub(super) fn of(snapshot: &ResourceSnapshot) -> Extent {
        let processes = snapshot.child_process_count.unwrap_or_default();
        Extent { processes, memory_mb: snapshot.memory_usage_mb() }
    }

    /// The larger of the two in each.
    pub(super) fn max(self, other: Extent) -> Extent {
        Extent { processes: self.processes.max(other.processes), memory_mb: self.memory_mb.max(other.memory_mb) }
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Extent { processes, memory_mb } = self;
        write!(f, "{processes} processes, {memory_mb:.1} MB")
    }
}

/// How things stand, for a line that is shown all the time:
/// `running 3, paused 0, done 5, failed 0; 12 processes, 80.1 MB; about 40 s left; holding back: 3 jobs run on 2 CPUs`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Progress {
    /// The numbers of jobs.
    pub tally: Tally,
    /// What is used, by the last check.
    pub extent: Extent,
    /// The time until all have ended.
    pub remaining: Option<Remaining>,
    /// What the next job waits for.
    pub held_back: Option<HeldBack>,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.tally, self.extent)?;
        if let Some(remaining) = self.remaining {
            write!(f, "; {remaining} left")?;
        }
        self.held_back.as_ref().map_or(Ok(()), |reason| write!(f, "; holding back: {reason}"))
    }
}

/// What came of a run, in two lines, and a third if there is a jobserver:
///
/// ```text
/// 40 done, 0 failed, 1 run again, in 12.3 s; limited by CPU 71 %, memory 28 %
/// peak: 16 processes, 431.0 MB
/// tokens: 7 at most, 3.4 on average; held back 4.6 s by cgroup memory
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Summary {
    /// The numbers of jobs.
    pub tally: Tally,
    /// What has limited the run.
    pub limiters: Limiters,
    /// The most that was used, as far as checks saw it.
    pub peak: Extent,
    /// The tokens of the [jobserver](super::JobsBuilder::jobserver), if there is one.
    pub tokens: Option<TokenTally>,
}

impl Summary {
    /// The time since the jobs were built, without those in which the host was stopped with them.
    pub fn elapsed(&self) -> Duration {
        self.limiters.total()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { tally: Tally { done, failed, run_again, .. }, limiters, peak, tokens } = self;
        let seconds = self.elapsed().as_secs_f64();
        writeln!(f, "{done} done, {failed} failed, {run_again} run again, in {seconds:.1} s; limited by {limiters}")?;
        write!(f, "peak: {peak}")?;
        tokens.as_ref().map_or(Ok(()), |tokens| write!(f, "\ntokens: {tokens}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_leave_out_what_is_not_known() {
        let tally = Tally { running: 3, paused: 1, done: 5, failed: 2, run_again: 4, ..Tally::default() };
        let extent = Extent { processes: 12, memory_mb: 80.12 };
        let mut progress = Progress { tally, extent, remaining: None, held_back: None };
        assert_eq!(progress.to_string(), "running 2, paused 1, done 5, failed 2; 12 processes, 80.1 MB");
        let minute = Duration::from_secs(60);
        progress.remaining = Some(Remaining { at_least: minute, at_most: None });
        progress.held_back = Some(HeldBack::Width(3));
        let text = "; 12 processes, 80.1 MB; at least 60 s left; holding back: 3 jobs run, as many as may";
        assert!(progress.to_string().ends_with(text), "{progress}");
        let mut summary = Summary { tally, limiters: Limiters::default(), peak: extent, tokens: None };
        let text = "5 done, 2 failed, 4 run again, in 0.0 s; limited by \npeak: 12 processes, 80.1 MB";
        assert_eq!(summary.to_string(), text);
        summary.tokens = Some(TokenTally::default());
        assert!(summary.to_string().ends_with(" MB\ntokens: 0 at most, 0.0 on average"), "{summary}");
    }
}
