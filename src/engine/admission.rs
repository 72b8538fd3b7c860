//! Admission, on the threads of those who ask: at once, or after a wait for room.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::caller::check_if_old;
use super::core::{Core, Shared};
use super::holders::Held;
use super::permits::Grant;
use super::waiters::Answer;
use crate::judgement::queue::Ticket;
use crate::judgement::Judgement;
use crate::sys::Latch;
use crate::vocabulary::{Holding, Reason, Resource, ResourceLimits, Verdict, Waited, Work, NAMED};

/// The times between which the waiters of a monitor that is not running take a check.
const OWN_CHECKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Judges the work on a fresh enough reading, taking one if need be, and reserves its cost.
pub(crate) fn try_admit(shared: &Arc<Shared>, work: &Work) -> Result<Grant, Verdict> {
    let core = shared.current().ok_or_else(|| Verdict::new(Reason::Forked))?;
    let work = &core.admission.room.of_own_gauges(work);
    if !core.admission.try_grant(work, core.now()) {
        check_if_old(shared, core);
        core.admit_freshly(work, |_, verdict| verdict)?;
    }
    Ok(core.hold(work))
}

/// As [`try_admit`], but where it would be refused and waiting can help it waits, at most for `timeout`.
pub(crate) fn admit(shared: &Arc<Shared>, work: &Work, timeout: Duration) -> Result<Grant, Verdict> {
    let core = shared.current().ok_or_else(|| Verdict::new(Reason::Forked))?;
    let began = core.config.clock.instant();
    let work = &core.admission.room.of_own_gauges(work);
    if core.admission.try_grant(work, core.now()) {
        return Ok(core.hold(work));
    }
    check_if_old(shared, core);
    let mut waiter = None;
    let enqueue = |judgement: &Judgement, verdict: Verdict| {
        if !verdict.could_never_fit() && !judgement.is_hopeless() && !timeout.is_zero() {
            waiter = Some(core.enqueue(judgement, work));
        }
        verdict
    };
    if let Err(refusal) = core.admit_freshly(work, enqueue) {
        // A time that the clock cannot name is no deadline.
        let deadline = began.checked_add(timeout);
        waiter.ok_or(refusal)?.wait(shared, core, work, began, deadline)?;
    }
    Ok(core.hold(work))
}

impl Core {
    /// Admits work under the judgement's lock. What is cheap to read alone refuses nothing by an old reading: it is read
    /// again first. The refusal that stands is passed to `refused`, under the lock.
    fn admit_freshly<E>(&self, work: &Work, refused: impl FnOnce(&Judgement, Verdict) -> E) -> Result<(), E> {
        let mut is_fresh = false;
        loop {
            let limits = self.limits.get();
            let mut judgement = self.judgement.lock();
            let Err(verdict) = self.admit_judged(&mut judgement, work, &limits) else { return Ok(()) };
            let is_cheap = verdict.resource().is_some_and(|resource| resource.facts().read_alone);
            if is_fresh
                || verdict.could_never_fit()
                || !is_cheap
                || !judgement.is_memory_old(self.config.clock.fine_now())
            {
                return Err(refused(&judgement, verdict));
            }
            let patience = self.config.clock.patience(judgement.max_age());
            drop(judgement);
            self.single_flight.with(patience, |_| self.read_memory_if_old());
            is_fresh = true;
        }
    }

    /// Admits work if nobody waits whom it may not pass.
    fn admit_judged(&self, judgement: &mut Judgement, work: &Work, limits: &ResourceLimits) -> Result<(), Verdict> {
        let now = self.now();
        self.serve(judgement);
        let mut queue = self.queue.lock();
        if queue.bars(work, now) {
            return Err(judgement.refuse_behind(queue.len(), work, now, limits));
        }
        let mut admitted = judgement.admit(work, now, limits);
        if admitted.is_err() && self.note_ends(judgement, limits) {
            admitted = judgement.admit(work, now, limits);
        }
        if admitted.is_ok() {
            queue.was_passed_by(work);
        }
        admitted
    }

    /// Puts work into the queue. Announced first and looked for room for afterwards, so that whoever frees some meanwhile
    /// sees the waiter, or the waiter sees the room.
    fn enqueue(&self, judgement: &Judgement, work: &Work) -> Waiter {
        let latch = Arc::new(Latch::default());
        let is_first = self.admission.room.add_waiter();
        let ticket = self.queue.lock().push(*work, self.now(), Arc::clone(&latch));
        self.serve(judgement);
        if is_first {
            // The check thread sleeps as if nobody waited.
            self.bell.ring();
        }
        Waiter { latch, ticket }
    }
}

/// A caller that waits for room.
struct Waiter {
    latch: Arc<Latch>,
    ticket: Ticket,
}

impl Waiter {
    /// Waits until the room for the work is handed over, it cannot be any more, or the deadline has passed.
    fn wait(
        &self,
        shared: &Arc<Shared>,
        core: &Core,
        work: &Work,
        began: Instant,
        deadline: Option<Instant>,
    ) -> Result<(), Verdict> {
        let clock = &core.config.clock;
        loop {
            let until = if core.judgement.lock().is_running() {
                deadline
            } else {
                // Without a check thread, the waiters check.
                let next_check = clock.instant() + core.config.settings.refresh_after.clamp(OWN_CHECKS.0, OWN_CHECKS.1);
                Some(deadline.map_or(next_check, |deadline| deadline.min(next_check)))
            };
            if let Some(answer) = clock.wait_for(&self.latch, until) {
                return core.answered(Answer::from_number(answer), work, began);
            }
            if deadline.is_some_and(|deadline| clock.instant() >= deadline) {
                return self.give_up(core, work, began);
            }
            check_if_old(shared, core);
            core.serve_freshly();
        }
    }

    /// Leaves the queue, unless the room was handed over at the last moment.
    fn give_up(&self, core: &Core, work: &Work, began: Instant) -> Result<(), Verdict> {
        let limits = core.limits.get();
        let now = core.now();
        let judgement = core.judgement.lock();
        core.serve(&judgement);
        let ahead = core.queue.lock().ahead_of(self.ticket);
        let Some(ahead) = ahead.filter(|_| core.queue.lock().remove(self.ticket).is_some()) else {
            drop(judgement);
            // It left the queue with an answer.
            let answer = self.latch.wait(None).map_or(Answer::Closed, Answer::from_number);
            return core.answered(answer, work, began);
        };
        core.admission.room.remove_waiter();
        // What may not pass this one may be served now.
        core.serve(&judgement);
        let verdict = judgement.why_refused(work, ahead, now, &limits);
        let resource = verdict.resource();
        let (holdings, fits_once_ended) =
            resource.map_or_else(Default::default, |resource| core.who_holds(&judgement, resource, work, &limits));
        Err(verdict.with_waited(Waited {
            waited: core.config.clock.instant().saturating_duration_since(began),
            ahead,
            holdings,
            fits_once_ended,
        }))
    }
}

impl Core {
    /// The end of a wait. A grant takes no lock: whoever handed the room over may hold it still.
    fn answered(&self, answer: Answer, work: &Work, began: Instant) -> Result<(), Verdict> {
        if answer == Answer::Granted {
            return Ok(());
        }
        let (now, limits) = (self.now(), self.limits.get());
        let judgement = self.judgement.lock();
        let verdict = match judgement.verdict(now, &limits) {
            // It may have been started again since.
            verdict if answer == Answer::Closed && verdict.is_accepting() => Verdict::new(Reason::Stopped),
            verdict if answer == Answer::Closed => verdict,
            _ => judgement.why_refused(work, 0, now, &limits),
        };
        Err(verdict.with_waited(Waited {
            waited: self.config.clock.instant().saturating_duration_since(began),
            ..Waited::default()
        }))
    }

    /// The permits that hold most of a resource, the largest first, and the first of them whose end alone would make
    /// room for the work.
    fn who_holds(
        &self,
        judgement: &Judgement,
        resource: Resource,
        work: &Work,
        limits: &ResourceLimits,
    ) -> (Vec<Holding>, Option<Holding>) {
        let now = self.now();
        let held = self.holders.all();
        let amount = |held: &Held, resource| match held.attached {
            Some((id, _)) => judgement.held(id, resource),
            None => held.work.of(resource),
        };
        let mut largest: Vec<&Held> = held.iter().filter(|held| amount(held, resource) > 0).collect();
        largest.sort_by_key(|held| std::cmp::Reverse(amount(held, resource)));
        largest.truncate(NAMED);
        let holding = |held: &Held| Holding {
            resource,
            amount: amount(held, resource),
            label: held.work.label_of(),
            pid: held.attached.map(|(_, pid)| pid),
            held_for: now.saturating_sub(held.since),
        };
        let mut by_size = largest.iter();
        let fits = by_size.find(|held| judgement.fits_without(work, |resource| amount(held, resource), limits));
        (largest.iter().map(|held| holding(held)).collect(), fits.map(|held| holding(held)))
    }
}
