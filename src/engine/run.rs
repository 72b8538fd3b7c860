//! A run of the monitor, from one `start` to the next `stop`, and what is remembered of earlier ones.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;

use super::worker::Worker;
use crate::judgement::shed::Checked;
use crate::judgement::Report;
use crate::sys::fork::Mutex;
use crate::sys::Bell;
use crate::vocabulary::Error;

/// The run that is on, if one is, and the threads that earlier runs left behind.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    pub(super) state: Mutex<RunState>,
}

#[derive(Debug, Default)]
pub(super) struct RunState {
    pub(super) run: Option<Arc<Run>>,
    /// Threads of earlier runs that were left in the host's code.
    pub(super) left_behind: Vec<Arc<Worker>>,
}

/// The threads of one run, and the way from checks to actions.
pub(crate) struct Run {
    /// Its checks have this number or a higher one.
    pub(super) first_number: u64,
    stopping: AtomicBool,
    pub(super) checker: Arc<Worker>,
    action_thread: Mutex<ActionThread>,
    inbox: Mutex<Inbox>,
    pub(super) inbox_bell: Bell,
}

/// The action thread, which is spawned when there is first something for it to do.
#[derive(Default)]
struct ActionThread {
    worker: Option<Arc<Worker>>,
    /// An attempt to spawn it has failed, which is logged once.
    failed: bool,
}

/// The way from the checks to the action thread. Only the newest matters.
#[derive(Debug)]
struct Inbox {
    /// Checks with lower numbers are older than what was handed over last, or than the run.
    next_number: u64,
    unread: Option<Handover>,
}

/// The message of a check to the action thread.
#[derive(Debug)]
pub(super) struct Handover {
    pub(super) checked: Checked,
    pub(super) housekeeping: bool,
}

impl Lifecycle {
    /// Whether a thread of an earlier run is still in the host's code, so that none may be called again yet.
    pub(super) fn hook_left_behind(&self) -> bool {
        let mut state = self.state.lock();
        state.left_behind.retain(|worker| worker.is_running());
        !state.left_behind.is_empty()
    }

    pub(super) fn current_run(&self) -> Option<Arc<Run>> {
        self.state.lock().run.clone()
    }
}

impl Run {
    /// A run whose checks are numbered from `first_number`.
    pub(super) fn new(first_number: u64) -> Arc<Run> {
        Arc::new(Run {
            first_number,
            stopping: AtomicBool::new(false),
            checker: Worker::new("highwater"),
            action_thread: Mutex::default(),
            inbox: Mutex::new(Inbox { next_number: first_number, unread: None }),
            inbox_bell: Bell::new(),
        })
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// No thread of this run is spawned and no hook begins from now on.
    pub(super) fn forbid_hooks(&self) {
        self.stopping.store(true, Relaxed);
        self.checker.stop();
        if let Some(worker) = &self.action_thread.lock().worker {
            worker.stop();
        }
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = Arc<Worker>> {
        [Some(Arc::clone(&self.checker)), self.action_thread.lock().worker.clone()].into_iter().flatten()
    }

    /// Whether its threads do their work, or are about to.
    pub(super) fn is_alive(&self) -> bool {
        !self.checker.is_done() && !self.action_thread.lock().worker.as_ref().is_some_and(|worker| worker.is_done())
    }

    /// Puts what a check found into the inbox. Returns false when it is older than what was put there before.
    pub(super) fn put(&self, report: &Report, housekeeping: bool) -> bool {
        let mut inbox = self.inbox.lock();
        if report.number < inbox.next_number {
            return false;
        }
        inbox.next_number = report.number + 1;
        let housekeeping = housekeeping || inbox.unread.as_ref().is_some_and(|unread| unread.housekeeping);
        inbox.unread = Some(Handover { checked: report.checked(), housekeeping });
        true
    }

    pub(super) fn take_handover(&self) -> Option<Handover> {
        self.inbox.lock().unread.take()
    }

    /// Has `spawn` start the action thread unless it was started before, or the run is being stopped. Returns the error
    /// of the first attempt that failed; every later one fails in silence.
    pub(super) fn ensure_action_thread(&self, spawn: impl FnOnce(&Arc<Worker>) -> Result<(), Error>) -> Option<Error> {
        let mut thread = self.action_thread.lock();
        if self.is_stopping() || thread.worker.is_some() {
            return None;
        }
        let worker = Worker::new("highwater-act");
        match spawn(&worker) {
            Ok(()) => {
                thread.worker = Some(worker);
                None
            }
            Err(error) => (!std::mem::replace(&mut thread.failed, true)).then_some(error),
        }
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("stopping", &self.stopping).finish_non_exhaustive()
    }
}
