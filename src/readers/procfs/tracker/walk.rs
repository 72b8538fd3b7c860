//! A walk from parent to child, where strangers are many.

use super::list::links;
use super::{Known, Tracker};
use crate::readers::procfs::descendants::index_of_key;
use crate::readers::procfs::process_table::read_process;
use crate::readers::procfs::{status, tasks, ProcRoot};
use crate::sys::process;
use crate::vocabulary::Error;

/// The price of a walk in entries of `/proc`, which cost 0.26 us each to list: a process costs 2.5 us (the number of
/// its threads, its open files), and each of its threads 3.8 us (its children).
const LISTED_PER_PROCESS: u64 = 10;
const LISTED_PER_THREAD: u64 = 15;

/// The fate of those that a walk has not met.
enum Unmet {
    /// All have ended.
    None,
    /// Some live, and may have children.
    ToWalk,
    /// Some live, and may not be looked at any more.
    Concealed,
}

impl Tracker {
    pub(super) fn is_walk_cheaper(&mut self, root: ProcRoot<'_>, own: u32) -> Result<bool, Error> {
        let processes = self.family.len() as u64 * LISTED_PER_PROCESS;
        let threads = self.family.iter().map(|known| known.process.threads).fold(0, u64::saturating_add);
        let price = |threads: u64| processes.saturating_add(threads.saturating_mul(LISTED_PER_THREAD));
        let listed_then = self.listed.len() as u64;
        // The children of a process that may not be looked at are in no list.
        if self.conceals != Some(false) || self.family.iter().any(|known| known.is_concealed) {
            return Ok(false);
        }
        // Our own threads, and how many there are to list by now, are asked for only when that can matter.
        if self.strangers.is_empty() || listed_then <= price(threads) {
            return Ok(false);
        }
        let listed_now = listed_then.saturating_add(links(root)?).saturating_sub(self.links);
        if listed_now <= price(threads.saturating_add(tasks::count(root, own)?)) {
            return Ok(false);
        }
        Ok(*self.can_walk.get_or_insert_with(|| self.children.are_listed(root, own)))
    }

    /// Walks from parent to child, and reads the processes that are new and those that are not met any more. Returns
    /// `false` when the tree grows so fast that listing everything is the shorter way, or when somebody is concealed.
    pub(super) fn walk(&mut self, root: ProcRoot<'_>, own: u32) -> Result<bool, Error> {
        let most = self.family.len() + self.strangers.len();
        self.to_walk.clear();
        self.to_walk.push(own);
        loop {
            while let Some(parent) = self.to_walk.pop() {
                for &pid in self.children.of(root, parent)? {
                    match index_of_key(&self.family, pid, Known::pid) {
                        Some(index) if self.family[index].has_fresh_parent => {}
                        // Under another parent than before: not met, and so read again.
                        Some(index) if self.family[index].process.parent != parent => {}
                        Some(index) => {
                            self.family[index].has_fresh_parent = true;
                            self.to_walk.push(pid);
                        }
                        None => {
                            let read = read_process(root, pid)?;
                            if read.is_none() && process::exists(pid) {
                                return Ok(false);
                            }
                            self.to_walk.extend(read.map(|process| process.pid));
                            self.fresh.extend(read.map(|process| Known::new(process, 0)));
                        }
                    }
                }
                if self.fresh.len() > most {
                    return Ok(false);
                }
            }
            match self.read_unmet(root)? {
                Unmet::None => break,
                Unmet::ToWalk => {}
                Unmet::Concealed => return Ok(false),
            }
        }
        // A process that moved meanwhile may have been met twice.
        self.fresh.sort_unstable_by_key(Known::pid);
        self.fresh.dedup_by_key(|known| known.process.pid);
        Ok(true)
    }

    /// Reads those that were known and not met: they have ended, or have another parent now, or the lists lost them.
    fn read_unmet(&mut self, root: ProcRoot<'_>) -> Result<Unmet, Error> {
        let Tracker { family, fresh, to_walk, .. } = self;
        let mut failure = None;
        let mut any_concealed = false;
        family.retain(|known| {
            if known.has_fresh_parent || failure.is_some() {
                return true;
            }
            match read_process(root, known.process.pid) {
                // In the lists are processes alone; a number from before may be that of a thread by now.
                Ok(Some(read)) if !status::is_process(root, read.pid) => {}
                Ok(None) if process::exists(known.process.pid) => {
                    any_concealed = true;
                    return true;
                }
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
            None if any_concealed => Ok(Unmet::Concealed),
            None if to_walk.is_empty() => Ok(Unmet::None),
            None => Ok(Unmet::ToWalk),
        }
    }
}
