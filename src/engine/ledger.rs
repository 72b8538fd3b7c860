//! The place of this process among those that share a ledger.

use std::sync::{Arc, OnceLock};

use super::core::Core;
use crate::judgement::shares::Seat;
use crate::judgement::slots::Words;
use crate::sys::ProcessMark;
use crate::vocabulary::{Error, MemoryScope};

/// The ledger, as the engine uses it.
pub(crate) trait SharedLedger: Send + Sync + std::fmt::Debug {
    /// The words that the processes share.
    fn words(&self) -> Arc<dyn Words>;

    /// Takes a slot that nobody has, for the calling process.
    ///
    /// # Errors
    /// Every slot is another process's, or the ledger cannot be used.
    fn take_slot(&self) -> Result<TakenSlot, Error>;

    /// Makes sure that the words are there, and that the slot is still this process's.
    fn look_after(&self, taken: &TakenSlot) -> Result<(), Astray>;

    /// Takes back what processes that are gone have reserved.
    ///
    /// # Errors
    /// It cannot be told who is gone, or the words of somebody who is not are damaged.
    fn bury_the_dead(&self) -> Result<(), Error>;

    /// Gives the slot back, and all that is reserved there.
    fn leave(&self, taken: &TakenSlot);
}

/// Why a slot may not be this process's.
#[derive(Debug)]
pub(crate) enum Astray {
    /// The ledger cannot be used any more, or the slot is lost.
    Lost(Error),
    /// The system has refused to say, which it may do for a moment: a lock that is held already takes memory to ask for.
    Unknown(Error),
}

/// A slot of this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TakenSlot {
    pub(crate) number: usize,
    /// The number of its burials when it was taken, by which a loss is known.
    pub(crate) burials: u64,
    /// Whether a process that this one was forked from has had a slot, and so watches over this one if any does.
    pub(crate) is_below_another: bool,
}

/// The part of one monitor in a ledger: nothing until its first check.
#[derive(Debug)]
pub(crate) struct Participation {
    ledger: Option<Arc<dyn SharedLedger>>,
    taken: OnceLock<TakenSlot>,
    mark: ProcessMark,
}

impl Participation {
    pub(super) fn new(ledger: Option<Arc<dyn SharedLedger>>) -> Participation {
        Participation { ledger, taken: OnceLock::new(), mark: ProcessMark::here() }
    }
}

impl Drop for Participation {
    fn drop(&mut self) {
        if let (Some(ledger), Some(taken), false) = (&self.ledger, self.taken.get(), self.mark.is_inherited()) {
            ledger.leave(taken);
        }
    }
}

impl Core {
    /// Before a check: takes a seat at the ledger if there is none yet, and looks whether it is still there. Returns why
    /// the ledger cannot be used. Callers take turns.
    pub(super) fn look_after_ledger(&self) -> Option<Error> {
        let Participation { ledger, taken, .. } = &self.participation;
        let ledger = ledger.as_ref()?;
        let Some(taken) = taken.get() else {
            return self.sit_down(&**ledger).err();
        };
        let seat = self.admission.room.seat()?;
        match ledger.look_after(taken) {
            Err(Astray::Lost(error)) => {
                seat.lose();
                Some(error)
            }
            _ if seat.is_lost() => Some(Error::ledger(None, "this process has lost its place in it")),
            Err(Astray::Unknown(error)) => Some(error),
            Ok(()) => ledger.bury_the_dead().err(),
        }
    }

    fn sit_down(&self, ledger: &dyn SharedLedger) -> Result<(), Error> {
        let slot = ledger.take_slot()?;
        let watches = self.config.settings.memory_scope == MemoryScope::Tree && !slot.is_below_another;
        if self.participation.taken.set(slot).is_err() {
            ledger.leave(&slot);
            return Ok(());
        }
        self.admission.room.sit(Seat::new(ledger.words(), slot.number, watches));
        // So that what those who are gone have left counts in no check.
        ledger.bury_the_dead()
    }
}
