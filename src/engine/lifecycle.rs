//! Starting and stopping: at most one run of the monitor at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::core::{Core, Shared};
use super::run::Run;
use super::{caller, checker};
use crate::host::events;
use crate::judgement::Stopped;
use crate::vocabulary::Error;

/// How long `stop` waits for host code in progress.
const HOOK_PATIENCE: Duration = Duration::from_millis(100);

/// Takes a first check on the caller's thread, then starts the check thread. If a run is on, waits for its first check
/// and does nothing more.
pub(crate) fn start(shared: &Arc<Shared>, interval: Duration) -> Result<(), Error> {
    if interval.is_zero() {
        return Err(Error::setting("interval 0 s is not an interval"));
    }
    let core = Core::of(shared);
    let run = match begin(core, interval) {
        Began::Now(run) => run,
        Began::Before(run) => {
            // Only our own code is waited for: the host's was called before that check, or is called after it.
            core.await_first_check(&run);
            return Ok(());
        }
    };
    if core.config.settings.return_freed_memory {
        core.config.allocator.give_back_what_is_freed();
    }
    core.hooks.set_mask_here();
    core.count_on_caller();
    let report = core.first_check();
    let announced_by_thread = core.hooks.logger_is_inherited();
    let alarms = core.arm();
    let spawned = {
        let mut state = core.lifecycle.state.lock();
        if run.is_stopping() {
            return Ok(());
        }
        let (thread_shared, thread_run) = (Arc::clone(shared), Arc::clone(&run));
        let spawned = run.checker.spawn(move |worker| {
            checker::run(&thread_shared, &thread_run, worker, interval, alarms, announced_by_thread);
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
        core.hooks.call_logger(None, || events::started(interval));
    }
    if let Some(report) = report {
        caller::follow_up(shared, core, &report);
    }
    Ok(())
}

/// The run that is on after a call of `start`, and which call began it.
enum Began {
    Now(Arc<Run>),
    Before(Arc<Run>),
}

fn begin(core: &Core, interval: Duration) -> Began {
    let mut state = core.lifecycle.state.lock();
    if let Some(run) = state.run.as_ref().filter(|run| run.is_alive()) {
        return Began::Before(Arc::clone(run));
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
    Began::Now(run)
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
    core.hooks.call_logger(None, events::stopped);
}
