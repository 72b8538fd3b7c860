//! The words of the memory that processes share: a header, and a slot for each process.

use std::fmt;

use super::atomics::{AtomicU64, Ordering::SeqCst};
use crate::vocabulary::{Class, Resource};

/// The most processes that share one ledger.
pub(crate) const SLOTS: usize = 256;

/// The number of words in all.
pub(crate) const WORDS: usize = HEADER_WORDS + SLOTS * SLOT_WORDS;

/// The words of the header. The first are the ledger's own, which the judgement does not look at.
const HEADER_WORDS: usize = 32;
/// The number of slots, from the first on, that were ever taken.
const USED: usize = 8;

/// The words of a slot: four lines of a cache, so that no two processes write to one.
const SLOT_WORDS: usize = 32;
pub(super) const RAISED: usize = 0;
pub(super) const ENDED: usize = 2;
pub(super) const RELEASED: usize = 4;
/// 1 while the process watches over the others.
pub(super) const WATCHES: usize = 6;
/// The number of times that the slot was buried.
const BURIALS: usize = 7;
/// For people alone: numbers of processes differ between namespaces.
pub(super) const PID: usize = 8;
const STARTED: usize = 9;
/// Of a watcher: the first nanosecond at which its last check is not trusted any more.
pub(super) const TRUSTED_UNTIL: usize = 10;
/// Of a watcher: one more than the place of the resource that closes its gate, whatever is reserved; 0: none does.
pub(super) const CLOSED_BY: usize = 11;
/// Of a watcher: for bytes and for processes, the words below.
const LIMITS: usize = 12;
const LIMIT_WORDS: usize = 8;
pub(super) const BACKGROUND: usize = 0;
pub(super) const WARN: usize = 1;
pub(super) const HARD: usize = 2;
pub(super) const MEASURED: usize = 3;
pub(super) const LIMIT: usize = 4;
pub(super) const SEEN: usize = 5;

/// The number of threads that wait for room.
pub(super) const WAITERS: usize = 28;

const _: () = assert!(LIMITS + 2 * LIMIT_WORDS <= WAITERS && WAITERS < SLOT_WORDS);

/// More than anybody reserves: a sum beyond it says that the words were damaged.
const ABSURD: u64 = u64::MAX >> 2;

/// The memory that processes share.
pub(crate) trait Words: Send + Sync + fmt::Debug {
    /// All of it: [`WORDS`] words.
    fn words(&self) -> &[AtomicU64];
}

/// An amount of bytes, and one of processes.
pub(crate) type Pair = [u64; 2];

pub(super) const COLUMNS: [usize; 2] = [0, 1];

/// The column of a resource that many processes share; `None`: what others reserve of it is not known, or not its
/// business. That of a whole tree counts for those who watch over the others.
pub(super) fn column(resource: Resource, is_watcher: bool) -> Option<usize> {
    match resource {
        Resource::CgroupMemory | Resource::MachineMemory => Some(0),
        Resource::CgroupPids => Some(1),
        Resource::Memory => is_watcher.then_some(0),
        Resource::Processes => is_watcher.then_some(1),
        Resource::OpenFiles
        | Resource::MemoryPressure
        | Resource::CpuPressure
        | Resource::IoPressure
        | Resource::DiskSpace
        | Resource::Gauge(_) => None,
    }
}

/// The column whose counters an amount of this resource stands in: one resource for each.
pub(super) fn noted_in(resource: Resource) -> Option<usize> {
    match resource {
        Resource::CgroupMemory => Some(0),
        Resource::CgroupPids => Some(1),
        _ => None,
    }
}

/// The resource by which a watcher limits a column.
pub(super) fn limited(column: usize) -> Resource {
    if column == 0 {
        Resource::Memory
    } else {
        Resource::Processes
    }
}

/// The words of one slot.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'a>(&'a [AtomicU64]);

impl<'a> Slot<'a> {
    /// The slot of this number; `None` where the words are too few, or there is none.
    pub(crate) fn of(words: &'a [AtomicU64], number: usize) -> Option<Slot<'a>> {
        let first = HEADER_WORDS + number * SLOT_WORDS;
        words.get(first..first + SLOT_WORDS).map(Slot)
    }

    pub(super) fn word(self, word: usize) -> &'a AtomicU64 {
        &self.0[word % SLOT_WORDS]
    }

    /// What was reserved and has not ended. Read in this order, so that it is never too little.
    pub(super) fn outstanding(self, column: usize) -> u64 {
        let ended = self.word(ENDED + column).load(SeqCst);
        self.word(RAISED + column).load(SeqCst).wrapping_sub(ended)
    }

    /// Takes back all that an owner who is gone has reserved. Whoever calls this holds the lock of the slot.
    pub(crate) fn bury(self) {
        self.word(WATCHES).store(0, SeqCst);
        self.word(WAITERS).store(0, SeqCst);
        self.word(BURIALS).fetch_add(1, SeqCst);
        for column in COLUMNS {
            let [raised, released] = [RAISED, RELEASED].map(|word| self.word(word + column).load(SeqCst));
            self.word(ENDED + column).store(raised.wrapping_sub(released), SeqCst);
        }
        self.word(PID).store(0, SeqCst);
    }

    /// Whether there is anything to bury.
    pub(crate) fn is_blank(self) -> bool {
        self.word(PID).load(SeqCst) == 0
    }

    /// Whether its counters can be those of a process: less was ended and released than was reserved.
    pub(crate) fn is_plausible(self) -> bool {
        COLUMNS.into_iter().all(|column| {
            let [ended, released] = [ENDED, RELEASED].map(|word| self.word(word + column).load(SeqCst));
            let raised = self.word(RAISED + column).load(SeqCst);
            raised.wrapping_sub(ended).wrapping_sub(released) < ABSURD
        })
    }

    /// The slot is this process's, after it was buried. Returns the number of its burials.
    pub(crate) fn take(self, pid: u32, started: u64) -> u64 {
        self.word(STARTED).store(started, SeqCst);
        self.word(PID).store(pid.into(), SeqCst);
        self.burials()
    }

    /// The number of times that it was buried: another one than when it was taken says that it was lost.
    pub(crate) fn burials(self) -> u64 {
        self.word(BURIALS).load(SeqCst)
    }
}

/// The number of slots that were ever taken.
pub(crate) fn used(words: &[AtomicU64]) -> usize {
    let used = words.get(USED).map_or(0, |used| used.load(SeqCst));
    usize::try_from(used).unwrap_or(SLOTS).min(SLOTS)
}

/// Notes that the slot of this number is taken, before anything is reserved in it.
pub(crate) fn note_used(words: &[AtomicU64], number: usize) {
    if let Some(used) = words.get(USED) {
        used.fetch_max(number as u64 + 1, SeqCst);
    }
}

/// The words of one limit that a watcher shows.
pub(super) struct Limits<'a>(Slot<'a>, usize);

impl<'a> Limits<'a> {
    pub(super) fn of(watcher: Slot<'a>, column: usize) -> Limits<'a> {
        Limits(watcher, LIMITS + column * LIMIT_WORDS)
    }

    pub(super) fn get(&self, word: usize) -> u64 {
        self.0.word(self.1 + word).load(SeqCst)
    }

    pub(super) fn set(&self, word: usize, value: u64) {
        self.0.word(self.1 + word).store(value, SeqCst);
    }

    pub(super) fn bound(&self, class: Class) -> u64 {
        self.get(match class {
            Class::Background => BACKGROUND,
            Class::Normal => WARN,
            Class::Critical => HARD,
        })
    }
}

pub(super) fn only(column: usize, amount: u64) -> Pair {
    COLUMNS.map(|other| if other == column { amount } else { 0 })
}

/// A sum that no processes can have reserved is that of damaged words: then there is no room at all.
pub(super) fn sane(sum: u64) -> u64 {
    if sum < ABSURD {
        sum
    } else {
        ABSURD
    }
}
