//! All that is known of the host's processes, and how one of them is dealt with.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::ExitStatus;
use std::time::Instant;

use super::ancestry::Ancestry;
use super::endings::Endings;
use super::individual::{Held, Individual, KnownByInode};
use super::table::Table;
use super::target::{call_logger, PROC};
use super::watched::Watched;
use crate::host::events;
use crate::readers::procfs::descendants::Descendants;
use crate::readers::procfs::stat::Process;
use crate::readers::procfs::ProcFiles;
use crate::sys::child::{self, Child};
use crate::sys::fork::Mutex;
use crate::sys::process::{self, ticks_since_boot, Handle};
use crate::sys::reserve::Reserve;
use crate::vocabulary::{Error, MemoryScope};

/// The part of a manager that belongs to one process.
#[derive(Debug, Default)]
pub(super) struct Registry {
    files: ProcFiles,
    pub(super) reserve: Reserve,
    pub(super) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) before_setup: Option<Before>,
    pub(super) ancestry: Ancestry,
    known_by_inode: KnownByInode,
    descendants: Descendants,
    /// The next look that is only to take note has time until then.
    pub(super) observed_until: Option<Instant>,
    pub(super) endings: Endings,
    /// The children whose status the host has asked for.
    pub(super) watched: BTreeMap<u32, Watched>,
}

/// The state that `setup` has changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    pub(super) group: u32,
    pub(super) subreaper: bool,
}

impl State {
    /// Returns `true` if the process group was made by us, so that all others in it come from here.
    fn made_group(&self, own: u32) -> bool {
        self.before_setup.is_some_and(|before| before.group != own) && process::own_group() == own
    }

    /// The processes in this table that are ours to end: descendants, and members of the group that we made.
    fn targets(&mut self, table: &[Process], own: u32) -> HashSet<u32> {
        let made_group = self.made_group(own);
        let members = table.iter().filter(|process| made_group && process.group == Some(own));
        let ours = self.descendants.find(table, own).into_iter().flatten().chain(members);
        ours.map(|process| process.pid).filter(|&pid| pid != own).collect()
    }
}

impl Registry {
    /// Opens what ending processes takes, and keeps it: a shutdown may come when there is no descriptor left, when the
    /// process has dropped its privileges, or when it has changed its root. A failure shows when it is needed.
    pub(super) fn prepare(&self) {
        self.reserve.fill();
        let _ = self.look(|_, _| ());
        let _ = self.look_for_targets();
    }

    /// Makes a call that opens something, if need be with the descriptors that are set aside for it.
    fn with_room<T>(&self, call: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        self.reserve.lend(call, Error::os_error)
    }

    fn process(&self, pid: u32) -> Result<Option<Process>, Error> {
        self.with_room(|| self.files.process(Path::new(PROC), pid))
    }

    /// Reads the descendants, as far as they can have changed, takes note of their ancestry, and has `judge` look.
    pub(super) fn look<T>(&self, judge: impl FnOnce(&mut State, &Table) -> T) -> Result<T, Error> {
        self.ensure_own_kernel()?;
        self.reserve.fill();
        // Before anything is read, or an older look could undo the findings of a newer one.
        let mut state = self.state.lock();
        let began = ticks_since_boot();
        let descendants = self.with_room(|| {
            self.files.tracked(Path::new(PROC), MemoryScope::Own, |found| found.copied().collect::<Vec<_>>())
        })?;
        let table = Table::new(std::process::id(), descendants, |process| {
            self.identify(&mut state.known_by_inode, process, began)
        })?;
        state.ancestry.observe(&table);
        state.known_by_inode.forget_ended(&table);
        Ok(judge(&mut state, &table))
    }

    /// Reads every process on the machine, takes note of the ancestry of those that descend from this one, and returns
    /// those that live and are ours to end.
    pub(super) fn look_for_targets(&self) -> Result<Vec<Individual>, Error> {
        self.ensure_own_kernel()?;
        let mut state = self.state.lock();
        let began = ticks_since_boot();
        let own = std::process::id();
        let processes = self.with_room(|| self.files.processes(Path::new(PROC), <[Process]>::to_vec))?;
        let targets = state.targets(&processes, own);
        let table = Table::new(own, processes, |process| match targets.contains(&process.pid) {
            true => self.identify(&mut state.known_by_inode, process, began),
            false => Ok(Some(Individual { identity: process.identity(), inode: None })),
        })?;
        state.ancestry.observe(&table);
        state.known_by_inode.forget_ended(&table);
        let alive = table.processes().iter().enumerate().filter(|(_, process)| !process.is_zombie());
        Ok(alive.filter(|(_, process)| targets.contains(&process.pid)).map(|(index, _)| table.who(index)).collect())
    }

    /// The same by asking the kernel for each number, where the table cannot be read: the children of this process, and
    /// the members of the group that it made. Takes no descriptor once the registry is prepared.
    pub(super) fn ask_for_targets(&self) -> Result<Vec<u32>, Error> {
        self.ensure_own_kernel()?;
        let numbers = self.with_room(|| self.files.numbers(Path::new(PROC)))?;
        Ok(numbers.into_iter().filter(|&pid| self.is_target(pid)).collect())
    }

    fn is_target(&self, pid: u32) -> bool {
        let own = std::process::id();
        match child::find(pid) {
            _ if pid == own => false,
            Child::Alive => child::is_own(pid),
            Child::Ended => false,
            Child::Unknown => process::group_of(pid) == Some(own) && self.state.lock().made_group(own),
        }
    }

    /// Returns `true` if there is a process of this number that may not be looked at.
    pub(super) fn is_concealed(&self, pid: u32) -> bool {
        matches!(self.process(pid), Ok(None)) && process::exists(pid)
    }

    fn ensure_own_kernel(&self) -> Result<(), Error> {
        if self.with_room(|| self.files.is_of_own_kernel(Path::new(PROC)))? {
            return Ok(());
        }
        Err(Error::malformed(PROC.into(), "its process ids are not those of this process's system calls"))
    }

    /// The child of ours that has this number; `None` when it is no child, or gone.
    pub(super) fn child(&self, pid: u32) -> Result<Option<Individual>, Error> {
        self.ensure_own_kernel()?;
        let mut state = self.state.lock();
        let (began, own) = (ticks_since_boot(), std::process::id());
        let child = match self.process(pid)? {
            // One that may not be looked at.
            None if child::is_own(pid) => self.process(own)?.map(|own| Process::concealed(pid, &own, false)),
            shown => shown.filter(|shown| shown.parent == own),
        };
        let Some(child) = child else { return Ok(None) };
        match self.identify(&mut state.known_by_inode, &child, began)? {
            Some(who) if child.is_concealed() && who.inode.is_none() => {
                Err(Error::process(format!("process {pid} may not be looked at, and so be told from no other")))
            }
            who => Ok(who),
        }
    }

    /// The individual that a process is which was read after the tick `began`; `None` when it is gone by now, or was
    /// handed to another parent before it could be held.
    fn identify(
        &self,
        known_by_inode: &mut KnownByInode,
        process: &Process,
        began: i64,
    ) -> Result<Option<Individual>, Error> {
        if !process.is_concealed() {
            return known_by_inode.identify(process, began, |pid| self.hold(pid));
        }
        let handle = match self.handle(process.pid) {
            Err(error) if error.os_error() == Some(libc::ESRCH) => return Ok(None),
            handle => handle?,
        };
        let Some(inode) = handle.inode() else {
            return Ok(Some(Individual { identity: process.identity(), inode: None }));
        };
        // Whose child it is is asked while the handle is held, and so of the process that it holds.
        let is_same = known_by_inode.contains(process.pid, inode) || self.is_child_still(process)?;
        Ok((is_same && handle.has_its_number()).then(|| known_by_inode.identify_concealed(process, inode)))
    }

    /// Returns `true` if the parent of a process that may not be looked at has a child of its number.
    fn is_child_still(&self, process: &Process) -> Result<bool, Error> {
        if process.parent == std::process::id() {
            return Ok(child::is_own(process.pid));
        }
        self.with_room(|| self.files.is_listed_child(Path::new(PROC), process.parent, process.pid))
    }

    /// Reads the process of this number while a handle of it is held, so that the inode and the reading are of one
    /// process.
    fn hold(&self, pid: u32) -> Result<Option<Held>, Error> {
        let handle = match self.handle(pid) {
            Err(error) if error.os_error() == Some(libc::ESRCH) => return Ok(None),
            handle => handle?,
        };
        let process = self.process(pid)?;
        let held = process.map(|process| Held { process, inode: handle.inode() });
        Ok(held.filter(|_| handle.has_its_number()))
    }

    fn handle(&self, pid: u32) -> Result<Handle, Error> {
        self.with_room(|| {
            Handle::open(pid).map_err(|error| Error::system(format!("could not hold process {pid}"), error))
        })
    }

    /// A handle of this individual. ESRCH when it is gone.
    pub(super) fn open(&self, individual: Individual) -> Result<Handle, Error> {
        let handle = self.handle(individual.pid())?;
        let is_same = match individual.inode {
            Some(inode) => handle.inode() == Some(inode),
            // The holder of the number now held it when the handle was opened, or the handle reaches nobody.
            None => self.process(individual.pid())?.is_some_and(|now| now.identity() == individual.identity),
        };
        if is_same {
            return Ok(handle);
        }
        Err(Error::system(format!("process {} is gone", individual.pid()), process::no_such_process()))
    }

    /// Sends a signal to that process and no other.
    pub(super) fn send(&self, individual: Individual, signal: i32) -> Result<(), Error> {
        tell(&self.open(individual)?, signal)
    }

    /// Sends a signal to the holder of a number, which is ours to end right before.
    pub(super) fn send_by_number(&self, pid: u32, signal: i32) -> Result<(), Error> {
        let handle = Some(pid).filter(|&pid| self.is_target(pid)).ok_or_else(process::no_such_process);
        let handle = handle.and_then(Handle::by_number);
        tell(&handle.map_err(|error| Error::system(format!("process {pid} is gone"), error))?, signal)
    }

    /// Takes the status of that child of ours and no other, if it has ended. ECHILD or ESRCH when it was taken.
    pub(super) fn take_status(&self, child: Individual) -> Result<Option<ExitStatus>, Error> {
        let taken = self.open(child)?.take_status();
        taken.map_err(|error| Error::system(format!("could not wait for process {}", child.pid()), error))
    }

    /// Takes the status of those that were handed to us, and of the watched children, as far as they have ended.
    pub(super) fn reap(&self) -> Result<Vec<u32>, Error> {
        // Found and collected under one lock: of two at once, the slower one would give up what the other has taken.
        let reaped = self.look(|state, table| {
            let mut reaped = Vec::new();
            let State { ancestry, watched, .. } = state;
            for zombie in ancestry.adopted_zombies(table).filter(|zombie| !watched.contains_key(&zombie.pid())) {
                // An error: a thread that waits for any child was faster.
                if let Ok(Some(status)) = self.take_status(zombie) {
                    reaped.push((zombie.pid(), status));
                }
            }
            for (&pid, watched) in watched.iter_mut() {
                reaped.extend(watched.collect(self).map(|status| (pid, status)));
            }
            reaped
        })?;
        for (pid, status) in &reaped {
            call_logger(|| events::zombie_reaped(*pid, &status.to_string()));
        }
        Ok(reaped.into_iter().map(|(pid, _)| pid).collect())
    }
}

/// Signals the process of a handle. One that is told to end is woken as well: a stopped process dies of nothing but
/// `SIGKILL`.
fn tell(handle: &Handle, signal: i32) -> Result<(), Error> {
    handle.signal(signal).map_err(|error| Error::system("could not signal a process", error))?;
    if matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT) {
        // It may have ended of the first.
        let _ = handle.signal(libc::SIGCONT);
    }
    Ok(())
}
