//! The checks that callers take on their own threads.

use std::sync::Arc;

use super::core::{Core, Shared};
use super::handover::hand_over;
use crate::host::events;
use crate::judgement::Report;
use crate::vocabulary::{Reading, ResourceSnapshot};

/// Takes a check, after asking the manager for its counts, and publishes it like any other.
pub(crate) fn check_now(shared: &Arc<Shared>) -> ResourceSnapshot {
    let core = Core::of(shared);
    core.count_on_caller();
    let mut reading = Reading::default();
    if let Some(report) = core.check_as_caller(&mut reading) {
        follow_up(shared, core, &report);
    }
    reading.snapshot
}

/// Takes a check if the last one is too old to admit work by, unless another caller does so meanwhile.
pub(super) fn check_if_old(shared: &Arc<Shared>, core: &Core) {
    let is_old = || core.judgement.lock().needs_fresh(core.now());
    if !is_old() {
        return;
    }
    // One that waits here longer than a reading may be old is judged on what there is, which is stale by then.
    let patience = core.config.clock.patience(core.judgement.lock().max_age());
    let check = |reading: &mut Reading| if is_old() { core.check_as_caller(reading) } else { None };
    if let Some(report) = core.single_flight.with(patience, check).flatten() {
        follow_up(shared, core, &report);
    }
}

/// Logs what a check on a caller's thread found, and hands it to the action thread.
pub(super) fn follow_up(shared: &Arc<Shared>, core: &Core, report: &Report) {
    for event in &report.events {
        core.hooks.call_logger(None, || events::judged(event));
    }
    if report.climbing || !core.admission.is_open(core.now()) {
        // The check thread sleeps until what it thought before.
        core.bell.ring();
    }
    if let Some(run) = core.lifecycle.current_run() {
        hand_over(shared, core, &run, None, report, false);
    }
}
