//! The time of the next check, and of the next reading of memory alone.

use std::time::Duration;

use super::shares::Seat;
use super::{cadence, limit, Judgement};
use crate::vocabulary::{Exhaustion, MemoryScope, Resource, ResourceLimits, Unit};

impl Judgement {
    /// Whether the last check is too old to admit work by.
    pub(crate) fn needs_fresh(&self, now: Duration) -> bool {
        match &self.last {
            Some(last) if self.stopped.is_none() => now.saturating_sub(last.at) > self.refresh_age(),
            _ => false,
        }
    }

    /// The time of the check thread's next check, after its last one at `last_own_check`.
    ///
    /// The interval counts from the thread's own checks, because callers' checks would else put off those that nobody
    /// asked for. The distance that the CPU budget asks for counts from the last check of anybody. While somebody waits
    /// for room, or usage closes the gate, checks come as if they were asked for all the time.
    pub(crate) fn next_check(&self, last_own_check: Duration, demanded: bool, limits: &ResourceLimits) -> Duration {
        let timer = match self.breaker.failures() {
            0 => cadence::timer(self.interval, self.time_left(limits)),
            // A failing check is not tried more often because usage was climbing before.
            _ => self.breaker.delay(self.interval),
        };
        let floor = cadence::floor(timer, self.gap(), self.breaker.is_degraded());
        let ended = self.last.as_ref().map_or_else(Default::default, |last| last.ended);
        let earliest = ended.saturating_add(floor);
        if demanded {
            return earliest;
        }
        let mut due = last_own_check.saturating_add(timer);
        let room = &self.admission.room;
        // Those below wait for what this process has seen.
        let is_watching = room.seat().is_some_and(Seat::is_watching_others);
        let do_others_wait = room.seat().is_some_and(Seat::do_others_wait);
        if room.has_waiters() || do_others_wait {
            let is_elsewhere = !do_others_wait && room.is_left_to_watchers();
            due = due.min(ended.saturating_add(cadence::waited_gap(self.gap(), is_elsewhere)));
        }
        if is_watching || self.is_closed_until_checked(limits) {
            due = due.min(ended.saturating_add(self.refresh_age()));
        }
        due.max(earliest)
    }

    /// How long the check thread may sleep without a look at when its next check is due. Nobody tells a watcher of those
    /// who begin to take part, and what it has seen before they did is soon too old for them.
    pub(crate) fn longest_sleep(&self) -> Duration {
        let is_watching_nobody = self.admission.room.seat().is_some_and(Seat::is_watching_nobody);
        if is_watching_nobody {
            self.refresh_age()
        } else {
            Duration::MAX
        }
    }

    /// The time of the next reading of memory without a check; `None` when memory is neither asked for nor climbing, or
    /// cannot be read alone. The CPU budget is left out: such a reading costs microseconds.
    pub(crate) fn next_memory_reading(&self, demanded: bool, limits: &ResourceLimits) -> Option<Duration> {
        let on_demand = self.next_memory()?;
        // Whoever waits for what has no limit does not wait for memory.
        let is_limited = Resource::read_alone().any(|resource| self.bounds(resource, limits).is_some());
        if is_limited && self.admission.room.has_waiters() && !self.admission.room.is_left_to_watchers() {
            let gap = cadence::waited_memory_gap(self.memory_cpu, self.memory_unchanged);
            return Some(self.memory_at.saturating_add(gap));
        }
        let demanded = demanded || self.is_closed_until_checked(limits);
        let time_left = Resource::read_alone().filter_map(|resource| self.time_left_of(resource, limits)).min();
        let climbing = time_left.map(|time_left| {
            let timer = cadence::timer(self.interval, Some(time_left));
            self.memory_at.saturating_add(timer.max(self.memory_gap()))
        });
        climbing.into_iter().chain(Some(on_demand).filter(|_| demanded)).min()
    }

    /// The time from which memory is too old for a caller who asks; `None` when it cannot be read alone. Scope `Tree`
    /// needs a whole check, and so does a monitor whose last check failed.
    pub(super) fn next_memory(&self) -> Option<Duration> {
        let readable = self.running && self.settings.memory_scope == MemoryScope::Own && self.breaker.failures() == 0;
        readable.then(|| self.memory_at.saturating_add(self.settings.refresh_after.max(self.memory_gap())))
    }

    /// Returns `true` if a caller who finds the last check old takes the next one: it is cheap, and the CPU budget
    /// allows it.
    pub(crate) fn may_check_inline(&self, now: Duration) -> bool {
        self.is_inline() && self.last.as_ref().is_some_and(|last| now >= last.ended.saturating_add(self.gap()))
    }

    /// Returns `true` if a caller who finds the last check old reads memory, while a check would be too early.
    pub(crate) fn may_read_memory_inline(&self, now: Duration) -> bool {
        self.is_inline() && self.next_memory().is_some_and(|due| now >= due)
    }

    fn is_inline(&self) -> bool {
        let Some(last) = &self.last else { return false };
        self.running && last.found.is_ok() && !last.cpu.is_zero() && last.cpu <= self.settings.inline_check
    }

    /// Returns `true` if memory can be read alone, and was not for longer than a refusal may be judged by, at this time
    /// of the precise clock.
    pub(crate) fn is_memory_old(&self, precise_now: Duration) -> bool {
        self.is_memory_readable() && precise_now.saturating_sub(self.memory_read_at) > cadence::REFUSED_BY
    }

    /// Returns `true` if memory can be read alone, and the gate follows it.
    pub(crate) fn is_memory_readable(&self) -> bool {
        self.settings.memory_scope == MemoryScope::Own && self.found().is_some() && self.stopped.is_none()
    }

    /// The least time between two readings of memory alone, whoever asks for them.
    pub(crate) fn memory_gap(&self) -> Duration {
        cadence::memory_gap(self.memory_cpu)
    }

    /// The shortest time that a climbing resource has left to its warning threshold.
    pub(super) fn time_left(&self, limits: &ResourceLimits) -> Option<Duration> {
        Resource::ALL.into_iter().filter_map(|resource| self.time_left_of(resource, limits)).min()
    }

    /// The least memory that closes the gate, with what is reserved now; `u64::MAX` without a limit.
    pub(crate) fn memory_closes_from(&self, limits: &ResourceLimits) -> u64 {
        let bounds = self.bounds(Resource::Memory, limits);
        bounds.map_or(u64::MAX, |bounds| bounds.resume.saturating_sub(self.reserved(Resource::Memory)))
    }

    /// The resource that is used up first as things go, and how much later than `now`.
    pub(crate) fn exhaustion(&self, now: Duration, limits: &ResourceLimits) -> Option<Exhaustion> {
        let found = self.found()?;
        let full = |resource: Resource| {
            // Pressure fills nothing up.
            let limit = limit(resource, found, limits).filter(|_| resource.facts().unit != Unit::Percent)?;
            let (soonest, at_mean_rate, since) = self.climbs.get(resource).times_to_full(limit)?;
            let left = |time: Duration| time.saturating_sub(now.saturating_sub(since));
            Exhaustion::new(self.named(resource), left(soonest), left(at_mean_rate))
        };
        Resource::ALL.into_iter().filter_map(full).min_by_key(|exhaustion| exhaustion.soonest)
    }

    /// The time that a resource has left to its warning threshold; `None` when it does not grow or has no limit.
    fn time_left_of(&self, resource: Resource, limits: &ResourceLimits) -> Option<Duration> {
        self.climbs.get(resource).time_to(self.bounds(resource, limits)?.warn)
    }

    /// The age up to which a check is not stale.
    pub(crate) fn max_age(&self) -> Duration {
        self.settings.max_age.unwrap_or_else(|| cadence::default_max_age(self.interval, self.gap()))
    }

    /// The time that a shed is given to take effect, and a fall to hold.
    pub(crate) fn settle(&self) -> Duration {
        self.settings.settle.unwrap_or(self.interval)
    }

    /// The least time that the CPU budget puts between checks.
    pub(crate) fn gap(&self) -> Duration {
        self.last.as_ref().map_or(Duration::ZERO, |last| cadence::gap(last.cpu, self.settings.cpu_budget))
    }

    /// The age beyond which a reader asks for a fresh check.
    pub(super) fn refresh_age(&self) -> Duration {
        cadence::refresh_age(self.settings.refresh_after, self.gap(), self.breaker.is_degraded())
    }
}
