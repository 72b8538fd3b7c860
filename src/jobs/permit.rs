//! Room for a job whose command is not known yet. The thread of the jobs admits it as any other job, in its place in the
//! queue, and hands it to the thread that asks instead of starting it.

use std::fmt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, RecvTimeoutError};

use super::handle::{JobHandle, Ticket};
use super::held_back::HeldBack;
use super::job::{Job, Waiting};
use super::outcome::Outcome;
use super::table::{JobTable, Told, AGAIN};
use crate::engine::{self, Core, Grant};
use crate::vocabulary::{Error, Reason, Verdict, Work};

/// Room for a job, before it is known which: what a worker holds while it takes one from a queue. Made by
/// [`Jobs::admit`](super::Jobs::admit).
///
/// It counts as a job in all that admits others. [`start`](Self::start) gives its room to a job; dropped, it gives its room
/// back.
#[must_use = "a permit that is dropped gives its room back"]
pub struct JobPermit {
    /// `None` once it is given to a job.
    admitted: Option<Admitted>,
    table: Arc<JobTable>,
}

/// A job that was admitted and is not started.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) waiting: Waiting,
    pub(super) grant: Grant,
}

/// Room that is held for a job, by the number that the job will have.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) id: u64,
    pub(super) kind: String,
}

impl JobPermit {
    /// Starts the job in this room: at once, as nothing is left to wait for. It is of the kind that was asked for, and its
    /// cost is what was declared there.
    ///
    /// # Errors
    /// [`Process`](crate::ErrorKind::Process) if this process was forked since the jobs were made. That the job could not be
    /// started is its [outcome](JobHandle::wait).
    pub fn start(mut self, job: Job) -> Result<JobHandle, Error> {
        let admitted = self.admitted.take().filter(|_| !self.table.is_inherited());
        let Some(Admitted { mut waiting, grant }) = admitted else {
            return Err(Error::process("this process was forked since the jobs were made, which are its parent's"));
        };
        let Job { kind, declared, .. } = waiting.job;
        waiting.job = Job { kind, declared, ..job };
        let ticket = Arc::clone(&waiting.ticket);
        self.table.start_admitted(Admitted { waiting, grant });
        Ok(JobHandle::new(ticket, Arc::clone(&self.table)))
    }
}

impl Drop for JobPermit {
    fn drop(&mut self) {
        if let Some(admitted) = self.admitted.take().filter(|_| !self.table.is_inherited()) {
            self.table.give_back(&admitted);
        }
    }
}

impl fmt::Debug for JobPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.admitted.as_ref().map(|admitted| &admitted.waiting.job.kind);
        f.debug_struct("JobPermit").field("kind", &kind).finish_non_exhaustive()
    }
}

impl JobTable {
    /// Waits until a job of this kind may be started, and holds its room.
    pub(super) fn admit_unknown(
        self: &Arc<Self>,
        kind: String,
        work: Work,
        timeout: Duration,
    ) -> Result<JobPermit, HeldBack> {
        if self.is_inherited() {
            return Err(HeldBack::Verdict(Verdict::new(Reason::Forked)));
        }
        let (asker, answers) = bounded(1);
        let mut state = self.state.lock();
        state.last_id += 1;
        let id = state.last_id;
        let job = Job::new(Command::new("")).kind(kind).work(work);
        let waiting = Waiting { asker: Some(asker), ..Waiting::new(job, Arc::new(Ticket::new(id))) };
        state.queue.push(waiting);
        if state.held_back.is_none() {
            state.hold_back(None);
        }
        drop(state);
        self.bell.signal();
        let deadline = Instant::now().checked_add(timeout);
        loop {
            // Past the deadline it is being tried for the last time, or is in the queue again.
            let left = deadline.map_or(timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
            match answers.recv_timeout(left.max(AGAIN)) {
                Ok(Ok(admitted)) => return Ok(JobPermit { admitted: Some(admitted), table: Arc::clone(self) }),
                Ok(Err(reason)) => return Err(reason),
                Err(RecvTimeoutError::Disconnected) => return Err(self.reason_to_wait()),
                Err(RecvTimeoutError::Timeout) => {
                    let mut state = self.state.lock();
                    // Without a reason nothing was tried yet since it came, or since the last was started: soon it is.
                    let Some(reason) = state.held_back.clone() else { continue };
                    if state.queue.remove(id).is_some() {
                        drop(state);
                        self.bell.signal();
                        return Err(reason);
                    }
                }
            }
        }
    }

    fn reason_to_wait(&self) -> HeldBack {
        let verdict = || Core::of(&self.engine).verdict();
        self.held_back().unwrap_or_else(|| HeldBack::Verdict(verdict()))
    }

    /// Has the thread of the jobs start one that was admitted.
    fn start_admitted(&self, admitted: Admitted) {
        let mut state = self.state.lock();
        if !state.is_closed {
            state.admitted.push_back(admitted);
            state.hold_back(None);
            drop(state);
            return self.bell.signal();
        }
        drop(state);
        self.give_back(&admitted);
        self.tell([Told::never_started(&admitted.waiting, Outcome::Cancelled)]);
    }

    /// Gives back the room of one that was admitted.
    pub(super) fn give_back(&self, admitted: &Admitted) {
        engine::finish(&self.engine, &admitted.grant);
        let mut state = self.state.lock();
        state.close(admitted.waiting.ticket.id);
        self.fit_headroom(&mut state);
        drop(state);
        self.bell.signal();
    }
}
