//! What checks mean: a state machine without a clock, a file or a log. Whoever drives it holds the lock around it, says
//! what time it is, and carries out what comes back.

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

use crate::vocabulary::{Amount, Error, Found, Level, Optional, PerResource, Resource, ResourceLimits, Settings};

use self::breaker::Breaker;
use self::climb::Climb;
use self::damping::Damping;
pub(crate) use self::record::{Event, Observation, Planned, Report};
use self::reservations::Reservations;
use self::unread::Unread;
use self::zombies::ZombieWatch;

/// The state of a monitor as its checks, limits and permits made it.
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
    late_line: Option<Duration>,
    /// When memory was last read, by a check or alone.
    memory_at: Duration,
    /// What it cost when it was last read alone.
    memory_cpu: Duration,
    zombies: ZombieWatch,
    reservations: Reservations,
}

/// Why nothing but a start opens the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    Asked,
    /// This thread of the monitor's ended by itself.
    Died(&'static str),
}

/// The last check that was published.
#[derive(Debug)]
struct Last {
    at: Duration,
    /// What the CPU budget counts from.
    ended: Duration,
    cpu: Duration,
    /// How late it began, if that mattered.
    late: Option<Duration>,
    /// Every required resource was read, or the error of the first that was not.
    found: Result<Found, Arc<Error>>,
}

impl Judgement {
    pub(crate) fn new(settings: Settings, forked: bool, stopped: Option<Stopped>) -> Judgement {
        Judgement { settings, forked, stopped, ..Judgement::default() }
    }

    /// A start: everything that a monitor learns by and by is fresh. Permits and the numbers of checks go on.
    pub(crate) fn begin(&mut self, interval: Duration) {
        // What was read before a stop, or failed, must not answer for the first check of this start.
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

    /// A stop: nothing but the next start opens the gate.
    pub(crate) fn close(&mut self, why: Stopped) {
        self.running = false;
        self.stopped = Some(why);
    }

    /// Whether a check with this number, or a later one, was published.
    pub(crate) fn is_checked_since(&self, number: u64) -> bool {
        self.published >= number
    }

    /// What the last check found, if it was a good one.
    fn found(&self) -> Option<&Found> {
        self.last.as_ref()?.found.as_ref().ok()
    }

    /// The level of a reading that follows the stored levels. Only [`record`](Self::record) stores it: a limit that
    /// changes between checks is judged at once, and judging twice is judging once.
    fn level(&self, resource: Resource, amount: &Amount, limits: &ResourceLimits) -> Level {
        let limit = limit(resource, amount, limits);
        threshold::step(*self.levels.get(resource), amount.usage, limit, limits.thresholds())
    }

    /// The limit that work has to fit below, as far as it is known.
    fn limit(&self, resource: Resource, limits: &ResourceLimits) -> Option<u64> {
        match self.found().and_then(|found| amount(found, resource)) {
            Some(amount) => limit(resource, amount, limits),
            None if resource.is_required() => limits.limit(resource),
            // What is not known of an optional resource refuses nothing.
            None => None,
        }
    }
}

/// The resources that are cheap enough to be read alone, between two checks.
const MEMORY: [Resource; 3] = [Resource::Memory, Resource::CgroupMemory, Resource::MemoryPressure];

fn amount(found: &Found, resource: Resource) -> Option<&Amount> {
    found.get(resource).as_ref().ok()?.as_ref()
}

/// Why something of the resource was not read.
fn unread_error(found: &Optional<Amount>) -> Option<&Arc<Error>> {
    match found {
        Ok(amount) => amount.as_ref()?.unread.as_ref(),
        Err(error) => Some(error),
    }
}

/// The limit that binds: the host's or the kernel's, whichever is less.
fn limit(resource: Resource, amount: &Amount, limits: &ResourceLimits) -> Option<u64> {
    limits.limit(resource).into_iter().chain(amount.limit).min()
}

#[cfg(test)]
mod tests;
