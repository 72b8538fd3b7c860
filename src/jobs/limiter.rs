//! The time that jobs were kept from their start, by what kept them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::vocabulary::Resource;

/// The kind of a [`HeldBack`](super::HeldBack), without its numbers: a key for the account of a run. Its text is a word or
/// two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Limiter {
    /// The host: no job waited.
    NoJob,
    /// The start itself: there was room, and jobs were being started one after the other.
    Starting,
    /// A resource that the monitor watches.
    Resource(Resource),
    /// The monitor, but no resource: it has not checked yet, or could not.
    Monitor,
    /// A limit on tasks.
    Tasks,
    /// As many jobs ran as the CPUs bear.
    Cpus,
    /// As many jobs ran as the host has allowed.
    Width,
    /// The first job of a kind was to show what one costs.
    Learning,
    /// A job that had too little room before waited for all others to end.
    Alone,
    /// A start failed, for a reason that may pass.
    NotStarted,
}

impl fmt::Display for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limiter::Resource(resource) => return write!(f, "{resource}"),
            Limiter::NoJob => "no job",
            Limiter::Starting => "starting",
            Limiter::Monitor => "the monitor",
            Limiter::Tasks => "tasks",
            Limiter::Cpus => "CPU",
            Limiter::Width => "width",
            Limiter::Learning => "learning",
            Limiter::Alone => "a job alone",
            Limiter::NotStarted => "failed starts",
        })
    }
}

/// A stop watch with a hand for each limiter, of which one moves at a time.
#[derive(Debug)]
pub(super) struct Account {
    limiter: Limiter,
    since: Instant,
    times: BTreeMap<Limiter, Duration>,
}

impl Account {
    /// Begins now, without a job.
    pub(super) fn new(now: Instant) -> Account {
        Account { limiter: Limiter::NoJob, since: now, times: BTreeMap::new() }
    }

    /// From now on, this one keeps jobs from their start.
    pub(super) fn turn_to(&mut self, limiter: Limiter, now: Instant) {
        if limiter != self.limiter {
            *self.times.entry(self.limiter).or_default() += now.saturating_duration_since(self.since);
            (self.limiter, self.since) = (limiter, now);
        }
    }

    /// Leaves out a time in which everything stood still, which is over now.
    pub(super) fn leave_out(&mut self, stopped: Duration) {
        self.since += stopped;
    }

    /// The time of each, up to now.
    pub(super) fn times(&self, now: Instant) -> BTreeMap<Limiter, Duration> {
        let mut times = self.times.clone();
        *times.entry(self.limiter).or_default() += now.saturating_duration_since(self.since);
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_moment_is_in_the_time_of_one_limiter_but_those_in_which_everything_stood_still() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut account = Account::new(began);
        account.turn_to(Limiter::Cpus, at(1));
        account.turn_to(Limiter::Resource(Resource::Memory), at(3));
        account.turn_to(Limiter::Resource(Resource::Memory), at(4));
        account.leave_out(Duration::from_secs(10));
        account.turn_to(Limiter::Cpus, at(20));
        let expected = [(Limiter::NoJob, 1), (Limiter::Resource(Resource::Memory), 7), (Limiter::Cpus, 2 + 5)];
        assert_eq!(
            account.times(at(25)),
            expected.map(|(limiter, seconds)| (limiter, Duration::from_secs(seconds))).into()
        );
    }
}
