//! The time of the next check, and of the next reading of memory alone.

use std::time::Duration;

use super::{cadence, threshold, Judgement};
use crate::vocabulary::{MemoryScope, Resource, ResourceLimits, Thresholds};

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
    /// asked for. The distance that the CPU budget asks for counts from the last check of anybody.
    pub(crate) fn next_check(&self, last_own_check: Duration, demanded: bool, limits: &ResourceLimits) -> Duration {
        let timer = match self.breaker.failures() {
            0 => cadence::timer(self.interval, self.time_left(limits)),
            // A failing check is not tried more often because usage was climbing before.
            _ => self.breaker.delay(self.interval),
        };
        let floor = cadence::floor(timer, self.gap(), self.breaker.is_degraded());
        let earliest = self.last.as_ref().map_or(Duration::ZERO, |last| last.ended.saturating_add(floor));
        if demanded {
            earliest
        } else {
            earliest.max(last_own_check.saturating_add(timer))
        }
    }

    /// The time of the next reading of memory without a check; `None` when memory is neither asked for nor climbing, or
    /// cannot be read alone. The CPU budget is left out: such a reading costs microseconds.
    pub(crate) fn next_memory_reading(&self, demanded: bool, limits: &ResourceLimits) -> Option<Duration> {
        let on_demand = self.next_memory()?;
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
        let Some(limit) = self.limit(Resource::Memory, limits) else { return u64::MAX };
        let Thresholds { warn, resume, .. } = limits.thresholds();
        let threshold = threshold::least_reaching(limit, resume.unwrap_or(warn));
        threshold.saturating_sub(self.reservations.of(Resource::Memory))
    }

    /// The time that a resource has left to its warning threshold; `None` when it does not grow or has no limit.
    fn time_left_of(&self, resource: Resource, limits: &ResourceLimits) -> Option<Duration> {
        let threshold = threshold::least_reaching(self.limit(resource, limits)?, limits.thresholds().warn);
        self.climbs.get(resource).time_to(threshold)
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
