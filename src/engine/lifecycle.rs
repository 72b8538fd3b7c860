//! Starting and stopping: at most one run of the monitor at a time, and the threads that earlier runs left behind.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::host::events;
use crate::judgement::shed::Checked;
use crate::judgement::{Report, Stopped};
use crate::readers::cgroup::Watch;
use crate::sys::fork::Mutex;
use crate::sys::{Bell, SignalMask};
use crate::vocabulary::Error;

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
    inbox: Mutex<Inbox>,
    pub(super) inbox_bell: Bell,
}

/// Where the action thread finds what the checks found. Only the newest matters.
#[derive(Debug)]
struct Inbox {
    /// Checks with lower numbers are older than what was handed over last, or than the run.
    next_number: u64,
    unread: Option<Handover>,
}

#[derive(Default)]
struct Actor {
    worker: Option<Arc<Worker>>,
    failed: bool,
}

/// What a check gives the action thread.
#[derive(Debug)]
pub(super) struct Handover {
    pub(super) checked: Checked,
    pub(super) housekeeping: bool,
}

impl Run {
    /// A run whose checks are numbered from `first_number`.
    pub(super) fn new(first_number: u64) -> Arc<Run> {
        Arc::new(Run {
            stopping: AtomicBool::new(false),
            checker: Worker::new("highwater"),
            actor: Mutex::default(),
            inbox: Mutex::new(Inbox { next_number: first_number, unread: None }),
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

    /// Whether its threads do their work, or are about to.
    fn is_alive(&self) -> bool {
        !self.checker.is_done() && !self.actor.lock().worker.as_ref().is_some_and(|actor| actor.is_done())
    }

    /// Leaves a reading for the action thread, which is spawned when there is first something for it to do. `worker` is
    /// the caller's, if it is a thread of ours.
    pub(super) fn hand_over(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        core: &Core,
        worker: Option<&Worker>,
        report: &Report,
        housekeeping: bool,
    ) {
        if !core.has_hooks() {
            return;
        }
        {
            let mut inbox = self.inbox.lock();
            if report.number < inbox.next_number {
                return;
            }
            inbox.next_number = report.number + 1;
            let housekeeping = housekeeping || inbox.unread.as_ref().is_some_and(|unread| unread.housekeeping);
            inbox.unread = Some(Handover { checked: report.checked(), housekeeping });
        }
        let failure = self.ensure_actor(shared);
        self.inbox_bell.ring();
        if let Some(error) = failure {
            core.say(worker, || events::actions_unavailable(&error));
        }
    }

    pub(super) fn take_handover(&self) -> Option<Handover> {
        self.inbox.lock().unread.take()
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
        state.left_behind.retain(|worker| worker.is_running());
        !state.left_behind.is_empty()
    }

    pub(super) fn current_run(&self) -> Option<Arc<Run>> {
        self.state.lock().run.clone()
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
        if state.run.as_ref().is_some_and(|run| run.is_alive()) {
            return Ok(());
        }
        // A run of which one thread died is replaced; the other ends by itself.
        if let Some(dead) = state.run.take() {
            dead.forbid_hooks();
            core.bell.ring();
            dead.inbox_bell.ring();
            state.left_behind.extend(dead.workers());
        }
        let run = Run::new(core.next_number());
        state.run = Some(Arc::clone(&run));
        core.begin(interval);
        run
    };
    core.host_mask.set(SignalMask::current());
    core.prepare();
    let (_, report) = core.check_on_caller();
    let announced_by_thread = core.logger_is_inherited();
    // On this thread, because reading the environment races with a host that changes it.
    let watch = Watch::from_environment();
    let alarms = core.arm(&watch);
    let spawned = {
        let mut state = core.lifecycle.state.lock();
        if run.is_stopping() {
            return Ok(());
        }
        let (thread_shared, thread_run) = (Arc::clone(shared), Arc::clone(&run));
        let spawned = run.checker.spawn(move |worker| {
            checker::run(&thread_shared, &thread_run, worker, interval, (alarms, watch), announced_by_thread);
        });
        if spawned.is_err() {
            run.forbid_hooks();
            state.run = None;
            core.close(Stopped::Asked);
        }
        spawned
    };
    spawned?;
    if !announced_by_thread {
        core.say(None, || events::started(interval));
    }
    if let Some(report) = report {
        core.follow_up(shared, &report);
    }
    Ok(())
}

/// Closes the gate, then ends the threads of the run, if one is on.
pub(crate) fn stop(shared: &Arc<Shared>) {
    let deadline = Instant::now() + HOOK_PATIENCE;
    let core = Core::of(shared);
    let (run, on_own_thread) = {
        let mut state = core.lifecycle.state.lock();
        core.close(Stopped::Asked);
        let run = state.run.take();
        if let Some(run) = &run {
            run.forbid_hooks();
            // Whoever is still in a hook is known as left behind before anybody can start anew.
            state.left_behind.extend(run.workers());
            // Before anybody can start anew: a later ring is the next run's.
            core.bell.ring();
            run.inbox_bell.ring();
        }
        (run, state.left_behind.iter().any(|worker| worker.is_current()))
    };
    let Some(run) = run else { return };
    // From a thread of ours there is no waiting: it would wait for itself, or for one that waits for it.
    if !on_own_thread {
        for worker in run.workers() {
            worker.join(deadline);
        }
    }
    core.lifecycle.hook_left_behind();
    core.say(None, events::stopped);
}
