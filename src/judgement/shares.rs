//! Reservations of several processes: words of a memory that they share, and this process's part in them.
//!
//! # The need
//!
//! Processes of one container each measure what all of them use, and none sees what the others have promised. What is
//! reserved by any of them has to count in the admission of each, without a lock: a process that is killed at any
//! instruction must leave nothing that others wait for.
//!
//! # What is done
//!
//! Each process has a slot, which it alone writes while it lives, with three counters for bytes of memory and three for
//! processes. They only grow, and wrap around:
//!
//! - `raised`: all that was ever reserved.
//! - `ended`: of that, all of which nothing is left.
//! - `released`: of that, all that checks which began later have seen as usage.
//!
//! A reader takes the sum of `raised - ended` over all slots, and takes off the sum of `released` *as it was when the
//! reading began by which it judges*. So work that another process has released counts until this process has measured
//! it itself: not for an instant does it count nowhere, whoever checks when. `ended` is read before `raised`, so a sum
//! that is torn is too large.
//!
//! To reserve is to raise, and then to add up; what is too much is ended again. Of two that reserve at once, one sees the
//! other: each may be refused, and never are both granted what only one fits.
//!
//! The slot of a process that is gone is buried: `ended` is set so that nothing but what was released is left. Whoever
//! buries holds the lock of the slot, as its owner would.
//!
//! # Watching
//!
//! A process whose memory limit is one on its whole tree *watches* over the others: it shows its limit, what it has
//! measured, and what that reading had seen of `released`. Everybody judges the sum of all slots by that too.
//!
//! # Orders of memory
//!
//! As in the room: accesses to different words, in one order that all agree on. All are SeqCst.
//!
//! # The cost
//!
//! A few loads per slot and question. A fall in what attached permits reserve is seen by others one check late.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::atomics::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use super::room::Left;
use crate::vocabulary::{Class, Resource, Watched, WatchedWhy, Work};

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
const RAISED: usize = 0;
const ENDED: usize = 2;
const RELEASED: usize = 4;
/// 1 while the process watches over the others.
const WATCHES: usize = 6;
/// The number of times that the slot was buried.
const BURIALS: usize = 7;
/// For people alone: numbers of processes differ between namespaces.
const PID: usize = 8;
const STARTED: usize = 9;
/// Of a watcher: the first nanosecond at which its last check is not trusted any more.
const TRUSTED_UNTIL: usize = 10;
/// Of a watcher: one more than the place of the resource that closes its gate, whatever is reserved; 0: none does.
const CLOSED_BY: usize = 11;
/// Of a watcher: for bytes and for processes, the words below.
const LIMITS: usize = 12;
const LIMIT_WORDS: usize = 8;
const BACKGROUND: usize = 0;
const WARN: usize = 1;
const HARD: usize = 2;
const MEASURED: usize = 3;
const LIMIT: usize = 4;
const SEEN: usize = 5;

const _: () = assert!(LIMITS + 2 * LIMIT_WORDS <= SLOT_WORDS);

/// More than anybody reserves: a sum beyond it says that the words were damaged.
const ABSURD: u64 = u64::MAX >> 2;

/// The memory that processes share.
pub(crate) trait Words: Send + Sync + fmt::Debug {
    /// All of it: [`WORDS`] words.
    fn words(&self) -> &[AtomicU64];
}

/// An amount of bytes, and one of processes.
pub(crate) type Pair = [u64; 2];

const COLUMNS: [usize; 2] = [0, 1];

/// The column of a resource that many processes share; `None`: what others reserve of it is not known, or not its
/// business. That of a whole tree counts for those who watch over the others.
fn column(resource: Resource, is_watcher: bool) -> Option<usize> {
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
fn noted_in(resource: Resource) -> Option<usize> {
    match resource {
        Resource::CgroupMemory => Some(0),
        Resource::CgroupPids => Some(1),
        _ => None,
    }
}

/// The resource by which a watcher limits a column.
fn limited(column: usize) -> Resource {
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

    fn word(self, word: usize) -> &'a AtomicU64 {
        &self.0[word % SLOT_WORDS]
    }

    /// What was reserved and has not ended. Read in this order, so that it is never too little.
    fn outstanding(self, column: usize) -> u64 {
        let ended = self.word(ENDED + column).load(SeqCst);
        self.word(RAISED + column).load(SeqCst).wrapping_sub(ended)
    }

    /// Takes back all that an owner who is gone has reserved. Whoever calls this holds the lock of the slot.
    pub(crate) fn bury(self) {
        self.word(WATCHES).store(0, SeqCst);
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

/// What was released when a reading began: of the others, and of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Marks {
    others: Pair,
    all: Pair,
}

impl Marks {
    /// Takes over the mark of memory from those of a reading of memory alone.
    pub(crate) fn with_memory_of(mut self, other: &Marks) -> Marks {
        (self.others[0], self.all[0]) = (other.others[0], other.all[0]);
        self
    }
}

/// The amounts that others have reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Others {
    amounts: Pair,
    is_watcher: bool,
}

impl Others {
    #[inline]
    pub(crate) fn of(&self, resource: Resource) -> u64 {
        column(resource, self.is_watcher).map_or(0, |column| self.amounts[column])
    }
}

/// The place of this process among those that share a ledger.
#[derive(Debug)]
pub(crate) struct Seat {
    words: Arc<dyn Words>,
    own: usize,
    /// Whether it shows its limits to the others, if these are limits on its tree.
    is_watcher: bool,
    /// Set once the slot is not this process's any more, or the words may be gone. None of them is touched from then on.
    is_lost: AtomicBool,
    /// What the reading that is judged by has seen as released by others.
    seen: [AtomicU64; 2],
    /// What attached permits have reserved, as it was last noted. Changed under the lock of the judgement.
    attached: [AtomicU64; 2],
}

impl Seat {
    pub(crate) fn new(words: Arc<dyn Words>, own: usize, is_watcher: bool) -> Seat {
        let new = || [AtomicU64::new(0), AtomicU64::new(0)];
        Seat { words, own, is_watcher, is_lost: AtomicBool::new(false), seen: new(), attached: new() }
    }

    /// From now on no word is touched: the slot may be another's, and the file may have been cut.
    pub(crate) fn lose(&self) {
        self.is_lost.store(true, SeqCst);
    }

    pub(crate) fn is_lost(&self) -> bool {
        // Relaxed: nothing is told by it but itself, and the gate is closed by then.
        self.is_lost.load(Relaxed)
    }

    fn words(&self) -> &[AtomicU64] {
        if self.is_lost() {
            &[]
        } else {
            self.words.words()
        }
    }

    fn own(&self) -> Option<Slot<'_>> {
        Slot::of(self.words(), self.own)
    }

    /// The other slots that were ever taken.
    fn others_slots(&self) -> impl Iterator<Item = Slot<'_>> {
        let words = self.words();
        (0..used(words)).filter(|number| *number != self.own).filter_map(|number| Slot::of(words, number))
    }

    fn add(&self, word: usize, amounts: Pair) {
        let Some(own) = self.own() else { return };
        for column in COLUMNS {
            if amounts[column] > 0 {
                own.word(word + column).fetch_add(amounts[column], SeqCst);
            }
        }
    }

    /// Reserves for all to see.
    #[inline]
    pub(crate) fn raise(&self, amounts: Pair) {
        self.add(RAISED, amounts);
    }

    /// Takes back what was reserved: nothing of it is left.
    #[inline]
    pub(crate) fn end(&self, amounts: Pair) {
        self.add(ENDED, amounts);
    }

    /// As [`end`](Self::end), of one resource.
    pub(crate) fn end_of(&self, resource: Resource, amount: u64) {
        if let Some(column) = noted_in(resource) {
            self.end(only(column, amount));
        }
    }

    /// Leaves what was reserved to the checks of each process that begin from now on.
    #[inline]
    pub(crate) fn release(&self, amounts: Pair) {
        self.add(RELEASED, amounts);
    }

    /// As [`release`](Self::release), of one resource.
    pub(crate) fn release_of(&self, resource: Resource, amount: u64) {
        if let Some(column) = noted_in(resource) {
            self.release(only(column, amount));
        }
    }

    /// Notes a rise of what attached permits have reserved, before anything of it is taken back elsewhere. Returns the fall.
    pub(crate) fn raise_attached(&self, amounts: Pair) -> Pair {
        let mut falls = [0; 2];
        for column in COLUMNS {
            let before = self.attached[column].swap(amounts[column], SeqCst);
            self.raise(only(column, amounts[column].saturating_sub(before)));
            falls[column] = before.saturating_sub(amounts[column]);
        }
        falls
    }

    /// The sums of what was released up to now: for a reading that begins now.
    pub(crate) fn marks(&self) -> Marks {
        let mut marks = Marks::default();
        for column in COLUMNS {
            let sum = |sum: u64, slot: Slot<'_>| sum.wrapping_add(slot.word(RELEASED + column).load(SeqCst));
            marks.others[column] = self.others_slots().fold(0, sum);
            marks.all[column] = self.own().into_iter().fold(marks.others[column], sum);
        }
        marks
    }

    /// The reading that is judged by from now on has seen so much. Called after its measurement was published.
    pub(crate) fn set_seen(&self, marks: &Marks) {
        for column in COLUMNS {
            self.seen[column].store(marks.others[column], SeqCst);
        }
    }

    /// The amounts that others have reserved, beyond what this process has measured.
    #[inline]
    pub(crate) fn others(&self) -> Others {
        if self.is_lost() {
            return Others::default();
        }
        // Before the slots, and before the bounds that it is compared with.
        let seen = [self.seen[0].load(SeqCst), self.seen[1].load(SeqCst)];
        let mut sums = [0_u64; 2];
        for slot in self.others_slots() {
            for column in COLUMNS {
                sums[column] = sums[column].wrapping_add(slot.outstanding(column));
            }
        }
        let amounts = COLUMNS.map(|column| sane(sums[column].wrapping_sub(seen[column])));
        Others { amounts, is_watcher: self.is_watcher }
    }

    /// The number of other processes that have reserved something of this resource; `None` where that is not known.
    pub(crate) fn holders(&self, resource: Resource) -> usize {
        let Some(column) = column(resource, self.is_watcher) else { return 0 };
        let has_reserved = |slot: &Slot<'_>| {
            let released = slot.word(RELEASED + column).load(SeqCst);
            slot.outstanding(column).wrapping_sub(released) != 0
        };
        self.others_slots().filter(has_reserved).count()
    }

    /// Whether there are others who are judged by what this process shows.
    pub(crate) fn is_watching_others(&self) -> bool {
        self.is_watcher && self.others_slots().any(|slot| !slot.is_blank())
    }

    /// Returns `true` if the work is too much for one that watches even with nothing else running.
    pub(crate) fn could_never_fit(&self, work: &Work) -> bool {
        let asked = amounts(work);
        self.watchers().any(|watcher| {
            COLUMNS.into_iter().any(|column| {
                let limits = Limits::of(watcher, column);
                let hard = limits.get(HARD);
                hard != u64::MAX && asked[column] > 0 && asked[column] >= hard.saturating_add(limits.get(MEASURED))
            })
        })
    }

    fn watchers(&self) -> impl Iterator<Item = Slot<'_>> {
        self.others_slots().filter(|slot| slot.word(WATCHES).load(SeqCst) == 1)
    }

    /// All that is outstanding, the own included.
    fn outstanding(&self) -> Pair {
        COLUMNS.map(|column| {
            let sum = |sum: u64, slot: Slot<'_>| sum.wrapping_add(slot.outstanding(column));
            self.own().into_iter().chain(self.others_slots()).fold(0, sum)
        })
    }

    /// Returns `true` if those who watch have room for the work: `asked` of it is not reserved yet, and `held` is.
    #[inline]
    pub(crate) fn is_admitted_by_watchers(&self, held: Pair, asked: Pair, class: Class) -> bool {
        self.watchers().all(|watcher| {
            COLUMNS.into_iter().all(|column| {
                let limits = Limits::of(watcher, column);
                // Before the bounds, as for the own.
                let seen = limits.get(SEEN);
                let reserved = sane(self.outstanding()[column].wrapping_sub(seen));
                let (before, after) = (reserved.saturating_sub(held[column]), reserved.saturating_add(asked[column]));
                is_below(before, limits.bound(class)) && is_below(after, limits.get(HARD))
            })
        })
    }

    /// Returns `true` unless somebody who watches has closed its gate, whatever is reserved, or has not checked for too long.
    #[inline]
    pub(crate) fn is_trusted(&self, now: Duration) -> bool {
        self.watchers().all(|watcher| {
            watcher.word(CLOSED_BY).load(SeqCst) == 0 && watcher.word(TRUSTED_UNTIL).load(SeqCst) > nanos(now)
        })
    }

    /// The largest share that a watcher's limit has reached of what closes its gate.
    pub(crate) fn pressure(&self, now: Duration) -> f64 {
        if !self.is_trusted(now) {
            return f64::INFINITY;
        }
        let shares = self.watchers().flat_map(|watcher| {
            COLUMNS.map(|column| {
                let limits = Limits::of(watcher, column);
                let seen = limits.get(SEEN);
                let reserved = sane(self.outstanding()[column].wrapping_sub(seen));
                let (warn, measured) = (limits.get(WARN), limits.get(MEASURED));
                if warn == u64::MAX {
                    return 0.0;
                }
                let closes_from = warn.saturating_add(measured).max(1);
                let used = measured.saturating_add(reserved);
                let share = used as f64 / closes_from as f64;
                if used < closes_from {
                    share.min(1.0 - f64::EPSILON)
                } else {
                    share.max(1.0)
                }
            })
        });
        shares.fold(0.0, f64::max)
    }

    /// The reason why one that watches has no room for the work; `None`: there is none.
    pub(crate) fn why_refused(&self, work: &Work, now: Duration) -> Option<Watched> {
        let asked = amounts(work);
        self.watchers().find_map(|watcher| {
            let why = |why| Some(Watched { pid: u32::try_from(watcher.word(PID).load(SeqCst)).unwrap_or(0), why });
            let closed_by = watcher.word(CLOSED_BY).load(SeqCst);
            if closed_by > 0 {
                let place = usize::try_from(closed_by - 1).unwrap_or(usize::MAX);
                return why(WatchedWhy::Closed(Resource::ALL.get(place).copied()));
            }
            if watcher.word(TRUSTED_UNTIL).load(SeqCst) <= nanos(now) {
                return why(WatchedWhy::Stale);
            }
            COLUMNS.into_iter().find_map(|column| {
                let limits = Limits::of(watcher, column);
                let seen = limits.get(SEEN);
                let reserved = sane(self.outstanding()[column].wrapping_sub(seen));
                let is_closed = !is_below(reserved, limits.bound(work.class_of()));
                if !is_closed && is_below(reserved.saturating_add(asked[column]), limits.get(HARD)) {
                    return None;
                }
                why(WatchedWhy::Full {
                    resource: limited(column),
                    measured: limits.get(MEASURED),
                    reserved,
                    asked: if is_closed { 0 } else { asked[column] },
                    limit: limits.get(LIMIT),
                })
            })
        })
    }

    /// Shows the own limits to the others, if they are on the whole tree.
    pub(crate) fn watch(&self, shown: &Shown, marks: &Marks) {
        let Some(own) = self.own().filter(|_| self.is_watcher) else { return };
        for column in COLUMNS {
            let (limits, bounds) = (Limits::of(own, column), &shown.limits[column]);
            for (word, value) in [
                (HARD, bounds.left.hard),
                (WARN, bounds.left.warn),
                (BACKGROUND, bounds.left.background),
                (MEASURED, bounds.left.usage),
                (LIMIT, bounds.limit),
                // After the bounds.
                (SEEN, marks.all[column]),
            ] {
                limits.set(word, value);
            }
        }
        own.word(CLOSED_BY).store(shown.closed_by.map_or(0, |resource| resource.place() as u64 + 1), SeqCst);
        own.word(TRUSTED_UNTIL).store(shown.trusted_until.map_or(0, nanos), SeqCst);
        own.word(WATCHES).store(1, SeqCst);
    }

    /// Watches no more.
    pub(crate) fn look_away(&self) {
        if let Some(own) = self.own().filter(|_| self.is_watcher) {
            own.word(WATCHES).store(0, SeqCst);
        }
    }
}

/// The state that a watcher shows to the others.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) limits: [ShownLimit; 2],
    /// The resource that closes the gate, whatever is reserved.
    pub(crate) closed_by: Option<Resource>,
    /// `None`: nothing is known that can be trusted.
    pub(crate) trusted_until: Option<Duration>,
}

/// The room below a limit on the whole tree, without what is reserved.
#[derive(Debug)]
pub(crate) struct ShownLimit {
    pub(crate) left: Left,
    pub(crate) limit: u64,
}

/// The words of one limit that a watcher shows.
struct Limits<'a>(Slot<'a>, usize);

impl<'a> Limits<'a> {
    fn of(watcher: Slot<'a>, column: usize) -> Limits<'a> {
        Limits(watcher, LIMITS + column * LIMIT_WORDS)
    }

    fn get(&self, word: usize) -> u64 {
        self.0.word(self.1 + word).load(SeqCst)
    }

    fn set(&self, word: usize, value: u64) {
        self.0.word(self.1 + word).store(value, SeqCst);
    }

    fn bound(&self, class: Class) -> u64 {
        self.get(match class {
            Class::Background => BACKGROUND,
            Class::Normal => WARN,
            Class::Critical => HARD,
        })
    }
}

/// The amounts of a piece of work that others are told of.
#[inline]
pub(crate) fn amounts(work: &Work) -> Pair {
    [super::room::amount(work, Resource::CgroupMemory), super::room::amount(work, Resource::CgroupPids)]
}

fn only(column: usize, amount: u64) -> Pair {
    COLUMNS.map(|other| if other == column { amount } else { 0 })
}

/// A sum that no processes can have reserved is that of damaged words: then there is no room at all.
fn sane(sum: u64) -> u64 {
    if sum < ABSURD {
        sum
    } else {
        ABSURD
    }
}

fn is_below(reserved: u64, bound: u64) -> bool {
    reserved < bound || bound == u64::MAX
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
