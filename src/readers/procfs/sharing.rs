//! The memory of a tree of processes, with the pages that they share counted once.
//!
//! The sum of their resident memory counts a page once for each process that maps it: eight forked children that share
//! 200 MB with their parent are 1.8 GB. It is never too low and costs nothing, and it is all there is to know for as
//! long as it closes nothing. Where it would, the shares are measured (`smaps_rollup`), the largest process first,
//! until the sum is well below. That is dear, 9 ms of CPU for 1 GiB, which the check pays out of its budget like
//! anything else.
//!
//! So a measurement is kept, and only what can have been added since is added to it: growth of the resident memory, and
//! one page for each page fault, since a write to a shared page makes another one and no memory grows. Pages that
//! become fewer are not taken off, as those who shared them keep them. In this way it is a bound that errs on the
//! closed side. A process of which the shares may not be read counts in full.
//!
//! Workers that take much memory and share little, again and again, fault all the time, and each measurement goes through
//! what they do not share. So it is kept how much each could have shared, and who shared less than a sixth of what it holds
//! now counts in full, for as long as all of that is less than a sixteenth of what would close the gate.

use std::os::fd::AsFd;

use super::files::bytes;
use super::smaps_rollup::{self, Rollup};
use super::stat::Process;
use super::ProcRoot;
use crate::sys::file::stack_path;
use crate::vocabulary::Identity;

/// The number of checks for which a measurement is kept. Beyond page faults there are rarer ways to new pages: a huge
/// page is one fault, and another process may write to this one's memory.
const KEPT_FOR: u32 = 32;

/// The part of its memory that a process must have shared for it to be worth going through all of it.
const WORTH: u64 = 6;

/// The part of what would close the gate that is counted too much at most, where that was not worth it.
const LET_GO: u64 = 16;

/// A tree of processes and what was measured of it, with buffers that are kept. All lists are ascending by process id.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    tree: Vec<Process>,
    measured: Option<Measured>,
    /// The tree as it was when it was measured.
    then: Vec<Process>,
    largest_first: Vec<Process>,
    /// The bytes that each process mapped together with others when it was last measured.
    shared: Vec<(Identity, u64)>,
    /// The checks since these were taken.
    checks: u32,
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    bytes: u64,
    /// The checks since then.
    checks: u32,
}

impl Sharing {
    /// Takes the processes of a tree, in ascending order of process id.
    pub(super) fn begin<'a>(&mut self, tree: impl Iterator<Item = &'a Process>) {
        self.tree.clear();
        self.tree.extend(tree);
    }

    pub(super) fn add(&mut self, process: Process) {
        let index = self.tree.partition_point(|other| other.pid < process.pid);
        self.tree.insert(index, process);
    }

    /// Drops the measurement, which the next one does not start from.
    pub(super) fn forget(&mut self) {
        self.measured = None;
    }

    /// The plain sum.
    pub(super) fn plain_bytes(&self) -> u64 {
        self.tree.iter().fold(0, |sum, process| sum.saturating_add(bytes(process.resident_pages)))
    }

    /// The memory of the tree, in bytes, of which the plain sum reaches `closes_from`.
    pub(super) fn bytes(&mut self, root: ProcRoot<'_>, closes_from: u64) -> u64 {
        let plain = self.plain_bytes();
        self.checks += 1;
        if let Some(Measured { bytes, checks }) = &mut self.measured {
            *checks += 1;
            let estimate = bytes.saturating_add(added(&self.then, &self.tree));
            // While nothing is less than it was, measuring again could say no less.
            if *checks < KEPT_FOR && (estimate < closes_from || !has_shrunk(&self.then, &self.tree)) {
                return plain.min(estimate);
            }
        }
        let bytes = self.measure(root, plain, closes_from);
        self.measured = Some(Measured { bytes, checks: 0 });
        self.then.clone_from(&self.tree);
        bytes
    }

    fn measure(&mut self, root: ProcRoot<'_>, plain: u64, closes_from: u64) -> u64 {
        // A process shares more than it did once it has forked.
        if self.checks >= KEPT_FOR || self.tree.iter().any(|process| find(&self.then, process).is_none()) {
            self.shared.clear();
            self.checks = 0;
        }
        self.largest_first.clone_from(&self.tree);
        self.largest_first.sort_unstable_by_key(|process| std::cmp::Reverse(process.resident_pages));
        // An eighth below, or the next page would be a reason to measure again.
        let enough = closes_from - closes_from / 8;
        let (mut total, mut private, mut shared) = (plain, 0_u64, 0_u64);
        let mut let_go = closes_from / LET_GO;
        for process in &self.largest_first {
            if total < enough {
                break;
            }
            let resident = bytes(process.resident_pages);
            let identity = process.identity();
            let known = self.shared.iter().find(|(of, _)| *of == identity).map(|(_, bytes)| *bytes);
            if let Some(known) = known.filter(|known| *known < let_go.min(resident / WORTH)) {
                private = private.saturating_add(resident - known);
                let_go -= known;
                continue;
            }
            let Some(rollup) = rollup(root, process.pid) else { continue };
            if known.is_none() {
                self.shared.push((identity, rollup.resident.saturating_sub(rollup.private)));
            }
            total = total.saturating_sub(resident).saturating_add(rollup.proportional.min(resident));
            private = private.saturating_add(rollup.private);
            shared = shared.max(rollup.resident.saturating_sub(rollup.private));
        }
        // Pages that are shared with strangers too count for less than one in the shares, and are as much in memory.
        plain.min(total.max(private.saturating_add(shared)))
    }
}

/// The most that can have been added since `then`, in bytes.
fn added(then: &[Process], now: &[Process]) -> u64 {
    now.iter().fold(0_u64, |sum, process| {
        let pages = match find(then, process) {
            Some(then) => {
                let grown = process.resident_pages.saturating_sub(then.resident_pages);
                grown.saturating_add(process.page_faults.saturating_sub(then.page_faults))
            }
            None => process.resident_pages,
        };
        sum.saturating_add(bytes(pages))
    })
}

/// Returns `true` if somebody has ended or given memory back since `then`.
fn has_shrunk(then: &[Process], now: &[Process]) -> bool {
    then.iter().any(|then| find(now, then).map_or(true, |now| now.resident_pages < then.resident_pages))
}

fn find<'a>(list: &'a [Process], process: &Process) -> Option<&'a Process> {
    let index = list.binary_search_by_key(&process.pid, |process| process.pid).ok()?;
    Some(&list[index]).filter(|found| found.identity() == process.identity())
}

/// The shares of a process, if they may be read.
fn rollup(root: ProcRoot<'_>, pid: u32) -> Option<Rollup> {
    let mut path = [0; 32];
    let file = root.directory.open_file(stack_path(&mut path, format_args!("{pid}/smaps_rollup")).ok()?).ok()?;
    smaps_rollup::read(file.as_fd()).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::fixture::{process, tree, Line, Tree};
    use crate::readers::procfs::stat;
    use crate::sys::file::page_size;

    fn parsed(lines: impl IntoIterator<Item = Line>) -> Vec<Process> {
        lines.into_iter().map(|line| stat::parse(line.line().as_bytes()).unwrap()).collect()
    }

    fn rollup(pss: u64, private: u64) -> String {
        let kilobytes = page_size() / 1024;
        format!(
            "Rss: {} kB\nPss: {} kB\nPrivate_Clean: 0 kB\nPrivate_Dirty: {} kB\n",
            1000 * kilobytes,
            pss * kilobytes,
            private * kilobytes
        )
    }

    /// Process 7 and four children that share 990 of their 1000 pages, and what is said of them in pages.
    fn family() -> (Tree, [Line; 5]) {
        let lines = [7, 8, 9, 10, 11].map(|pid| process(pid, 7).pages(1000));
        let tree = [7, 8, 9, 10, 11]
            .iter()
            .fold(tree(7, []), |tree, pid| tree.with(&format!("{pid}/smaps_rollup"), &rollup(208, 10)));
        (tree, lines)
    }

    fn pages(sharing: &mut Sharing, tree: &Tree, processes: &[Process], closes_from: u64) -> u64 {
        sharing.begin(processes.iter());
        sharing.bytes(tree.proc_root(), bytes(closes_from)) / page_size()
    }

    #[test]
    fn shared_pages_count_once_where_the_plain_sum_would_close_the_gate_and_only_there() {
        let (tree, lines) = family();
        let processes = parsed(lines);
        let mut sharing = Sharing::default();
        assert_eq!(pages(&mut sharing, &tree, &processes, 1100), 5 * 208);
        // One is enough.
        assert_eq!(pages(&mut Sharing::default(), &tree, &processes, 5000), 4 * 1000 + 208);
    }

    #[test]
    fn what_is_added_since_is_counted_until_it_would_close_the_gate_and_is_then_measured() {
        let (tree, lines) = family();
        let mut sharing = Sharing::default();
        let first = parsed(lines);
        assert_eq!(pages(&mut sharing, &tree, &first, 1300), 1040);
        // Not read again: these would say nothing.
        let tree = (7..12).fold(tree, |tree, pid| tree.with(&format!("{pid}/smaps_rollup"), ""));
        let mut later = first.clone();
        later[1].resident_pages += 50;
        later[2].page_faults += 60;
        assert_eq!(pages(&mut sharing, &tree, &later, 1300), 1150);
        later.extend(parsed([process(20, 7).pages(100)]));
        assert_eq!(pages(&mut sharing, &tree, &later, 1300), 1250);
        // An end takes nothing off: the others keep what they shared.
        let ended = later.remove(3);
        assert_eq!(pages(&mut sharing, &tree, &later, 1300), 1250);
        // Another process with that number.
        later.insert(3, Process { start_ticks: 99, resident_pages: 10, ..ended });
        assert_eq!(pages(&mut sharing, &tree, &later, 1300), 1260);
        later[0].page_faults += 100;
        let plain = pages(&mut sharing, &tree, &later, 1300);
        assert_eq!(plain, later.iter().map(|process| process.resident_pages).sum::<u64>(), "measured, in vain");
    }

    #[test]
    fn who_shares_little_of_what_it_holds_counts_in_full_until_somebody_is_new() {
        let (tree, lines) = family();
        let tree = (7..12).fold(tree, |tree, pid| tree.with(&format!("{pid}/smaps_rollup"), &rollup(950, 940)));
        let first = parsed(lines);
        let mut sharing = Sharing::default();
        assert_eq!(pages(&mut sharing, &tree, &first, 1000), 5 * 940 + 60);
        // Process 8 holds much more, which it does not share. Another holds less, or nothing would be measured again.
        let tree = tree.with("8/smaps_rollup", &rollup(20_950, 20_940));
        let mut later = first.clone();
        (later[1].resident_pages, later[2].resident_pages) = (21_000, 999);
        assert_eq!(pages(&mut sharing, &tree, &later, 1000), 21_000 + 4 * 950);
        assert_eq!(pages(&mut Sharing::default(), &tree, &later, 1000), 20_940 + 4 * 940 + 60);
        later.extend(parsed([process(20, 7).pages(100)]));
        later[3].resident_pages = 999;
        assert_eq!(pages(&mut sharing, &tree, &later, 1000), 20_950 + 4 * 950 + 100);
    }

    #[test]
    fn many_who_share_little_do_not_add_up_to_a_gate_that_is_closed_for_nothing() {
        let lines: Vec<Line> = (7..27).map(|pid| process(pid, 7).pages(1000)).collect();
        let tree = (7..27).fold(tree(7, []), |tree, pid| tree.with(&format!("{pid}/smaps_rollup"), &rollup(910, 900)));
        let mut processes = parsed(lines);
        let mut sharing = Sharing::default();
        assert_eq!(pages(&mut sharing, &tree, &processes, 16_000), 20 * 910);
        processes[0].resident_pages -= 1;
        // Of nine no more than 900 pages are counted twice.
        assert_eq!(pages(&mut sharing, &tree, &processes, 16_000), 9 * 1000 + 11 * 910);
    }

    #[test]
    fn a_measurement_is_not_kept_for_ever() {
        let (tree, lines) = family();
        let mut sharing = Sharing::default();
        let processes = parsed(lines);
        assert_eq!(pages(&mut sharing, &tree, &processes, 1300), 1040);
        let tree = (7..12).fold(tree, |tree, pid| tree.with(&format!("{pid}/smaps_rollup"), &rollup(220, 10)));
        let changed = (1..100).find(|_| pages(&mut sharing, &tree, &processes, 1300) == 1100);
        assert_eq!(changed, Some(KEPT_FOR));
    }

    #[test]
    fn it_is_never_less_than_what_is_surely_there_and_never_more_than_the_plain_sum() {
        let (tree, lines) = family();
        let processes = parsed(lines);
        // Shared with many strangers: the pages are there all the same.
        let tree = (7..12).fold(tree, |tree, pid| tree.with(&format!("{pid}/smaps_rollup"), &rollup(11, 10)));
        assert_eq!(pages(&mut Sharing::default(), &tree, &processes, 100), 5 * 10 + 990);
        let tree = (7..12).fold(tree, |tree, pid| tree.with(&format!("{pid}/smaps_rollup"), &rollup(9999, 0)));
        assert_eq!(pages(&mut Sharing::default(), &tree, &processes, 100), 5000);
    }

    #[test]
    fn a_process_whose_shares_cannot_be_read_counts_in_full() {
        let (tree, lines) = family();
        let tree = tree.without("9/smaps_rollup").with("10/smaps_rollup", "Rss: 1 kB\n");
        assert_eq!(pages(&mut Sharing::default(), &tree, &parsed(lines), 1000), 3 * 208 + 2 * 1000);
    }
}
