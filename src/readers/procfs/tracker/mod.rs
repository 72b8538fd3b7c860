//! The descendants of this process, read again only where something can have changed.
//!
//! A plain scan opens a file of each process on the machine, 8 us each. The kernel can be relied upon for more than
//! that:
//!
//! - A process is its number and the inode of its directory, which a listing of `/proc` gives with the name: a number
//!   that is given away again comes with another inode. A process that is listed as before is not read again.
//! - A parent changes only by dying, and a process whose ancestors do not include us never comes below us. So a
//!   stranger stays one, and a descendant is read again when its parent has ended, zombies included.
//! - The kernel tells without any text whether a process has ended: `waitid` of a child of ours, and the number of open
//!   files of any other, which is 0 then. (0 may be true of the living too, and is always said before Linux 6.2: then
//!   `stat` decides.)
//!
//! Where strangers are many and descendants few, the files that list the children of each thread are cheaper to walk
//! than `/proc` is to list. Their lists can miss a live process for a moment, so those that were known before are kept
//! until they are seen to be gone.
//!
//! The price is memory of 64 bytes or so a process, and trust. Nothing is believed for ever: in each check a few
//! processes are read again, and in [`REREAD_EVERY`] checks all of them. Anything odd, any error included, forgets
//! everything, and the next check reads it all.

/// Descendants that the mount does not show.
mod concealed;
/// The listing of `/proc`: finds the new and the vanished.
mod list;
/// Descendants and strangers told apart.
mod place;
/// The walk from parent to child, where strangers are many.
mod walk;

use self::list::Listed;
use super::children::Children;
use super::concealed::Search;
use super::descendants::Descendants;
use super::process_table::read_process;
use super::stat::Process;
use super::ProcRoot;
use crate::sys::child::{self, Child};
use crate::sys::file::{stack_path, Listing};
use crate::sys::process;
use crate::vocabulary::{Error, MemoryScope};

/// The number of checks in which each process that is known is read again at least once: enough that these readings
/// cost less than the rest of a check.
const REREAD_EVERY: usize = 256;

/// A process as it was last read, and the inode under which it was listed: 0 when it has not been, which no inode is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) process: Process,
    inode: u64,
    /// Set if it was not known before this check.
    is_new: bool,
    /// Set if it may not be looked at. It is counted as it was last seen for as long as it exists.
    is_concealed: bool,
    /// Set if its parent was read in this check, and so is not one that has ended since.
    has_fresh_parent: bool,
}

/// The processes that are known from check to check. All lists are ascending by process id.
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
    search: Search,
    /// Set if the mount may conceal processes; `None` until that was looked up.
    conceals: Option<bool>,
    /// Those whose children are still to be met in a walk.
    to_walk: Vec<u32>,
    /// Set if the kernel lists children; `None` until that was tried.
    can_walk: Option<bool>,
    /// The links of `/proc` at the last listing: it has one for each process.
    links: u64,
    checks: usize,
}

impl Tracker {
    /// The descendants now. Their memory is that of now in scope `Tree`, and else that of when they were last read.
    pub(super) fn check(&mut self, root: ProcRoot<'_>, own: u32, scope: MemoryScope) -> Result<&[Known], Error> {
        let mut checked = self.try_check(root, own, scope);
        if let Ok(false) = checked {
            self.forget();
            checked = self.try_check(root, own, scope);
        }
        match checked {
            Ok(_) => Ok(&self.family),
            Err(error) => {
                self.forget();
                Err(error)
            }
        }
    }

    /// Returns `false` when nothing that is known is of use any more.
    fn try_check(&mut self, root: ProcRoot<'_>, own: u32, scope: MemoryScope) -> Result<bool, Error> {
        self.checks = self.checks.wrapping_add(1);
        self.fresh.clear();
        for known in &mut self.family {
            (known.is_new, known.has_fresh_parent) = (false, false);
        }
        let known = self.family.len();
        let walked = self.is_walk_cheaper(root, own)? && self.walk(root, own)?;
        if !walked {
            self.list(root, own)?;
        }
        let looked_the_same = self.look(root, own, scope, walked)?;
        if !looked_the_same || !self.fresh.is_empty() || self.family.len() != known {
            return self.place(root, own, walked);
        }
        Ok(true)
    }

    fn forget(&mut self) {
        self.own = None;
        self.family.clear();
        self.strangers.clear();
    }

    /// Drops the descendants that have ended since the last check, and reads those again that may have changed. Returns
    /// `true` if they are all as they were, but for their memory.
    fn look(&mut self, root: ProcRoot<'_>, own: u32, scope: MemoryScope, walked: bool) -> Result<bool, Error> {
        // Beside a new child, one that was found before may have been reaped since: each must be asked for.
        let is_new_child = |known: &Known| known.process.parent == own;
        let ask_each_child = child::any_has_ended() || self.fresh.iter().any(is_new_child);
        let mut same = true;
        let mut failure = None;
        let mut index = 0;
        self.family.retain_mut(|known| {
            index += 1;
            let read_anyway = has_its_turn(index, self.checks);
            let Known { process, is_concealed, .. } = known;
            if *is_concealed {
                // It exists, which was asked when it was found.
                if process.parent == own && !process.is_zombie() && child::find(process.pid) == Child::Ended {
                    (process.state, process.threads) = (b'Z', 1);
                    same = false;
                }
                return true;
            }
            let is_as_it_was = match scope {
                _ if read_anyway => false,
                // Under the inode that is still listed, it is the same one. A walk sees numbers, no inodes.
                _ if process.is_zombie() => !walked,
                MemoryScope::Tree => false,
                MemoryScope::Own if process.parent == own => {
                    !ask_each_child || child::find(process.pid) == Child::Alive
                }
                MemoryScope::Own => has_open_files(root, process.pid),
            };
            if is_as_it_was || failure.is_some() {
                return true;
            }
            match read_process(root, process.pid) {
                Ok(Some(read)) => {
                    same &= is_same(process, &read);
                    // Its number was given away since it was listed.
                    known.is_new = read.start_ticks != process.start_ticks;
                    *process = read;
                    known.has_fresh_parent = true;
                    true
                }
                Ok(None) if process::exists(process.pid) => {
                    *is_concealed = true;
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
}

#[cfg(test)]
impl Tracker {
    pub(crate) fn strangers(&self) -> usize {
        self.strangers.len()
    }
}

impl Known {
    /// Read in this check.
    fn new(process: Process, inode: u64) -> Known {
        Known { process, inode, is_new: true, is_concealed: false, has_fresh_parent: true }
    }

    fn pid(&self) -> u32 {
        self.process.pid
    }
}

/// Returns `true` if the process at this position in its list is read again in this check. The turns of a short list
/// are spread over the round: the step has no divisor in common with its length, and is to it as the golden section.
fn has_its_turn(index: usize, check: usize) -> bool {
    const STEP: usize = 157;
    index % REREAD_EVERY == check.wrapping_mul(STEP) % REREAD_EVERY
}

/// Returns `true` if two readings of one process place it, and count it, alike.
fn is_same(before: &Process, now: &Process) -> bool {
    (before.parent, before.start_ticks, before.is_zombie()) == (now.parent, now.start_ticks, now.is_zombie())
}

/// Returns `true` if the process surely has open files, and so has not ended: the size of its `fd` directory is their
/// number (proc_pid_fd(5), since Linux 6.2).
fn has_open_files(root: ProcRoot<'_>, pid: u32) -> bool {
    let status = stack_path(&mut [0; 32], format_args!("{pid}/fd")).and_then(|path| root.directory.status(path));
    status.is_ok_and(|status| status.size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::fixture::Line;
    use crate::readers::procfs::{stat, ProcFiles};
    use rusty_fork::rusty_fork_test;
    use std::path::Path;

    pub(super) fn known(line: Line) -> Known {
        let process = stat::parse(line.line().as_bytes()).unwrap();
        Known::new(process, 1000 + u64::from(process.pid))
    }

    pub(super) fn pids(list: &[Known]) -> Vec<u32> {
        list.iter().map(Known::pid).collect()
    }

    #[test]
    fn every_position_has_its_turn_once_in_a_round() {
        for index in [0, 1, 49, 255, 256, 4999] {
            let turns = (1000..1000 + REREAD_EVERY).filter(|check| has_its_turn(index, *check));
            assert_eq!(turns.count(), 1, "{index}");
        }
    }

    rusty_fork_test! {
        #![rusty_fork(timeout_ms = 600_000)]

        /// A listing that says nothing of the walk, and a walk that must say the same.
        #[test]
        fn a_walk_finds_what_a_listing_finds() {
            let files = ProcFiles::default();
            let root = files.root(Path::new("/proc")).unwrap();
            let own = std::process::id();
            let shell = |script: &str| std::process::Command::new("sh").arg("-c").arg(script).spawn().unwrap();
            let mut tracker = Tracker::default();
            if !tracker.children.are_listed(root, own) {
                println!("skipped: this kernel has no children files");
                return;
            }
            tracker.check(root, own, MemoryScope::Own).unwrap();
            let mut shells: Vec<_> =
                (0..3).map(|_| shell("for i in 1 2 3; do sleep 1000 & done; exec sleep 1000")).collect();
            let count = |files: &ProcFiles| files.descendants(Path::new("/proc"), |found| found.count()).unwrap();
            while count(&files) < 12 {
                std::thread::yield_now();
            }
            let mut ended = shell("exit 0");
            while child::find(ended.id()) == Child::Alive {
                std::thread::yield_now();
            }
            let pids_and_zombies = |process: &Process| (process.pid, process.is_zombie());
            let expected = files.descendants(Path::new("/proc"), |found| found.map(pids_and_zombies).collect());
            let expected: Vec<_> = expected.unwrap();
            for _ in 0..3 {
                tracker.fresh.clear();
                assert!(tracker.walk(root, own).unwrap());
                tracker.look(root, own, MemoryScope::Own, true).unwrap();
                tracker.place(root, own, true).unwrap();
                let walked: Vec<_> = tracker.family.iter().map(|known| pids_and_zombies(&known.process)).collect();
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
