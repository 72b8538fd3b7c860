//! Permits without a lock: the gate and the room, read and written by any thread at once.

use std::time::Duration;

use super::room::Room;
use super::word::ReadinessWord;
use crate::vocabulary::Work;

/// The state that a permit is granted by. The judgement writes it under its lock; askers read it, and reserve in it,
/// without.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) word: ReadinessWord,
    pub(crate) room: Room,
}

impl Default for Admission {
    fn default() -> Admission {
        Admission::new()
    }
}

impl Admission {
    /// Closed, and with room for everything.
    pub(crate) fn new() -> Admission {
        Admission { word: ReadinessWord::new(), room: Room::new() }
    }

    /// Returns `true` if work that costs nothing would be granted now.
    #[inline]
    pub(crate) fn is_open(&self, now: Duration) -> bool {
        self.word.is_trusted(now) && self.is_watched_well(now) && self.room.is_open()
    }

    /// The largest share of what closes the gate; infinity while nothing is known that can be trusted.
    pub(crate) fn pressure(&self, now: Duration) -> f64 {
        if self.word.is_trusted(now) {
            self.room.pressure(now)
        } else {
            f64::INFINITY
        }
    }

    /// Reserves the work if the last reading is fresh, the work fits, and nobody waits whose room it would take. `false`
    /// is no refusal: the judgement is to be asked, under its lock.
    #[inline]
    pub(crate) fn try_grant(&self, work: &Work, now: Duration) -> bool {
        if !self.is_fresh(now) || self.room.try_reserve(work).is_err() {
            return false;
        }
        // Looked at again after the room was taken. A gate that was closed before that is seen to be closed, and so is a
        // waiter that found no room because of what was just taken.
        let is_granted = self.is_fresh(now) && (!self.room.has_waiters() || work.is_free());
        if !is_granted {
            self.room.give_back(work);
        }
        is_granted
    }

    /// Returns `true` if work may be granted at `now`: by the last check, and by those who watch over this process.
    #[inline]
    pub(crate) fn is_fresh(&self, now: Duration) -> bool {
        self.word.is_fresh(now) && self.is_watched_well(now)
    }

    #[inline]
    fn is_watched_well(&self, now: Duration) -> bool {
        self.room.seat().map_or(true, |seat| seat.is_trusted(now))
    }

    /// Gives the room of work back of which nothing is left. Returns `true` if somebody waits, who is to be served.
    #[must_use]
    pub(crate) fn finish(&self, work: &Work) -> bool {
        self.room.give_back(work);
        self.room.has_waiters()
    }
}
