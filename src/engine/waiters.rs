//! The threads that wait for room: whatever makes some serves them, and whatever ends their hope tells them.
//!
//! The room is handed over. Whoever frees it grants the waiters that fit, in their order, and wakes exactly those. So
//! no thread is woken in vain, and none that comes later takes what was freed for one that waits.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use crate::host::events;
use crate::judgement::{End, Judgement, Stopped, LOOK_ELSEWHERE};
use crate::sys::child::{self, Child};
use crate::sys::Latch;
use crate::vocabulary::{ResourceLimits, Work};

/// The answer to a waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Its room is reserved.
    Granted = 1,
    /// The monitor was stopped.
    Closed = 2,
    /// The limits have become too small for it.
    NeverFits = 3,
}

impl Answer {
    /// The answer that was given as this number.
    pub(super) fn from_number(number: u32) -> Answer {
        match number {
            1 => Answer::Granted,
            2 => Answer::Closed,
            _ => Answer::NeverFits,
        }
    }
}

impl Core {
    /// Grants the waiters that fit into the room there is. Costs one load while nobody waits.
    pub(super) fn serve(&self, _judgement: &Judgement) {
        let room = &self.admission.room;
        let now = self.now();
        if !room.has_waiters() {
            return;
        }
        let mut is_first_left = None;
        // What cannot be trusted grants nothing; the next check will.
        if self.admission.is_fresh(now) {
            let reserve = |work: &Work| {
                let is_reserved = room.try_reserve(work).is_ok();
                if !is_reserved && is_first_left.is_none() {
                    is_first_left = Some(room.is_refused_by_watchers(work));
                }
                is_reserved
            };
            let tell = |waiter: Arc<Latch>| self.answer(&waiter, Answer::Granted);
            self.queue.lock().serve(now, reserve, tell);
        }
        room.leave_to_watchers(is_first_left == Some(true));
    }

    /// Serves by what other processes show, where that is all that is waited for. Returns the time until that is worth
    /// trying again; `None` where it is not.
    pub(super) fn serve_by_watchers(&self) -> Option<Duration> {
        let room = &self.admission.room;
        if !room.has_waiters() || !room.is_left_to_watchers() {
            return None;
        }
        self.serve(&self.judgement.lock());
        Some(LOOK_ELSEWHERE)
    }

    /// Gives this answer to the waiters whose work it is true of.
    fn dismiss(&self, _judgement: &Judgement, answer: Answer, is_told: impl Fn(&Work) -> bool) {
        if self.admission.room.has_waiters() {
            self.queue.lock().dismiss(is_told, |waiter| self.answer(&waiter, answer));
        }
    }

    fn answer(&self, waiter: &Latch, answer: Answer) {
        self.admission.room.remove_waiter();
        waiter.set(answer as u32);
    }

    /// After the judgement has changed: tells the waiters who can never be served, and serves those that can be now.
    pub(super) fn serve_under(&self, judgement: &mut Judgement, limits: &ResourceLimits) {
        if judgement.have_limits_changed(limits) {
            self.dismiss(judgement, Answer::NeverFits, |work| judgement.could_never_fit(work, limits));
        }
        self.serve(judgement);
        self.tell_gate(judgement, limits);
    }

    /// As [`serve`](Self::serve), by a reading of memory that is not old. Never waits for a check: whoever takes one
    /// serves as well.
    pub(super) fn serve_freshly(&self) {
        let is_enough = {
            let judgement = self.judgement.lock();
            self.serve(&judgement);
            !self.admission.room.has_waiters() || !judgement.is_memory_old(self.config.clock.fine_now())
        };
        if !is_enough {
            self.single_flight.try_with(|_| self.read_memory_if_old());
        }
    }

    /// Reads memory alone, which sees that of permits that were dropped, and serves whoever fits by that. Never waits:
    /// whoever is reading now is followed by another reading soon.
    pub(super) fn see_released(&self) {
        if self.judgement.lock().is_memory_readable() {
            self.single_flight.try_with(|_| self.read_memory_alone());
        }
    }

    /// Reads memory alone, and serves whoever fits by that, unless it was read just now.
    pub(super) fn read_memory_if_old(&self) {
        if self.judgement.lock().is_memory_old(self.config.clock.fine_now()) {
            self.read_memory_alone();
        }
    }

    /// Notes which children of attached permits have ended. Returns `true` if that has made room.
    pub(super) fn note_ends(&self, judgement: &mut Judgement, limits: &ResourceLimits) -> bool {
        judgement.note_ends(self.config.clock.fine_now(), end_of, limits)
    }

    /// Replaces the limits, and judges the last check by the new ones at once.
    pub(crate) fn update_limits(&self, limits: ResourceLimits) {
        let old = {
            let mut judgement = self.judgement.lock();
            let old = self.limits.set(limits.clone());
            judgement.publish_rejudged(&limits);
            self.serve_under(&mut judgement, &limits);
            old
        };
        if let Some(old) = old.filter(|old| *old != limits) {
            self.hooks.call_logger(None, || events::limits_updated(&old, &limits));
            // The next check moves the levels, logs them and sheds: soon, not after an interval.
            if self.admission.word.take_demand(Duration::MAX) {
                self.bell.ring();
            }
        }
    }

    /// Closes the gate until the next `begin`, for those who wait as well.
    pub(crate) fn close(&self, why: Stopped) {
        let mut judgement = self.judgement.lock();
        self.stopped.store(true, Relaxed);
        judgement.close(why);
        judgement.publish_check(&self.limits.get());
        self.dismiss(&judgement, Answer::Closed, |_| true);
        self.tell_gate(&judgement, &self.limits.get());
    }
}

/// Whether a child of ours has ended, as the kernel says without a check.
pub(super) fn end_of(pid: u32) -> End {
    match child::find(pid) {
        Child::Alive => End::NotYet,
        Child::Ended => End::Zombie,
        Child::Unknown => End::Over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_survives_being_a_number() {
        for answer in [Answer::Granted, Answer::Closed, Answer::NeverFits] {
            assert_eq!(Answer::from_number(answer as u32), answer);
        }
    }
}
