//! The cost of a slot: what a job has used for each process that it was allowed to start, as checks have seen it.
//!
//! A step of a build starts small and grows, and steps differ. So the largest share of a slot counts that was seen while the
//! last 32 to 64 steps ended: one outlier is forgotten after that. A maximum that decays with each step was tried: shares are
//! mostly of steps that have not grown yet, so it sank below what each step came to, and too many were let out.

use crate::vocabulary::{Work, WorkUsage};

/// The steps after which the largest share is looked for anew; the one of as many before counts until then.
const REMEMBERED: u32 = 32;

/// What is known of the steps of jobs of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SlotCost {
    now: Share,
    before: Share,
    /// The steps that have ended since `before` was complete.
    ended: u32,
    is_known: bool,
}

/// The part of a slot in what a job uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Share {
    memory_bytes: u64,
    processes: u64,
}

impl Share {
    fn of(usage: WorkUsage, slots: usize) -> Share {
        let slots = u64::try_from(slots).unwrap_or(u64::MAX).max(1);
        let share = |amount: u64| amount / slots + u64::from(amount % slots > 0);
        Share { memory_bytes: share(usage.memory_bytes), processes: share(usage.processes) }
    }

    fn max(self, other: Share) -> Share {
        Share {
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            processes: self.processes.max(other.processes),
        }
    }
}

impl SlotCost {
    /// Takes note of what a job used that had so many slots, its own included.
    pub(super) fn note(&mut self, usage: WorkUsage, slots: usize) {
        self.now = self.now.max(Share::of(usage, slots));
    }

    /// A step has ended.
    pub(super) fn note_end(&mut self) {
        self.is_known = true;
        self.ended += 1;
        if self.ended == REMEMBERED {
            (self.before, self.now, self.ended) = (self.now, Share::default(), 0);
        }
    }

    /// Steps take too long to wait for the end of one.
    pub(super) fn set_known(&mut self) {
        self.is_known = true;
    }

    /// Whether a step was seen from its beginning to its end.
    pub(super) fn is_known(&self) -> bool {
        self.is_known
    }

    pub(super) fn work(&self) -> Work {
        let Share { memory_bytes, processes } = self.now.max(self.before);
        Work::new().memory_bytes(memory_bytes).processes(processes.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::{Resource, MB};

    fn usage(mb: u64, processes: u64) -> WorkUsage {
        WorkUsage { memory_bytes: mb * MB, processes, ..WorkUsage::default() }
    }

    fn mb(cost: SlotCost) -> u64 {
        cost.work().of(Resource::Memory) / MB
    }

    #[test]
    fn the_largest_share_of_a_slot_counts_and_an_outlier_is_forgotten_after_some_tens_of_steps() {
        let mut cost = SlotCost::default();
        assert!(!cost.is_known() && cost.work() == Work::new().processes(1));
        cost.note(usage(240, 13), 4);
        cost.note(usage(100, 3), 4);
        assert_eq!((mb(cost), cost.work().of(Resource::Processes)), (60, 4));
        cost.note(usage(600, 2), 2);
        for ended in 1..=2 * REMEMBERED {
            // Most are seen before they have grown.
            cost.note(usage(if ended % 16 == 0 { 60 } else { 10 }, 2), 1);
            cost.note_end();
            assert_eq!(mb(cost), if ended < 2 * REMEMBERED { 300 } else { 60 }, "{ended}");
        }
        assert!(cost.is_known() && mb(cost) == 60);
        cost.note(usage(1, 1), 0);
    }
}
