//! The end of all that descends from this process.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::individual::Individual;
use super::manager::ProcessGroupManager;
use super::registry::Registry;
use super::target::{call_logger, checked_signal, report_denied};
use crate::host::events;
use crate::sys::reserve::is_exhausted;
use crate::sys::{process, ProcessMark};
use crate::vocabulary::Error;

/// Between two looks at who is left.
const ROUND: Duration = Duration::from_millis(5);

/// The outcome of [`kill_all_children`](ProcessGroupManager::kill_all_children).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KillReport {
    /// The process ids that the signal was sent to.
    pub signaled: Vec<u32>,
    /// The process ids that lived when the time was over, signalled or not.
    pub survivors: Vec<u32>,
    /// The process ids that may not be signalled by this user.
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
    /// collected; the host's own children are the host's to wait for, and a zombie does not live. A process that
    /// outlives the signal is not killed: for that, call it again with `SIGKILL` (9). It blocks for at most about
    /// `grace`.
    ///
    /// It takes no descriptor, thread or process that [`setup`](Self::setup) or [`kill_on_drop`](Self::kill_on_drop)
    /// has not set aside, nor a privilege or a root that was there then. Where other threads snatch even those
    /// descriptors away, it ends its children by asking the kernel for each number, and with a subreaper the others as
    /// they become its children.
    ///
    /// # Errors
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) for a signal that does not exist;
    /// [`Read`](crate::ErrorKind::Read) or [`Malformed`](crate::ErrorKind::Malformed) when descendants could not be
    /// read to the end: without a subreaper some may live. One that may not be signalled is in the report and stops
    /// nothing.
    pub fn kill_all_children(&self, signal: i32, grace: Duration) -> Result<KillReport, Error> {
        checked_signal(signal)?;
        let deadline = Instant::now().checked_add(grace);
        let mut ending = Ending::new(self.registry(), signal);
        loop {
            let alive = ending.targets()?;
            let any_new = ending.signal_new(&alive);
            // An error here only leaves zombies for later; the caller asked for a kill.
            let _ = ending.registry.reap();
            if alive.is_empty() {
                break;
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                ending.report.survivors = ending.targets()?.into_iter().map(Target::pid).collect();
                break;
            }
            if !any_new {
                let left = deadline.map_or(ROUND, |deadline| deadline - now);
                thread::sleep(ROUND.min(left));
            }
        }
        let report = ending.finish()?;
        if !report.signaled.is_empty() {
            call_logger(|| events::children_signaled(signal, &report.signaled, &report.survivors));
        }
        Ok(report)
    }

    /// Calls [`kill_all_children`](Self::kill_all_children) when the guard is dropped, also by a panic: for hosts whose
    /// shutdown may be interrupted. Those that outlive the signal are killed. In a forked child the guard does nothing.
    /// The descriptors that it will take are opened now.
    #[must_use = "dropping the guard ends the children"]
    pub fn kill_on_drop(self: &Arc<Self>, signal: i32, grace: Duration) -> KillOnDrop {
        self.registry().prepare();
        let mark = ProcessMark::here();
        KillOnDrop { group: Arc::clone(self), signal, grace, mark, armed: true }
    }
}

/// Ends the children of this process when it is dropped; see [`ProcessGroupManager::kill_on_drop`].
#[derive(Debug)]
pub struct KillOnDrop {
    group: Arc<ProcessGroupManager>,
    signal: i32,
    grace: Duration,
    mark: ProcessMark,
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
        if !self.armed || self.mark.is_inherited() {
            return;
        }
        // Nobody is left to hear of an error.
        let survived = self.group.kill_all_children(self.signal, self.grace);
        if survived.map_or(true, |report| !report.survivors.is_empty()) {
            let _ = self.group.kill_all_children(libc::SIGKILL, self.grace);
        }
    }
}

/// A process that is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Target {
    /// Found in the process table.
    Known(Individual),
    /// Found by asking the kernel for its relation to us, where the table could not be read.
    Asked(u32),
}

impl Target {
    fn pid(self) -> u32 {
        match self {
            Target::Known(individual) => individual.pid(),
            Target::Asked(pid) => pid,
        }
    }
}

/// One call of `kill_all_children`.
#[derive(Debug)]
struct Ending<'a> {
    registry: &'a Registry,
    signal: i32,
    dealt_with: HashSet<Target>,
    report: KillReport,
    /// The reason why the last round had to ask the kernel.
    unread: Option<Error>,
}

impl Ending<'_> {
    fn new(registry: &Registry, signal: i32) -> Ending<'_> {
        Ending { registry, signal, dealt_with: HashSet::new(), report: KillReport::default(), unread: None }
    }

    /// All that live and are ours to end. When the table cannot be read, for lack of a descriptor above all, it is
    /// those that the kernel says are children of ours: to a subreaper the others become that, one generation a round.
    fn targets(&mut self) -> Result<Vec<Target>, Error> {
        self.unread = None;
        let error = match self.registry.look_for_targets() {
            Ok(targets) => return Ok(targets.into_iter().map(Target::Known).collect()),
            Err(error) => error,
        };
        let asked = self.registry.ask_for_targets().map_err(|_| ()).map(|pids| pids.into_iter().map(Target::Asked));
        match asked {
            Ok(targets) => {
                self.unread = Some(error);
                Ok(targets.collect())
            }
            Err(()) => Err(error),
        }
    }

    /// Signals those that were not dealt with yet. Returns whether there were any.
    fn signal_new(&mut self, alive: &[Target]) -> bool {
        let mut any_new = false;
        for &target in alive {
            let is_new = self.dealt_with.insert(target);
            // A number may be that of another child by now, and to be killed twice harms nobody.
            let is_repeated = matches!(target, Target::Asked(_)) && self.signal == libc::SIGKILL;
            if !is_new && !is_repeated {
                continue;
            }
            let sent = match target {
                Target::Known(individual) => match self.registry.send(individual, self.signal) {
                    // No descriptor for a handle, or no look at whose it is: any child of ours that has this number is
                    // to end.
                    Err(error) if is_exhausted(error.os_error()) || self.registry.is_concealed(target.pid()) => {
                        self.registry.send_by_number(target.pid(), self.signal)
                    }
                    sent => sent,
                },
                Target::Asked(pid) => self.registry.send_by_number(pid, self.signal),
            };
            match sent {
                Ok(()) if is_new => self.report.signaled.push(target.pid()),
                Ok(()) => {}
                Err(error) if error.os_error() == Some(libc::EPERM) => {
                    if is_new {
                        report_denied(&error, target.pid(), self.signal);
                        self.report.denied.push(target.pid());
                    }
                }
                // It has ended meanwhile, or the next round will tell.
                Err(_) => {
                    self.dealt_with.remove(&target);
                    continue;
                }
            }
            any_new |= is_new;
        }
        any_new
    }

    /// The report. An error if it may be that a descendant lives: one that could not be found, and that will never be a
    /// child of this process.
    fn finish(self) -> Result<KillReport, Error> {
        match self.unread {
            Some(error) if !process::is_subreaper().unwrap_or(false) => Err(error),
            _ => Ok(self.report),
        }
    }
}
