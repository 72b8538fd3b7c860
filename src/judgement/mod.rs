//! The meaning of checks: a state machine without a clock, a file or a log, so that tests step it by hand. The engine
//! holds the lock around it, tells it the time, and carries out what it returns.
//!
//! In the order in which a check passes through:
//!
//! - `record`: the changes that a check makes, and its report.
//! - `breaker`: failed checks in a row, and their backoff.
//! - `threshold`: usage against a limit, to the byte.
//! - `climb`: the growth of a resource, and the time that it leaves.
//! - `damping`, `unread`, `zombies`: the changes that are worth a line in the log.
//! - `reservations`: the cost of admitted work that no check can have measured yet.
//! - `gate`: the answer to work, and its reason.
//! - `word`: that answer in a few atomics, for readers without a lock.
//! - `schedule`: the time of the next check, from the pure functions of `cadence`.
//! - `shed`: the policy by which work is shed.

mod breaker;
mod cadence;
mod climb;
mod damping;
mod gate;
mod record;
mod reservations;
mod schedule;
pub(crate) mod shed;
mod threshold;
mod unread;
pub(crate) mod word;
mod zombies;

use std::sync::Arc;
use std::time::Duration;

use crate::vocabulary::{Error, Found, Level, Measured, PerResource, ReadOptional, Resource, ResourceLimits, Settings};

use self::breaker::Breaker;
use self::climb::Climb;
use self::damping::Damping;
pub(crate) use self::record::{Event, Observation, Planned, Report};
use self::reservations::Reservations;
use self::unread::Unread;
use self::zombies::ZombieWatch;

/// The state of a monitor, as its checks, starts, stops and permits have made it.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    settings: Settings,
    /// Made in a forked child that has not checked for itself.
    forked: bool,
    running: bool,
    stopped: Option<Stopped>,
    interval: Duration,
    /// The number of the last check that was published.
    published: u64,
    last: Option<Last>,
    last_success: Option<Duration>,
    breaker: Breaker,
    levels: PerResource<Level>,
    climbs: PerResource<Climb>,
    damping: PerResource<Damping>,
    unread: PerResource<Unread>,
    /// The time of the last line about a check that was late.
    late_line: Option<Duration>,
    /// The time of the last reading of memory, by a check or alone.
    memory_at: Duration,
    /// The CPU time of the last reading of memory alone.
    memory_cpu: Duration,
    zombies: ZombieWatch,
    reservations: Reservations,
}

/// The reason why nothing but a start opens the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The host asked for it.
    Asked,
    /// The thread of this name ended by itself.
    Died(&'static str),
}

/// The last check that was published.
#[derive(Debug)]
struct Last {
    at: Duration,
    /// The end of the check, from which the CPU budget counts.
    ended: Duration,
    cpu: Duration,
    /// The lateness of its beginning, if it was late enough to matter.
    late: Option<Duration>,
    /// The readings, or the error of the first required resource that could not be read.
    found: Result<Found, Arc<Error>>,
}

impl Judgement {
    pub(crate) fn new(settings: Settings, forked: bool, stopped: Option<Stopped>) -> Judgement {
        Judgement { settings, forked, stopped, ..Judgement::default() }
    }

    /// Begins anew at a start: all that was learned from earlier checks is forgotten. Permits and the numbers of checks
    /// go on.
    pub(crate) fn begin(&mut self, interval: Duration) {
        // A check before a stop, or one that failed, must not answer for the first check of this start.
        let last = self.last.take().filter(|last| self.stopped.is_none() && last.found.is_ok());
        *self = Judgement {
            settings: self.settings,
            forked: self.forked,
            running: true,
            interval,
            published: self.published,
            last,
            last_success: self.last_success,
            reservations: std::mem::take(&mut self.reservations),
            ..Judgement::default()
        };
    }

    /// Closes the gate until the next start.
    pub(crate) fn close(&mut self, why: Stopped) {
        self.running = false;
        self.stopped = Some(why);
    }

    /// Whether a check with this number, or a later one, was published.
    pub(crate) fn is_checked_since(&self, number: u64) -> bool {
        self.published >= number
    }

    /// The readings of the last check, if it was a good one.
    fn found(&self) -> Option<&Found> {
        self.last.as_ref()?.found.as_ref().ok()
    }

    /// The level of a reading, which comes after the stored level of its resource. Only [`record`](Self::record) stores
    /// levels, so that a change of limits between two checks can be judged at once, any number of times.
    fn level(&self, resource: Resource, amount: &Measured, limits: &ResourceLimits) -> Level {
        let limit = limit(resource, amount, limits);
        threshold::step(*self.levels.get(resource), amount.usage, limit, limits.thresholds())
    }

    /// The limit that work has to fit below, as far as it is known.
    fn limit(&self, resource: Resource, limits: &ResourceLimits) -> Option<u64> {
        match self.found().and_then(|found| amount(found, resource)) {
            Some(amount) => limit(resource, amount, limits),
            None if resource.facts().required => limits.limit(resource),
            // An optional resource that was not read refuses nothing.
            None => None,
        }
    }
}

/// The reading of a resource, if there is one.
fn amount(found: &Found, resource: Resource) -> Option<&Measured> {
    found.get(resource).as_ref().ok()?.as_ref()
}

/// The error that kept a resource, or a part of it, from being read.
fn unread_error(found: &ReadOptional<Measured>) -> Option<&Arc<Error>> {
    match found {
        Ok(amount) => amount.as_ref()?.unread.as_ref(),
        Err(error) => Some(error),
    }
}

/// The limit in force: the smaller of the host's and the kernel's.
fn limit(resource: Resource, amount: &Measured, limits: &ResourceLimits) -> Option<u64> {
    limits.limit(resource).into_iter().chain(amount.limit).min()
}

#[cfg(test)]
mod tests;
