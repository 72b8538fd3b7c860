//! The descendants in a table of processes. Nothing is read here.

use super::climb::{Climb, Parent};
use super::stat::Process;

/// The standing of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Descendant,
    Stranger,
    /// Its parent, or the parent of one above it, was not found: nobody can say.
    Lost,
}

/// The search for descendants, with its buffers, which are kept from one time to the next.
#[derive(Debug, Default)]
pub(crate) struct Descendants(Climb<Standing>);

impl Descendants {
    /// The descendants of `own` at any depth, in the order of `table`, which is ascending by process id; `None` when
    /// `own` is not in it.
    pub(crate) fn find<'a>(
        &'a mut self,
        table: &'a [Process],
        own: u32,
    ) -> Option<impl Iterator<Item = &'a Process> + Clone + 'a> {
        let own = index_of(table, own)?;
        self.place(table.len(), |index| match parent_index(table, &table[index]) {
            // Not even a circle through the process itself makes it its own descendant.
            _ if index == own => Parent::Elsewhere(Standing::Stranger),
            Some(parent) if parent == own => Parent::Elsewhere(Standing::Descendant),
            Some(parent) => Parent::At(parent),
            None => Parent::Elsewhere(Standing::Lost),
        });
        let descendants = (0..table.len()).filter(|&index| self.standing(index) == Standing::Descendant);
        Some(descendants.map(|index| &table[index]))
    }

    /// Places `count` processes, of which `parent` says where the parent of each is found.
    pub(crate) fn place(&mut self, count: usize, parent: impl Fn(usize) -> Parent<Standing>) {
        // A child stands where its parent does.
        self.0.place(count, Standing::Lost, parent, |_, above| above);
    }

    /// The standing of one of those that were placed.
    pub(crate) fn standing(&self, index: usize) -> Standing {
        self.0.get(index).unwrap_or(Standing::Lost)
    }
}

/// The position in `table` of the parent that `child` claims. A process that started after the child is not its parent:
/// it is a stranger that was given the number of the dead one.
pub(crate) fn parent_index(table: &[Process], child: &Process) -> Option<usize> {
    index_of(table, child.parent).filter(|&index| table[index].start_ticks <= child.start_ticks)
}

/// The position of a process in `table`, which is ascending by process id.
pub(crate) fn index_of(table: &[Process], pid: u32) -> Option<usize> {
    index_of_key(table, pid, |process| process.pid)
}

/// The position of a process in any list that is ascending by process id.
pub(crate) fn index_of_key<T>(list: &[T], pid: u32, pid_of: impl Fn(&T) -> u32) -> Option<usize> {
    list.binary_search_by_key(&pid, pid_of).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::readers::fixture::{process, Line};
    use crate::readers::procfs::stat;

    fn table(lines: impl IntoIterator<Item = Line>) -> Vec<Process> {
        let mut table: Vec<_> = lines.into_iter().map(|line| stat::parse(line.line().as_bytes()).unwrap()).collect();
        table.sort_unstable_by_key(|process| process.pid);
        table
    }

    fn descendants_of_7(lines: impl IntoIterator<Item = Line>) -> Option<Vec<u32>> {
        Some(Descendants::default().find(&table(lines), 7)?.map(|process| process.pid).collect())
    }

    #[test]
    fn children_of_children_count_and_strangers_do_not() {
        let lines = [process(1, 0), process(7, 1), process(8, 7), process(9, 8), process(10, 1), process(11, 10)];
        assert_eq!(descendants_of_7(lines), Some(vec![8, 9]));
    }

    #[test]
    fn a_child_may_have_a_lower_number_than_its_parent() {
        let lines = [process(7, 1), process(900, 7), process(3, 900).started(901), process(2, 3).started(901)];
        assert_eq!(descendants_of_7(lines), Some(vec![2, 3, 900]));
    }

    #[test]
    fn a_child_older_than_the_parent_it_claims_is_a_stranger_and_so_are_its_children() {
        let older = || process(8, 7).started(99);
        assert_eq!(descendants_of_7([process(7, 1).started(100), older(), process(9, 8).started(200)]), Some(vec![]));
        assert_eq!(descendants_of_7([process(7, 1).started(99), older()]), Some(vec![8]), "the same tick will do");
    }

    #[test]
    fn a_start_before_boot_is_before_one_after_it() {
        let before = |pid, parent| process(pid, parent).started(-5);
        assert_eq!(descendants_of_7([before(7, 1), before(8, 7), process(9, 8), process(10, 7)]), Some(vec![8, 9, 10]));
        assert_eq!(descendants_of_7([process(7, 1).started(0), before(8, 7)]), Some(vec![]));
    }

    #[test]
    fn the_children_of_a_zombie_leader_with_threads_are_still_its_own() {
        let lines = [process(7, 1), process(8, 7).state('Z').threads(2), process(9, 8)];
        assert_eq!(descendants_of_7(lines), Some(vec![8, 9]));
    }

    #[test]
    fn circles_end() {
        let circle = [process(20, 21).started(5), process(21, 22).started(5), process(22, 20).started(5)];
        let own = [process(7, 1), process(8, 7), process(23, 23), process(24, 20).started(9)];
        assert_eq!(descendants_of_7(circle.into_iter().chain(own)), Some(vec![8]));
        // Not even a circle through the process itself makes it its own descendant.
        assert_eq!(descendants_of_7([process(7, 8).started(5), process(8, 7).started(5)]), Some(vec![8]));
    }

    #[test]
    fn without_the_process_itself_there_is_no_answer() {
        assert_eq!(descendants_of_7([process(1, 0), process(8, 7)]), None);
    }

    #[test]
    fn a_very_deep_tree_is_no_trouble() {
        let lines = (7..50_000).rev().map(|pid| process(pid, pid - 1).started(1));
        assert_eq!(descendants_of_7(lines).map(|found| found.len()), Some(50_000 - 8));
    }

    proptest! {
        #[test]
        fn the_climb_agrees_with_going_up_from_each(parents in prop::collection::vec((0_u32..30, -2_i64..2), 8..30)) {
            let lines = parents.iter().zip(1..).map(|(&(parent, start), pid)| process(pid, parent).started(start));
            let table = table(lines);
            let goes_up_to_7 = |child: &Process| {
                let mut at = child;
                (0..table.len()).any(|_| match parent_index(&table, at) {
                    Some(parent) => {
                        at = &table[parent];
                        at.pid == 7
                    }
                    None => {
                        at = child;
                        false
                    }
                })
            };
            let expected: Vec<_> = table.iter().filter(|one| one.pid != 7 && goes_up_to_7(one)).collect();
            let mut kept = Descendants::default();
            for _ in 0..2 {
                prop_assert_eq!(&kept.find(&table, 7).unwrap().collect::<Vec<_>>(), &expected);
            }
        }
    }
}
