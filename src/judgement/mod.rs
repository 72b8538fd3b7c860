//! What checks mean: a state machine without a clock, a file or a log. Whoever drives it holds the lock around it, says
//! what time it is, and carries out what comes back.

mod breaker;
mod cadence;
mod climb;
mod damping;
mod reservations;
pub(crate) mod shed;
mod threshold;
mod unread;
mod zombies;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::identity::Identity;
use crate::limits::ResourceLimits;
use crate::readiness_word::Publication;
use crate::resource::{Amount, Found, Level, MemoryScope, Optional, PerResource, Resource};
use crate::verdict::{Critical, Reason, Threshold, Usage, Verdict};
use crate::work::Work;

use self::breaker::{Breaker, DEGRADED_AT};
use self::climb::Climb;
use self::damping::Damping;
use self::reservations::Reservations;
use self::unread::{News, Unread};
use self::zombies::ZombieWatch;

/// What the host set once, when it built the monitor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) max_age: Option<Duration>,
    pub(crate) refresh_after: Duration,
    pub(crate) settle: Option<Duration>,
    /// Share of one core, above 0 and at most 1.
    pub(crate) cpu_budget: f64,
    pub(crate) memory_scope: MemoryScope,
    /// The optional resources that are not read.
    pub(crate) ignored: PerResource<bool>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            max_age: None,
            refresh_after: Duration::from_millis(100),
            settle: None,
            cpu_budget: 0.01,
            memory_scope: MemoryScope::Own,
            ignored: PerResource::default(),
        }
    }
}

/// What one check found.
#[derive(Debug)]
pub(crate) struct Observation<'a> {
    /// Taken when the check began; later checks have larger ones. The first is 1 or more.
    pub(crate) number: u64,
    pub(crate) now: Duration,
    /// The same to the nanosecond, where `now` may be a step of the clock behind.
    pub(crate) ended: Duration,
    /// What the check cost.
    pub(crate) cpu: Duration,
    /// What the thread that took it has used since its last one.
    pub(crate) cpu_between: Duration,
    /// When the thread planned it, if it did.
    pub(crate) planned: Option<Planned>,
    pub(crate) found: &'a Found,
    pub(crate) zombies: &'a [Identity],
}

/// A check that the thread planned, and what came of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    /// After the last check.
    pub(crate) delay: Duration,
    pub(crate) lateness: Duration,
}

/// What came of a check that was published.
#[derive(Debug)]
pub(crate) struct Report {
    /// The number of the check, and when it was taken.
    pub(crate) number: u64,
    pub(crate) at: Duration,
    /// To be logged, in this order.
    pub(crate) events: Vec<Event>,
    pub(crate) good: bool,
    pub(crate) degraded: bool,
    /// As last measured by a good check.
    pub(crate) levels: PerResource<Level>,
    /// The first resource that this check found critical.
    pub(crate) critical: Option<Critical>,
    /// Whether usage climbs towards a limit, so that the next check may be due sooner than was thought.
    pub(crate) climbing: bool,
}

/// What a check has to tell the log.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// Without a limit the level is normal: the limit was unset. `changes` counts the transitions left out since the
    /// last line of the resource.
    LevelEntered {
        resource: Resource,
        level: Level,
        usage: u64,
        limit: Option<u64>,
        group: Option<Arc<Path>>,
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
    RunningLate(Planned),
    Recovered {
        after_failures: u32,
    },
    DegradedCleared {
        after_failures: u32,
    },
}

/// The state of a monitor as its checks, limits and permits made it.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
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
    pub(crate) fn new(forked: bool, stopped: Option<Stopped>) -> Judgement {
        Judgement { forked, stopped, ..Judgement::default() }
    }

    /// A start: everything that a monitor learns by and by is fresh. Permits and the numbers of checks go on.
    pub(crate) fn begin(&mut self, interval: Duration) {
        // What was read before a stop, or failed, must not answer for the first check of this start.
        let last = self.last.take().filter(|last| self.stopped.is_none() && last.found.is_ok());
        *self = Judgement {
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

    /// Judges a check. `None`: it began before the last one that was published, and changes nothing.
    pub(crate) fn record(
        &mut self,
        check: &Observation<'_>,
        limits: &ResourceLimits,
        settings: &Settings,
    ) -> Option<Report> {
        if check.number <= self.published {
            return None;
        }
        self.published = check.number;
        self.forked = false;
        // An empty list allocates nothing, and a steady check has nothing to tell.
        let mut events = Vec::new();
        let found = match failure(check.found) {
            None => Ok(check.found.clone()),
            Some(error) => Err(error),
        };
        let good = found.is_ok();
        match &found {
            Ok(found) => self.succeed(check, found, limits, settings, &mut events),
            Err(error) => self.fail(error, &mut events),
        }
        let critical = found.as_ref().ok().and_then(|found| self.critical(found, limits));
        let late = check.planned.filter(|planned| cadence::is_late(planned.lateness, planned.delay));
        if let Some(late) = late {
            self.run_late(late, check.now, &mut events);
        }
        let late = late.map(|planned| planned.lateness);
        let cpu = cadence::cost(check.cpu, check.cpu_between);
        self.last = Some(Last { at: check.now, ended: check.ended, cpu, late, found });
        Some(Report {
            number: check.number,
            at: check.now,
            events,
            good,
            degraded: self.breaker.is_degraded(),
            levels: self.levels,
            critical,
            climbing: good && self.time_left(limits).is_some_and(|time_left| time_left < self.interval),
        })
    }

    fn critical(&self, found: &Found, limits: &ResourceLimits) -> Option<Critical> {
        let resource = Resource::ALL.into_iter().find(|resource| *self.levels.get(*resource) == Level::Critical)?;
        let amount = amount(found, resource)?;
        let usage = Usage {
            measured: amount.usage,
            limit: limit(resource, amount, limits),
            group: amount.group.clone(),
            ..Usage::default()
        };
        Some(Critical { resource, usage, hard: limits.thresholds().hard })
    }

    fn succeed(
        &mut self,
        check: &Observation<'_>,
        found: &Found,
        limits: &ResourceLimits,
        settings: &Settings,
        events: &mut Vec<Event>,
    ) {
        let after_failures = self.breaker.succeed();
        if after_failures > 0 {
            events.push(Event::Recovered { after_failures });
        }
        if after_failures >= DEGRADED_AT {
            events.push(Event::DegradedCleared { after_failures });
        }
        self.last_success = Some(check.now);
        self.memory_at = check.now;
        self.reservations.seen_by(check.number);
        let settle = self.settle(settings);
        for resource in Resource::ALL {
            let found = found.get(resource);
            let error = unread(found);
            match self.unread.get_mut(resource).step(error.is_none(), check.now) {
                None => {}
                Some(News::ReadAgain) => events.push(Event::ReadAgain { resource }),
                Some(News::Unread) => {
                    events.extend(error.map(|error| Event::Unread { resource, error: error.clone() }));
                }
            }
            let Ok(Some(amount)) = found else {
                // What is not known of an optional resource closes nothing, and what comes later is compared with nothing.
                *self.levels.get_mut(resource) = Level::Normal;
                *self.climbs.get_mut(resource) = Climb::default();
                if found.is_err() {
                    continue;
                }
                // What is there no more is at no level.
                if let Some(changes) = self.damping.get_mut(resource).step(Level::Normal, check.now, settle) {
                    let (level, usage, limit, group) = (Level::Normal, 0, None, None);
                    events.push(Event::LevelEntered { resource, level, usage, limit, group, changes });
                }
                continue;
            };
            let level = self.level(resource, amount, limits);
            *self.levels.get_mut(resource) = level;
            self.climb(resource, amount, check.now);
            if let Some(changes) = self.damping.get_mut(resource).step(level, check.now, settle) {
                let (usage, limit, group) = (amount.usage, limit(resource, amount, limits), amount.group.clone());
                events.push(Event::LevelEntered { resource, level, usage, limit, group, changes });
            }
        }
        if let Some(pids) = self.zombies.step(check.zombies, check.now, self.interval) {
            events.push(Event::Zombies { pids });
        }
    }

    /// The usage of one control group says nothing of how fast that of another grows.
    fn climb(&mut self, resource: Resource, amount: &Amount, now: Duration) {
        let last = self.last.as_ref().and_then(|last| last.found.as_ref().ok());
        let group_before = last.and_then(|found| self::amount(found, resource)).map(|before| &before.group);
        let climb = self.climbs.get_mut(resource);
        if group_before.is_some_and(|before| *before != amount.group) {
            *climb = Climb::default();
        }
        climb.record(now, amount.usage);
    }

    /// Logged when it begins, and at most once in a while.
    fn run_late(&mut self, planned: Planned, now: Duration, events: &mut Vec<Event>) {
        let began = self.last.as_ref().map_or(true, |last| last.late.is_none());
        let line_due = self.late_line.map_or(true, |at| now.saturating_sub(at) >= damping::LINE_EVERY);
        if began && line_due {
            self.late_line = Some(now);
            events.push(Event::RunningLate(planned));
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

    /// The state of the gate and its reason, from one reading.
    pub(crate) fn verdict(&self, now: Duration, limits: &ResourceLimits, settings: &Settings) -> Verdict {
        self.explain(self.reason(now, limits, settings), &Work::new(), limits, settings)
    }

    /// Grants and reserves `work`, or says why not.
    pub(crate) fn admit(
        &mut self,
        work: &Work,
        now: Duration,
        limits: &ResourceLimits,
        settings: &Settings,
    ) -> Result<(), Verdict> {
        let hard = limits.thresholds().hard;
        let reaches = |resource: Resource, usage: u128| {
            self.limit(resource, limits).is_some_and(|limit| threshold::reaches(usage, limit, hard))
        };
        let misfit = Resource::ALL.into_iter().find(|resource| reaches(*resource, work.of(*resource).into()));
        let reason = match self.reason(now, limits, settings) {
            Reason::Accepting => {
                let usages = self.usages(work, limits);
                let total = |resource| usages.get(resource).as_ref().map_or(0, Usage::total);
                let full = Resource::ALL.into_iter().find(|resource| reaches(*resource, total(*resource)));
                // Of two resources that refuse, the one that always will is what the host must know of.
                match misfit.or(full) {
                    Some(resource) => Reason::TooMuch { resource, hard },
                    None => {
                        self.reservations.reserve(work);
                        return Ok(());
                    }
                }
            }
            closed => closed,
        };
        // A closed gate compared nothing with what was asked.
        let asked = if matches!(reason, Reason::TooMuch { .. }) { *work } else { Work::new() };
        Err(self.explain(reason, &asked, limits, settings).with_never_fits(misfit.is_some()))
    }

    /// Takes a granted permit back; its cost stays reserved until a successful check numbered `next_number` or later.
    pub(crate) fn release(&mut self, work: &Work, next_number: u64) {
        self.reservations.release(work, next_number);
    }

    /// Whether an admission should wait for a check newer than the last.
    pub(crate) fn needs_fresh(&self, now: Duration, settings: &Settings) -> bool {
        match &self.last {
            Some(last) if self.stopped.is_none() => now.saturating_sub(last.at) > self.refresh_age(settings),
            _ => false,
        }
    }

    /// What readers of the gate need to know.
    pub(crate) fn publication(&self, limits: &ResourceLimits, settings: &Settings) -> Publication {
        let at = self.last.as_ref().map(|last| last.at);
        Publication {
            open_until: match self.reason_but_stale(limits) {
                Reason::Accepting => at.map(|at| at.saturating_add(self.max_age(settings))),
                _ => None,
            },
            refresh_at: at.filter(|_| self.running).map(|at| {
                let next_check = at.saturating_add(self.refresh_age(settings));
                next_check.min(self.next_memory(settings).unwrap_or(next_check))
            }),
            degraded: self.breaker.is_degraded(),
            last_success: self.last_success,
        }
    }

    /// When the thread's next check is due, its last one having been taken at `last_own_check`. The thread keeps its own
    /// time, and keeps its distance from everybody's checks.
    pub(crate) fn next_check(
        &self,
        last_own_check: Duration,
        demanded: bool,
        limits: &ResourceLimits,
        settings: &Settings,
    ) -> Duration {
        let timer = match self.breaker.failures() {
            0 => cadence::timer(self.interval, self.time_left(limits)),
            // What fails is not tried more often, whatever it was doing before.
            _ => self.breaker.delay(self.interval),
        };
        let floor = cadence::floor(timer, self.gap(settings), self.breaker.is_degraded());
        let earliest = self.last.as_ref().map_or(Duration::ZERO, |last| last.ended.saturating_add(floor));
        if demanded {
            earliest
        } else {
            earliest.max(last_own_check.saturating_add(timer))
        }
    }

    /// Memory was read alone, between two checks: the gate follows it. Levels and the log are for checks, and so is the age
    /// of the answer, which is that of the processes. What could not be read is left to the next check to report.
    pub(crate) fn record_memory(&mut self, memory: &Found, now: Duration, cpu: Duration) {
        self.memory_cpu = cpu;
        for resource in MEMORY {
            let Ok(Some(amount)) = memory.get(resource) else { continue };
            self.climb(resource, amount, now);
            if let Some(Last { found: Ok(found), .. }) = &mut self.last {
                *found.get_mut(resource) = Ok(Some(amount.clone()));
            }
            if resource == Resource::Memory {
                self.memory_at = now;
            }
        }
    }

    /// When memory is due to be read, be it alone: as the next check would be if it cost nothing, which a reading of
    /// memory alone does next to.
    pub(crate) fn next_memory_reading(
        &self,
        demanded: bool,
        limits: &ResourceLimits,
        settings: &Settings,
    ) -> Option<Duration> {
        let on_demand = self.next_memory(settings)?;
        let time_left = MEMORY.into_iter().filter_map(|resource| self.time_left_of(resource, limits)).min();
        let climbing = time_left.map(|time_left| {
            let timer = cadence::timer(self.interval, Some(time_left));
            self.memory_at.saturating_add(timer.max(self.memory_gap()))
        });
        climbing.into_iter().chain(Some(on_demand).filter(|_| demanded)).min()
    }

    /// When memory is too old for a caller who asks; `None` when it cannot be read alone. In scope `Tree` that takes a
    /// whole check, and a check that failed is for a whole one to mend.
    fn next_memory(&self, settings: &Settings) -> Option<Duration> {
        let readable = self.running && settings.memory_scope == MemoryScope::Own && self.breaker.failures() == 0;
        readable.then(|| self.memory_at.saturating_add(settings.refresh_after.max(self.memory_gap())))
    }

    /// The least time between two readings of memory alone, whoever asks for them.
    pub(crate) fn memory_gap(&self) -> Duration {
        cadence::memory_gap(self.memory_cpu)
    }

    /// The shortest time that a climbing resource has left to its warning threshold.
    fn time_left(&self, limits: &ResourceLimits) -> Option<Duration> {
        Resource::ALL.into_iter().filter_map(|resource| self.time_left_of(resource, limits)).min()
    }

    fn time_left_of(&self, resource: Resource, limits: &ResourceLimits) -> Option<Duration> {
        let threshold = threshold::least_reaching(self.limit(resource, limits)?, limits.thresholds().warn);
        self.climbs.get(resource).time_to(threshold)
    }

    /// The age up to which a check is not stale.
    pub(crate) fn max_age(&self, settings: &Settings) -> Duration {
        settings.max_age.unwrap_or_else(|| cadence::default_max_age(self.interval, self.gap(settings)))
    }

    pub(crate) fn settle(&self, settings: &Settings) -> Duration {
        settings.settle.unwrap_or(self.interval)
    }

    /// The least time that the CPU budget puts between checks.
    pub(crate) fn gap(&self, settings: &Settings) -> Duration {
        self.last.as_ref().map_or(Duration::ZERO, |last| cadence::gap(last.cpu, settings.cpu_budget))
    }

    fn refresh_age(&self, settings: &Settings) -> Duration {
        cadence::refresh_age(settings.refresh_after, self.gap(settings), self.breaker.is_degraded())
    }

    /// The level of a reading that follows the stored levels. Only [`record`](Self::record) stores it: a limit that
    /// changes between checks is judged at once, and judging twice is judging once.
    fn level(&self, resource: Resource, amount: &Amount, limits: &ResourceLimits) -> Level {
        let limit = limit(resource, amount, limits);
        threshold::step(*self.levels.get(resource), amount.usage, limit, limits.thresholds())
    }

    fn reason(&self, now: Duration, limits: &ResourceLimits, settings: &Settings) -> Reason {
        let reason = self.reason_but_stale(limits);
        let age = self.last.as_ref().map_or(Duration::ZERO, |last| now.saturating_sub(last.at));
        let max_age = self.max_age(settings);
        match reason {
            Reason::Accepting | Reason::Usage { .. } if age > max_age => Reason::Stale { age, max_age },
            reason => reason,
        }
    }

    /// Everything that the gate depends on but the time.
    fn reason_but_stale(&self, limits: &ResourceLimits) -> Reason {
        if self.forked {
            return Reason::Forked;
        }
        match self.stopped {
            Some(Stopped::Asked) => return Reason::Stopped,
            Some(Stopped::Died(thread)) => return Reason::Died { thread },
            None => {}
        }
        let found = match &self.last {
            None => return Reason::NeverChecked,
            Some(Last { found: Err(error), .. }) if self.breaker.is_degraded() => {
                return Reason::Degraded { failures: self.breaker.failures(), error: Some(error.clone()) };
            }
            Some(Last { found: Err(error), .. }) => return Reason::Failed { error: Some(error.clone()) },
            Some(Last { found: Ok(found), .. }) => found,
        };
        let closing = Resource::ALL.into_iter().find_map(|resource| {
            let threshold = self.closing_threshold(resource, amount(found, resource)?, limits)?;
            Some(Reason::Usage { resource, threshold })
        });
        closing.unwrap_or(Reason::Accepting)
    }

    fn closing_threshold(&self, resource: Resource, amount: &Amount, limits: &ResourceLimits) -> Option<Threshold> {
        let limit = limit(resource, amount, limits)?;
        let thresholds = limits.thresholds();
        let total = u128::from(amount.usage) + u128::from(self.reservations.of(resource));
        if threshold::reaches(total, limit, thresholds.warn) {
            return Some(Threshold::Warning(thresholds.warn));
        }
        match self.level(resource, amount, limits) {
            Level::Normal => None,
            // Below the warning threshold and yet not normal: held by hysteresis.
            Level::Warning | Level::Critical => thresholds.resume.map(Threshold::Resume),
        }
    }

    /// What stands against each limit; `None` where nothing was read.
    fn usages(&self, asked: &Work, limits: &ResourceLimits) -> PerResource<Option<Usage>> {
        let found = self.last.as_ref().and_then(|last| last.found.as_ref().ok());
        PerResource::from_fn(|resource| {
            let amount = amount(found?, resource)?;
            Some(Usage {
                measured: amount.usage,
                reserved: self.reservations.of(resource),
                asked: asked.of(resource),
                limit: limit(resource, amount, limits),
                group: amount.group.clone(),
            })
        })
    }

    /// The limit that work has to fit below, as far as it is known.
    fn limit(&self, resource: Resource, limits: &ResourceLimits) -> Option<u64> {
        let found = self.last.as_ref().and_then(|last| last.found.as_ref().ok());
        match found.and_then(|found| amount(found, resource)) {
            Some(amount) => limit(resource, amount, limits),
            None if resource.is_required() => limits.limit(resource),
            // What is not known of an optional resource refuses nothing.
            None => None,
        }
    }

    fn unread(&self) -> Vec<(Resource, Arc<Error>)> {
        let Some(Last { found: Ok(found), .. }) = &self.last else { return Vec::new() };
        let error = |resource| Some((resource, unread(found.get(resource))?.clone()));
        Resource::ALL.into_iter().filter_map(error).collect()
    }

    fn explain(&self, reason: Reason, asked: &Work, limits: &ResourceLimits, settings: &Settings) -> Verdict {
        let checking = !matches!(reason, Reason::Forked | Reason::Stopped | Reason::Died { .. } | Reason::NeverChecked);
        let gap = self.gap(settings);
        let unreachable = settings.max_age.filter(|max_age| checking && *max_age < gap).map(|max_age| (max_age, gap));
        let late = self.last.as_ref().filter(|_| checking).and_then(|last| last.late);
        let unread = if checking { self.unread() } else { Vec::new() };
        let verdict = Verdict::new(reason).with_usages(self.usages(asked, limits)).with_unread(unread);
        verdict.with_unreachable_age(unreachable).with_lateness(late)
    }
}

impl Report {
    /// The check as shedding sees it.
    pub(crate) fn checked(&self) -> shed::Checked {
        shed::Checked {
            at: self.at,
            good: self.good,
            degraded: self.degraded,
            critical: self.critical.clone(),
            all_normal: Resource::ALL.iter().all(|resource| *self.levels.get(*resource) == Level::Normal),
        }
    }
}

/// The resources that are cheap enough to be read alone, between two checks.
const MEMORY: [Resource; 3] = [Resource::Memory, Resource::CgroupMemory, Resource::MemoryPressure];

fn amount(found: &Found, resource: Resource) -> Option<&Amount> {
    found.get(resource).as_ref().ok()?.as_ref()
}

/// Why something of the resource was not read.
fn unread(found: &Optional<Amount>) -> Option<&Arc<Error>> {
    match found {
        Ok(amount) => amount.as_ref()?.unread.as_ref(),
        Err(error) => Some(error),
    }
}

/// The limit that binds: the host's or the kernel's, whichever is less.
fn limit(resource: Resource, amount: &Amount, limits: &ResourceLimits) -> Option<u64> {
    limits.limit(resource).into_iter().chain(amount.limit).min()
}

/// Why the check failed: the first required resource that was not read.
fn failure(found: &Found) -> Option<Arc<Error>> {
    let mut required = Resource::ALL.into_iter().filter(|resource| resource.is_required());
    required.find_map(|resource| match found.get(resource) {
        Ok(Some(_)) => None,
        Ok(None) => Some(Arc::new(Error::new(ErrorKind::Read, format!("{resource} not read")))),
        Err(error) => Some(error.clone()),
    })
}

#[cfg(test)]
mod tests;
