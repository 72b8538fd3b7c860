//! What is known of the host's processes, and how one of them is dealt with.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Instant;

use super::ancestry::Ancestry;
use super::endings::Endings;
use super::target::{call_logger, io_error, PROC};
use super::watched::Watched;
use crate::host::events;
use crate::readers::procfs::stat::Process;
use crate::readers::procfs::ProcFiles;
use crate::sys::fork::Mutex;
use crate::sys::process::{self, Handle};
use crate::vocabulary::{Error, Identity, MemoryScope};

/// What a manager keeps in one process.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) files: ProcFiles,
    pub(super) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) before_setup: Option<Before>,
    pub(super) ancestry: Ancestry,
    /// The next look that is only to take note has time until then.
    pub(super) observed_until: Option<Instant>,
    pub(super) endings: Endings,
    /// The children that the host has asked for, and what became of them.
    pub(super) watched: BTreeMap<u32, Watched>,
}

/// What `setup` has changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    pub(super) group: u32,
    pub(super) subreaper: bool,
}

impl State {
    /// Whether the process group was made by us, so that whoever else is in it comes from here.
    pub(super) fn made_group(&self, own: u32) -> bool {
        self.before_setup.is_some_and(|before| before.group != own) && process::own_group() == own
    }
}

impl Registry {
    /// Reads the descendants, as far as they can have changed, takes note of who is below whom, and has `judge` look.
    pub(super) fn look<T>(&self, judge: impl FnOnce(&mut State, &[Process], u32) -> T) -> Result<T, Error> {
        self.ensure_own_kernel()?;
        // Before anything is read, or an older look could undo what a newer one has seen.
        let mut state = self.state.lock();
        let table =
            self.files.tracked(Path::new(PROC), MemoryScope::Own, |found| found.copied().collect::<Vec<_>>())?;
        let own = std::process::id();
        state.ancestry.observe(&table, own);
        Ok(judge(&mut state, &table, own))
    }

    /// The same with every process on the machine.
    pub(super) fn look_at_all<T>(&self, judge: impl FnOnce(&mut State, &[Process], u32) -> T) -> Result<T, Error> {
        self.ensure_own_kernel()?;
        let mut state = self.state.lock();
        let own = std::process::id();
        self.files.processes(Path::new(PROC), |table| {
            state.ancestry.observe(table, own);
            judge(&mut state, table, own)
        })
    }

    fn ensure_own_kernel(&self) -> Result<(), Error> {
        match self.files.is_of_own_kernel(Path::new(PROC))? {
            true => Ok(()),
            false => {
                let what = "its process ids are not those of this process's system calls";
                Err(Error::malformed(PROC.into(), what))
            }
        }
    }

    /// Sends a signal to that process, if it is still the one that it was. What is told to end is woken as well: a
    /// stopped process dies of nothing but `SIGKILL`.
    pub(super) fn send(&self, process: Identity, signal: i32) -> io::Result<()> {
        let handle = Handle::open(process.pid)?;
        // Whoever has the number now had it when the handle was opened, or the handle reaches nobody.
        let now = self.files.process(Path::new(PROC), process.pid).map_err(io_error)?;
        if now.map(|now| now.identity()) != Some(process) {
            return Err(process::no_such_process());
        }
        handle.signal(signal)?;
        if matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT) {
            // It may have ended of the first.
            let _ = handle.signal(libc::SIGCONT);
        }
        Ok(())
    }

    pub(super) fn reap(&self) -> Result<Vec<u32>, Error> {
        // Found and collected under one lock: of two at once, the slower one would wait for a number in other hands.
        let reaped = self.look(|state, table, own| {
            let mut reaped = Vec::new();
            let State { ancestry, watched, .. } = state;
            for process in ancestry.adopted_zombies(table, own).filter(|process| !watched.contains_key(&process.pid)) {
                // An error: somebody who waits for any child was faster.
                if let Ok(Some(status)) = Handle::open(process.pid).and_then(|handle| handle.take_status()) {
                    reaped.push((process.pid, status));
                }
            }
            for (&pid, watched) in watched.iter_mut() {
                reaped.extend(watched.collect(&self.files).map(|status| (pid, status)));
            }
            reaped
        })?;
        for (pid, status) in &reaped {
            call_logger(|| events::zombie_reaped(*pid, &status.to_string()));
        }
        Ok(reaped.into_iter().map(|(pid, _)| pid).collect())
    }
}
