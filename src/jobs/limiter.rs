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
    /// Nothing: no job waited, and none was to come ([`expect_no_more`](super::Jobs::expect_no_more)).
    LastJobs,
    /// The host, which held them back for this reason ([`hold`](super::Jobs::hold)).
    Host(&'static str),
    /// Whoever reads what jobs write ([`JobOutput`](super::JobOutput)).
    Output,
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
            Limiter::NoJob => "input",
            Limiter::LastJobs => "the last jobs",
            Limiter::Output => "printing",
            Limiter::Host(reason) => reason,
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

/// The times that jobs were kept from their start, by what kept them. Its text has the shares of the whole, the largest
/// first, without those below one percent: `memory 62 %, CPU 31 %, input 7 %`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limiters(BTreeMap<Limiter, Duration>);

impl Limiters {
    /// The time of each, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (Limiter, Duration)> + '_ {
        self.0.iter().map(|(limiter, time)| (*limiter, *time))
    }

    /// The time of one.
    pub fn of(&self, limiter: Limiter) -> Duration {
        self.0.get(&limiter).copied().unwrap_or_default()
    }

    /// The time of all, which is that since the jobs were built.
    pub fn total(&self) -> Duration {
        self.0.values().sum()
    }
}

impl fmt::Display for Limiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total().as_secs_f64().max(f64::MIN_POSITIVE);
        let mut shares: Vec<_> = self.iter().map(|(by, time)| (by, 100.0 * time.as_secs_f64() / total)).collect();
        shares.retain(|(_, percent)| *percent >= 1.0);
        shares.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        for (index, (limiter, percent)) in shares.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{limiter} {percent:.0} %")?;
        }
        Ok(())
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
    pub(super) fn times(&self, now: Instant) -> Limiters {
        let mut times = self.times.clone();
        *times.entry(self.limiter).or_default() += now.saturating_duration_since(self.since);
        Limiters(times)
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
        let times = account.times(at(25));
        assert_eq!(times.of(Limiter::NoJob), Duration::from_secs(1));
        assert_eq!(times.of(Limiter::Resource(Resource::Memory)), Duration::from_secs(7));
        assert_eq!(times.of(Limiter::Cpus), Duration::from_secs(2 + 5));
        assert_eq!(times.total(), Duration::from_secs(15));
        assert_eq!(times.to_string(), "memory 47 %, CPU 47 %, input 7 %");
    }

    #[test]
    fn shares_below_a_percent_are_not_said() {
        let seconds = [(Limiter::Output, 5), (Limiter::LastJobs, 1), (Limiter::Tasks, 994)];
        let times = Limiters(seconds.map(|(limiter, seconds)| (limiter, Duration::from_secs(seconds))).into());
        assert_eq!(times.to_string(), "tasks 99 %");
        assert_eq!(Limiters::default().to_string(), "");
    }
}
