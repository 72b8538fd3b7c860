//! The gate: its state and reason, admission, and the words that readers see. A question changes nothing here; an
//! admission reserves.

use std::sync::Arc;
use std::time::Duration;

use super::{amount, judged_as, limit, threshold, unread_error, Judgement, Last, Stopped};
use crate::judgement::word::Publication;
use crate::vocabulary::{
    Error, Found, Level, PerResource, Reason, Resource, ResourceLimits, Threshold, Usage, Verdict, Work,
};

impl Judgement {
    /// The state of the gate and its reason, from one reading.
    pub(crate) fn verdict(&self, now: Duration, limits: &ResourceLimits) -> Verdict {
        self.explain(self.reason(now, limits), &Work::new(), limits)
    }

    /// Grants and reserves `work`, or says why not.
    pub(crate) fn admit(&mut self, work: &Work, now: Duration, limits: &ResourceLimits) -> Result<(), Verdict> {
        let hard = limits.thresholds().hard;
        let reaches = |resource: Resource, usage: u128| {
            self.limit(resource, limits).is_some_and(|limit| threshold::reaches(usage, limit, hard))
        };
        let misfit = Resource::ALL.into_iter().find(|resource| reaches(*resource, work.of(*resource).into()));
        let reason = match self.reason(now, limits) {
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
        Err(self.explain(reason, &asked, limits).with_never_fits(misfit.is_some()))
    }

    /// Takes a granted permit back; its cost stays reserved until a successful check numbered `next_number` or later.
    pub(crate) fn release(&mut self, work: &Work, next_number: u64) {
        self.reservations.release(work, next_number);
    }

    /// The state of the gate for those who read it without a lock.
    pub(crate) fn publication(&self, limits: &ResourceLimits) -> Publication {
        let at = self.last.as_ref().map(|last| last.at);
        Publication {
            open_until: match self.reason_but_stale(limits) {
                Reason::Accepting => at.map(|at| at.saturating_add(self.max_age())),
                _ => None,
            },
            refresh_at: at.filter(|_| self.running).map(|at| {
                let next_check = at.saturating_add(self.refresh_age());
                next_check.min(self.next_memory().unwrap_or(next_check))
            }),
            degraded: self.breaker.is_degraded(),
            last_success: self.last_success,
        }
    }

    fn reason(&self, now: Duration, limits: &ResourceLimits) -> Reason {
        let reason = self.reason_but_stale(limits);
        let age = self.last.as_ref().map_or(Duration::ZERO, |last| now.saturating_sub(last.at));
        let max_age = self.max_age();
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
                return Reason::Degraded { failures: self.breaker.failures(), error: error.clone() };
            }
            Some(Last { found: Err(error), .. }) => return Reason::Failed { error: error.clone() },
            Some(Last { found: Ok(found), .. }) => found,
        };
        let closing = Resource::ALL.into_iter().find_map(|resource| {
            let threshold = self.closing_threshold(resource, found, limits)?;
            Some(Reason::Usage { resource, threshold })
        });
        closing.unwrap_or(Reason::Accepting)
    }

    fn closing_threshold(&self, resource: Resource, found: &Found, limits: &ResourceLimits) -> Option<Threshold> {
        let (amount, limit) = (amount(found, resource)?, limit(resource, found, limits)?);
        let thresholds = limits.thresholds();
        let total = u128::from(amount.usage) + u128::from(self.reservations.of(resource));
        if threshold::reaches(total, limit, thresholds.warn) {
            return Some(Threshold::Warning(thresholds.warn));
        }
        match self.level(resource, found, limits) {
            Level::Normal => None,
            // Below the warning threshold and yet not normal: held by hysteresis.
            Level::Warning | Level::Critical => thresholds.resume.map(Threshold::Resume),
        }
    }

    /// The amounts that stand against each limit; `None` where nothing was read.
    fn usages(&self, asked: &Work, limits: &ResourceLimits) -> PerResource<Option<Usage>> {
        let found = self.found();
        PerResource::from_fn(|resource| {
            let found = found?;
            let amount = amount(found, resource)?;
            Some(Usage {
                measured: amount.usage,
                reserved: self.reservations.of(resource),
                asked: asked.of(resource),
                limit: limit(resource, found, limits),
                group: amount.group.clone(),
                judged_as: judged_as(resource, found, limits),
            })
        })
    }

    fn unread(&self) -> Vec<(Resource, Arc<Error>)> {
        let Some(found) = self.found() else { return Vec::new() };
        let error = |resource| Some((resource, unread_error(found.get(resource))?.clone()));
        Resource::ALL.into_iter().filter_map(error).collect()
    }

    fn explain(&self, reason: Reason, asked: &Work, limits: &ResourceLimits) -> Verdict {
        let checking = !matches!(reason, Reason::Forked | Reason::Stopped | Reason::Died { .. } | Reason::NeverChecked);
        let gap = self.gap();
        let unreachable =
            self.settings.max_age.filter(|max_age| checking && *max_age < gap).map(|max_age| (max_age, gap));
        let late = self.last.as_ref().filter(|_| checking).and_then(|last| last.late);
        let unread = if checking { self.unread() } else { Vec::new() };
        let verdict = Verdict::new(reason).with_usages(self.usages(asked, limits)).with_unread(unread);
        verdict.with_unreachable_age(unreachable).with_lateness(late)
    }
}
