//! The descendants of this process, read again only where something can have changed.
//!
//! What may be relied upon, and what follows from it:
//!
//! - A process is its number and the inode of its directory, which a listing of `/proc` gives with the name: a number that
//!   is given away again comes with another inode. Whoever is listed as before is not read again.
//! - A parent changes only by dying, and a process whose ancestors do not include us never comes below us. So a stranger
//!   stays one, and a descendant is read again when its parent has ended, zombies included.
//! - The kernel tells without any text whether a process has ended: `waitid` of a child of ours, and the number of open
//!   files of any other, which is 0 then. (0 may be true of the living too, and is always said before Linux 6.2: then
//!   `stat` decides.)
//!
//! Where strangers are many and descendants few, the files that list the children of each thread are cheaper to walk
//! than `/proc` is to list. Their lists can miss a live process for a moment, so whoever was known before is kept until
//! it is seen to be gone.
//!
//! Nothing is believed for ever: in each check a few processes are read again, and in [`REREAD_EVERY`] checks all of them.
//! Anything odd, any error included, forgets everything, and the next check reads it all.

use super::children::{self, Children};
use super::descendants::{index_of_key, Descendants, Parent, Standing};
use super::process_table::read_process;
use super::stat::{self, Process};
use super::{status, Source};
use crate::error::Error;
use crate::resource::MemoryScope;
use crate::sys::child::{self, Child};
use crate::sys::file::{name, Listing};

/// In so many checks each process that is known is read again at least once: enough of them that this costs less than the
/// rest of a check.
const REREAD_EVERY: usize = 256;

/// As many entries of `/proc`, 0.26 us each, can be listed for the price of what a walk costs: 2.5 us for a process (the
/// number of its threads, its open files) and 3.8 us for each thread (its children).
const LISTED_PER_PROCESS: u64 = 10;
const LISTED_PER_THREAD: u64 = 15;

/// A process as it was last read, and the inode under which it was listed: 0 when it has not been, which no inode is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) process: Process,
    inode: u64,
    /// Whether it was not known before this check.
    is_new: bool,
    /// Whether its parent was read in this check, and so is not one that has ended since.
    has_fresh_parent: bool,
}

/// An entry of `/proc`.
#[derive(Debug, Clone, Copy)]
struct Listed {
    pid: u32,
    inode: u64,
    known: bool,
}

/// What is known of the processes on this machine, from check to check. All lists are ascending by process id.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    listing: Option<Listing>,
    listed: Vec<Listed>,
    own: Option<Process>,
    family: Vec<Known>,
    /// As of the last listing.
    strangers: Vec<Known>,
    /// Read in this check, and not placed yet.
    fresh: Vec<Known>,
    new_strangers: Vec<Known>,
    placing: Descendants,
    children: Children,
    /// Whose children are still to be met in a walk.
    to_walk: Vec<u32>,
    /// `None` until it was tried whether the kernel lists children.
    can_walk: Option<bool>,
    /// The links of `/proc` at the last listing: it has one for each process.
    links: u64,
    checks: usize,
}

impl Tracker {
    /// The descendants now. Their memory is that of now in scope `Tree`, and else whatever it was when they were read.
    pub(super) fn check(&mut self, source: Source<'_>, own: u32, scope: MemoryScope) -> Result<&[Known], Error> {
        match self.try_check(source, own, scope) {
            Ok(()) => Ok(&self.family),
            Err(error) => {
                self.forget();
                Err(error)
            }
        }
    }

    fn try_check(&mut self, source: Source<'_>, own: u32, scope: MemoryScope) -> Result<(), Error> {
        self.checks = self.checks.wrapping_add(1);
        self.fresh.clear();
        for known in &mut self.family {
            (known.is_new, known.has_fresh_parent) = (false, false);
        }
        let known = self.family.len();
        let walked = self.is_walk_cheaper(source, own)? && self.walk(source, own)?;
        if !walked {
            self.list(source, own)?;
        }
        let looked_the_same = self.look(source, own, scope, walked)?;
        if !looked_the_same || !self.fresh.is_empty() || self.family.len() != known {
            self.place(source, own, walked)?;
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.family.clear();
        self.strangers.clear();
    }

    fn is_walk_cheaper(&mut self, source: Source<'_>, own: u32) -> Result<bool, Error> {
        let processes = self.family.len() as u64 * LISTED_PER_PROCESS;
        let threads = self.family.iter().map(|known| known.process.threads).fold(0, u64::saturating_add);
        let price = |threads: u64| processes.saturating_add(threads.saturating_mul(LISTED_PER_THREAD));
        let listed_then = self.listed.len() as u64;
        // Our own threads, and how many there are to list by now, are asked for only when that can matter.
        if self.strangers.is_empty() || listed_then <= price(threads) {
            return Ok(false);
        }
        let listed_now = listed_then.saturating_add(links(source)?).saturating_sub(self.links);
        if listed_now <= price(threads.saturating_add(children::threads(source, own)?)) {
            return Ok(false);
        }
        Ok(*self.can_walk.get_or_insert_with(|| self.children.are_listed(source, own)))
    }

    /// Lists `/proc`: keeps whoever is there as before, and reads whoever is new.
    fn list(&mut self, source: Source<'_>, own: u32) -> Result<(), Error> {
        self.fresh.clear();
        self.links = links(source)?;
        self.list_entries(source)?;
        let own = self.listed.binary_search_by_key(&own, |listed| listed.pid).map_err(|_| source.without_us(own))?;
        self.listed[own].known = true;

        let mut index = 0;
        self.strangers.retain(|_| {
            index += 1;
            !has_its_turn(index, self.checks)
        });
        keep_listed(&mut self.strangers, &mut self.listed);
        keep_listed(&mut self.family, &mut self.listed);
        for listed in self.listed.iter().filter(|listed| !listed.known) {
            let read = read_process(source, listed.pid)?;
            self.fresh.extend(read.map(|process| Known::new(process, listed.inode)));
        }
        Ok(())
    }

    fn list_entries(&mut self, source: Source<'_>) -> Result<(), Error> {
        let listing = match &mut self.listing {
            Some(listing) => listing,
            closed => closed.insert(source.root.list().map_err(|error| source.unlisted(error))?),
        };
        let listed = &mut self.listed;
        listed.clear();
        let visited = listing.visit(|entry| {
            let pid = stat::pid(entry.name.to_bytes());
            listed.extend(pid.map(|pid| Listed { pid, inode: entry.inode, known: false }));
        });
        visited.map_err(|error| source.unlisted(error))?;
        // The kernel lists them in this order already.
        listed.sort_unstable_by_key(|listed| listed.pid);
        Ok(())
    }

    /// Walks from parent to child: reads whoever is new, and whoever is not met any more. Returns false when the tree
    /// grows so fast that listing everything is the shorter way.
    fn walk(&mut self, source: Source<'_>, own: u32) -> Result<bool, Error> {
        let most = self.family.len() + self.strangers.len();
        self.to_walk.clear();
        self.to_walk.push(own);
        loop {
            while let Some(parent) = self.to_walk.pop() {
                for &pid in self.children.of(source, parent)? {
                    match index_of_key(&self.family, pid, Known::pid) {
                        Some(index) if self.family[index].has_fresh_parent => {}
                        // Under another parent than before: not met, and so read again.
                        Some(index) if self.family[index].process.parent != parent => {}
                        Some(index) => {
                            self.family[index].has_fresh_parent = true;
                            self.to_walk.push(pid);
                        }
                        None => {
                            let read = read_process(source, pid)?;
                            self.to_walk.extend(read.map(|process| process.pid));
                            self.fresh.extend(read.map(|process| Known::new(process, 0)));
                        }
                    }
                }
                if self.fresh.len() > most {
                    return Ok(false);
                }
            }
            if !self.read_unmet(source)? {
                break;
            }
        }
        // A process that moved meanwhile may have been met twice.
        self.fresh.sort_unstable_by_key(Known::pid);
        self.fresh.dedup_by_key(|known| known.process.pid);
        Ok(true)
    }

    /// Reads whoever was known and not met: it has ended, or has another parent now, or the lists lost it. Returns
    /// whether there are more to walk from.
    fn read_unmet(&mut self, source: Source<'_>) -> Result<bool, Error> {
        let Tracker { family, fresh, to_walk, .. } = self;
        let mut failure = None;
        family.retain(|known| {
            if known.has_fresh_parent || failure.is_some() {
                return true;
            }
            match read_process(source, known.process.pid) {
                // In the lists are processes alone; a number from before may be that of a thread by now.
                Ok(Some(read)) if !status::is_process(source, read.pid) => {}
                Ok(read) => {
                    to_walk.extend(read.map(|process| process.pid));
                    fresh.extend(read.map(|process| Known::new(process, 0)));
                }
                Err(error) => failure = Some(error),
            }
            false
        });
        match failure {
            Some(error) => Err(error),
            None => Ok(!to_walk.is_empty()),
        }
    }

    /// Looks whether the descendants that were known before still live. Returns whether they are all as they were, but
    /// for their memory.
    fn look(&mut self, source: Source<'_>, own: u32, scope: MemoryScope, walked: bool) -> Result<bool, Error> {
        // Beside a new child, one that was found before may have been reaped since: each must be asked for.
        let is_new_child = |known: &Known| known.process.parent == own;
        let ask_each_child = child::any_has_ended() || self.fresh.iter().any(is_new_child);
        let mut same = true;
        let mut failure = None;
        let mut index = 0;
        self.family.retain_mut(|known| {
            index += 1;
            let read_anyway = has_its_turn(index, self.checks);
            let process = &mut known.process;
            let is_as_it_was = match scope {
                _ if read_anyway => false,
                // Under the inode that is still listed, it is the same one. A walk sees numbers, no inodes.
                _ if process.is_zombie() => !walked,
                MemoryScope::Tree => false,
                MemoryScope::Own if process.parent == own => {
                    !ask_each_child || child::find(process.pid) == Child::Alive
                }
                MemoryScope::Own => has_open_files(source, process.pid),
            };
            if is_as_it_was || failure.is_some() {
                return true;
            }
            match read_process(source, process.pid) {
                Ok(Some(read)) => {
                    same &= is_same(process, &read);
                    // Its number was given away since it was listed.
                    known.is_new = read.start_ticks != process.start_ticks;
                    *process = read;
                    known.has_fresh_parent = true;
                    true
                }
                Ok(None) => {
                    same = false;
                    false
                }
                Err(error) => {
                    failure = Some(error);
                    true
                }
            }
        });
        failure.map_or(Ok(same), Err)
    }

    /// Finds out who descends from us, of those that did before and those that are new.
    fn place(&mut self, source: Source<'_>, own: u32, walked: bool) -> Result<(), Error> {
        let own_process = match self.own {
            Some(own_process) => own_process,
            None => read_process(source, own)?.ok_or_else(|| source.without_us(own))?,
        };
        self.own = Some(own_process);
        merge(&mut self.family, &self.fresh);
        // Those known from the last listing may be gone by now.
        let strangers: &[Known] = if walked { &[] } else { &self.strangers };
        read_orphans_again(source, &mut self.family, strangers, &own_process)?;

        let family = &self.family;
        self.placing.place(family.len(), |index| find_parent(family, strangers, &own_process, &family[index].process));
        let mut index = 0;
        let (placing, new_strangers) = (&self.placing, &mut self.new_strangers);
        new_strangers.clear();
        self.family.retain(|known| {
            let standing = placing.standing(index);
            index += 1;
            // Who is lost, or was not listed, is not remembered: it will be read again.
            if standing == Standing::Stranger && known.inode != 0 {
                new_strangers.push(*known);
            }
            standing == Standing::Descendant
        });
        merge(&mut self.strangers, new_strangers);
        Ok(())
    }
}

impl Known {
    /// Read in this check.
    fn new(process: Process, inode: u64) -> Known {
        Known { process, inode, is_new: true, has_fresh_parent: true }
    }

    fn pid(&self) -> u32 {
        self.process.pid
    }
}

/// Keeps those that are listed under their inode, and marks the entries.
fn keep_listed(known: &mut Vec<Known>, listed: &mut [Listed]) {
    let mut listed = listed.iter_mut().peekable();
    known.retain(|known| {
        while listed.next_if(|listed| listed.pid < known.process.pid).is_some() {}
        match listed.peek_mut() {
            Some(listed) if listed.pid == known.process.pid && listed.inode == known.inode => {
                listed.known = true;
                true
            }
            _ => false,
        }
    });
}

/// Adds to a list what is not in it, both ascending by process id.
fn merge(list: &mut Vec<Known>, new: &[Known]) {
    let mut old = list.len();
    let mut added = new.len();
    list.extend_from_slice(new);
    // From the back, so that nothing is overwritten before it has moved.
    while old > 0 && added > 0 {
        let last = if list[old - 1].pid() > new[added - 1].pid() {
            old -= 1;
            list[old]
        } else {
            added -= 1;
            new[added]
        };
        list[old + added] = last;
    }
    list[..added].copy_from_slice(&new[..added]);
}

/// Whether the process at this position in its list is read again in this check. The turns of a short list are spread
/// over the round: the step has no divisor in common with its length, and is to it as the golden section.
fn has_its_turn(index: usize, check: usize) -> bool {
    const STEP: usize = 157;
    index % REREAD_EVERY == check.wrapping_mul(STEP) % REREAD_EVERY
}

/// Whether two readings of one process place it, and count it, alike.
fn is_same(before: &Process, now: &Process) -> bool {
    (before.parent, before.start_ticks, before.is_zombie()) == (now.parent, now.start_ticks, now.is_zombie())
}

/// Whoever claims a parent that has ended, or is not there, has another one by now.
fn read_orphans_again(
    source: Source<'_>,
    family: &mut Vec<Known>,
    strangers: &[Known],
    own: &Process,
) -> Result<(), Error> {
    let mut any_gone = false;
    for index in 0..family.len() {
        let orphan = family[index].process;
        let has_fresh_parent = family[index].has_fresh_parent;
        let is_orphan = match find_parent(family, strangers, own, &orphan) {
            // A parent from before that is new now is another one, which was given the number of the dead.
            Parent::At(parent) => {
                let Known { process: parent, is_new, .. } = &family[parent];
                parent.is_zombie() || parent.is_gone() || (*is_new && !has_fresh_parent)
            }
            Parent::Elsewhere(standing) => standing == Standing::Lost,
        };
        if is_orphan {
            match read_process(source, orphan.pid)? {
                Some(process) => family[index].process = process,
                None => {
                    family[index].process.group = None;
                    any_gone = true;
                }
            }
        }
    }
    if any_gone {
        family.retain(|known| !known.process.is_gone());
    }
    Ok(())
}

/// Where the parent that a process claims is. One that started after it is a stranger that was given the number of the
/// dead parent.
fn find_parent(family: &[Known], strangers: &[Known], own: &Process, child: &Process) -> Parent {
    let older = |parent: &Process| parent.start_ticks <= child.start_ticks;
    if child.parent == 0 {
        return Parent::Elsewhere(Standing::Stranger);
    }
    if child.parent == own.pid && older(own) {
        return Parent::Elsewhere(Standing::Descendant);
    }
    let in_family = index_of_key(family, child.parent, Known::pid).filter(|&index| older(&family[index].process));
    if let Some(index) = in_family {
        return Parent::At(index);
    }
    let stranger = index_of_key(strangers, child.parent, Known::pid);
    match stranger.filter(|&index| older(&strangers[index].process)) {
        Some(_) => Parent::Elsewhere(Standing::Stranger),
        None => Parent::Elsewhere(Standing::Lost),
    }
}

/// Whether the process surely has open files, and so has not ended: the size of its `fd` directory is their number
/// (proc_pid_fd(5), since Linux 6.2).
fn has_open_files(source: Source<'_>, pid: u32) -> bool {
    let status = name(&mut [0; 32], format_args!("{pid}/fd")).and_then(|path| source.root.status(path));
    status.is_ok_and(|status| status.size > 0)
}

/// The links of `/proc`, of which each process on the machine has one.
fn links(source: Source<'_>) -> Result<u64, Error> {
    let status = name(&mut [0; 2], format_args!(".")).and_then(|path| source.root.status(path));
    Ok(status.map_err(|error| source.unlisted(error))?.links)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::procfs::fixture::{process, Line};
    use crate::procfs::Files;
    use rusty_fork::rusty_fork_test;
    use std::path::Path;

    fn known(line: Line) -> Known {
        let process = stat::parse(line.line().as_bytes()).unwrap();
        Known::new(process, 1000 + u64::from(process.pid))
    }

    fn pids(list: &[Known]) -> Vec<u32> {
        list.iter().map(Known::pid).collect()
    }

    #[test]
    fn whoever_is_listed_under_another_inode_is_another() {
        let mut list = [2, 5, 6, 9].map(|pid| known(process(pid, 1))).to_vec();
        let listed = [(1, 1), (2, 1002), (5, 77), (8, 1), (9, 1009), (10, 1)];
        let mut listed = listed.map(|(pid, inode)| Listed { pid, inode, known: false });
        keep_listed(&mut list, &mut listed);
        assert_eq!(pids(&list), [2, 9]);
        assert_eq!(listed.map(|listed| listed.known), [false, true, false, false, true, false]);
    }

    #[test]
    fn every_position_has_its_turn_once_in_a_round() {
        for index in [0, 1, 49, 255, 256, 4999] {
            let turns = (1000..1000 + REREAD_EVERY).filter(|check| has_its_turn(index, *check));
            assert_eq!(turns.count(), 1, "{index}");
        }
    }

    #[test]
    fn a_parent_is_looked_for_among_those_who_could_be_it() {
        let own = known(process(7, 1).started(7)).process;
        let family = [known(process(8, 7).started(8)), known(process(20, 8).started(20))];
        let strangers = [known(process(1, 0).started(1)), known(process(30, 1).started(30))];
        let parent = |child: Line| find_parent(&family, &strangers, &own, &known(child).process);
        assert_eq!(parent(process(40, 7)), Parent::Elsewhere(Standing::Descendant));
        assert_eq!(parent(process(40, 20)), Parent::At(1));
        assert_eq!(parent(process(40, 30)), Parent::Elsewhere(Standing::Stranger));
        assert_eq!(parent(process(40, 0)), Parent::Elsewhere(Standing::Stranger));
        // Nobody is there, or whoever is there started later than its supposed child.
        for gone in
            [process(40, 35), process(40, 30).started(29), process(40, 20).started(19), process(40, 7).started(6)]
        {
            assert_eq!(parent(gone), Parent::Elsewhere(Standing::Lost));
        }
    }

    proptest! {
        #[test]
        fn merging_is_appending_and_sorting(
            all in prop::collection::btree_map(1..500_u32, any::<bool>(), 0..60),
        ) {
            let of = |wanted: bool| -> Vec<Known> {
                let chosen = all.iter().filter(|(_, new)| **new == wanted);
                chosen.map(|(pid, _)| known(process(*pid, 1))).collect()
            };
            let mut list = of(false);
            merge(&mut list, &of(true));
            prop_assert_eq!(pids(&list), all.keys().copied().collect::<Vec<_>>());
        }
    }

    rusty_fork_test! {
        #![rusty_fork(timeout_ms = 120_000)]

        /// A listing that says nothing of the walk, and a walk that must say the same.
        #[test]
        fn a_walk_finds_what_a_listing_finds() {
            let files = Files::default();
            let source = files.source(Path::new("/proc")).unwrap();
            let own = std::process::id();
            let shell = |script: &str| std::process::Command::new("sh").arg("-c").arg(script).spawn().unwrap();
            let mut tracker = Tracker::default();
            if !tracker.children.are_listed(source, own) {
                println!("skipped: this kernel has no children files");
                return;
            }
            tracker.check(source, own, MemoryScope::Own).unwrap();
            let mut shells: Vec<_> =
                (0..3).map(|_| shell("for i in 1 2 3; do sleep 1000 & done; exec sleep 1000")).collect();
            let count = |files: &Files| files.descendants(Path::new("/proc"), |found| found.count()).unwrap();
            while count(&files) < 12 {
                std::thread::yield_now();
            }
            let mut ended = shell("exit 0");
            while child::find(ended.id()) == Child::Alive {
                std::thread::yield_now();
            }
            let expected = files.descendants(Path::new("/proc"), |found| found.map(|one| (one.pid, one.is_zombie())).collect());
            let expected: Vec<_> = expected.unwrap();
            for _ in 0..3 {
                tracker.fresh.clear();
                assert!(tracker.walk(source, own).unwrap());
                tracker.look(source, own, MemoryScope::Own, true).unwrap();
                tracker.place(source, own, true).unwrap();
                let walked: Vec<_> = tracker.family.iter().map(|known| (known.pid(), known.process.is_zombie())).collect();
                assert_eq!(walked, expected);
            }
            ended.wait().unwrap();
            let sleepers = expected.iter().filter(|(pid, _)| *pid != ended.id());
            for (pid, _) in sleepers {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid as i32), nix::sys::signal::SIGKILL).unwrap();
            }
            for shell in &mut shells {
                shell.wait().unwrap();
            }
        }
    }
}
