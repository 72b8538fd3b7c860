//! Pressure on the CPUs, for real: processes that compete for them, and processes that sleep, in a control group of their
//! own, so that what else the machine does counts for little.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::process::{Command, Stdio};

use common::groups::Groups;
use common::{ms, wait_until, Children};
use highwater::{Resource, ResourceLimits, ResourceMonitor};
use rusty_fork::rusty_fork_test;

const MANY: usize = 40;

fn busy() -> Children {
    let shell = || Command::new("/bin/sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap();
    Children((0..MANY).map(|_| shell()).collect())
}

/// A monitor in a group of its own, started; `None` where there is no such group, or it tells no pressure.
fn started() -> Option<(Groups, ResourceMonitor)> {
    let groups = Groups::unified()?;
    groups.enter();
    let limits = ResourceLimits::builder().max_cpu_pressure_percent(60).build().unwrap();
    let monitor = ResourceMonitor::new(limits);
    monitor.start(ms(500)).unwrap();
    if monitor.latest()?.cpu_pressure.is_none() {
        println!("skipped: the kernel does not tell pressure on the CPUs");
        return None;
    }
    Some((groups, monitor))
}

rusty_fork_test! {
    #[test]
    fn processes_that_compete_for_the_cpus_close_the_gate_and_it_opens_when_they_are_gone() {
        let Some((_groups, monitor)) = started() else { return };
        let busy = busy();
        wait_until("forty busy processes have closed the gate", || !monitor.is_accepting_work());
        let verdict = monitor.verdict();
        assert_eq!(verdict.resource(), Some(Resource::CpuPressure), "{verdict}");
        assert!(verdict.to_string().contains("CPU pressure") && !verdict.could_never_fit(), "{verdict}");
        drop(busy);
        wait_until("the gate is open without them", || monitor.is_accepting_work());
    }

    #[test]
    fn processes_that_sleep_leave_the_gate_open() {
        let Some((_groups, monitor)) = started() else { return };
        let _sleepers = Children::sleepers(MANY);
        let has_all = || monitor.latest().is_some_and(|latest| latest.child_process_count == Some(MANY));
        wait_until("all of them are counted", || monitor.is_accepting_work() && has_all());
        // The pressure of their start is over, so that a check after it opens the gate, and it stays so.
        wait_until("a check has seen them asleep", || {
            let pressure = monitor.latest().and_then(|latest| latest.cpu_pressure);
            pressure.is_some_and(|pressure| pressure.some_percent < 48.0) && monitor.is_accepting_work()
        });
    }
}
