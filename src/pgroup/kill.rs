//! Ending everything.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::individual::Individual;
use super::manager::ProcessGroupManager;
use super::target::{call_logger, checked_signal, report_denied};
use crate::host::events;
use crate::sys;
use crate::vocabulary::Error;

/// Between two looks at who is left.
const ROUND: Duration = Duration::from_millis(5);

/// What [`kill_all_children`](ProcessGroupManager::kill_all_children) has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KillReport {
    /// Whom the signal was sent to.
    pub signaled: Vec<u32>,
    /// Who lived when the time was over, whether it was signalled or not.
    pub survivors: Vec<u32>,
    /// Who may not be signalled by this user.
    pub denied: Vec<u32>,
}

impl ProcessGroupManager {
    /// Sends a signal to every descendant of this process, and to every other member of the process group that
    /// [`setup`](Self::setup) has made, ourselves excepted (in a group that this process led already there may be
    /// others: the rest of a shell's pipeline, say, is left alone); and goes on, in rounds, with those that are started
    /// meanwhile, until a look at the process table shows none that lives or `grace` is over. With a `grace` of zero
    /// there is one round.
    ///
    /// No signal disposition of this process is changed, and it is never signalled itself, whatever the signal. Each
    /// process is signalled once, and woken if it is stopped and the signal asks it to end. Those that were adopted are
    /// collected; the host's own children are the host's to wait for, and a zombie does not live. Nobody is killed who
    /// has outlived another signal: for that, call it again with `SIGKILL` (9). It blocks for at most about `grace`.
    ///
    /// # Errors
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) for a signal that does not exist; else what could not be
    /// read. One that may not be signalled is in the report and stops nothing.
    pub fn kill_all_children(&self, signal: i32, grace: Duration) -> Result<KillReport, Error> {
        checked_signal(signal)?;
        let registry = self.registry();
        let deadline = Instant::now().checked_add(grace);
        let mut dealt_with = HashSet::new();
        let mut report = KillReport::default();
        loop {
            let alive = match registry.look_for_targets() {
                Ok(alive) => alive,
                // Who was told is on the way out; whether anybody is left is worth another look.
                Err(_) if !dealt_with.is_empty() && deadline.map_or(true, |deadline| Instant::now() < deadline) => {
                    thread::sleep(ROUND);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut any_new = false;
            for &target in &alive {
                if dealt_with.contains(&target) {
                    continue;
                }
                match registry.send(target, signal) {
                    Ok(()) => report.signaled.push(target.pid()),
                    Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                        report_denied(&error, target.pid(), signal);
                        report.denied.push(target.pid());
                    }
                    // It has ended meanwhile, or the next round will tell.
                    Err(_) => continue,
                }
                any_new = true;
                dealt_with.insert(target);
            }
            // An error here only leaves zombies for later; the caller asked for a kill.
            let _ = registry.reap();
            if alive.is_empty() {
                break;
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                report.survivors = registry.look_for_targets()?.into_iter().map(Individual::pid).collect();
                break;
            }
            if !any_new {
                let left = deadline.map_or(ROUND, |deadline| deadline - now);
                thread::sleep(ROUND.min(left));
            }
        }
        if !report.signaled.is_empty() {
            call_logger(|| events::children_signaled(signal, &report.signaled, &report.survivors));
        }
        Ok(report)
    }

    /// Calls [`kill_all_children`](Self::kill_all_children) when the guard is dropped, also by a panic: for hosts whose
    /// shutdown may be interrupted. What outlives the signal is killed. In a forked child the guard does nothing.
    #[must_use = "dropping the guard ends the children"]
    pub fn kill_on_drop(self: &Arc<Self>, signal: i32, grace: Duration) -> KillOnDrop {
        let generation = sys::generation();
        KillOnDrop { group: Arc::clone(self), signal, grace, generation, armed: true }
    }
}

/// Ends the children of this process when it is dropped; see [`ProcessGroupManager::kill_on_drop`].
#[derive(Debug)]
pub struct KillOnDrop {
    group: Arc<ProcessGroupManager>,
    signal: i32,
    grace: Duration,
    generation: u64,
    armed: bool,
}

impl KillOnDrop {
    /// Leaves the children alone after all.
    pub fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if !self.armed || self.generation != sys::generation() {
            return;
        }
        // Nobody is left to hear of an error.
        let survived = self.group.kill_all_children(self.signal, self.grace);
        if survived.map_or(true, |report| !report.survivors.is_empty()) {
            let _ = self.group.kill_all_children(libc::SIGKILL, self.grace);
        }
    }
}
