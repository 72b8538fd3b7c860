//! The cost of a slot: what a job has used for each process that it was allowed to start, as checks have seen it.
//!
//! A step of a build starts small and grows, and steps differ. So the largest share of a slot counts, and fades with each
//! step that ends: one outlier is forgotten after some tens of them.

use crate::vocabulary::{Work, WorkUsage};

/// A cost that is not seen again is forgotten by this part with each step that ends: by half after 22 of them.
const FADES_BY: u64 = 32;

/// What is known of the steps of jobs of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SlotCost {
    memory_bytes: u64,
    processes: u64,
    is_known: bool,
}

impl SlotCost {
    /// Takes note of what a job used that had so many slots, its own included.
    pub(super) fn note(&mut self, usage: WorkUsage, slots: usize) {
        let share = SlotCost::of(usage, slots);
        self.memory_bytes = self.memory_bytes.max(share.memory_bytes);
        self.processes = self.processes.max(share.processes);
    }

    fn of(usage: WorkUsage, slots: usize) -> SlotCost {
        let slots = u64::try_from(slots).unwrap_or(u64::MAX).max(1);
        let share = |amount: u64| amount / slots + u64::from(amount % slots > 0);
        SlotCost { memory_bytes: share(usage.memory_bytes), processes: share(usage.processes), is_known: true }
    }

    /// A step has ended.
    pub(super) fn fade(&mut self) {
        self.is_known = true;
        self.memory_bytes -= self.memory_bytes / FADES_BY;
        self.processes -= self.processes / FADES_BY;
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
        Work::new().memory_bytes(self.memory_bytes).processes(self.processes.max(1))
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
    fn the_largest_share_of_a_slot_counts_and_an_outlier_fades() {
        let mut cost = SlotCost::default();
        assert!(!cost.is_known() && cost.work() == Work::new().processes(1));
        cost.note(usage(240, 13), 4);
        cost.note(usage(100, 3), 4);
        assert_eq!((mb(cost), cost.work().of(Resource::Processes)), (60, 4));
        cost.note(usage(600, 2), 2);
        for _ in 0..200 {
            cost.fade();
            cost.note(usage(60, 2), 1);
        }
        assert!(cost.is_known() && mb(cost) == 60);
        cost.note(usage(1, 1), 0);
    }
}
