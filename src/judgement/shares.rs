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
//! measured, and what that reading had seen of `released`. Everybody judges the sum of all slots by that too. Each shows how
//! many of its threads wait for room: the watcher checks for them as often as for its own.
//!
//! # Orders of memory
//!
//! As in the room: accesses to different words, in one order that all agree on. All are SeqCst.
//!
//! # The cost
//!
//! A few loads per slot and question. A fall in what attached permits reserve is seen by others one check late.

use std::sync::Arc;

use super::atomics::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use super::row::amount;
use super::slots::{column, noted_in, only, sane, used, Pair, Slot, Words, COLUMNS, ENDED, RAISED, RELEASED, WAITERS};
use crate::vocabulary::{Resource, Work};

/// What was released when a reading began: of the others, and of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Marks {
    others: Pair,
    pub(super) all: Pair,
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
    pub(super) is_watcher: bool,
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

    pub(super) fn own(&self) -> Option<Slot<'_>> {
        Slot::of(self.words(), self.own)
    }

    /// The other slots that were ever taken.
    pub(super) fn others_slots(&self) -> impl Iterator<Item = Slot<'_>> {
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

    /// Shows how many threads of this process wait for room, to who watches over it.
    pub(crate) fn show_waiters(&self, waiters: usize) {
        if let Some(own) = self.own() {
            own.word(WAITERS).store(waiters as u64, SeqCst);
        }
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
}

/// The amounts of a piece of work that others are told of.
#[inline]
pub(crate) fn amounts(work: &Work) -> Pair {
    [amount(work, Resource::CgroupMemory), amount(work, Resource::CgroupPids)]
}

/// Whatever stands in the words: sums are sane, a refusal has a reason, and what is buried counts no more once that was seen.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    #[derive(Debug)]
    struct Memory(Vec<AtomicU64>);
    impl Words for Memory {
        fn words(&self) -> &[AtomicU64] {
            &self.0
        }
    }
    let words = Memory((0..super::slots::WORDS).map(|_| AtomicU64::new(0)).collect());
    for word in bytes.chunks_exact(9) {
        let (value, place) = crate::laws::number_first(word);
        // Those of the header, and of the first slots.
        words.0[usize::from(place[0])].store(value, SeqCst);
    }
    let words: Arc<dyn Words> = Arc::new(words);
    let seat = Seat::new(Arc::clone(&words), 1, true);
    let now = std::time::Duration::from_secs(7);
    for work in [Work::new(), Work::new().memory_bytes(7).processes(1), Work::new().processes(u64::MAX)] {
        let is_admitted = seat.is_admitted_by_watchers([0; 2], amounts(&work), work.class_of());
        let why = seat.why_refused(&work, now);
        assert_eq!(why.is_none(), is_admitted && seat.is_trusted(now), "{why:?}");
        let _ = seat.could_never_fit(&work);
    }
    assert!(seat.pressure(now) >= 0.0);
    for number in (0..used(words.words())).filter(|number| *number != 1) {
        if let Some(slot) = Slot::of(words.words(), number) {
            let _ = (slot.is_plausible(), slot.is_blank());
            slot.bury();
        }
    }
    seat.set_seen(&seat.marks());
    let left = [Resource::CgroupMemory, Resource::CgroupPids].map(|resource| seat.others().of(resource));
    assert_eq!((left, seat.holders(Resource::CgroupMemory)), ([0; 2], 0));
    assert!(seat.is_admitted_by_watchers([0; 2], [0; 2], crate::vocabulary::Class::Normal));
}
