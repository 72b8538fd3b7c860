//! The cost of admitted work that no check can have measured yet.

use crate::vocabulary::{PerResource, Resource, Work};

/// The reserved cost of every permit that lives, and of those dropped since the last good check.
///
/// Sums are 128 bits wide. Where no limit is set, several permits for as much as 64 bits hold can be granted, and each
/// must be taken back in full: a sum that saturated would lose the others.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    total: PerResource<u128>,
    /// Costs of dropped permits, each with the number of the first check that can free them.
    released: Vec<(u64, PerResource<u128>)>,
}

impl Reservations {
    pub(super) fn of(&self, resource: Resource) -> u64 {
        u64::try_from(*self.total.get(resource)).unwrap_or(u64::MAX)
    }

    pub(super) fn reserve(&mut self, work: &Work) {
        add(&mut self.total, wide(work));
    }

    /// Takes a dropped permit. Its cost stays until a successful check numbered `next_number` or later.
    pub(super) fn release(&mut self, work: &Work, next_number: u64) {
        if *work == Work::new() {
            return;
        }
        match self.released.last_mut() {
            Some((number, cost)) if *number == next_number => add(cost, wide(work)),
            _ => self.released.push((next_number, wide(work))),
        }
    }

    /// Takes a successful check, which has seen all work released before it began.
    pub(super) fn seen_by(&mut self, number: u64) {
        let total = &mut self.total;
        self.released.retain(|(from, cost)| {
            let kept = *from > number;
            if !kept {
                for resource in Resource::ALL {
                    let total = total.get_mut(resource);
                    *total = total.saturating_sub(*cost.get(resource));
                }
            }
            kept
        });
    }
}

fn wide(work: &Work) -> PerResource<u128> {
    PerResource::from_fn(|resource| work.of(resource).into())
}

fn add(to: &mut PerResource<u128>, cost: PerResource<u128>) {
    for resource in Resource::ALL {
        let to = to.get_mut(resource);
        *to = to.saturating_add(*cost.get(resource));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_released_cost_stays_until_a_check_that_began_after_it() {
        let work = Work::new().processes(3).memory_bytes(7);
        let mut reservations = Reservations::default();
        reservations.reserve(&work);
        reservations.seen_by(9);
        assert_eq!((reservations.of(Resource::Processes), reservations.of(Resource::Memory)), (3, 7));
        reservations.release(&work, 11);
        for (number, left) in [(10, 3), (11, 0), (12, 0)] {
            reservations.seen_by(number);
            assert_eq!(reservations.of(Resource::Processes), left, "check {number}");
        }
    }

    #[test]
    fn the_largest_reservations_are_taken_back_one_by_one() {
        let work = Work::new().memory_bytes(u64::MAX);
        let mut reservations = Reservations::default();
        reservations.reserve(&work);
        reservations.reserve(&work);
        reservations.release(&work, 1);
        reservations.seen_by(1);
        assert_eq!(reservations.of(Resource::Memory), u64::MAX);
        reservations.release(&work, 2);
        reservations.seen_by(2);
        assert_eq!(reservations.of(Resource::Memory), 0);
    }

    #[test]
    fn releases_between_two_checks_share_one_entry() {
        let mut reservations = Reservations::default();
        for _ in 0..1000 {
            reservations.release(&Work::new(), 4);
            reservations.release(&Work::new().processes(1), 4);
        }
        assert_eq!(reservations.released.len(), 1);
    }

    proptest! {
        #[test]
        fn what_is_held_is_what_was_reserved_less_what_a_later_check_saw(
            permits in proptest::collection::vec((0..1000u64, proptest::option::of(1..20u64)), 0..50), check in 0..20u64,
        ) {
            let mut reservations = Reservations::default();
            let mut expected = 0;
            for (processes, released) in permits {
                let work = Work::new().processes(processes);
                reservations.reserve(&work);
                if let Some(number) = released {
                    reservations.release(&work, number);
                }
                expected += if released.map_or(true, |number| number > check) { processes } else { 0 };
            }
            reservations.seen_by(check);
            prop_assert_eq!(reservations.of(Resource::Processes), expected);
        }
    }
}
