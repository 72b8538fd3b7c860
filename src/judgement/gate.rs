//! The gate: its state and reason, the admission of work, and what readers without a lock see of it.

use std::sync::Arc;
use std::time::Duration;

use super::room::Released;
use super::row::Left;
use super::watching::{Shown, ShownLimit};
use super::word::Publication;
use super::{amount, bounds, floor, judged_as, limit, unread_error, Judgement, Last, Stopped};
use crate::vocabulary::{
    Class, Error, ErrorKind, Found, Level, PerResource, Reason, Resource, ResourceLimits, Threshold, Usage, Verdict,
    Work,
};

/// The cause of a fall in what attached permits have reserved.
#[derive(Debug, Clone, Copy)]
enum Fall {
    /// A check has measured it, as the others have yet to do.
    Measured,
    /// Nothing of it is left.
    Ended,
}

impl Judgement {
    /// The state of the gate and its reason, from one reading.
    pub(crate) fn verdict(&self, now: Duration, limits: &ResourceLimits) -> Verdict {
        let reason = self.reason(Class::Normal, now, limits);
        // A check that says nothing of now says nothing of later either.
        let is_current = matches!(reason, None | Some(Reason::Usage { .. }));
        let exhaustion = if is_current { self.exhaustion(now, limits) } else { None };
        let verdict = self.explain(reason.unwrap_or(Reason::Accepting), &Work::new(), limits);
        self.given_or(verdict.with_exhaustion(exhaustion))
    }

    /// Grants and reserves the work, or says why not.
    pub(crate) fn admit(&self, work: &Work, now: Duration, limits: &ResourceLimits) -> Result<(), Verdict> {
        // An asker without the lock holds for an instant what it is about to give back.
        const ATTEMPTS: usize = 10;
        let misfit = self.misfit(work, limits);
        let mut attempts = 0;
        loop {
            if let Some(reason) = self.refusal(work, misfit, now, limits) {
                return Err(self.refuse(reason, work, limits));
            }
            match self.admission.room.try_reserve(work) {
                Ok(()) => return Ok(()),
                Err(resource) if attempts == ATTEMPTS => {
                    let (resource, hard) = (self.named(resource), limits.thresholds_of(resource).hard);
                    return Err(self.refuse(Reason::TooMuch { resource, hard }, work, limits));
                }
                Err(_) => attempts += 1,
            }
        }
    }

    /// Takes the ledger as a check has found it: one that cannot be used closes the gate.
    pub(crate) fn note_ledger(&mut self, error: Option<Error>) {
        self.is_ledger_news |= self.ledger_error.is_some() != error.is_some();
        self.ledger_error = error.map(Arc::new);
    }

    /// The verdict on work that is refused for this reason.
    pub(crate) fn refuse(&self, reason: Reason, work: &Work, limits: &ResourceLimits) -> Verdict {
        // A closed gate compared nothing with what was asked.
        let asked = if matches!(reason, Reason::TooMuch { .. } | Reason::Watched(_)) { *work } else { Work::new() };
        self.given_or(self.explain(reason, &asked, limits).with_never_fits(self.could_never_fit(work, limits)))
    }

    /// The verdict on work behind this many waiters, the first of which may not be passed.
    pub(crate) fn refuse_behind(&self, waiters: usize, work: &Work, now: Duration, limits: &ResourceLimits) -> Verdict {
        let reason = self.reason(work.class_of(), now, limits).unwrap_or(Reason::Behind { waiters });
        self.refuse(reason, work, limits)
    }

    /// The verdict on work that has waited in vain behind this many others.
    pub(crate) fn why_refused(&self, work: &Work, ahead: usize, now: Duration, limits: &ResourceLimits) -> Verdict {
        let reason = self.refusal(work, self.misfit(work, limits), now, limits);
        self.refuse(reason.unwrap_or(Reason::Behind { waiters: ahead }), work, limits)
    }

    /// Returns `true` if the work would be granted, were this much of each resource given back.
    pub(crate) fn fits_without(&self, work: &Work, freed: impl Fn(Resource) -> u64, limits: &ResourceLimits) -> bool {
        let Some(found) = self.found() else { return false };
        Resource::ALL.into_iter().all(|resource| {
            let (Some(amount), Some(bounds)) = (amount(found, resource), bounds(resource, found, limits)) else {
                return true;
            };
            let total = u128::from(amount.usage) + u128::from(self.reserved(resource));
            let left = total.saturating_sub(freed(resource).into());
            let asked = u128::from(work.of(resource));
            left < u128::from(bounds.of_class(work.class_of())) && left + asked < u128::from(bounds.hard)
        })
    }

    /// Returns `true` if the work is too much for the limits even with nothing else running.
    pub(crate) fn could_never_fit(&self, work: &Work, limits: &ResourceLimits) -> bool {
        self.misfit(work, limits).is_some() || self.admission.room.seat().is_some_and(|seat| seat.could_never_fit(work))
    }

    /// Returns `true` if nothing but a start, or a check of one's own in a forked child, opens the gate: nobody will
    /// take a check for those who wait.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.forked || self.stopped.is_some() || (self.last.is_none() && !self.running)
    }

    fn misfit(&self, work: &Work, limits: &ResourceLimits) -> Option<Resource> {
        let reaches_hard = |resource: &Resource| self.reaches_hard(*resource, work.of(*resource).into(), limits);
        Resource::ALL.into_iter().find(reaches_hard)
    }

    fn reaches_hard(&self, resource: Resource, usage: u128, limits: &ResourceLimits) -> bool {
        self.bounds(resource, limits).is_some_and(|bounds| usage >= u128::from(bounds.hard))
    }

    /// Whether so much more memory than was measured, whatever is reserved, reaches the hard threshold of a resource.
    pub(crate) fn is_too_much_memory(&self, bytes: u64, limits: &ResourceLimits) -> bool {
        let Some(found) = self.found() else { return false };
        let more = Work::new().memory_bytes(bytes);
        Resource::ALL.into_iter().any(|resource| {
            let measured = amount(found, resource).map_or(0, |amount| amount.usage);
            let more = more.of(resource);
            more > 0 && self.reaches_hard(resource, u128::from(measured) + u128::from(more), limits)
        })
    }

    /// The reason to refuse the work; `None` if there is none.
    fn refusal(&self, work: &Work, misfit: Option<Resource>, now: Duration, limits: &ResourceLimits) -> Option<Reason> {
        if let Some(closed) = self.reason(work.class_of(), now, limits) {
            return Some(closed);
        }
        let usages = self.usages(work, limits);
        let total = |resource| usages.get(resource).as_ref().map_or(0, Usage::total);
        let full = Resource::ALL.into_iter().find(|resource| self.reaches_hard(*resource, total(*resource), limits));
        // Of two resources that refuse, the one that always will is what the host must know of.
        let Some(resource) = misfit.or(full) else { return self.watched(work, now) };
        Some(Reason::TooMuch { resource: self.named(resource), hard: limits.thresholds_of(resource).hard })
    }

    /// Shows readers a new check, a start or a stop. Whoever holds the lock that guards the judgement publishes, so that
    /// words follow one another in the order of the judgements.
    pub(crate) fn publish_check(&mut self, limits: &ResourceLimits) {
        self.publish_room(limits, Fall::Measured);
        self.admission.word.publish_check(&self.publication());
    }

    /// As [`publish_check`](Self::publish_check), where no check was taken: a demand for one stands.
    pub(crate) fn publish_rejudged(&mut self, limits: &ResourceLimits) {
        self.publish_room(limits, Fall::Ended);
        self.admission.word.publish_rejudged(&self.publication());
    }

    fn publish_room(&mut self, limits: &ResourceLimits, fall: Fall) {
        let scope = self.settings.memory_scope;
        let attached = |resource| self.attached.reserved(resource, scope);
        let room = &self.admission.room;
        let falls = room
            .seat()
            .map(|seat| seat.raise_attached([attached(Resource::CgroupMemory), attached(Resource::CgroupPids)]));
        // Without a reading nothing is trusted; the room stays as it was, for whoever has looked at the trust just before.
        if let Some(found) = self.found() {
            room.publish(|resource| self.left(resource, found, attached(resource), limits), &self.seen);
            self.seen = Released::default();
        }
        let room = &self.admission.room;
        let (Some(seat), Some(falls)) = (room.seat(), falls) else { return };
        seat.set_seen(&self.marks);
        match fall {
            Fall::Measured => seat.release(falls),
            Fall::Ended => seat.end(falls),
        }
        if self.stopped.is_some() || self.forked {
            seat.look_away();
        } else {
            seat.watch(&self.shown(limits), &self.marks);
        }
    }

    /// The state that those below this process see of it.
    fn shown(&self, limits: &ResourceLimits) -> Shown {
        let found = self.found();
        let limits_of = |resource| ShownLimit {
            // What is reserved is in the slots. Without a reading nothing of it is shown.
            left: found.map_or(Left::UNLIMITED, |found| self.left(resource, found, 0, limits)),
            limit: found.and_then(|found| limit(resource, found, limits)).unwrap_or(u64::MAX),
        };
        let is_shut = |found: &Found, resource: &Resource| self.level(*resource, found, limits) != Level::Normal;
        let shut_by = found.and_then(|found| Resource::ALL.into_iter().find(|resource| is_shut(found, resource)));
        Shown {
            limits: [limits_of(Resource::Memory), limits_of(Resource::Processes)],
            // The two whose limits are shown shut the gate by these.
            closed_by: shut_by.filter(|resource| !matches!(resource, Resource::Memory | Resource::Processes)),
            trusted_until: self.publication().trusted_until,
        }
    }

    /// The part of a limit that is neither used nor reserved by attached permits.
    fn left(&self, resource: Resource, found: &Found, attached: u64, limits: &ResourceLimits) -> Left {
        let (Some(amount), Some(bounds)) = (amount(found, resource), bounds(resource, found, limits)) else {
            return Left::UNLIMITED;
        };
        // What is pushed to a gauge stands in its row of the room, up to the instant.
        let measured = if matches!(resource, Resource::Gauge(_)) { 0 } else { amount.usage };
        let usage = measured.saturating_add(attached);
        // Held by hysteresis, it is closed to all but the most important work, whatever usage is.
        let is_held = self.level(resource, found, limits) != Level::Normal;
        let below = |bound: u64| bound.saturating_sub(usage);
        let below_unless_held = |bound| if is_held { 0 } else { below(bound) };
        Left {
            background: below_unless_held(bounds.background),
            warn: below_unless_held(bounds.warn),
            hard: below(bounds.hard),
            usage,
            closes_from: if is_held && usage < bounds.warn { bounds.resume } else { bounds.warn },
        }
    }

    /// The trust in the last check for those who read it without a lock.
    pub(super) fn publication(&self) -> Publication {
        let at = self.last.as_ref().map(|last| last.at);
        let trusted = at.filter(|_| self.distrust_but_stale().is_none());
        Publication {
            trusted_until: trusted.map(|at| at.saturating_add(self.max_age())),
            fresh_until: trusted.map(|at| at.saturating_add(self.refresh_age().min(self.max_age()))),
            refresh_at: at.filter(|_| self.running).map(|at| {
                let next_check = at.saturating_add(self.refresh_age());
                next_check.min(self.next_memory().unwrap_or(next_check))
            }),
            degraded: self.breaker.is_degraded(),
            last_success: self.last_success,
        }
    }

    /// The reason why the gate is closed to work of this class; `None` while it is open.
    fn reason(&self, class: Class, now: Duration, limits: &ResourceLimits) -> Option<Reason> {
        let found = match self.distrust_but_stale() {
            Some(reason) => return Some(reason),
            None => self.found()?,
        };
        let age = self.last.as_ref().map_or(Duration::ZERO, |last| now.saturating_sub(last.at));
        let max_age = self.max_age();
        if age > max_age {
            return Some(Reason::Stale { age, max_age });
        }
        let by_usage = Resource::ALL.into_iter().find_map(|resource| {
            let threshold = self.closing_threshold(resource, class, found, limits)?;
            Some(Reason::Usage { resource: self.named(resource), threshold })
        });
        by_usage.or_else(|| self.watched(&Work::new().class(class), now))
    }

    /// The reason why a process that watches over this one has no room for the work.
    fn watched(&self, work: &Work, now: Duration) -> Option<Reason> {
        self.admission.room.seat()?.why_refused(work, now).map(Reason::Watched)
    }

    /// The reason why the last check says nothing of now, but for its age.
    fn distrust_but_stale(&self) -> Option<Reason> {
        if self.forked {
            return Some(Reason::Forked);
        }
        match self.stopped {
            Some(Stopped::Asked) => return Some(Reason::Stopped),
            Some(Stopped::Died(thread)) => return Some(Reason::Died { thread }),
            None => {}
        }
        if let Some(error) = &self.ledger_error {
            return Some(Reason::Ledger { error: error.clone() });
        }
        match &self.last {
            None => Some(Reason::NeverChecked),
            Some(Last { found: Err(error), .. }) if self.breaker.is_degraded() => {
                Some(Reason::Degraded { failures: self.breaker.failures(), error: error.clone() })
            }
            Some(Last { found: Err(error), .. }) => Some(Reason::Failed { error: error.clone() }),
            Some(Last { found: Ok(_), .. }) => None,
        }
    }

    /// Returns `true` if measured usage closes the gate, whatever is reserved, and a check may find that it does not any
    /// more. A gauge is known without one, unless hysteresis holds it, which only checks end.
    pub(super) fn is_closed_until_checked(&self, limits: &ResourceLimits) -> bool {
        let Some(found) = self.found() else { return false };
        let is_known = |resource: &Resource| {
            matches!(resource, Resource::Gauge(_)) && limits.thresholds_of(*resource).resume.is_none()
        };
        let mut unknown = Resource::ALL.into_iter().filter(|resource| !is_known(resource));
        unknown.any(|resource| self.level(resource, found, limits) != Level::Normal)
    }

    /// Returns `true` unless the gate is closed whatever is reserved: by measured usage, or because nothing is known. How old
    /// the last check is does not count.
    pub(crate) fn is_open_as_measured(&self, limits: &ResourceLimits) -> bool {
        let is_normal = |found: &Found| {
            Resource::ALL.into_iter().all(|resource| self.level(resource, found, limits) == Level::Normal)
        };
        self.distrust_but_stale().is_none() && self.found().map_or(true, is_normal)
    }

    fn closing_threshold(
        &self,
        resource: Resource,
        class: Class,
        found: &Found,
        limits: &ResourceLimits,
    ) -> Option<Threshold> {
        let (amount, bounds) = (amount(found, resource)?, bounds(resource, found, limits)?);
        let thresholds = limits.thresholds_of(resource);
        let total = u128::from(amount.usage) + u128::from(self.reserved(resource));
        let reaches = |bound: u64| total >= u128::from(bound);
        match class {
            Class::Critical => return reaches(bounds.hard).then_some(Threshold::Hard(thresholds.hard)),
            Class::Background if reaches(bounds.background) => {
                return Some(Threshold::Background(thresholds.background));
            }
            Class::Background | Class::Normal => {}
        }
        if reaches(bounds.warn) {
            return Some(Threshold::Warning(thresholds.warn));
        }
        match self.level(resource, found, limits) {
            Level::Normal => None,
            // Below the warning threshold and yet not normal: held by hysteresis.
            Level::Warning | Level::Critical => thresholds.resume.map(Threshold::Resume),
        }
    }

    /// The amount of a resource that permits have reserved, attached or not, those of other processes included.
    pub(super) fn reserved(&self, resource: Resource) -> u64 {
        let (others, _) = self.admission.room.reserved_by_others(resource);
        self.reserved_here(resource).saturating_add(others)
    }

    /// The same of this process alone.
    fn reserved_here(&self, resource: Resource) -> u64 {
        let attached = self.attached.reserved(resource, self.settings.memory_scope);
        attached.saturating_add(self.admission.room.reserved(resource))
    }

    /// The amounts that stand against each limit; `None` where nothing was read.
    fn usages(&self, asked: &Work, limits: &ResourceLimits) -> PerResource<Option<Usage>> {
        let found = self.found();
        PerResource::from_fn(|resource| {
            let found = found?;
            let amount = amount(found, resource)?;
            // Read once: they reserve and give back meanwhile, and the sum says what is reserved here.
            let others = self.admission.room.reserved_by_others(resource);
            Some(Usage {
                measured: amount.usage,
                reserved: self.reserved_here(resource).saturating_add(others.0),
                others,
                asked: asked.of(resource),
                limit: limit(resource, found, limits),
                floor: floor(resource, limits),
                place: amount.place.clone(),
                gauge: self.gauges.name_of(resource),
                judged_as: judged_as(resource, found, limits),
            })
        })
    }

    /// The resources that are not judged although they should be, or not in full, and why.
    fn unread(&self, limits: &ResourceLimits) -> Vec<(Resource, Arc<Error>)> {
        let Some(found) = self.found() else { return Vec::new() };
        let error = |resource: Resource| match found.get(resource) {
            Ok(None) if limits.limit(resource).is_some() && !*self.settings.ignored.get(resource) => {
                Some(Arc::new(Error::new(ErrorKind::Read, "it is not told here, and has a limit")))
            }
            read => unread_error(read).cloned(),
        };
        Resource::ALL.into_iter().filter_map(|resource| Some((resource, error(resource)?))).collect()
    }

    /// This verdict, unless a test has given another.
    fn given_or(&self, verdict: Verdict) -> Verdict {
        #[cfg(feature = "testing")]
        if let Some(given) = &self.given {
            return given.clone();
        }
        verdict
    }

    fn explain(&self, reason: Reason, asked: &Work, limits: &ResourceLimits) -> Verdict {
        let checking = !matches!(
            reason,
            Reason::Forked | Reason::Stopped | Reason::Died { .. } | Reason::NeverChecked | Reason::Ledger { .. }
        );
        let gap = self.gap();
        let unreachable =
            self.settings.max_age.filter(|max_age| checking && *max_age < gap).map(|max_age| (max_age, gap));
        let late = self.last.as_ref().filter(|_| checking).and_then(|last| last.late);
        let unread = if checking { self.unread(limits) } else { Vec::new() };
        let kept = self.kept_by_allocator(&reason);
        let verdict = Verdict::new(reason).with_usages(self.usages(asked, limits)).with_unread(unread);
        verdict.with_unreachable_age(unreachable).with_lateness(late).with_kept_by_allocator(kept)
    }
}
