//! The shared memory of a ledger: its header, and who of the processes has which slot.
//!
//! A slot is its owner's for as long as the owner holds a lock on the byte of the file that has the slot's number. Nobody
//! waits for one: they are tried, and asked for.

use std::ffi::CStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;

use crate::engine::{Astray, SharedLedger, TakenSlot};
use crate::judgement::slots::{self, Slot, Words, SLOTS, WORDS};
use crate::sys::shared_memory::{FileIdentity, SharedMemory};
use crate::sys::{process, PerProcess};
use crate::vocabulary::Error;

/// The first words of a ledger. The first of all is `highwate` in the order of bytes of this machine.
const HEADER: [u64; 4] = [0x6869_6768_7761_7465, VERSION, SLOTS as u64, WORDS as u64];

/// Another one for every change of the words and what they mean.
const VERSION: u64 = 1;

/// The length of a ledger's file.
pub(super) const BYTES: u64 = (WORDS * std::mem::size_of::<u64>()) as u64;

/// One ledger, as this process and those forked from it have it open.
#[derive(Debug)]
pub(super) struct Table {
    memory: Arc<Memory>,
    path: Option<PathBuf>,
    claims: PerProcess<Claims>,
}

/// The words, as the judgement sees them.
#[derive(Debug)]
struct Memory(SharedMemory);

impl Words for Memory {
    #[cfg(not(all(test, shuttle)))]
    fn words(&self) -> &[std::sync::atomic::AtomicU64] {
        self.0.words()
    }

    // The model has words of its own.
    #[cfg(all(test, shuttle))]
    fn words(&self) -> &[shuttle::sync::atomic::AtomicU64] {
        &[]
    }
}

/// The slots that this process has locked: the kernel says of no process's locks to itself.
#[derive(Debug)]
struct Claims {
    slots: Vec<AtomicBool>,
    /// Whether a process that this one was forked from has had a slot.
    is_below_another: bool,
}

impl Claims {
    fn new(is_below_another: bool) -> Claims {
        Claims { slots: (0..SLOTS).map(|_| AtomicBool::new(false)).collect(), is_below_another }
    }

    /// The claims of a forked child, which has inherited no lock.
    fn inherit(parent: &Claims) -> Claims {
        let has_claimed = parent.slots.iter().any(|slot| slot.load(SeqCst));
        Claims::new(parent.is_below_another || has_claimed)
    }

    fn try_claim(&self, number: usize) -> bool {
        let slot = self.slots.get(number);
        slot.is_some_and(|slot| slot.compare_exchange(false, true, SeqCst, SeqCst).is_ok())
    }

    fn give_up(&self, number: usize) {
        if let Some(slot) = self.slots.get(number) {
            slot.store(false, SeqCst);
        }
    }
}

impl Table {
    pub(super) fn create() -> Result<Table, Error> {
        let name = CStr::from_bytes_with_nul(b"highwater-ledger\0").unwrap_or_default();
        let memory = SharedMemory::create(name, WORDS)
            .map_err(|error| Error::ledger_refused(None, "could not create it", error))?;
        for (word, value) in memory.words().iter().zip(HEADER) {
            word.store(value, SeqCst);
        }
        let table = Table::of(memory, None);
        table.try_lock_at_all()?;
        Ok(table)
    }

    /// The ledger in a file, which is as long as one.
    pub(super) fn map(file: File, path: &Path) -> Result<Table, Error> {
        let memory = SharedMemory::map(file, WORDS)
            .map_err(|error| Error::ledger_refused(Some(path), "could not map it", error))?;
        let table = Table::of(memory, Some(path.to_owned()));
        table.check_header()?;
        table.try_lock_at_all()?;
        Ok(table)
    }

    fn of(memory: SharedMemory, path: Option<PathBuf>) -> Table {
        Table { memory: Arc::new(Memory(memory)), path, claims: PerProcess::new(Claims::new(false)) }
    }

    pub(super) fn identity(&self) -> FileIdentity {
        self.memory.0.identity()
    }

    /// The bytes of a file that is to become a ledger.
    pub(super) fn blank() -> Vec<u8> {
        let mut bytes: Vec<u8> = HEADER.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.resize(WORDS * std::mem::size_of::<u64>(), 0);
        bytes
    }

    fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::ledger(self.path.as_deref(), what)
    }

    fn refused(&self, what: &str, error: std::io::Error) -> Error {
        Error::ledger_refused(self.path.as_deref(), what, error)
    }

    fn check_header(&self) -> Result<(), Error> {
        let words = self.memory.0.words().iter().map(|word| word.load(SeqCst));
        let found: Vec<u64> = words.take(HEADER.len()).collect();
        match (found.first(), found.get(1)) {
            (Some(magic), _) if *magic != HEADER[0] => Err(self.error("it is not a ledger")),
            (_, Some(version)) if *version != VERSION => {
                Err(self.error(format!("it is of version {version}, and this one is {VERSION}")))
            }
            _ if found != HEADER => Err(self.error("it is damaged: its header is not that of a ledger")),
            _ => Ok(()),
        }
    }

    /// Some file systems have no locks: better said now than by a gate that never opens.
    fn try_lock_at_all(&self) -> Result<(), Error> {
        let last = SLOTS;
        let locked = self.memory.0.try_lock(last).and_then(|_| self.memory.0.unlock(last));
        locked.map_err(|error| self.refused("could not lock it", error))
    }

    fn claims(&self) -> &Claims {
        self.claims.current_or_renew(Claims::inherit)
    }

    fn slot(&self, number: usize) -> Option<Slot<'_>> {
        Slot::of(self.memory.words(), number)
    }

    /// Locks a slot that nobody has.
    fn try_take(&self, claims: &Claims, number: usize) -> Result<bool, Error> {
        if !claims.try_claim(number) {
            return Ok(false);
        }
        let locked = self.memory.0.try_lock(number);
        if !matches!(locked, Ok(true)) {
            claims.give_up(number);
        }
        locked.map_err(|error| self.refused("could not lock it", error))
    }

    fn let_go(&self, claims: &Claims, number: usize) {
        // Where the lock is gone already, there is nothing to give back.
        let _ = self.memory.0.unlock(number);
        claims.give_up(number);
    }

    /// Buries the owners of slots who are gone.
    fn bury(&self, claims: &Claims) -> Result<(), Error> {
        for number in 0..slots::used(self.memory.words()) {
            let Some(slot) = self.slot(number) else { continue };
            let is_own = claims.slots.get(number).is_some_and(|claimed| claimed.load(SeqCst));
            let is_theirs = |number| {
                let locked = self.memory.0.is_locked_by_another(number);
                locked.map_err(|error| self.refused("could not ask for its locks", error))
            };
            if is_own || slot.is_blank() || is_theirs(number)? || !self.try_take(claims, number)? {
                continue;
            }
            slot.bury();
            self.let_go(claims, number);
        }
        Ok(())
    }
}

impl SharedLedger for Table {
    fn words(&self) -> Arc<dyn Words> {
        Arc::clone(&self.memory) as _
    }

    fn take_slot(&self) -> Result<TakenSlot, Error> {
        self.look_after_file()?;
        let claims = self.claims();
        for number in 0..SLOTS {
            if self.try_take(claims, number)? {
                let Some(slot) = self.slot(number) else { continue };
                slot.bury();
                slots::note_used(self.memory.words(), number);
                let started = u64::try_from(process::ticks_since_boot()).unwrap_or(0);
                let burials = slot.take(std::process::id(), started);
                return Ok(TakenSlot { number, burials, is_below_another: claims.is_below_another });
            }
        }
        Err(self.error(format!("it is full: {SLOTS} processes share it")))
    }

    fn look_after(&self, taken: &TakenSlot) -> Result<(), Astray> {
        // What is not the system's error is what was found; EBADF is a descriptor that the host has closed.
        let astray = |error: Error| match error.os_error() {
            None | Some(libc::EBADF) => Astray::Lost(error),
            Some(_) => Astray::Unknown(error),
        };
        self.look_after_file().map_err(astray)?;
        let lost = || {
            let what = "this process has lost its place in it: it has closed a descriptor of that file";
            Astray::Lost(self.error(what))
        };
        // Held already, unless the host has closed the file somewhere.
        let locked = self.memory.0.try_lock(taken.number);
        let locked = locked.map_err(|error| astray(self.refused("could not lock it", error)))?;
        let slot = self.slot(taken.number).ok_or_else(lost)?;
        if !locked || slot.burials() != taken.burials {
            return Err(lost());
        }
        Ok(())
    }

    fn bury_the_dead(&self) -> Result<(), Error> {
        self.bury(self.claims())?;
        let is_damaged = |number: &usize| self.slot(*number).is_some_and(|slot| !slot.is_plausible());
        match (0..slots::used(self.memory.words())).find(is_damaged) {
            Some(number) => Err(self.error(format!("it is damaged: slot {number} says what no process writes"))),
            None => Ok(()),
        }
    }

    fn leave(&self, taken: &TakenSlot) {
        // Looked at first, because a part of a file that was cut must not be touched.
        if self.look_after_file().is_err() {
            return;
        }
        let Some(slot) = self.slot(taken.number).filter(|slot| slot.burials() == taken.burials) else { return };
        slot.bury();
        self.let_go(self.claims(), taken.number);
    }
}

impl Table {
    fn look_after_file(&self) -> Result<(), Error> {
        self.memory.0.look_after().map_err(|error| self.refused("it cannot be used any more", error))?;
        self.check_header()
    }
}
