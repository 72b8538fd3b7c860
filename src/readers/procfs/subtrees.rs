//! The usage of some descendants, each with everything below it.

use std::os::fd::AsFd;

use super::climb::{Climb, Parent};
use super::descendants::parent_index;
use super::files::bytes;
use super::process_table::read_process;
use super::stat::Process;
use super::{statm, ProcRoot};
use crate::sys::file::stack_path;
use crate::vocabulary::{MemoryScope, Subtree};

/// The descendants of this process, sorted into the subtrees that are to be measured, in buffers that are kept from
/// check to check.
#[derive(Debug, Default)]
pub(super) struct Subtrees {
    descendants: Vec<Process>,
    placing: Climb<Option<usize>>,
}

impl Subtrees {
    pub(super) fn begin(&mut self) {
        self.descendants.clear();
    }

    /// Adds a descendant, in ascending order of process id.
    pub(super) fn add(&mut self, process: &Process) {
        self.descendants.push(*process);
    }

    /// Measures the subtrees, which are in ascending order of their roots. One that lies in another counts in itself
    /// alone. Memory is read again here unless all memory was read in this check.
    pub(super) fn measure(&mut self, root: ProcRoot<'_>, scope: MemoryScope, subtrees: &mut [Subtree]) {
        let descendants = &self.descendants;
        let subtree_of = |process: &Process| {
            let identity = process.identity();
            subtrees.binary_search_by_key(&identity, |subtree| subtree.root).ok()
        };
        let parent =
            |index: usize| match (subtree_of(&descendants[index]), parent_index(descendants, &descendants[index])) {
                (Some(subtree), _) => Parent::Elsewhere(Some(subtree)),
                (None, Some(parent)) => Parent::At(parent),
                (None, None) => Parent::Elsewhere(None),
            };
        self.placing.place(descendants.len(), None, parent, |_, above| above);
        for (index, process) in descendants.iter().enumerate() {
            let Some(Some(place)) = self.placing.get(index) else { continue };
            let Some(subtree) = subtrees.get_mut(place) else { continue };
            subtree.processes += 1;
            subtree.is_alive |= process.identity() == subtree.root && !process.is_zombie();
            let pages = match subtree.is_without_files {
                true => pages_without_files(root, process),
                false => resident_pages(root, scope, process),
            };
            subtree.memory_bytes = subtree.memory_bytes.saturating_add(bytes(pages));
        }
    }
}

fn resident_pages(root: ProcRoot<'_>, scope: MemoryScope, process: &Process) -> u64 {
    if process.is_zombie() {
        return 0;
    }
    match scope {
        MemoryScope::Tree => process.resident_pages,
        MemoryScope::Own => match read_process(root, process.pid) {
            Ok(Some(now)) if now.identity() == process.identity() => now.resident_pages,
            // It has ended since.
            Ok(Some(_)) => 0,
            // It may not be looked at any more, or has ended.
            Ok(None) | Err(_) => process.resident_pages,
        },
    }
}

/// Those that are no file's; all that are resident where that is not told.
fn pages_without_files(root: ProcRoot<'_>, process: &Process) -> u64 {
    if process.is_zombie() {
        return 0;
    }
    let read = stack_path(&mut [0; 32], format_args!("{}/statm", process.pid))
        .and_then(|path| root.directory.open_file(path))
        .and_then(|statm| statm::read_without_files(statm.as_fd()));
    match read {
        Ok(Ok(pages)) => pages,
        Ok(Err(_)) | Err(_) => process.resident_pages,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::fixture::{process, tree, Line};
    use crate::readers::procfs::stat;
    use crate::vocabulary::Identity;

    fn parsed(line: &Line) -> Process {
        stat::parse(line.line().as_bytes()).unwrap()
    }

    fn measured(lines: &[Line], roots: &[(u32, i64)], scope: MemoryScope) -> Vec<(u64, u64, bool)> {
        let now = lines.iter().cloned().map(|line| line.pages(10));
        let files = tree(7, now.chain([process(7, 1)]));
        let mut subtrees: Vec<_> =
            roots.iter().map(|&(pid, start_ticks)| Subtree::of(Identity { pid, start_ticks })).collect();
        let mut kept = Subtrees::default();
        for _ in 0..2 {
            for subtree in &mut subtrees {
                *subtree = Subtree::of(subtree.root);
            }
            kept.begin();
            lines.iter().for_each(|line| kept.add(&parsed(line)));
            kept.measure(files.proc_root(), scope, &mut subtrees);
        }
        subtrees.iter().map(|subtree| (subtree.memory_bytes / bytes(1), subtree.processes, subtree.is_alive)).collect()
    }

    #[test]
    fn a_subtree_is_its_root_and_all_below_it_but_for_the_subtrees_in_it() {
        let lines = [
            process(8, 7).pages(1),
            process(9, 8).pages(2),
            process(10, 9).pages(4),
            process(11, 10).pages(8),
            process(12, 7).pages(16),
            process(13, 12).pages(32),
        ];
        let roots = [0, 2].map(|index: usize| parsed(&lines[index])).map(|root| (root.pid, root.start_ticks));
        assert_eq!(measured(&lines, &roots, MemoryScope::Tree), [(3, 2, true), (12, 2, true)]);
        assert_eq!(measured(&lines, &roots, MemoryScope::Own), [(20, 2, true), (20, 2, true)], "as they are now");
    }

    #[test]
    fn pages_of_files_are_left_out_of_builds_where_the_kernel_tells_of_them() {
        let lines = [process(8, 7).pages(50), process(9, 8).pages(70), process(10, 8).pages(90).state('Z').threads(1)];
        let files = tree(7, lines.iter().cloned().chain([process(7, 1)])).with("8/statm", "99 50 30 1 0 2 0\n");
        let mut subtrees = [Subtree { is_without_files: true, ..Subtree::of(parsed(&lines[0]).identity()) }];
        let mut kept = Subtrees::default();
        lines.iter().for_each(|line| kept.add(&parsed(line)));
        kept.measure(files.proc_root(), MemoryScope::Tree, &mut subtrees);
        assert_eq!(subtrees[0].memory_bytes, bytes(20 + 70), "the second tells nothing");
    }

    #[test]
    fn a_root_that_has_ended_is_not_alive_and_one_with_its_number_is_another() {
        let lines = [process(8, 7).state('Z').threads(1).pages(0), process(9, 7).started(500).pages(5)];
        let start = parsed(&lines[0]).start_ticks;
        let found = measured(&lines, &[(8, start), (9, 499), (30, 1)], MemoryScope::Tree);
        assert_eq!(found, [(0, 1, false), (0, 0, false), (0, 0, false)]);
    }
}
