//! One resource in the room: how much may be reserved before each bound is reached, and how much is.

use super::atomics::{AtomicU64, Ordering::SeqCst};
use crate::vocabulary::{Class, Resource, Work};

/// The largest amount that one permit reserves of one resource: no machine has as much, and 65,535 such permits fit in
/// 64 bits.
pub(super) const MOST: u64 = u64::MAX >> 16;

/// The part of a limit that may be reserved, as a check or a change of limits left it: for each class the first amount
/// that is too much, `u64::MAX` where none is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) background: u64,
    pub(crate) warn: u64,
    pub(crate) hard: u64,
    /// The usage that was taken off, and the least usage that closes the gate: for the pressure.
    pub(crate) usage: u64,
    pub(crate) closes_from: u64,
}

impl Left {
    /// Of a resource without a limit, or of which nothing was measured.
    pub(crate) const UNLIMITED: Left =
        Left { background: u64::MAX, warn: u64::MAX, hard: u64::MAX, usage: 0, closes_from: u64::MAX };

    pub(super) fn is_bounded(&self) -> bool {
        [self.background, self.warn, self.hard] != [u64::MAX; 3]
    }
}

#[derive(Debug)]
pub(super) struct Row {
    background: AtomicU64,
    pub(super) warn: AtomicU64,
    hard: AtomicU64,
    usage: AtomicU64,
    closes_from: AtomicU64,
    pub(super) reserved: AtomicU64,
    /// What the host has pushed to a gauge: what was taken off less than it had is below zero, as two's complement.
    pub(super) pushed: AtomicU64,
    /// The number of the gauge whose row this is.
    pub(super) gauge: AtomicU64,
    /// Of what is reserved, the part whose permits were dropped since the last check began.
    pub(super) released: AtomicU64,
}

impl Row {
    pub(super) fn new() -> Row {
        let Left { background, warn, hard, usage, closes_from } = Left::UNLIMITED;
        Row {
            background: AtomicU64::new(background),
            warn: AtomicU64::new(warn),
            hard: AtomicU64::new(hard),
            usage: AtomicU64::new(usage),
            closes_from: AtomicU64::new(closes_from),
            reserved: AtomicU64::new(0),
            pushed: AtomicU64::new(0),
            gauge: AtomicU64::new(0),
            released: AtomicU64::new(0),
        }
    }

    pub(super) fn publish(&self, left: &Left) {
        self.hard.store(left.hard, SeqCst);
        self.warn.store(left.warn, SeqCst);
        self.background.store(left.background, SeqCst);
        self.usage.store(left.usage, SeqCst);
        self.closes_from.store(left.closes_from, SeqCst);
    }

    /// Reserves an amount if it fits. Returns whether the warning bound is reached by then.
    #[inline]
    pub(super) fn try_reserve(&self, amount: u64, others: u64, class: Class) -> Option<bool> {
        let mut before = self.reserved.load(SeqCst);
        if amount == 0 {
            // It adds nothing: if the bound is reached, the word of the room is raised already.
            return self.admits(before, 0, others, class).then_some(false);
        }
        let mut after;
        loop {
            after = before.checked_add(amount)?;
            // Looked at first, so that what is refused is never in anybody's way.
            if !self.admits(before, amount, others, class) {
                return None;
            }
            match self.reserved.compare_exchange_weak(before, after, SeqCst, SeqCst) {
                Ok(_) => break,
                Err(now) => before = now,
            }
        }
        // Looked at again, because a check may have published a new measurement and given back what it saw since.
        if self.admits(before, amount, others, class) {
            return Some(!is_below(self.total(after, others), self.warn.load(SeqCst)));
        }
        self.give_back(amount);
        None
    }

    /// What is reserved, by others too, and what was pushed.
    #[inline]
    pub(super) fn total(&self, reserved: u64, others: u64) -> u64 {
        reserved.saturating_add(others).saturating_add(at_least_nothing(self.pushed.load(SeqCst)))
    }

    /// Returns `true` if `reserved` is below the bound of the class, and with `asked` on top below the hard one.
    #[inline]
    pub(super) fn admits(&self, reserved: u64, asked: u64, others: u64, class: Class) -> bool {
        let total = self.total(reserved, others);
        is_below(total, self.bound(class)) && is_below(total.saturating_add(asked), self.hard.load(SeqCst))
    }

    #[inline]
    pub(super) fn bound(&self, class: Class) -> u64 {
        match class {
            Class::Background => self.background.load(SeqCst),
            Class::Normal => self.warn.load(SeqCst),
            Class::Critical => self.hard.load(SeqCst),
        }
    }

    pub(super) fn give_back(&self, amount: u64) {
        if amount > 0 {
            self.reserved.fetch_sub(amount, SeqCst);
        }
    }

    pub(super) fn release(&self, amount: u64) {
        if amount > 0 {
            self.released.fetch_add(amount, SeqCst);
        }
    }

    pub(super) fn pressure(&self, others: u64) -> f64 {
        let closes_from = self.closes_from.load(SeqCst);
        let used = self.usage.load(SeqCst).saturating_add(self.total(self.reserved.load(SeqCst), others));
        share(used, closes_from)
    }
}

/// The share that usage is of the least that closes the gate: below 1 exactly while the gate is open.
pub(super) fn share(used: u64, closes_from: u64) -> f64 {
    if closes_from == u64::MAX {
        return 0.0;
    }
    let share = used as f64 / closes_from.max(1) as f64;
    // Large numbers that differ may be the same as floating-point ones.
    if used < closes_from {
        share.min(1.0 - f64::EPSILON)
    } else {
        share.max(1.0)
    }
}

/// What was pushed, or nothing where more was taken off.
pub(super) fn at_least_nothing(pushed: u64) -> u64 {
    if pushed > u64::MAX / 2 {
        0
    } else {
        pushed
    }
}

/// Returns `true` if a bound is not reached, or none.
pub(super) fn is_below(reserved: u64, bound: u64) -> bool {
    reserved < bound || bound == u64::MAX
}

/// What a permit reserves of a resource.
pub(super) fn amount(work: &Work, resource: Resource) -> u64 {
    work.of(resource).min(MOST)
}
