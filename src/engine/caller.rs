//! The part of a monitor that runs on the threads of its callers: checks that they ask for, and admission.

use std::sync::Arc;

use super::core::{Core, Shared};
use super::handover::hand_over;
use crate::host::events;
use crate::judgement::Report;
use crate::sys;
use crate::vocabulary::{Reading, Reason, ResourceSnapshot, Verdict, Work};

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

/// Judges the work on a fresh enough reading, taking one if need be, and reserves its cost.
pub(crate) fn admit(shared: &Arc<Shared>, work: &Work) -> Result<(), Verdict> {
    let Some(core) = shared.current() else { return Err(Verdict::new(Reason::Forked)) };
    let old = || core.judgement.lock().needs_fresh(sys::coarse_now());
    if old() {
        // Whoever waits here longer than a reading may be old is judged on what there is, which is stale by then.
        let patience = core.judgement.lock().max_age();
        let check = |reading: &mut Reading| if old() { core.check_as_caller(reading) } else { None };
        if let Some(report) = core.single_flight.with(patience, check).flatten() {
            follow_up(shared, core, &report);
        }
    }
    core.admit(work)
}

/// Logs what a check on a caller's thread found, and hands it to the action thread.
pub(super) fn follow_up(shared: &Arc<Shared>, core: &Core, report: &Report) {
    for event in &report.events {
        core.hooks.call_logger(None, || events::judged(event));
    }
    if report.climbing {
        // The check thread sleeps until what it thought before.
        core.bell.ring();
    }
    if let Some(run) = core.lifecycle.current_run() {
        hand_over(shared, core, &run, None, report, false);
    }
}
