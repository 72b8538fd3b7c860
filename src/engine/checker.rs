//! The check thread: waits until a check is due, takes it, says what it found.

use std::sync::Arc;
use std::time::Duration;

use crate::host::contained;
use crate::host::events;
use crate::judgement::{Planned, Report, Stopped};
use crate::readers::cgroup::Alarms;

use super::core::{Core, Shared};
use super::handover::hand_over;
use super::run::Run;
use super::sleeper::Sleeper;
use super::worker::Worker;

/// The least time between two looks for permits that are held for long.
const LOOK_AT_HOLDERS: Duration = Duration::from_secs(1);

/// The body of the check thread.
pub(super) fn run(
    shared: &Arc<Shared>,
    run: &Arc<Run>,
    worker: &Worker,
    interval: Duration,
    alarms: Alarms,
    announce: bool,
) {
    let Some(core) = shared.current() else { return };
    if announce {
        core.hooks.call_logger(Some(worker), || events::started(interval));
    }
    guarded(core, run, worker, || {
        let mut sleeper = Sleeper::new(core);
        sleeper.set_alarms(alarms, core, worker);
        check_until_stopped(shared, core, run, worker, interval, sleeper);
    });
}

/// Whatever gets out of the loop closes the gate, and the thread ends.
fn guarded(core: &Core, run: &Run, worker: &Worker, body: impl FnOnce()) {
    if let Err(message) = contained(body) {
        if !run.is_stopping() {
            core.close(Stopped::Died(worker.name()));
        }
        core.hooks.call_logger(Some(worker), || events::loop_died_unexpectedly(worker.name(), &message));
    }
}

fn check_until_stopped(
    shared: &Arc<Shared>,
    core: &Core,
    run: &Arc<Run>,
    worker: &Worker,
    interval: Duration,
    mut sleeper: Sleeper<'_>,
) {
    let mut last_check = core.config.clock.fine_now();
    let mut last_housekeeping = last_check;
    let mut last_look_at_holders = last_check;
    let mut cpu_since = Duration::ZERO;
    let mut left = Vec::new();
    // The checks of askers, who leave it to this thread to call the host.
    let mut on_wake = || {
        std::mem::swap(&mut left, &mut core.reports.lock());
        for report in left.drain(..) {
            follow_up(shared, core, run, worker, &report, false);
        }
    };
    while let Some(due) = wait_until_due(core, run, worker, &mut sleeper, last_check, &mut on_wake) {
        let Due { planned, demanded } = due;
        let report = core.check_on_thread(last_check, demanded, &mut cpu_since, planned);
        let Some(report) = report else { continue };
        last_check = core.config.clock.fine_now();
        if core.config.probe.is_outdated(&sleeper.alarms) {
            sleeper.set_alarms(core.arm(), core, worker);
        }
        if last_check.saturating_sub(last_look_at_holders) >= LOOK_AT_HOLDERS {
            last_look_at_holders = last_check;
            log_held_long(core, worker, last_check);
        }
        let housekeeping = last_check.saturating_sub(last_housekeeping) >= interval;
        if housekeeping {
            last_housekeeping = last_check;
        }
        follow_up(shared, core, run, worker, &report, housekeeping);
    }
}

/// Logs what a check found, and hands it to the action thread.
fn follow_up(shared: &Arc<Shared>, core: &Core, run: &Arc<Run>, worker: &Worker, report: &Report, housekeeping: bool) {
    for event in &report.events {
        core.hooks.call_logger(Some(worker), || events::judged(event));
    }
    hand_over(shared, core, run, Some(worker), report, housekeeping);
}

fn log_held_long(core: &Core, worker: &Worker, now: Duration) {
    for held in core.holders.held_long(now, core.config.settings.held_long) {
        core.hooks.call_logger(Some(worker), || events::permit_held_long(&held.holder(now)));
    }
}

/// A check that is due.
struct Due {
    planned: Planned,
    /// Whether it is only because somebody asked for it.
    demanded: bool,
}

/// Reads memory alone while a whole check is not due. Returns `None` when the thread is to end.
fn wait_until_due(
    core: &Core,
    run: &Run,
    worker: &Worker,
    sleeper: &mut Sleeper<'_>,
    last_check: Duration,
    mut on_wake: impl FnMut(),
) -> Option<Due> {
    let mut slept_for = None;
    // A demand stands until there is a check, whatever memory alone had to say to it.
    let mut demanded = false;
    loop {
        // Read before what a ring announces, so that a ring from now on ends the wait.
        let rings = core.bell.count();
        if run.is_stopping() || worker.is_copy() {
            return None;
        }
        on_wake();
        demanded |= core.is_demanded();
        let due = core.next_check(last_check, demanded);
        // By the coarse clock, which stands still between its steps, a sleep that was over would go on in short turns.
        let now = core.config.clock.fine_now();
        if now >= due {
            // What was asked for just now is not late, however long ago it could have been done.
            let lateness = if slept_for == Some(due) { now - due } else { Duration::ZERO };
            let planned = Planned { delay: due.saturating_sub(last_check), lateness };
            return Some(Due { planned, demanded });
        }
        slept_for = Some(due);
        let longest = core.serve_by_watchers().unwrap_or(Duration::MAX).min(core.longest_sleep());
        let mut sleep = |time: Duration| sleeper.sleep(rings, time.min(longest));
        let woken_by_kernel = match core.next_memory_reading() {
            Some(memory_due) if memory_due < due => {
                if now < memory_due {
                    sleep(memory_due - now)
                } else {
                    !core.read_memory_alone() && sleep(due - now)
                }
            }
            _ => sleep(due - now),
        };
        if woken_by_kernel {
            // The gate follows at once, and a whole check as soon as the budget allows.
            core.read_memory_alone();
            sleeper.ignore_alarms_until = core.now().saturating_add(core.memory_gap());
            demanded = true;
        }
        sleeper.log_if_unarmed(core, worker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Config;
    use crate::vocabulary::Reading;
    use crate::vocabulary::ResourceLimits;

    #[test]
    fn a_thread_that_dies_closes_the_gate() {
        let limits = ResourceLimits::builder().build().unwrap();
        let core = Core::new(Arc::new(Config::default()), limits);
        core.check_as_caller(&mut Reading::default());
        assert!(core.is_accepting());
        guarded(&core, &Run::new(1), &Worker::new("test"), || panic!("out of the loop"));
        assert!(!core.is_accepting());
        assert_eq!(core.verdict().to_string(), "not accepting work: thread test of the monitor has died");
    }

    #[test]
    fn a_check_is_waited_for_in_one_sleep_wherever_the_steps_of_the_coarse_clock_are() {
        const WAITS: usize = 5;
        // A number of its steps.
        let interval = Duration::from_millis(20);
        let core = Core::new(Arc::new(Config::default()), ResourceLimits::builder().build().unwrap());
        core.judgement.lock().begin(interval);
        core.check_as_caller(&mut Reading::default());
        let (run, worker) = (Run::new(1), Worker::new("test"));
        let mut sleeper = Sleeper::new(&core);
        let mut turns = 0;
        for _ in 0..WAITS {
            let just_after_a_step = core.now() + Duration::from_micros(100);
            wait_until_due(&core, &run, &worker, &mut sleeper, just_after_a_step, || turns += 1).unwrap();
        }
        assert!(turns <= 3 * WAITS, "{turns} turns for {WAITS} sleeps");
    }
}
