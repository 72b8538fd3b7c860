//! The machine, for real: processes that compete for its CPUs and processes that sleep, in a control group of their own so
//! that what else the machine does counts for little; and a process that takes its memory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::groups::Groups;
use common::{ms, wait_until, Children};
use highwater::{Resource, ResourceLimits, ResourceMonitor, SystemProbe};
use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;
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
    fn memory_that_another_process_takes_closes_the_gate_at_the_floor_and_gives_it_back() {
        const GIB: u64 = 1 << 30;
        let available = || {
            let monitor = ResourceMonitor::new(ResourceLimits::builder().build().unwrap());
            monitor.check_now().machine_memory.map_or(0, |memory| memory.available_bytes)
        };
        let floor = available().saturating_sub(GIB);
        if floor < GIB {
            println!("skipped: less than 2 GB are available, or the kernel does not tell");
            return;
        }
        let monitor = ResourceMonitor::new(ResourceLimits::builder().min_available_memory_bytes(floor).build().unwrap());
        monitor.start(ms(500)).unwrap();
        wait_until("there is more than the floor", || monitor.is_accepting_work());
        // The second of them keeps all that it has read, because the third does not read.
        let hoard = "head -c 1610612736 /dev/zero | tail -c 1610612736 | sleep 1000";
        let mut hoarder = Command::new("/bin/sh").args(["-c", hoard]).process_group(0).spawn().unwrap();
        wait_until("the gate is closed", || !monitor.is_accepting_work());
        let verdict = monitor.verdict();
        assert_eq!(verdict.resource(), Some(Resource::MachineMemory), "{verdict}");
        let text = verdict.to_string();
        assert!(text.contains("at or below the floor of ") && text.contains(" (set by the host)"), "{text}");
        killpg(Pid::from_raw(i32::try_from(hoarder.id()).unwrap()), Signal::SIGKILL).unwrap();
        hoarder.wait().unwrap();
        wait_until("the gate is open again", || monitor.is_accepting_work());
        assert!(SystemProbe::new().memory_bytes().unwrap() < GIB / 2, "it was another's memory");
    }

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
