//! Individuals: processes told from all others that were or will be given their numbers.
//!
//! A number and a start time are not enough. Start times are told in clock ticks of 10 ms, and a number can be given
//! away again within one. But nobody is given a number before its last holder is gone. So from a process that was seen
//! alive after the tick in which it started, all later holders of its number differ by their start times: number and
//! start are its alone, for good. Only a process that was met within its first tick can be mistaken, and of that the
//! inode of its handle is noted as well (`pidfs`, Linux 6.9), which the kernel gives to one process ever. Where there
//! are no such inodes a look waits for the end of the tick, at most 10 ms, and reads that process again.
//!
//! A process that may not be looked at has no start time that anybody could read, and its inode is all that it is known
//! by. Without one it is told from no other, and is left alone.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::thread;
use std::time::Duration;

use super::table::Table;
use crate::readers::procfs::stat::Process;
use crate::sys::process::ticks_since_boot;
use crate::vocabulary::{Error, Identity};

/// One process, and no other ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Individual {
    pub(super) identity: Identity,
    /// The inode of its handle, if it was first met within its first tick, or may not be looked at.
    pub(super) inode: Option<u64>,
}

impl Individual {
    pub(super) fn pid(self) -> u32 {
        self.identity.pid
    }

    /// All that can have this number.
    pub(super) fn all_of(pid: u32) -> RangeInclusive<Individual> {
        let at = |start_ticks, inode| Individual { identity: Identity { pid, start_ticks }, inode };
        at(i64::MIN, None)..=at(i64::MAX, Some(u64::MAX))
    }
}

/// A process as it was read while a handle of it was held, and the inode of that handle, if it has one of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) process: Process,
    pub(super) inode: Option<u64>,
}

/// The processes that are known by their inodes and are still listed: those that were met within their first tick, and
/// those that may not be looked at.
#[derive(Debug, Default)]
pub(super) struct KnownByInode {
    inodes: HashMap<Identity, Inode>,
    /// The same the other way round.
    identities: HashMap<u64, Identity>,
}

#[derive(Debug, Clone, Copy)]
struct Inode {
    number: u64,
    /// Seen again after its first tick: number and start time are its alone from now on.
    is_settled: bool,
}

impl KnownByInode {
    /// The individual that a process is which was read after the tick `began`; `None` when it is gone by now, or was
    /// handed to another parent before it could be held. `hold` reads the holder of a number.
    pub(super) fn identify(
        &mut self,
        process: &Process,
        began: i64,
        hold: impl Fn(u32) -> Result<Option<Held>, Error>,
    ) -> Result<Option<Individual>, Error> {
        let identity = process.identity();
        let known = self.inodes.get(&identity).copied();
        let settled = match known {
            Some(inode) if inode.is_settled => Some(Some(inode.number)),
            None if !is_young(identity, began) => Some(None),
            _ => None,
        };
        if let Some(inode) = settled {
            return Ok(Some(Individual { identity, inode }));
        }
        // The parent in the table is that of the process now held, unless the held one is known to be the same, only if
        // it has that parent still.
        let is_same = |held: &Held| {
            let is_known = known.is_some_and(|known| held.inode == Some(known.number));
            held.process.identity() == identity && (is_known || held.process.parent == process.parent)
        };
        let Some(held) = hold(identity.pid)?.filter(is_same) else { return Ok(None) };
        if let Some(number) = held.inode {
            self.note(identity, Inode { number, is_settled: !is_young(identity, began) });
            return Ok(Some(Individual { identity, inode: Some(number) }));
        }
        if known.is_some() {
            return Err(Error::process(format!("process {} cannot be held to be told from others", identity.pid)));
        }
        while is_young(identity, ticks_since_boot()) {
            thread::sleep(Duration::from_millis(1));
        }
        let held = hold(identity.pid)?.filter(is_same);
        Ok(held.map(|_| Individual { identity, inode: None }))
    }

    /// The individual of this inode, which may not be looked at. It keeps the identity that it was first seen with,
    /// when it might be looked at or had another parent.
    pub(super) fn identify_concealed(&mut self, process: &Process, inode: u64) -> Individual {
        let identity = match self.identities.get(&inode) {
            Some(known) if known.pid == process.pid => *known,
            _ => {
                let identity = process.identity();
                // Another process of this number may have been seen with the same parent.
                self.note(identity, Inode { number: inode, is_settled: false });
                identity
            }
        };
        Individual { identity, inode: Some(inode) }
    }

    pub(super) fn contains(&self, pid: u32, inode: u64) -> bool {
        self.identities.get(&inode).is_some_and(|known| known.pid == pid)
    }

    fn note(&mut self, identity: Identity, inode: Inode) {
        self.inodes.insert(identity, inode);
        self.identities.insert(inode.number, identity);
    }

    pub(super) fn forget_ended(&mut self, table: &Table) {
        let KnownByInode { inodes, identities } = self;
        inodes.retain(|&identity, inode| table.find(Individual { identity, inode: Some(inode.number) }).is_some());
        identities.retain(|number, identity| inodes.get(identity).is_some_and(|inode| inode.number == *number));
    }
}

/// Returns `true` if the process started in this tick or later.
fn is_young(process: Identity, tick: i64) -> bool {
    process.start_ticks >= tick
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::fixture::process;
    use crate::readers::procfs::stat;

    /// Process 20, a child of 10, which started at `tick`.
    fn started(tick: i64) -> Process {
        stat::parse(process(20, 10).started(tick).line().as_bytes()).unwrap()
    }

    fn held(process: Process, inode: Option<u64>) -> Result<Option<Held>, Error> {
        Ok(Some(Held { process, inode }))
    }

    #[test]
    fn one_met_after_its_first_tick_is_known_by_its_start() {
        let mut known_by_inode = KnownByInode::default();
        let who = known_by_inode.identify(&started(6), 7, |_| panic!("nothing is read")).unwrap();
        assert_eq!(who, Some(Individual { identity: started(6).identity(), inode: None }));
    }

    #[test]
    fn one_met_within_its_first_tick_is_known_by_its_inode_too() {
        let mut known_by_inode = KnownByInode::default();
        let first = known_by_inode.identify(&started(7), 7, |_| held(started(7), Some(1))).unwrap().unwrap();
        // Another one by now: its inode says so.
        let second = known_by_inode.identify(&started(7), 8, |_| held(started(7), Some(2))).unwrap().unwrap();
        assert_ne!(first, second);
        // From here on nobody else can have that start.
        assert_eq!(known_by_inode.identify(&started(7), 9, |_| panic!("nothing is read")).unwrap(), Some(second));
    }

    #[test]
    fn one_that_has_changed_since_it_was_listed_is_left_out() {
        let changed = Process { parent: 11, ..started(7) };
        let other = started(8);
        for now in [held(changed, Some(1)), held(other, Some(1)), Ok(None)] {
            let now = now.unwrap();
            assert_eq!(KnownByInode::default().identify(&started(7), 7, |_| Ok(now)).unwrap(), None);
        }
        // One that is known to be the same may have another parent by now.
        let mut known_by_inode = KnownByInode::default();
        let who = known_by_inode.identify(&started(7), 7, |_| held(started(7), Some(1))).unwrap();
        assert_eq!(known_by_inode.identify(&started(7), 7, |_| held(changed, Some(1))).unwrap(), who);
    }

    #[test]
    fn one_that_may_not_be_looked_at_is_known_by_its_inode_alone() {
        let concealed = |parent: i64| {
            let parent = stat::parse(process(10, 1).started(parent).line().as_bytes()).unwrap();
            Process::concealed(20, &parent, false)
        };
        let mut known_by_inode = KnownByInode::default();
        let first = known_by_inode.identify_concealed(&concealed(1), 1);
        assert_eq!(known_by_inode.identify_concealed(&concealed(5), 1), first, "with another parent");
        let second = known_by_inode.identify_concealed(&concealed(1), 2);
        assert!(first != second && first.pid() == second.pid(), "another one of its number");
        // Seen before it was concealed.
        let mut known_by_inode = KnownByInode::default();
        let shown = known_by_inode.identify(&started(7), 7, |_| held(started(7), Some(1))).unwrap().unwrap();
        assert_eq!(known_by_inode.identify_concealed(&concealed(1), 1), shown);
    }

    #[test]
    fn without_inodes_the_end_of_the_tick_is_awaited() {
        let now = ticks_since_boot();
        let who = KnownByInode::default().identify(&started(now), now, |_| held(started(now), None)).unwrap().unwrap();
        assert_eq!(who.inode, None);
        assert!(ticks_since_boot() > now);
    }
}
