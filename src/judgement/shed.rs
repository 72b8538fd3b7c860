//! The policy of shedding: one job, then a check that shows what it helped, then the next.
//!
//! Usage takes its time to fall. A policy that shed at every critical check would end all jobs where one was enough.

use std::time::Duration;

use crate::vocabulary::Critical;

/// The part of a check that shedding goes by.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    pub(crate) at: Duration,
    pub(crate) good: bool,
    pub(crate) degraded: bool,
    pub(crate) critical: Option<Critical>,
    pub(crate) all_normal: bool,
}

/// The step that a check calls for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ShedStep {
    Nothing,
    /// Ask the host for its oldest job, then ask [`ShedPolicy::shed_job`] for the move.
    Shed(Critical),
    /// Tell the host, once, that the pressure is gone.
    Cleared,
}

/// The move against the host's oldest job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    Pause,
    Cancel,
    NoJob { log: bool },
}

/// The memory of the present episode of pressure. It outlives a restart of the monitor: a host whose job was paused
/// before is to be told when the pressure is gone.
#[derive(Debug, Default)]
pub(crate) struct ShedPolicy {
    /// The end of the last move.
    done_at: Option<Duration>,
    /// The job of the last move that had one.
    last_job: Option<String>,
    no_job_logged: bool,
}

impl ShedPolicy {
    /// Judges a check. A failed, degraded or stale one calls for nothing.
    pub(crate) fn next(&mut self, check: &Checked, now: Duration, max_age: Duration, settle: Duration) -> ShedStep {
        if !check.good || check.degraded || now.saturating_sub(check.at) > max_age {
            return ShedStep::Nothing;
        }
        let waited_for = |wait: Duration| self.done_at.map_or(true, |done| check.at > done.saturating_add(wait));
        if let Some(critical) = &check.critical {
            // Only a check taken later can show whether the last move helped; usage takes its time to fall.
            return if waited_for(settle) { ShedStep::Shed(critical.clone()) } else { ShedStep::Nothing };
        }
        if !check.all_normal || !waited_for(Duration::ZERO) {
            return ShedStep::Nothing;
        }
        match std::mem::take(self).last_job {
            Some(_) => ShedStep::Cleared,
            None => ShedStep::Nothing,
        }
    }

    /// The move against the host's oldest job, after [`ShedStep::Shed`].
    pub(crate) fn shed_job(&self, oldest: Option<&str>) -> Move {
        match oldest {
            None => Move::NoJob { log: !self.no_job_logged },
            // It is the job of the last move, still the oldest, and usage is still critical: pausing it did not help.
            Some(job) if self.last_job.as_deref() == Some(job) => Move::Cancel,
            Some(_) => Move::Pause,
        }
    }

    /// Notes that a move is over, whether it worked or not; `job` is `None` when there was none to move.
    pub(crate) fn done(&mut self, job: Option<&str>, now: Duration) {
        self.done_at = Some(now);
        self.no_job_logged = job.is_none();
        if job.is_some() {
            self.last_job = job.map(str::to_owned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::{Resource, Usage};

    const MAX_AGE: Duration = Duration::from_secs(45);
    const SETTLE: Duration = Duration::from_secs(10);
    const CRITICAL: Critical = Critical {
        resource: Resource::Memory,
        usage: Usage {
            measured: 96,
            reserved: 0,
            asked: 0,
            limit: Some(100),
            floor: None,
            place: None,
            gauge: None,
            judged_as: None,
        },
        hard: 95,
    };
    const SHED: ShedStep = ShedStep::Shed(CRITICAL);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn critical(seconds: u64) -> Checked {
        Checked { at: at(seconds), good: true, degraded: false, critical: Some(CRITICAL), all_normal: false }
    }

    fn warning(seconds: u64) -> Checked {
        Checked { critical: None, ..critical(seconds) }
    }

    fn normal(seconds: u64) -> Checked {
        Checked { all_normal: true, ..warning(seconds) }
    }

    fn step(policy: &mut ShedPolicy, check: Checked) -> ShedStep {
        policy.next(&check, check.at, MAX_AGE, SETTLE)
    }

    #[test]
    fn one_victim_then_a_check_after_the_settle_time_then_the_next() {
        let mut policy = ShedPolicy::default();
        assert_eq!(step(&mut policy, critical(0)), SHED);
        assert_eq!(policy.shed_job(Some("a")), Move::Pause);
        policy.done(Some("a"), at(2));
        for (seconds, expected) in
            [(1, ShedStep::Nothing), (11, ShedStep::Nothing), (12, ShedStep::Nothing), (13, SHED)]
        {
            assert_eq!(step(&mut policy, critical(seconds)), expected, "at {seconds}");
        }
        assert_eq!(policy.shed_job(Some("b")), Move::Pause);
    }

    #[test]
    fn the_same_job_still_oldest_and_still_critical_is_cancelled() {
        let mut policy = ShedPolicy::default();
        policy.done(Some("a"), at(0));
        assert_eq!(step(&mut policy, warning(11)), ShedStep::Nothing);
        assert_eq!(step(&mut policy, critical(12)), SHED);
        assert_eq!(policy.shed_job(Some("a")), Move::Cancel);
        policy.done(Some("a"), at(12));
        assert_eq!(step(&mut policy, critical(23)), SHED);
        assert_eq!(policy.shed_job(Some("a")), Move::Cancel);
    }

    #[test]
    fn nothing_is_shed_on_a_failed_degraded_or_stale_reading() {
        let mut policy = ShedPolicy::default();
        let failed = Checked { good: false, ..critical(0) };
        let degraded = Checked { degraded: true, ..critical(0) };
        assert_eq!(step(&mut policy, failed), ShedStep::Nothing);
        assert_eq!(step(&mut policy, degraded), ShedStep::Nothing);
        assert_eq!(policy.next(&critical(0), at(46), MAX_AGE, SETTLE), ShedStep::Nothing);
        assert_eq!(policy.next(&critical(0), at(45), MAX_AGE, SETTLE), SHED);
    }

    #[test]
    fn cleared_is_said_once_by_a_trustworthy_check_taken_after_the_shed() {
        let mut policy = ShedPolicy::default();
        assert_eq!(step(&mut policy, normal(0)), ShedStep::Nothing);
        policy.done(Some("a"), at(5));
        assert_eq!(step(&mut policy, normal(5)), ShedStep::Nothing);
        assert_eq!(step(&mut policy, warning(6)), ShedStep::Nothing);
        assert_eq!(step(&mut policy, Checked { good: false, ..normal(6) }), ShedStep::Nothing);
        assert_eq!(policy.next(&normal(6), at(60), MAX_AGE, SETTLE), ShedStep::Nothing);
        assert_eq!(step(&mut policy, normal(7)), ShedStep::Cleared);
        assert_eq!(step(&mut policy, normal(8)), ShedStep::Nothing);
        // New pressure is a new episode: the host has been told, and its job may be running again.
        assert_eq!(step(&mut policy, critical(9)), SHED);
        assert_eq!(policy.shed_job(Some("a")), Move::Pause);
    }

    #[test]
    fn a_host_without_a_job_is_logged_once_and_asked_again_after_the_settle_time() {
        let mut policy = ShedPolicy::default();
        assert_eq!(policy.shed_job(None), Move::NoJob { log: true });
        policy.done(None, at(0));
        assert_eq!(step(&mut policy, critical(10)), ShedStep::Nothing);
        assert_eq!(step(&mut policy, critical(11)), SHED);
        assert_eq!(policy.shed_job(None), Move::NoJob { log: false });
        policy.done(None, at(11));
        assert_eq!(policy.shed_job(Some("a")), Move::Pause);
        // Nothing was shed, so nothing is cleared; the next pressure is logged anew.
        assert_eq!(step(&mut policy, normal(12)), ShedStep::Nothing);
        assert_eq!(policy.shed_job(None), Move::NoJob { log: true });
    }

    #[test]
    fn a_job_that_was_shed_is_remembered_while_there_is_none_to_name() {
        let mut policy = ShedPolicy::default();
        policy.done(Some("a"), at(0));
        policy.done(None, at(20));
        assert_eq!(policy.shed_job(Some("a")), Move::Cancel);
        assert_eq!(step(&mut policy, normal(30)), ShedStep::Cleared);
    }

    #[test]
    fn a_settle_time_without_end_sheds_once_and_overflows_nothing() {
        let mut policy = ShedPolicy::default();
        policy.done(Some("a"), at(1));
        assert_eq!(policy.next(&critical(2), at(2), MAX_AGE, Duration::MAX), ShedStep::Nothing);
    }
}
