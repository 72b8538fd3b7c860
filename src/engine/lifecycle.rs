//! Starting and stopping: at most one run of the monitor at a time, and the threads that earlier runs left behind.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::events;
use crate::judgement::shed::Checked;
use crate::judgement::Report;
use crate::lock::Mutex;
use crate::sys::{self, Bell, SignalMask};

use super::core::{Core, Shared};
use super::worker::Worker;
use super::{actor, checker};

/// How long `stop` waits for host code in progress.
const HOOK_PATIENCE: Duration = Duration::from_millis(100);

/// Which run is on, if any.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    run: Option<Arc<Run>>,
    /// Threads of earlier runs that were left in the host's code.
    left_behind: Vec<Arc<Worker>>,
}

/// From one `start` to the next `stop`.
pub(crate) struct Run {
    stopping: AtomicBool,
    checker: Arc<Worker>,
    actor: Mutex<Actor>,
    pub(super) inbox: Mutex<Option<Handover>>,
    pub(super) inbox_bell: Bell,
}

#[derive(Default)]
struct Actor {
    worker: Option<Arc<Worker>>,
    failed: bool,
}

/// What a check gives the action thread. Only the newest matters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handover {
    pub(super) checked: Checked,
    pub(super) housekeeping: bool,
}

impl Run {
    pub(super) fn new() -> Arc<Run> {
        Arc::new(Run {
            stopping: AtomicBool::new(false),
            checker: Worker::new("highwater"),
            actor: Mutex::default(),
            inbox: Mutex::new(None),
            inbox_bell: Bell::new(),
        })
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// No thread of this run is spawned and no hook begins from now on.
    fn forbid_hooks(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.checker.stop();
        if let Some(actor) = &self.actor.lock().worker {
            actor.stop();
        }
    }

    fn workers(&self) -> impl Iterator<Item = Arc<Worker>> {
        [Some(Arc::clone(&self.checker)), self.actor.lock().worker.clone()].into_iter().flatten()
    }

    /// Leaves the newest reading for the action thread, which is spawned when there is first something for it to do.
    fn hand_over(self: &Arc<Self>, shared: &Arc<Shared>, core: &Core, mut handover: Handover) {
        if !core.has_hooks() {
            return;
        }
        {
            let mut inbox = self.inbox.lock();
            handover.housekeeping |= inbox.is_some_and(|unread| unread.housekeeping);
            *inbox = Some(handover);
        }
        let failure = self.ensure_actor(shared);
        self.inbox_bell.ring();
        if let Some(error) = failure {
            core.say(None, || events::actions_unavailable(&error));
        }
    }

    /// Returns the error of the first attempt that failed; every later handover tries again in silence.
    fn ensure_actor(self: &Arc<Self>, shared: &Arc<Shared>) -> Option<Error> {
        let mut actor = self.actor.lock();
        if self.is_stopping() || actor.worker.is_some() {
            return None;
        }
        let worker = Worker::new("highwater-act");
        let (run, shared) = (Arc::clone(self), Arc::clone(shared));
        match worker.spawn(move |worker| actor::run(&shared, &run, worker)) {
            Ok(()) => {
                actor.worker = Some(worker);
                None
            }
            Err(error) => (!std::mem::replace(&mut actor.failed, true)).then_some(error),
        }
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("stopping", &self.stopping).finish_non_exhaustive()
    }
}

impl Lifecycle {
    /// Whether a thread of an earlier run is still in the host's code, so that none may be called again yet.
    pub(crate) fn hook_left_behind(&self) -> bool {
        let mut state = self.state.lock();
        state.left_behind.retain(|worker| !worker.is_done());
        !state.left_behind.is_empty()
    }

    pub(crate) fn hand_over(&self, shared: &Arc<Shared>, core: &Core, report: &Report, housekeeping: bool) {
        let run = self.state.lock().run.clone();
        if let Some(run) = run {
            let checked = report.checked(sys::coarse_now());
            run.hand_over(shared, core, Handover { checked, housekeeping });
        }
    }
}

/// Takes a first check on the caller's thread, then starts the check thread. Nothing happens if a run is on.
pub(crate) fn start(shared: &Arc<Shared>, interval: Duration) -> Result<(), Error> {
    if interval.is_zero() {
        return Err(Error::setting("interval 0 s is not an interval"));
    }
    let core = Core::of(shared);
    let run = {
        let mut state = core.lifecycle.state.lock();
        if state.run.as_ref().is_some_and(|run| !run.checker.is_done()) {
            return Ok(());
        }
        // A run whose check thread died is replaced; its action thread ends by itself.
        if let Some(dead) = state.run.take() {
            dead.forbid_hooks();
            dead.inbox_bell.ring();
            state.left_behind.extend(dead.workers());
        }
        let run = Run::new();
        state.run = Some(Arc::clone(&run));
        core.begin(interval);
        run
    };
    core.host_mask.set(SignalMask::current());
    let (_, report) = core.check_on_caller();
    let spawned = {
        let mut state = core.lifecycle.state.lock();
        if run.is_stopping() {
            return Ok(());
        }
        let (thread_shared, thread_run) = (Arc::clone(shared), Arc::clone(&run));
        let spawned = run.checker.spawn(move |worker| checker::run(&thread_shared, &thread_run, worker, interval));
        if spawned.is_err() {
            run.forbid_hooks();
            state.run = None;
            core.close();
        }
        spawned
    };
    spawned?;
    core.say(None, || events::started(interval));
    if let Some(report) = report {
        core.follow_up(shared, &report);
    }
    Ok(())
}

/// Closes the gate, then ends the threads of the run, if one is on.
pub(crate) fn stop(shared: &Arc<Shared>) {
    let deadline = Instant::now() + HOOK_PATIENCE;
    let core = Core::of(shared);
    let run = {
        let mut state = core.lifecycle.state.lock();
        core.close();
        let run = state.run.take();
        if let Some(run) = &run {
            run.forbid_hooks();
            // Whoever is still in a hook is known as left behind before anybody can start anew.
            state.left_behind.extend(run.workers());
        }
        run
    };
    let Some(run) = run else { return };
    core.bell.ring();
    run.inbox_bell.ring();
    // From a thread of ours there is no waiting: it would wait for itself, or for one that waits for it.
    if !run.workers().any(|worker| worker.is_current()) {
        for worker in run.workers() {
            worker.join(deadline);
        }
    }
    core.lifecycle.hook_left_behind();
    core.say(None, events::stopped);
}
