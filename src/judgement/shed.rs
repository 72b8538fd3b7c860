//! The policy of shedding: what the host can spare, then one job, then a check that shows what it helped, then the next.
//!
//! Usage takes its time to fall. A policy that shed at every critical check would end all jobs where one was enough; and
//! one that never looked at what it has reached would end all of them where none is the cause.

use std::time::Duration;

use crate::vocabulary::{Critical, PerResource, Resource};

/// After this many sheds in a row without an effect, no further job is shed for the resource in the same episode.
pub(crate) const IN_VAIN: u8 = 3;

/// The part of a check that shedding goes by.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    pub(crate) at: Duration,
    pub(crate) good: bool,
    pub(crate) degraded: bool,
    pub(crate) critical: Vec<Critical>,
    pub(crate) all_normal: bool,
    /// Measured usage, where it was read.
    pub(crate) usage: PerResource<Option<u64>>,
}

/// The step that a check calls for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ShedStep {
    Nothing,
    /// Ask the host to give back what it can spare. If it says that this takes effect, tell
    /// [`ShedPolicy::reclaimed`]; else go on as with `Shed`.
    Reclaim(Critical),
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
    /// Leave it alone: shedding has not helped.
    Spare,
    NoJob {
        log: bool,
    },
}

/// The effect of a shed on the resource that it was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) job: String,
    pub(crate) resource: Resource,
    /// Usage by the check that called for the shed.
    pub(crate) before: u64,
    /// The lowest usage by a check within the settle time, the first one after it included.
    pub(crate) after: u64,
    /// Set once: this was the last of [`IN_VAIN`] sheds in a row that had none.
    pub(crate) gives_up: bool,
}

/// A job that was shed, until the effect is known.
#[derive(Debug)]
struct Pending {
    job: String,
    resource: Resource,
    before: u64,
    lowest: Option<u64>,
    /// The least fall that counts as an effect.
    least_fall: u64,
}

/// The memory of the present episode of pressure, which ends when everything is normal. It outlives a restart of the
/// monitor: a host whose job was paused before is to be told when the pressure is gone.
#[derive(Debug, Default)]
pub(crate) struct ShedPolicy {
    /// The end of the last move, or of a reclaim that takes effect.
    done_at: Option<Duration>,
    /// The job of the last move that had one.
    last_job: Option<String>,
    /// Set if that job was told to end.
    cancelled: bool,
    no_job_logged: bool,
    /// The resources for which the host was asked to give back what it can spare.
    asked: PerResource<bool>,
    pending: Option<Pending>,
    /// Sheds in a row without an effect.
    in_vain: PerResource<u8>,
}

impl Checked {
    /// Returns `true` if something may be done on account of this check: it is neither failed nor stale.
    pub(crate) fn is_trusted(&self, now: Duration, max_age: Duration) -> bool {
        self.good && !self.degraded && now.saturating_sub(self.at) <= max_age
    }
}

impl ShedPolicy {
    /// Judges a check that can be trusted.
    pub(crate) fn next(&mut self, check: &Checked, settle: Duration) -> ShedStep {
        let is_over = |wait: Duration| self.done_at.map_or(true, |done| check.at > done.saturating_add(wait));
        if !check.critical.is_empty() {
            // Only a check taken later can show whether the last move helped; usage takes its time to fall.
            return if is_over(settle) { self.relieve(&check.critical) } else { ShedStep::Nothing };
        }
        if !check.all_normal || !is_over(Duration::ZERO) {
            return ShedStep::Nothing;
        }
        match std::mem::take(self).last_job {
            Some(_) => ShedStep::Cleared,
            None => ShedStep::Nothing,
        }
    }

    /// The step for the first resource that shedding may help, else for the first one.
    fn relieve(&mut self, critical: &[Critical]) -> ShedStep {
        let helps = |critical: &&Critical| !self.has_given_up(critical.resource);
        let Some(critical) = critical.iter().find(helps).or(critical.first()) else { return ShedStep::Nothing };
        if std::mem::replace(self.asked.get_mut(critical.resource), true) {
            ShedStep::Shed(critical.clone())
        } else {
            ShedStep::Reclaim(critical.clone())
        }
    }

    /// The effect of the last shed, once: when its settle time is over, or everything is normal. To be asked of each
    /// check that can be trusted, before [`next`](Self::next).
    pub(crate) fn effect(&mut self, check: &Checked, settle: Duration) -> Option<Effect> {
        let done = self.done_at.filter(|done| check.at > *done)?;
        let pending = self.pending.as_mut()?;
        let read = *check.usage.get(pending.resource);
        pending.lowest = pending.lowest.into_iter().chain(read).min();
        if !check.all_normal && check.at <= done.saturating_add(settle) {
            return None;
        }
        let Pending { job, resource, before, lowest, least_fall } = self.pending.take()?;
        // Of a resource that cannot be read any more nobody knows.
        let after = lowest?;
        let in_vain = self.in_vain.get_mut(resource);
        let gave_up = *in_vain >= IN_VAIN;
        *in_vain = if before.saturating_sub(after) >= least_fall { 0 } else { in_vain.saturating_add(1) };
        let gives_up = *in_vain >= IN_VAIN && !gave_up;
        Some(Effect { job, resource, before, after, gives_up })
    }

    /// Notes that the host gives back what it can spare: nothing is shed before that had its time to take effect.
    pub(crate) fn reclaimed(&mut self, now: Duration) {
        self.done_at = Some(now);
    }

    /// The move against the host's oldest job, after [`ShedStep::Shed`].
    pub(crate) fn shed_job(&self, oldest: Option<&str>, resource: Resource) -> Move {
        let Some(job) = oldest else { return Move::NoJob { log: !self.no_job_logged } };
        match self.last_job.as_deref() == Some(job) {
            // It was told to end before, and is no healthy job any more.
            true if self.cancelled => Move::Cancel,
            _ if self.has_given_up(resource) => Move::Spare,
            // It is the job of the last move, still the oldest, and usage is still critical: pausing it did not help.
            true => Move::Cancel,
            false => Move::Pause,
        }
    }

    /// Notes that there was no job to move, or none that would help.
    pub(crate) fn done_without_job(&mut self, now: Duration, is_spared: bool) {
        self.done_at = Some(now);
        self.no_job_logged = !is_spared;
    }

    /// Notes that a move against a job is over. Only one that the host has carried out has an effect to wait for.
    pub(crate) fn done(&mut self, job: &str, critical: &Critical, outcome: Outcome, now: Duration) {
        self.done_at = Some(now);
        self.no_job_logged = false;
        let was_cancelled = self.cancelled && self.last_job.as_deref() == Some(job);
        self.cancelled = was_cancelled || outcome == Outcome::Cancelled;
        self.last_job = Some(job.to_owned());
        self.pending = (outcome != Outcome::Failed).then(|| Pending {
            job: job.to_owned(),
            resource: critical.resource,
            before: critical.usage.measured,
            lowest: None,
            least_fall: least_fall(critical),
        });
    }

    fn has_given_up(&self, resource: Resource) -> bool {
        *self.in_vain.get(resource) >= IN_VAIN
    }
}

/// The outcome of a move against a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Paused,
    Cancelled,
    Failed,
}

/// The least fall of usage that counts as an effect: a hundredth of the limit, or of the floor.
fn least_fall(critical: &Critical) -> u64 {
    let floor = critical.usage.floor.as_ref().map(|floor| floor.amount);
    (floor.or(critical.usage.limit).unwrap_or_default() / 100).max(1)
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
            others: (0, 0),
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
        using(96, seconds)
    }

    fn using(memory: u64, seconds: u64) -> Checked {
        let critical = if memory >= 95 { vec![CRITICAL] } else { Vec::new() };
        let usage = PerResource::from_fn(|resource| (resource == Resource::Memory).then_some(memory));
        Checked { at: at(seconds), good: true, degraded: false, critical, all_normal: memory < 80, usage }
    }

    fn warning(seconds: u64) -> Checked {
        using(90, seconds)
    }

    fn normal(seconds: u64) -> Checked {
        using(70, seconds)
    }

    /// In an episode in which the host has nothing to give back.
    fn policy() -> ShedPolicy {
        let mut policy = ShedPolicy::default();
        assert_eq!(policy.next(&critical(0), SETTLE), ShedStep::Reclaim(CRITICAL));
        policy
    }

    fn step(policy: &mut ShedPolicy, check: Checked) -> ShedStep {
        policy.next(&check, SETTLE)
    }

    fn move_of(policy: &ShedPolicy, job: &str) -> Move {
        policy.shed_job(Some(job), Resource::Memory)
    }

    fn paused(policy: &mut ShedPolicy, job: &str, now: u64) {
        policy.done(job, &CRITICAL, Outcome::Paused, at(now));
    }

    #[test]
    fn one_victim_then_a_check_after_the_settle_time_then_the_next() {
        let mut policy = policy();
        assert_eq!(move_of(&policy, "a"), Move::Pause);
        paused(&mut policy, "a", 2);
        for (seconds, expected) in
            [(1, ShedStep::Nothing), (11, ShedStep::Nothing), (12, ShedStep::Nothing), (13, SHED)]
        {
            assert_eq!(step(&mut policy, critical(seconds)), expected, "at {seconds}");
        }
        assert_eq!(move_of(&policy, "b"), Move::Pause);
    }

    #[test]
    fn the_same_job_still_oldest_and_still_critical_is_cancelled() {
        let mut policy = policy();
        paused(&mut policy, "a", 0);
        assert_eq!(step(&mut policy, warning(11)), ShedStep::Nothing);
        assert_eq!(step(&mut policy, critical(12)), SHED);
        assert_eq!(move_of(&policy, "a"), Move::Cancel);
        policy.done("a", &CRITICAL, Outcome::Failed, at(12));
        assert_eq!(step(&mut policy, critical(23)), SHED);
        assert_eq!(move_of(&policy, "a"), Move::Cancel);
    }

    #[test]
    fn a_failed_degraded_or_stale_reading_is_not_trusted() {
        assert!(!Checked { good: false, ..critical(0) }.is_trusted(at(0), MAX_AGE));
        assert!(!Checked { degraded: true, ..critical(0) }.is_trusted(at(0), MAX_AGE));
        assert!(!critical(0).is_trusted(at(46), MAX_AGE));
        assert!(critical(0).is_trusted(at(45), MAX_AGE));
    }

    #[test]
    fn the_host_is_asked_once_in_an_episode_to_give_back_what_it_can_spare() {
        let mut policy = policy();
        policy.reclaimed(at(1));
        assert_eq!(step(&mut policy, critical(11)), ShedStep::Nothing, "it has its time to take effect");
        assert_eq!(step(&mut policy, warning(12)), ShedStep::Nothing);
        assert_eq!(step(&mut policy, critical(13)), SHED, "the same episode");
        paused(&mut policy, "a", 13);
        assert_eq!(step(&mut policy, normal(14)), ShedStep::Cleared);
        assert_eq!(step(&mut policy, critical(15)), ShedStep::Reclaim(CRITICAL));
        policy.reclaimed(at(15));
        assert_eq!(step(&mut policy, normal(16)), ShedStep::Nothing, "nothing was shed");
        assert_eq!(step(&mut policy, critical(17)), ShedStep::Reclaim(CRITICAL), "a new episode");
    }

    #[test]
    fn each_resource_is_asked_for_by_itself() {
        let mut policy = policy();
        let files = Critical { resource: Resource::OpenFiles, ..CRITICAL };
        let check = Checked { critical: vec![files.clone()], ..critical(1) };
        assert_eq!(step(&mut policy, check.clone()), ShedStep::Reclaim(files.clone()));
        assert_eq!(step(&mut policy, check), ShedStep::Shed(files));
    }

    #[test]
    fn the_effect_is_the_lowest_usage_within_the_settle_time() {
        let mut policy = policy();
        paused(&mut policy, "a", 0);
        assert_eq!(policy.effect(&using(10, 0), SETTLE), None, "a check from before the shed");
        for (memory, seconds) in [(97, 1), (60, 5), (97, 10)] {
            let check = Checked { all_normal: false, ..using(memory, seconds) };
            assert_eq!(policy.effect(&check, SETTLE), None);
        }
        let job = "a".to_owned();
        let effect = Effect { job, resource: Resource::Memory, before: 96, after: 60, gives_up: false };
        assert_eq!(policy.effect(&using(97, 11), SETTLE), Some(effect.clone()));
        assert_eq!(policy.effect(&using(97, 12), SETTLE), None, "said once");
        // Normal again ends the wait.
        paused(&mut policy, "a", 20);
        assert_eq!(policy.effect(&normal(21), SETTLE), Some(Effect { after: 70, ..effect }));
        // A resource that is not read any more has no known effect; nor has a move that the host did not carry out.
        paused(&mut policy, "a", 30);
        assert_eq!(policy.effect(&Checked { usage: PerResource::default(), ..warning(41) }, SETTLE), None);
        policy.done("a", &CRITICAL, Outcome::Failed, at(50));
        assert_eq!(policy.effect(&normal(61), SETTLE), None);
    }

    /// Sheds a job, and returns whether the policy gives up by what usage is one settle time later.
    fn gives_up_at(policy: &mut ShedPolicy, job: &str, outcome: Outcome, memory: u64, seconds: u64) -> bool {
        policy.done(job, &CRITICAL, outcome, at(seconds));
        policy.effect(&using(memory, seconds + 11), SETTLE).unwrap().gives_up
    }

    #[test]
    fn three_sheds_in_a_row_without_effect_spare_every_further_job_of_the_episode() {
        let mut policy = policy();
        // A hundredth of the limit is an effect: the row begins anew.
        let row = [(96, false), (97, false), (95, false), (96, false), (96, false), (99, true), (96, false)];
        for (place, (memory, expected)) in row.into_iter().enumerate() {
            let seconds = place as u64 * 20;
            let given_up = gives_up_at(&mut policy, "a", Outcome::Paused, memory, seconds);
            assert_eq!(given_up, expected, "at {seconds}");
        }
        assert_eq!(step(&mut policy, critical(200)), SHED);
        assert_eq!([move_of(&policy, "a"), move_of(&policy, "b")], [Move::Spare; 2]);
        policy.done_without_job(at(200), true);
        assert_eq!(step(&mut policy, critical(210)), ShedStep::Nothing, "not asked at every check");
        assert_eq!(policy.shed_job(Some("a"), Resource::Processes), Move::Cancel, "of another resource it may help");
        assert_eq!(step(&mut policy, normal(211)), ShedStep::Cleared);
        assert_eq!(move_of(&policy, "b"), Move::Pause, "a new episode");
    }

    #[test]
    fn a_job_that_was_told_to_end_is_told_again_also_when_shedding_does_not_help() {
        let mut policy = policy();
        assert!(!gives_up_at(&mut policy, "a", Outcome::Paused, 96, 0));
        assert!(!gives_up_at(&mut policy, "a", Outcome::Cancelled, 96, 20));
        assert!(gives_up_at(&mut policy, "a", Outcome::Cancelled, 96, 40));
        assert_eq!([move_of(&policy, "a"), move_of(&policy, "b")], [Move::Cancel, Move::Spare]);
    }

    #[test]
    fn a_resource_that_shedding_does_not_help_does_not_hide_another() {
        let mut policy = policy();
        for seconds in [0, 20, 40] {
            gives_up_at(&mut policy, "a", Outcome::Paused, 96, seconds);
        }
        let files = Critical { resource: Resource::OpenFiles, ..CRITICAL };
        let both = Checked { critical: vec![CRITICAL, files.clone()], ..critical(60) };
        assert_eq!(step(&mut policy, both), ShedStep::Reclaim(files));
    }

    #[test]
    fn of_a_floor_a_hundredth_of_the_floor_is_an_effect() {
        let floor = |amount| Some(crate::vocabulary::Floor { amount, origin: None });
        let of = |floor, limit| least_fall(&Critical { usage: Usage { floor, limit, ..Usage::default() }, ..CRITICAL });
        assert_eq!(of(floor(500), Some(100_000)), 5);
        assert_eq!(of(None, Some(1_000)), 10);
        assert_eq!(of(None, Some(10)), 1, "something in any case");
    }

    #[test]
    fn cleared_is_said_once_by_a_check_taken_after_the_shed() {
        let mut policy = ShedPolicy::default();
        assert_eq!(step(&mut policy, normal(0)), ShedStep::Nothing);
        paused(&mut policy, "a", 5);
        assert_eq!(step(&mut policy, normal(5)), ShedStep::Nothing);
        assert_eq!(step(&mut policy, warning(6)), ShedStep::Nothing);
        assert_eq!(step(&mut policy, normal(7)), ShedStep::Cleared);
        assert_eq!(step(&mut policy, normal(8)), ShedStep::Nothing);
        // New pressure is a new episode: the host has been told, and its job may be running again.
        assert_eq!(step(&mut policy, critical(9)), ShedStep::Reclaim(CRITICAL));
        assert_eq!(move_of(&policy, "a"), Move::Pause);
    }

    #[test]
    fn a_host_without_a_job_is_logged_once_and_asked_again_after_the_settle_time() {
        let mut policy = policy();
        let without = |policy: &ShedPolicy| policy.shed_job(None, Resource::Memory);
        assert_eq!(without(&policy), Move::NoJob { log: true });
        policy.done_without_job(at(0), false);
        assert_eq!(step(&mut policy, critical(10)), ShedStep::Nothing);
        assert_eq!(step(&mut policy, critical(11)), SHED);
        assert_eq!(without(&policy), Move::NoJob { log: false });
        policy.done_without_job(at(11), false);
        assert_eq!(move_of(&policy, "a"), Move::Pause);
        // Nothing was shed, so nothing is cleared; the next pressure is logged anew.
        assert_eq!(step(&mut policy, normal(12)), ShedStep::Nothing);
        assert_eq!(without(&policy), Move::NoJob { log: true });
    }

    #[test]
    fn a_job_that_was_shed_is_remembered_while_there_is_none_to_name() {
        let mut policy = policy();
        paused(&mut policy, "a", 0);
        policy.done_without_job(at(20), false);
        assert_eq!(move_of(&policy, "a"), Move::Cancel);
        assert_eq!(step(&mut policy, normal(30)), ShedStep::Cleared);
    }

    #[test]
    fn a_settle_time_without_end_sheds_once_and_overflows_nothing() {
        let mut policy = policy();
        paused(&mut policy, "a", 1);
        assert_eq!(policy.next(&critical(2), Duration::MAX), ShedStep::Nothing);
        assert_eq!(policy.effect(&critical(2), Duration::MAX), None);
    }
}
