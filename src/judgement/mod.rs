//! The meaning of checks: a state machine without a clock, a file or a log, so that tests step it by hand. The engine
//! holds the lock around it, tells it the time, and carries out what it returns.
//!
//! In the order in which a check passes through:
//!
//! - `record`: the changes that a check makes, and its report.
//! - `breaker`: failed checks in a row, and their backoff.
//! - `threshold`: the thresholds of a limit or a floor, to the byte.
//! - `climb`: the growth of a resource, and the time that it leaves.
//! - `damping`, `unread`, `zombies`: the changes that are worth a line in the log.
//! - `attached`: permits of which a check measures the work. `permits`: what each of them changes.
//! - `gate`: the answer to work, and its reason.
//! - `gauges`: the quantities that the host pushes.
//! - `admission`: that answer for readers without a lock, and permits that are granted without one: `word` is the trust
//!   in the last check, `room` what may be reserved and what is, with a `row` for each resource.
//! - `shares`: what other processes have reserved, in a memory that they share: `slots` are its words, `watching` the limits
//!   on a whole tree that one of them shows to the others.
//! - `queue`: those who wait for room.
//! - `schedule`: the time of the next check, from the pure functions of `cadence`.
//! - `retained`: freed memory that the allocator keeps.
//! - `shed`: the policy by which work is shed.

pub(crate) mod admission;
mod atomics;
mod attached;
mod breaker;
mod cadence;
mod climb;
mod damping;
mod gate;
mod gauges;
mod permits;
pub(crate) mod queue;
mod record;
mod retained;
mod room;
mod row;
mod schedule;
pub(crate) mod shares;
pub(crate) mod shed;
pub(crate) mod slots;
mod threshold;
mod unread;
mod watching;
pub(crate) mod word;
mod zombies;

#[cfg(any(test, fuzzing))]
pub(crate) const LAWS: [crate::laws::Law; 1] = [("ledger", shares::law)];

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "testing")]
use crate::vocabulary::Verdict;
use crate::vocabulary::{
    Error, Floor, Found, Level, LimitedBy, Measured, PerResource, ReadOptional, Resource, ResourceLimits, Settings,
    Subtree,
};

use self::admission::Admission;
use self::attached::AttachedPermits;
pub(crate) use self::attached::{AttachedId, End};
use self::breaker::Breaker;
pub(crate) use self::cadence::LOOK_ELSEWHERE;
use self::climb::Climb;
use self::damping::Damping;
use self::gauges::Gauges;
pub(crate) use self::record::{Event, Observation, Planned, Report};
use self::retained::Retained;
pub(crate) use self::retained::{OwnMemory, Trimmed};
use self::room::Released;
use self::shares::Marks;
use self::threshold::Bounds;
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
    /// The CPU time of the last reading of memory alone.
    memory_cpu: Duration,
    /// The number of readings of memory alone since one has found a change of what has a limit.
    memory_unchanged: u32,
    /// The time at which the last reading of memory began, by a check or alone, by the precise clock.
    memory_read_at: Duration,
    /// The time from which the next one counts: of a check its end, as for the next check, which goes before.
    memory_at: Duration,
    zombies: ZombieWatch,
    /// The limits in force when the judgement was last asked whether they have changed.
    limits_then: PerResource<Option<u64>>,
    /// What readers without a lock see, and where permits are reserved.
    admission: Arc<Admission>,
    attached: AttachedPermits,
    /// The time, by the precise clock, at which the children of attached permits were last asked for their ends.
    ends_noted_at: Duration,
    /// The reservations that the last good check has seen, until they are given back.
    seen: Released,
    /// Of what other processes have reserved, the part that the reading which is judged by has seen.
    marks: Marks,
    /// The reason why the ledger that is shared with them cannot be used.
    ledger_error: Option<Arc<Error>>,
    /// Whether the log has yet to be told that it cannot be used, or can be again.
    is_ledger_news: bool,
    gauges: Gauges,
    retained: Retained,
    /// The answer to everything, if a test has given one.
    #[cfg(feature = "testing")]
    given: Option<Verdict>,
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
            admission: Arc::clone(&self.admission),
            attached: std::mem::take(&mut self.attached),
            marks: self.marks,
            ledger_error: self.ledger_error.take(),
            gauges: std::mem::take(&mut self.gauges),
            retained: self.retained.carried(),
            ..Judgement::default()
        };
    }

    /// Closes the gate until the next start.
    pub(crate) fn close(&mut self, why: Stopped) {
        self.running = false;
        self.stopped = Some(why);
    }

    /// From now on every answer is this verdict. Nothing was checked, so that those who read without the lock are told
    /// no as well.
    #[cfg(feature = "testing")]
    pub(crate) fn refuse_with(&mut self, verdict: Verdict) {
        self.given = Some(verdict);
    }

    /// The part of it that is read and written without its lock.
    pub(crate) fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Whether there is a check thread, or will be at once.
    pub(crate) fn is_running(&self) -> bool {
        self.running
    }

    /// Returns `true` if the limits in force are others than when this was last asked: those that the host has set, or
    /// those of control groups.
    pub(crate) fn have_limits_changed(&mut self, limits: &ResourceLimits) -> bool {
        let now = PerResource::from_fn(|resource| self.bounds(resource, limits).map(|bounds| bounds.hard));
        std::mem::replace(&mut self.limits_then, now) != now
    }

    /// Lists the processes that a check is to measure for attached permits.
    pub(crate) fn list_subtrees(&self, into: &mut Vec<Subtree>) {
        self.attached.list_roots(into);
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
    fn level(&self, resource: Resource, found: &Found, limits: &ResourceLimits) -> Level {
        let usage = amount(found, resource).map_or(0, |amount| amount.usage);
        let bounds = bounds(resource, found, limits);
        bounds.map_or(Level::Normal, |bounds| bounds.level(*self.levels.get(resource), usage))
    }

    /// The thresholds that work has to stay below, as far as the limit is known.
    fn bounds(&self, resource: Resource, limits: &ResourceLimits) -> Option<Bounds> {
        match self.found() {
            Some(found) => bounds(resource, found, limits),
            None if resource.facts().required => {
                let limit = limits.limit(resource)?;
                Some(Bounds::of_limit(limit, limits.thresholds_of(resource)))
            }
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

/// The thresholds in force; `None` where there is no limit.
fn bounds(resource: Resource, found: &Found, limits: &ResourceLimits) -> Option<Bounds> {
    let (limit, thresholds) = (limit(resource, found, limits)?, limits.thresholds_of(resource));
    Some(match limits.floor(resource) {
        Some(floor) => Bounds::of_floor(limit, floor, thresholds),
        None => Bounds::of_limit(limit, thresholds),
    })
}

/// The limit in force: the smallest of the host's, the kernel's, and the one that was taken over. An unread resource
/// has none, and so an optional one refuses nothing. Of a resource with a floor it is all that there is.
fn limit(resource: Resource, found: &Found, limits: &ResourceLimits) -> Option<u64> {
    let amount = amount(found, resource)?;
    if resource.facts().limited_by == LimitedBy::Floor {
        // All that there is, for as long as some of it is to be left.
        return amount.limit.filter(|_| limits.floor(resource).is_some());
    }
    let hosts = limits.limit(resource).filter(|_| judged_as(resource, found, limits).is_none());
    let is_taken_over = |other: &Resource| {
        let group = limits.group_of(*other).filter(|_| other.facts().in_group == Some(resource));
        group.is_some() && group == amount.place.as_deref()
    };
    let taken_over = Resource::ALL.into_iter().filter(is_taken_over).filter_map(|other| limits.limit(other));
    hosts.into_iter().chain(taken_over).chain(amount.limit).min()
}

/// The amount that is to be left, and who said so.
fn floor(resource: Resource, limits: &ResourceLimits) -> Option<Floor> {
    let amount = limits.floor(resource)?;
    Some(Floor { amount, origin: limits.origin_of(resource).cloned() })
}

/// The resource that has taken over the limit of this one.
///
/// A limit that was found in a control group is one on what is charged to the group. Resident memory is another number:
/// it counts pages of mapped files, which the kernel takes back before it refuses anything, and descendants need not be
/// in the group at all. So the group's usage is judged, for as long as it is read. Where the reading is of another
/// group, that one has a larger limit and less room: it is nearer to its limit, and closes the gate first.
fn judged_as(resource: Resource, found: &Found, limits: &ResourceLimits) -> Option<Resource> {
    limits.group_of(resource)?;
    resource.facts().in_group.filter(|other| amount(found, *other).is_some())
}

#[cfg(all(test, shuttle))]
mod model;
#[cfg(all(test, shuttle))]
mod shares_model;
#[cfg(test)]
mod tests;
