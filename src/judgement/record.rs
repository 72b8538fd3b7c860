//! The changes that a check makes, and the report of it for the log, the schedule and the action thread.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::breaker::DEGRADED_AT;
use super::climb::Climb;
use super::room::Released;
use super::unread::News;
use super::{amount, cadence, damping, floor, limit, shed, unread_error, Judgement, Last};
use crate::vocabulary::{
    Critical, Error, ErrorKind, Found, Identity, Level, Measured, PerResource, Resource, ResourceLimits, Subtree, Usage,
};

/// The findings and the circumstances of one check.
#[derive(Debug)]
pub(crate) struct Observation<'a> {
    /// Drawn when the check began, so that later checks have larger ones. The first is 1 or more.
    pub(crate) number: u64,
    pub(crate) now: Duration,
    /// The beginning of the check, from the precise clock.
    pub(crate) began: Duration,
    /// The end of the check, from the precise clock. `now` is from the coarse one, which may be a step behind.
    pub(crate) ended: Duration,
    /// The CPU time of the check.
    pub(crate) cpu: Duration,
    /// The CPU time that its thread has used since its last check.
    pub(crate) cpu_between: Duration,
    /// The plan of the check thread, if it took the check.
    pub(crate) planned: Option<Planned>,
    pub(crate) found: &'a Found,
    pub(crate) zombies: &'a [Identity],
    /// The processes of attached permits, as they were measured.
    pub(crate) subtrees: &'a [Subtree],
    /// The reservations that were released before it began.
    pub(crate) released: Released,
}

/// The plan of the check thread for a check, and how late it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    /// The planned time since the last check.
    pub(crate) delay: Duration,
    pub(crate) lateness: Duration,
}

/// The outcome of a check that was published.
#[derive(Debug)]
pub(crate) struct Report {
    /// The number of the check, and when it was taken.
    pub(crate) number: u64,
    pub(crate) at: Duration,
    /// The events to log, in this order.
    pub(crate) events: Vec<Event>,
    pub(crate) good: bool,
    pub(crate) degraded: bool,
    /// The levels as the last good check measured them.
    pub(crate) levels: PerResource<Level>,
    /// The resources that this check found critical.
    pub(crate) critical: Vec<Critical>,
    /// Measured usage, where it was read.
    pub(crate) usage: PerResource<Option<u64>>,
    /// Whether usage climbs towards a limit, so that the next check may be due sooner than was thought.
    pub(crate) climbing: bool,
    /// Whether it is time to look for memory that the allocator keeps.
    pub(crate) look_due: bool,
}

/// An event for the log.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// `limit` is `None` when it was unset, which makes the level normal. `changes` counts the transitions left out
    /// since the last line of the resource.
    LevelEntered {
        resource: Resource,
        level: Level,
        usage: u64,
        limit: Option<u64>,
        floor: Option<u64>,
        place: Option<Arc<Path>>,
        changes: u64,
    },
    /// An optional resource could not be read, and is not judged meanwhile.
    Unread {
        resource: Resource,
        error: Arc<Error>,
    },
    ReadAgain {
        resource: Resource,
    },
    Zombies {
        pids: Vec<u32>,
    },
    CheckFailed {
        failures: u32,
        error: Arc<Error>,
    },
    Degraded {
        failures: u32,
        error: Arc<Error>,
    },
    /// The ledger that is shared with other processes cannot be used, and keeps the gate closed.
    LedgerUnusable {
        error: Arc<Error>,
    },
    LedgerUsable,
    RunningLate(Planned),
    Recovered {
        after_failures: u32,
    },
    DegradedCleared {
        after_failures: u32,
    },
}

impl Judgement {
    /// Judges a check. Returns `None` for one that began before the last one published: it changes nothing.
    pub(crate) fn record(&mut self, check: &Observation<'_>, limits: &ResourceLimits) -> Option<Report> {
        let room = &self.admission.room;
        if check.number <= self.published {
            // The one that was published began later, and has seen them as well.
            match self.found() {
                Some(_) => room.settle(&check.released),
                None => room.release_again(&check.released),
            }
            return None;
        }
        self.published = check.number;
        self.forked = false;
        // An empty list allocates nothing, and most checks have no events.
        let mut events = Vec::new();
        let found = match failure(check.found) {
            None => {
                let mut found = check.found.clone();
                self.keep_newer(check, &mut found);
                Ok(found)
            }
            Some(error) => Err(error),
        };
        if std::mem::take(&mut self.is_ledger_news) {
            events.push(match &self.ledger_error {
                Some(error) => Event::LedgerUnusable { error: error.clone() },
                None => Event::LedgerUsable,
            });
        }
        let good = found.is_ok();
        match &found {
            Ok(found) => self.succeed(check, found, limits, &mut events),
            Err(error) => {
                room.release_again(&check.released);
                self.fail(error, &mut events);
            }
        }
        // An empty list allocates nothing.
        let critical = found.as_ref().map_or_else(|_| Vec::new(), |found| self.critical(found, limits));
        let usage = PerResource::from_fn(|resource| Some(amount(found.as_ref().ok()?, resource)?.usage));
        let late = check.planned.filter(|planned| cadence::is_late(planned.lateness, planned.delay));
        if let Some(late) = late {
            self.run_late(late, check.now, &mut events);
        }
        let late = late.map(|planned| planned.lateness);
        let cpu = cadence::cost(check.cpu, check.cpu_between);
        self.last = Some(Last { at: check.now, ended: check.ended, cpu, late, found });
        if good {
            self.note_shut_by_memory(check.now, limits);
        }
        Some(Report {
            number: check.number,
            at: check.now,
            events,
            good,
            degraded: self.breaker.is_degraded(),
            levels: self.levels,
            critical,
            usage,
            climbing: good && self.time_left(limits).is_some_and(|time_left| time_left < self.interval),
            look_due: good && self.is_look_due(check.now),
        })
    }

    /// Takes a reading of memory alone, between two checks, for the gate to follow. It has seen what was released of that
    /// before it began.
    ///
    /// Levels and the log are left to checks. So is the age of the answer, because the count of processes is as old as
    /// before; and so is an error, which the next check reports.
    pub(crate) fn record_memory(
        &mut self,
        memory: &Found,
        now: Duration,
        began: Duration,
        cpu: Duration,
        released: &Released,
        limits: &ResourceLimits,
    ) {
        self.memory_cpu = cpu;
        // One that began later was recorded already.
        let is_overtaken = began < self.memory_read_at;
        self.memory_read_at = self.memory_read_at.max(began);
        self.memory_at = self.memory_at.max(began);
        self.memory_unchanged = self.memory_unchanged.saturating_add(1);
        let is_read = |found: &Found, resource: &Resource| amount(found, *resource).is_some();
        let mut judged =
            Resource::read_alone().filter(|resource| self.found().is_some_and(|last| is_read(last, resource)));
        if !is_overtaken && judged.all(|resource| is_read(memory, &resource)) {
            self.marks = self.marks.with_memory_of(&released.marks);
        }
        for resource in Resource::read_alone() {
            let released = released.get(resource);
            let (Ok(Some(amount)), Some(Last { found: Ok(found), .. }), false) =
                (memory.get(resource), &mut self.last, is_overtaken)
            else {
                // Left to the next one that reads it.
                self.admission.room.release_amount_again(resource, released);
                continue;
            };
            self.seen.add(resource, released);
            let is_limited = limit(resource, found, limits).is_some();
            if is_limited && super::amount(found, resource).map(|before| before.usage) != Some(amount.usage) {
                self.memory_unchanged = 0;
            }
            let before = super::amount(found, resource).map_or(amount.usage, |before| before.usage);
            self.attached.note_alone(resource, before, amount.usage);
            let is_elsewhere = super::amount(found, resource).is_some_and(|before| before.place != amount.place);
            *found.get_mut(resource) = Ok(Some(amount.clone()));
            let climb = self.climbs.get_mut(resource);
            if is_elsewhere {
                *climb = Climb::default();
            }
            climb.record(now, amount.usage);
        }
    }

    /// Of what is read alone, what a later reading has found while the check was in progress: that has seen permits which
    /// the check may not have.
    fn keep_newer(&self, check: &Observation<'_>, found: &mut Found) {
        if check.began < self.memory_read_at {
            let Some(newer) = self.found() else { return };
            for resource in Resource::read_alone().filter(|resource| amount(newer, *resource).is_some()) {
                found.get_mut(resource).clone_from(newer.get(resource));
            }
        }
    }

    fn succeed(&mut self, check: &Observation<'_>, found: &Found, limits: &ResourceLimits, events: &mut Vec<Event>) {
        let after_failures = self.breaker.succeed();
        if after_failures > 0 {
            events.push(Event::Recovered { after_failures });
        }
        if after_failures >= DEGRADED_AT {
            events.push(Event::DegradedCleared { after_failures });
        }
        self.last_success = Some(check.now);
        (self.memory_at, self.memory_read_at) = (check.ended, self.memory_read_at.max(check.began));
        self.seen = check.released;
        self.marks = check.released.marks;
        self.attached.record(check.number, check.subtrees);
        let settle = self.settle();
        for resource in Resource::ALL {
            self.judge_resource(resource, found, check.now, limits, settle, events);
        }
        if let Some(pids) = self.zombies.step(check.zombies, check.now, self.interval) {
            events.push(Event::Zombies { pids });
        }
    }

    /// Takes the reading of one resource by a good check.
    fn judge_resource(
        &mut self,
        resource: Resource,
        found: &Found,
        now: Duration,
        limits: &ResourceLimits,
        settle: Duration,
        events: &mut Vec<Event>,
    ) {
        let read = found.get(resource);
        let error = unread_error(read);
        match self.unread.get_mut(resource).step(error.is_none(), now) {
            None => {}
            Some(News::ReadAgain) => events.push(Event::ReadAgain { resource }),
            Some(News::Unread) => events.extend(error.map(|error| Event::Unread { resource, error: error.clone() })),
        }
        match read {
            Ok(Some(amount)) => self.record_growth(resource, amount, now),
            Ok(None) | Err(_) => *self.climbs.get_mut(resource) = Climb::default(),
        }
        // An unread optional resource has no limit in force, and never closes the gate.
        let (level, limit) = (self.level(resource, found, limits), limit(resource, found, limits));
        *self.levels.get_mut(resource) = level;
        // An unread resource has no known level, so nothing is logged; an absent one is normal.
        let Ok(amount) = read else { return };
        let floor = limits.floor(resource);
        if let Some(changes) = self.damping.get_mut(resource).step(level, now, settle) {
            let (usage, place) = amount.as_ref().map_or((0, None), |amount| (amount.usage, amount.place.clone()));
            let resource = self.named(resource);
            events.push(Event::LevelEntered { resource, level, usage, limit, floor, place, changes });
        }
    }

    fn fail(&mut self, error: &Arc<Error>, events: &mut Vec<Event>) {
        let failures = self.breaker.fail();
        if failures <= DEGRADED_AT {
            events.push(Event::CheckFailed { failures, error: error.clone() });
        }
        if failures == DEGRADED_AT {
            events.push(Event::Degraded { failures, error: error.clone() });
        }
    }

    fn critical(&self, found: &Found, limits: &ResourceLimits) -> Vec<Critical> {
        let is_critical = |resource: &Resource| *self.levels.get(*resource) == Level::Critical;
        let critical = |resource| {
            let amount = amount(found, resource)?;
            let usage = Usage {
                measured: amount.usage,
                limit: limit(resource, found, limits),
                floor: floor(resource, limits),
                place: amount.place.clone(),
                ..Usage::default()
            };
            Some(Critical { resource: self.named(resource), usage, hard: limits.thresholds_of(resource).hard })
        };
        Resource::ALL.into_iter().filter(is_critical).filter_map(critical).collect()
    }

    /// Adds a reading to the growth of a resource. That of another control group than before starts a new history: the
    /// difference between two groups is not growth.
    fn record_growth(&mut self, resource: Resource, amount: &Measured, now: Duration) {
        let before = self.found().and_then(|found| self::amount(found, resource));
        let is_elsewhere = before.is_some_and(|before| before.place != amount.place);
        let climb = self.climbs.get_mut(resource);
        if is_elsewhere {
            *climb = Climb::default();
        }
        climb.record(now, amount.usage);
    }

    /// Reports a check that was late after one that was not, at most once in [`damping::LINE_EVERY`].
    fn run_late(&mut self, planned: Planned, now: Duration, events: &mut Vec<Event>) {
        let began = self.last.as_ref().map_or(true, |last| last.late.is_none());
        let line_due = self.late_line.map_or(true, |at| now.saturating_sub(at) >= damping::LINE_EVERY);
        if began && line_due {
            self.late_line = Some(now);
            events.push(Event::RunningLate(planned));
        }
    }
}

impl Report {
    /// The part of the report that shedding goes by.
    pub(crate) fn checked(&self) -> shed::Checked {
        shed::Checked {
            at: self.at,
            good: self.good,
            degraded: self.degraded,
            critical: self.critical.clone(),
            usage: self.usage,
            all_normal: Resource::ALL.iter().all(|resource| *self.levels.get(*resource) == Level::Normal),
        }
    }
}

/// The error that failed the check: that of the first required resource that was not read.
fn failure(found: &Found) -> Option<Arc<Error>> {
    Resource::required().find_map(|resource| match found.get(resource) {
        Ok(Some(_)) => None,
        Ok(None) => Some(Arc::new(Error::new(ErrorKind::Read, format!("{resource} not read")))),
        Err(error) => Some(error.clone()),
    })
}
