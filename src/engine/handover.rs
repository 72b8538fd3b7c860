//! From a check to the action thread.

use std::sync::Arc;

use super::actions;
use super::core::{Core, Shared};
use super::run::Run;
use super::worker::Worker;
use crate::host::events;
use crate::judgement::Report;

/// Leaves what a check found for the action thread, and starts that thread if this is the first time that there is
/// something for it to do. `worker` is the caller's, if it is a thread of ours.
pub(super) fn hand_over(
    shared: &Arc<Shared>,
    core: &Core,
    run: &Arc<Run>,
    worker: Option<&Worker>,
    report: &Report,
    housekeeping: bool,
) {
    if !core.calls_for_action(report) || !run.put(report, housekeeping) {
        return;
    }
    let failure = run.ensure_action_thread(|worker| {
        let (run, shared) = (Arc::clone(run), Arc::clone(shared));
        worker.spawn(move |worker| actions::run(&shared, &run, worker))
    });
    run.inbox_bell.ring();
    if let Some(error) = failure {
        core.hooks.call_logger(worker, || events::actions_unavailable(&error));
    }
}
