//! A job in the hands of the host.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::outcome::Outcome;
use super::table::JobTable;
use crate::sys::fork::{Condvar, Mutex};
use crate::vocabulary::WorkUsage;

/// What is known of a job, from before its start until after its end.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) id: u64,
    known: Mutex<Known>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Known {
    pid: Option<u32>,
    tries: u32,
    usage: WorkUsage,
    outcome: Option<Outcome>,
    is_cancelled: bool,
    /// Whether it is to be ended without a grace.
    is_killed: bool,
}

impl Ticket {
    pub(super) fn new(id: u64) -> Ticket {
        Ticket { id, known: Mutex::default(), changed: Condvar::default() }
    }

    pub(super) fn set_started(&self, pid: u32) {
        let mut known = self.known.lock();
        known.pid = Some(pid);
        known.tries = known.tries.saturating_add(1);
        drop(known);
        self.changed.notify_all();
    }

    pub(super) fn set_usage(&self, usage: WorkUsage) {
        self.known.lock().usage = usage;
    }

    pub(super) fn usage(&self) -> WorkUsage {
        self.known.lock().usage
    }

    pub(super) fn set_outcome(&self, outcome: Outcome) {
        let mut known = self.known.lock();
        known.pid = None;
        known.outcome = Some(outcome);
        drop(known);
        self.changed.notify_all();
    }

    pub(super) fn set_cancelled(&self) {
        self.known.lock().is_cancelled = true;
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.known.lock().is_cancelled
    }

    pub(super) fn set_killed(&self) {
        self.known.lock().is_killed = true;
    }

    pub(super) fn is_killed(&self) -> bool {
        self.known.lock().is_killed
    }

    /// Waits until the job was started or has ended.
    pub(super) fn wait_until_started(&self) {
        let mut known = self.known.lock();
        while known.pid.is_none() && known.outcome.is_none() {
            known = self.changed.wait(known);
        }
    }
}

/// A job that was given to [`Jobs`](super::Jobs). Dropping it changes nothing: the job runs on. Any thread may use it; in a
/// forked child it knows nothing.
#[derive(Clone)]
pub struct JobHandle {
    ticket: Arc<Ticket>,
    table: Arc<JobTable>,
}

impl JobHandle {
    pub(super) fn new(ticket: Arc<Ticket>, table: Arc<JobTable>) -> JobHandle {
        JobHandle { ticket, table }
    }

    /// The number of the job: 1 for the first that was given to its `Jobs`, and so on. It is its name in the log.
    pub fn id(&self) -> u64 {
        self.ticket.id
    }

    /// The process id while it runs; `None` before it is started and once it has ended.
    pub fn pid(&self) -> Option<u32> {
        if self.table.is_inherited() {
            return None;
        }
        self.ticket.known.lock().pid
    }

    /// The number of times that it was started.
    pub fn tries(&self) -> u32 {
        self.ticket.known.lock().tries
    }

    /// The usage of the job and of all that is below it, as the last check saw it; all 0 before one has. That of the last
    /// try once it has ended.
    pub fn usage(&self) -> WorkUsage {
        if self.table.is_inherited() {
            return WorkUsage::default();
        }
        self.table.usage_of(&self.ticket)
    }

    /// Ends the job: one that waits at once, one that runs with `SIGTERM`, and with `SIGKILL` when its grace is over.
    /// This does not wait for that. A job that has ended stays as it is, and one that may not be signalled is
    /// [`Lost`](Outcome::Lost) 5 s after its grace.
    pub fn cancel(&self) {
        if self.table.is_inherited() {
            return;
        }
        self.table.cancel(&self.ticket);
    }

    /// Waits for the end.
    ///
    /// It comes in any case: a job that cannot be started yet waits, and once the last `Jobs` is dropped those that are left
    /// are [`Cancelled`](Outcome::Cancelled). In a forked child, whose parent's job it is, it is [`Lost`](Outcome::Lost).
    pub fn wait(&self) -> Outcome {
        if self.table.is_inherited() {
            return Outcome::lost("the job is the parent's of this process");
        }
        let mut known = self.ticket.known.lock();
        loop {
            if let Some(outcome) = &known.outcome {
                return outcome.clone();
            }
            known = self.ticket.changed.wait(known);
        }
    }

    /// Waits for the end for so long at most; `None` if it has not come by then.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Outcome> {
        if self.table.is_inherited() {
            return Some(self.wait());
        }
        // A time that the clock cannot name is no deadline.
        let Some(deadline) = Instant::now().checked_add(timeout) else { return Some(self.wait()) };
        let mut known = self.ticket.known.lock();
        let mut is_over = false;
        while known.outcome.is_none() && !is_over {
            (known, is_over) = self.ticket.changed.wait_until(known, deadline);
        }
        known.outcome.clone()
    }
}

impl fmt::Debug for JobHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobHandle").field("id", &self.ticket.id).finish_non_exhaustive()
    }
}
