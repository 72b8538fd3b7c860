//! A job that runs: its processes, and the room that is reserved for them.
//!
//! - `control`: what is done to it.

mod control;

use std::io;
use std::time::{Duration, Instant};

use super::cost::Cost;
use super::family::{self, Orphan, Serial};
use super::growth::Growth;
use super::job::Waiting;
use super::log::call_logger;
use crate::engine::Grant;
use crate::host::events;
use crate::jobserver::JobChannel;
use crate::pgroup::ProcessGroupManager;
use crate::sys::child::{self, Child};
use crate::sys::process::Handle;
use crate::vocabulary::{Resource, WorkUsage};

/// The age from which on the process group manager has charge of a job, which costs a look. What a younger one leaves
/// behind is known by its mark.
const LONG_LIVED: Duration = Duration::from_millis(50);

/// How long what was killed is waited for. It is gone after a moment, unless it waits for a device, or may not be killed.
pub(super) const DYING: Duration = Duration::from_secs(5);

/// Why a job is being ended, and so what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// To make room.
    Shed(Resource),
    TimedOut,
    WantsTerminal,
    Cancelled,
}

/// Who has paused a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// A resource is at its hard threshold.
    Monitor,
    /// It grows, and would reach that.
    Jobs,
}

/// What a running job is made to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Paused(By),
    /// Killed at this time; `None` once it was.
    Ending {
        kill_at: Option<Instant>,
        why: Why,
    },
}

/// A job with its processes. The first of them leads its process group. It is not waited for until nothing of the job
/// is left, so nobody else is given the number of the group, which can be signalled.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) job: Waiting,
    pub(super) grant: Grant,
    pub(super) handle: Handle,
    pub(super) pid: u32,
    pub(super) started: Instant,
    serial: Serial,
    state: State,
    /// Whether it was seen to have stopped since it was paused, or the kernel had no news of a continuation by then: the next
    /// is somebody else's doing.
    heeds_continuation: bool,
    has_ended: bool,
    /// Those of its processes that were handed over to this one, as of the last list of them.
    orphans: Vec<u32>,
    /// The most that it was seen to cost together with them, which no check measures as part of it.
    with_orphans: Cost,
    is_tracked: bool,
    /// The tasks that it had when they were last counted, and the most.
    tasks: u64,
    peak_tasks: u64,
    /// Its memory as the last check has measured it, and how it came to that.
    memory_bytes: u64,
    pub(super) growth: Growth,
    /// Whether its memory counts at what it uses, because it grows no more.
    pub(super) has_grown: bool,
    /// The memory that it counts at while it uses less.
    pub(super) counted_bytes: u64,
    /// The memory that it has beyond what its kind is taken to cost.
    pub(super) outgrown: Cost,
    /// When to kill what the first process has left behind, and then when to wait for it no longer.
    leaving: Option<Instant>,
    has_killed_orphans: bool,
    /// When it was killed.
    killed_at: Option<Instant>,
    is_delay_said: bool,
    trouble: Option<Trouble>,
}

/// What could not be done to a job, for the log. Its end, seen a moment later, settles the matter.
#[derive(Debug)]
pub(super) struct Trouble {
    job: u64,
    what: &'static str,
    error: io::Error,
}

impl Trouble {
    /// To be called under no lock.
    pub(super) fn log(self) {
        let Trouble { job, what, error } = self;
        call_logger(|| events::job_not_signalled(what, job, &error));
    }
}

impl Running {
    pub(super) fn new(job: Waiting, grant: Grant, handle: Handle, pid: u32, serial: Serial) -> Running {
        let counted_bytes = Cost::declared(&grant.work).memory_bytes;
        Running {
            job,
            grant,
            handle,
            pid,
            started: Instant::now(),
            serial,
            state: State::Running,
            heeds_continuation: false,
            has_ended: false,
            orphans: Vec::new(),
            with_orphans: Cost::default(),
            is_tracked: false,
            tasks: 0,
            peak_tasks: 0,
            memory_bytes: 0,
            growth: Growth::default(),
            has_grown: false,
            counted_bytes,
            outgrown: Cost::default(),
            leaving: None,
            has_killed_orphans: false,
            killed_at: None,
            is_delay_said: false,
            trouble: None,
        }
    }

    /// Keeps an error for the log, which is not called under the lock of the table.
    pub(super) fn complain(&mut self, what: &'static str, result: io::Result<()>) {
        if let Err(error) = result {
            self.trouble = Some(Trouble { job: self.id(), what, error });
        }
    }

    pub(super) fn take_trouble(&mut self) -> Option<Trouble> {
        self.trouble.take()
    }

    pub(super) fn id(&self) -> u64 {
        self.job.ticket.id
    }

    pub(super) fn kind(&self) -> &str {
        &self.job.job.kind
    }

    pub(super) fn is_paused(&self) -> bool {
        matches!(self.state, State::Paused(_))
    }

    /// Whether it was paused because it grows.
    pub(super) fn is_held(&self) -> bool {
        self.state == State::Paused(By::Jobs)
    }

    /// Whether it is at work: neither paused, nor told to end.
    pub(super) fn is_active(&self) -> bool {
        self.state == State::Running && !self.has_ended
    }

    /// Whether tokens stand for what it starts, so that the room for its steps is reserved before they grow: to stop all of
    /// them for one that grows would hold back what a token was granted for.
    pub(super) fn has_tokens(&self) -> bool {
        self.job.channel.is_some()
    }

    /// Whether it is at work, and may take more memory.
    pub(super) fn is_growing(&self) -> bool {
        self.is_active() && !self.has_grown && !self.has_tokens()
    }

    pub(super) fn is_ending(&self) -> bool {
        self.why().is_some()
    }

    pub(super) fn why(&self) -> Option<Why> {
        match self.state {
            State::Ending { why, .. } => Some(why),
            _ => None,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Looks whether the first process has ended, without taking its status. `true` if that is news.
    pub(super) fn look(&mut self) -> bool {
        let had_ended = self.has_ended;
        self.has_ended = child::find(self.pid) != Child::Alive;
        self.has_ended && !had_ended
    }

    /// Whether one of its processes that are children of this one was stopped because it wants the terminal, and it was not
    /// told to end yet. The kernel stops the whole group of a process for that, so this sees most of what those have started
    /// as well, and costs a system call. The rest is [looked for](family::wants_terminal) more rarely.
    pub(super) fn wants_terminal(&self) -> bool {
        let is_refused = |pid: u32| matches!(child::stopped_by(pid), Some(libc::SIGTTIN | libc::SIGTTOU));
        !self.is_ending() && !self.has_ended && self.roots().any(is_refused)
    }

    /// Those of its processes that are children of this one.
    pub(super) fn roots(&self) -> impl Iterator<Item = u32> + '_ {
        self.orphans.iter().chain([&self.pid]).copied()
    }

    /// Takes note of the memory that a check has measured, and returns what that is more than the last has.
    pub(super) fn note_growth(&mut self, usage: WorkUsage, at: Instant) -> u64 {
        self.growth.note(usage.peak_memory_bytes, at.saturating_duration_since(self.started));
        let before = std::mem::replace(&mut self.memory_bytes, usage.memory_bytes);
        usage.memory_bytes.saturating_sub(before)
    }

    /// The memory that it is still to take, if it comes to cost so much, or what it is known to need.
    pub(super) fn to_come(&self, cost: Cost) -> u64 {
        let needed = cost.max(self.job.needed).max(Cost::declared(&self.job.job.declared));
        needed.memory_bytes.saturating_sub(self.memory_bytes)
    }

    pub(super) fn note_tasks(&mut self, tasks: u64) {
        self.tasks = tasks;
        self.peak_tasks = self.peak_tasks.max(tasks);
    }

    /// The tasks that it is still to start, if it needs so many, and those that it has beyond them.
    pub(super) fn tasks_to_come(&self, needed: u64) -> (u64, u64) {
        (needed.saturating_sub(self.tasks), self.tasks.saturating_sub(needed))
    }

    /// Takes note of which orphans are its own: by their mark or group, or because they were seen below the job before.
    /// Those that have ended are reaped.
    pub(super) fn adopt(&mut self, orphans: &[Orphan], processes: &ProcessGroupManager) {
        let before = std::mem::take(&mut self.orphans);
        if orphans.is_empty() {
            return;
        }
        let below = if self.is_tracked { processes.backend_pids(self.pid).unwrap_or_default() } else { Vec::new() };
        let is_own =
            |orphan: &&Orphan| self.has_started(orphan) || before.contains(&orphan.pid) || below.contains(&orphan.pid);
        let own: Vec<Orphan> = orphans.iter().filter(is_own).copied().collect();
        own.iter().filter(|orphan| orphan.is_zombie).for_each(|orphan| family::reap(orphan.pid));
        self.orphans = own.iter().filter(|orphan| !orphan.is_zombie).map(|orphan| orphan.pid).collect();
    }

    /// Takes note of which of its orphans are still there, while there is no list of them.
    pub(super) fn keep_orphans(&mut self) {
        self.orphans.retain(|&pid| match child::find(pid) {
            Child::Alive => true,
            Child::Unknown => false,
            Child::Ended => {
                family::reap(pid);
                false
            }
        });
    }

    /// Takes note of what it costs together with its orphans. None takes them off what is reserved for it either, so jobs
    /// that have orphans count as larger than they are.
    pub(super) fn note_orphans(&mut self, usage: Option<WorkUsage>) {
        // What was below its first process at the end of that has been measured there.
        if self.orphans.is_empty() || self.has_ended {
            return;
        }
        let WorkUsage { memory_bytes, processes, .. } = usage.unwrap_or_default();
        let below = Cost { memory_bytes, processes, tasks: processes };
        let all = self.orphans.iter().fold(below, |all, orphan| all.and(family::cost_of(*orphan)));
        self.with_orphans = self.with_orphans.max(all);
    }

    /// The most that it was seen to cost, its orphans included. The usage is that of its grant.
    pub(super) fn peak_with(&self, usage: WorkUsage) -> Cost {
        Cost::peak_of(usage).max(self.with_orphans).with_tasks(self.peak_tasks)
    }

    /// What a job of its kind is taken to cost: its peak, or that of one slot if tokens stand for the others.
    pub(super) fn learned(&self, usage: WorkUsage) -> Cost {
        let slot = self.job.channel.as_ref().and_then(JobChannel::slot);
        slot.map_or_else(|| self.peak_with(usage), |slot| Cost::declared(&slot))
    }

    /// Whether the mark or the group of an orphan says that it comes from this start of the job.
    pub(super) fn has_started(&self, orphan: &Orphan) -> bool {
        orphan.serial == Some(self.serial) || orphan.group == Some(self.pid)
    }

    /// Whether it is old enough for the manager to have charge of it, and it does not.
    pub(super) fn is_to_be_tracked(&self, now: Instant) -> bool {
        !self.is_tracked && !self.has_ended && now - self.started >= LONG_LIVED
    }

    /// Puts the manager in charge of the first process and of all that is below it, in whatever group and session.
    pub(super) fn track(&mut self, processes: &ProcessGroupManager) {
        if !self.is_tracked {
            // One that cannot be has ended, or could not be the next time either: its group and its mark remain.
            self.is_tracked = true;
            let _ = processes.track_backend_pid(self.pid);
        }
    }

    pub(super) fn times_out_at(&self) -> Option<Instant> {
        self.started.checked_add(self.job.job.timeout?)
    }
}
