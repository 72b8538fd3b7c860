//! Permits close the gap between asking and starting.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::{ms, Children, ProcTree, PAGE};
use highwater::{ResourceLimits, ResourceMonitor, Work};
use parking_lot::Mutex;
use rusty_fork::rusty_fork_test;

fn monitor(tree: &ProcTree) -> ResourceMonitor {
    let limits = ResourceLimits::builder().max_memory_bytes(1000 * PAGE).max_processes(10).build().unwrap();
    // Checks only when the test says so.
    ResourceMonitor::builder(limits)
        .proc_root(tree.root())
        .refresh_after(Duration::from_secs(3600))
        .max_age(Duration::from_secs(7200))
        .build()
        .unwrap()
}

#[test]
fn reserved_work_closes_the_gate_and_a_check_after_the_drop_opens_it() {
    let tree = ProcTree::new(1);
    let monitor = monitor(&tree);
    monitor.check_now();
    let permit = monitor.try_admit(Work::new().processes(8)).unwrap();
    assert!(!monitor.is_accepting_work());
    let verdict = monitor.try_admit(Work::new()).unwrap_err().to_string();
    assert!(verdict.contains("0 + 8 reserved of 10 (80.0 %)"), "{verdict}");
    monitor.check_now();
    assert!(!monitor.is_accepting_work(), "a check does not free a permit that is held");
    drop(permit);
    assert!(!monitor.is_accepting_work(), "the cost stays reserved until a check that began after the drop");
    tree.stat(200, b"garbage");
    monitor.check_now();
    tree.remove(200);
    assert!(!monitor.is_accepting_work());
    monitor.check_now();
    assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
}

#[test]
fn work_is_granted_below_the_hard_threshold_only() {
    let tree = ProcTree::new(1);
    let monitor = monitor(&tree);
    monitor.check_now();
    let verdict = monitor.try_admit(Work::new().processes(10)).unwrap_err();
    assert!(verdict.could_never_fit(), "{verdict}");
    assert!(monitor.is_accepting_work(), "a refusal reserves nothing");
    for pid in 200..205 {
        tree.process(pid, ProcTree::OWN_PID);
    }
    monitor.check_now();
    let verdict = monitor.try_admit(Work::new().processes(5)).unwrap_err();
    assert!(!verdict.could_never_fit(), "{verdict}");
    assert!(verdict.to_string().contains("5 + 5 asked of 10 (100.0 %)"), "{verdict}");
    assert!(monitor.try_admit(Work::new().processes(4)).is_ok());
}

#[test]
fn asking_for_nothing_is_granted_exactly_when_the_gate_is_open() {
    let tree = ProcTree::new(1);
    let monitor = monitor(&tree);
    for pages in [1, 799, 800, 949, 950, 2000] {
        tree.set_resident_pages(pages);
        monitor.check_now();
        assert_eq!(monitor.is_accepting_work(), monitor.try_admit(Work::new()).is_ok(), "{pages}");
    }
}

#[test]
fn a_permit_outlives_its_monitor_and_moves_to_another_thread() {
    let tree = ProcTree::new(1);
    let monitor = monitor(&tree);
    monitor.check_now();
    let permit = monitor.try_admit(Work::new().memory_mb(1)).unwrap();
    drop(monitor);
    std::thread::spawn(move || drop(permit)).join().unwrap();
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn a_herd_of_threads_stops_at_exactly_the_warning_threshold() {
        let limits = ResourceLimits::builder().max_processes(60).build().unwrap();
        let monitor = ResourceMonitor::builder(limits).refresh_after(ms(5)).cpu_budget(1.0).build().unwrap();
        monitor.start(Duration::from_secs(15)).unwrap();
        let children = Mutex::new(Children::default());
        std::thread::scope(|scope| {
            for _ in 0..16 {
                let (readiness, children) = (monitor.readiness(), &children);
                scope.spawn(move || {
                    let mut refusals = 0;
                    // Long after the last grant: each refusal is judged on a reading of its own age.
                    while refusals < 40 {
                        match readiness.try_admit(Work::new().processes(1)) {
                            Ok(permit) => {
                                let child = common::sleeper();
                                children.lock().0.push(child);
                                drop(permit);
                                refusals = 0;
                            }
                            Err(_) => {
                                refusals += 1;
                                std::thread::sleep(ms(5));
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(children.lock().0.len(), 48);
        assert_eq!(monitor.check_now().child_process_count, Some(48));
    }
}
