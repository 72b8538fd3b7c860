//! The check thread: waits until a check is due, takes it, says what it found.

use std::sync::Arc;
use std::time::Duration;

use crate::host::contained;
use crate::host::events;
use crate::judgement::{Planned, Stopped};
use crate::readers::cgroup::{Alarms, Watch};
use crate::sys;
use crate::sys::bell::{Bell, Wire};
use crate::sys::poll::Ready;
use crate::vocabulary::Error;

use super::core::{Core, Shared};
use super::lifecycle::Run;
use super::worker::Worker;

/// The body of the check thread.
pub(super) fn run(
    shared: &Arc<Shared>,
    run: &Arc<Run>,
    worker: &Worker,
    interval: Duration,
    (alarms, watch): (Alarms, Watch),
    announce: bool,
) {
    let Some(core) = shared.current() else { return };
    if announce {
        core.say(Some(worker), || events::started(interval));
    }
    guarded(core, run, worker, || {
        let mut bed = Bed::new(&core.bell, watch);
        bed.set_alarms(alarms, core, worker);
        check_until_stopped(shared, core, run, worker, interval, bed);
    });
}

/// Where the thread sleeps.
struct Bed<'a> {
    bell: &'a Bell,
    watch: Watch,
    alarms: Alarms,
    /// Laid when there are alarms to hear besides the bell.
    wire: Option<Wire<'a>>,
    /// Until then alarms are not heard: what they ask for has just been done.
    deaf_until: Duration,
    said_unarmed: bool,
}

impl<'a> Bed<'a> {
    fn new(bell: &'a Bell, watch: Watch) -> Bed<'a> {
        // A thread that was left behind may have one still.
        bell.cut_wire();
        let deaf_until = Duration::ZERO;
        Bed { bell, watch, alarms: Alarms::default(), wire: None, deaf_until, said_unarmed: false }
    }

    /// Says so, once, when nothing of what was asked for could be armed: then the timer alone goes on.
    fn set_alarms(&mut self, mut alarms: Alarms, core: &Core, worker: &Worker) {
        if alarms.is_armed() && self.wire.is_none() {
            match self.bell.lay_wire() {
                Ok(wire) => self.wire = Some(wire),
                Err(error) => alarms.give_up(Error::wire(error)),
            }
        }
        self.alarms = alarms;
        self.say_if_unarmed(core, worker);
    }

    fn say_if_unarmed(&mut self, core: &Core, worker: &Worker) {
        if self.alarms.is_armed() {
            return;
        }
        self.wire = None;
        if let (false, Some(error)) = (self.said_unarmed, self.alarms.failures.first()) {
            self.said_unarmed = true;
            core.say(Some(worker), || events::pressure_not_watched(error));
        }
    }

    /// Returns whether the kernel has woken the thread.
    fn sleep(&mut self, rings: u32, timeout: Duration) -> bool {
        let Some(wire) = &self.wire else {
            self.bell.wait(rings, timeout);
            return false;
        };
        let deaf_for = self.deaf_until.saturating_sub(sys::coarse_now());
        let slept = match deaf_for.is_zero() {
            true => self.alarms.wait(wire, rings, timeout),
            false => {
                let ready = &mut [Ready::default()];
                wire.wait(rings, timeout.min(deaf_for), std::iter::empty(), ready).map(|()| false)
            }
        };
        slept.unwrap_or_else(|error| {
            // There are fewer descriptors now than it takes to wait for these.
            self.alarms.give_up(Error::wire(error));
            self.wire = None;
            false
        })
    }
}

/// Whatever gets out of the loop closes the gate, and the thread ends.
fn guarded(core: &Core, run: &Run, worker: &Worker, body: impl FnOnce()) {
    if let Err(message) = contained(body) {
        if !run.is_stopping() {
            core.close(Stopped::Died(worker.name()));
        }
        core.say(Some(worker), || events::loop_died_unexpectedly(worker.name(), &message));
    }
}

fn check_until_stopped(
    shared: &Arc<Shared>,
    core: &Core,
    run: &Arc<Run>,
    worker: &Worker,
    interval: Duration,
    mut bed: Bed<'_>,
) {
    let mut last_check = sys::coarse_now();
    let mut last_housekeeping = last_check;
    let mut cpu_since = Duration::ZERO;
    while let Some(Due { planned, demanded }) = wait_until_due(core, run, worker, &mut bed, last_check) {
        let report = core.check_on_thread(last_check, demanded, &mut cpu_since, planned);
        let Some(report) = report else { continue };
        last_check = report.at;
        if core.config.probe.is_outdated(&bed.alarms) {
            bed.set_alarms(core.arm(&bed.watch), core, worker);
        }
        for event in &report.events {
            core.say(Some(worker), || events::judged(event));
        }
        let housekeeping = last_check.saturating_sub(last_housekeeping) >= interval;
        if housekeeping {
            last_housekeeping = last_check;
        }
        run.hand_over(shared, core, Some(worker), &report, housekeeping);
    }
}

/// A check that is due.
struct Due {
    planned: Planned,
    /// Whether it is only because somebody asked for it.
    demanded: bool,
}

/// Reads memory alone while a whole check is not due. Returns `None` when the thread is to end.
fn wait_until_due(core: &Core, run: &Run, worker: &Worker, bed: &mut Bed<'_>, last_check: Duration) -> Option<Due> {
    let mut slept_for = None;
    // A demand stands until there is a check, whatever memory alone had to say to it.
    let mut demanded = false;
    loop {
        // Read before what a ring announces, so that a ring from now on ends the wait.
        let rings = core.bell.count();
        if run.is_stopping() || worker.is_copy() {
            return None;
        }
        demanded |= core.is_demanded();
        let due = core.next_check(last_check, demanded);
        let now = sys::coarse_now();
        if now >= due {
            // What was asked for just now is not late, however long ago it could have been done.
            let lateness = if slept_for == Some(due) { now - due } else { Duration::ZERO };
            let planned = Planned { delay: due.saturating_sub(last_check), lateness };
            return Some(Due { planned, demanded });
        }
        slept_for = Some(due);
        let woken_by_kernel = match core.next_memory_reading() {
            Some(memory_due) if memory_due < due => {
                if now < memory_due {
                    bed.sleep(rings, memory_due - now)
                } else {
                    !core.read_memory_alone() && bed.sleep(rings, due - now)
                }
            }
            _ => bed.sleep(rings, due - now),
        };
        if woken_by_kernel {
            // The gate follows at once, and a whole check as soon as the budget allows.
            core.read_memory_alone();
            bed.deaf_until = sys::coarse_now().saturating_add(core.memory_gap());
            demanded = true;
        }
        bed.say_if_unarmed(core, worker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Config;
    use crate::vocabulary::ResourceLimits;

    #[test]
    fn a_thread_that_dies_closes_the_gate() {
        let limits = ResourceLimits::builder().build().unwrap();
        let core = Core::new(Arc::new(Config::default()), limits);
        core.check_on_caller();
        assert!(core.is_accepting());
        guarded(&core, &Run::new(1), &Worker::new("test"), || panic!("out of the loop"));
        assert!(!core.is_accepting());
        assert_eq!(core.verdict().to_string(), "not accepting work: thread test of the monitor has died");
    }
}
