//! When the gate is open, and what it says when it is not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::{ms, wait_until, ProcTree, PAGE};
use highwater::{Permit, ResourceLimits, ResourceMonitor, Work};

const HOUR: Duration = Duration::from_secs(3600);

/// 1000 pages may be used; 800 of them is the warning threshold.
fn limits() -> ResourceLimits {
    ResourceLimits::builder().max_memory_bytes(1000 * PAGE).max_processes(10).build().unwrap()
}

fn monitor(tree: &ProcTree) -> ResourceMonitor {
    ResourceMonitor::builder(limits()).proc_root(tree.root()).build().unwrap()
}

#[test]
fn closed_before_the_first_check() {
    let tree = ProcTree::new(1);
    let monitor = monitor(&tree);
    assert!(!monitor.is_accepting_work());
    assert!(!monitor.verdict().is_accepting());
    assert!(monitor.try_admit(Work::new()).is_err());
    assert_eq!(monitor.seconds_since_last_check(), f64::INFINITY);
    assert!(monitor.latest().is_none());
    monitor.check_now();
    assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
}

#[test]
fn one_page_below_the_warning_threshold_accepts_and_the_threshold_does_not() {
    let tree = ProcTree::new(799);
    let monitor = monitor(&tree);
    for (pages, accepts) in [(799, true), (800, false), (799, true), (1200, false)] {
        tree.set_resident_pages(pages);
        assert_eq!(monitor.check_now().memory_bytes, Some(pages * PAGE));
        assert_eq!(monitor.is_accepting_work(), accepts, "{pages} pages: {}", monitor.verdict());
        assert_eq!(monitor.verdict().is_accepting(), accepts);
    }
    assert!(monitor.verdict().to_string().contains("(120.0 %)"), "{}", monitor.verdict());
}

#[test]
fn hysteresis_keeps_the_gate_closed_until_the_resume_threshold() {
    let tree = ProcTree::new(800);
    let limits = ResourceLimits::builder().max_memory_bytes(1000 * PAGE).resume_percent(70).build().unwrap();
    let monitor = ResourceMonitor::builder(limits).proc_root(tree.root()).build().unwrap();
    for (pages, accepts) in [(750, true), (800, false), (750, false), (700, false), (699, true), (750, true)] {
        tree.set_resident_pages(pages);
        monitor.check_now();
        assert_eq!(monitor.is_accepting_work(), accepts, "{pages} pages: {}", monitor.verdict());
    }
}

#[test]
fn a_failed_check_closes_the_gate_and_the_next_good_one_opens_it() {
    let tree = ProcTree::new(1);
    let monitor = monitor(&tree);
    monitor.check_now();
    assert!(monitor.is_accepting_work());
    tree.stat(200, b"200 (truncated");
    let snapshot = monitor.check_now();
    assert!(snapshot.probe_failed());
    assert_eq!((snapshot.memory_bytes, snapshot.child_process_count), (Some(PAGE), None));
    assert!(!monitor.is_accepting_work());
    let verdict = monitor.verdict().to_string();
    assert!(verdict.contains("200/stat"), "{verdict}");
    tree.process(200, ProcTree::OWN_PID);
    assert_eq!(monitor.check_now().child_process_count, Some(1));
    assert!(monitor.is_accepting_work());
}

#[test]
fn a_stale_check_closes_the_gate_with_nobodys_help() {
    let tree = ProcTree::new(1);
    let monitor = ResourceMonitor::builder(limits()).proc_root(tree.root()).max_age(ms(30)).build().unwrap();
    monitor.check_now();
    wait_until("the check is stale", || !monitor.is_accepting_work());
    let verdict = monitor.verdict();
    assert!(!verdict.is_accepting());
    assert!(verdict.to_string().contains("stale"), "{verdict}");
}

#[test]
fn a_stopped_monitor_says_no_until_it_is_started_again() {
    let tree = ProcTree::new(1);
    let monitor = monitor(&tree);
    let readiness = monitor.readiness();
    monitor.start(HOUR).unwrap();
    assert!(readiness.is_accepting_work());
    monitor.stop();
    assert!(!readiness.is_accepting_work());
    assert!(readiness.verdict().to_string().contains("stopped"));
    assert!(!monitor.check_now().probe_failed());
    assert!(!readiness.is_accepting_work(), "a check after stop must not open the gate");
    assert!(readiness.try_admit(Work::new()).is_err());
    monitor.start(HOUR).unwrap();
    assert!(readiness.is_accepting_work());
    drop(monitor);
    assert!(!readiness.is_accepting_work());
    assert!(!readiness.verdict().is_accepting());
    assert!(readiness.try_admit(Work::new()).is_err());
}

#[test]
fn new_limits_are_judged_at_once_against_the_last_snapshot() {
    let tree = ProcTree::new(500);
    let monitor = monitor(&tree);
    monitor.check_now();
    assert!(monitor.is_accepting_work());
    let smaller = ResourceLimits::builder().max_memory_bytes(600 * PAGE).build().unwrap();
    monitor.update_limits(smaller.clone());
    assert_eq!(monitor.limits(), smaller);
    assert!(!monitor.is_accepting_work());
    monitor.update_limits(limits());
    assert!(monitor.is_accepting_work());
}

#[test]
fn a_caller_that_asks_has_the_thread_check_long_before_the_interval() {
    let tree = ProcTree::new(1);
    let monitor = ResourceMonitor::builder(limits()).proc_root(tree.root()).refresh_after(ms(20)).build().unwrap();
    monitor.start(HOUR).unwrap();
    assert!(monitor.is_accepting_work());
    tree.set_resident_pages(900);
    wait_until("the gate closes on demand", || !monitor.is_accepting_work());
    assert!(monitor.verdict().resource() == Some(highwater::Resource::Memory));
    tree.set_resident_pages(1);
    wait_until("the gate opens on demand", || monitor.is_accepting_work());
}

#[test]
fn five_failures_degrade_and_one_success_clears() {
    let tree = ProcTree::new(1);
    let monitor = monitor(&tree);
    monitor.check_now();
    tree.stat(200, b"garbage");
    for failure in 1..=5 {
        assert!(!monitor.is_degraded(), "after {} failures", failure - 1);
        monitor.check_now();
    }
    assert!(monitor.is_degraded());
    assert!(monitor.verdict().to_string().contains("degraded"), "{}", monitor.verdict());
    tree.remove(200);
    monitor.check_now();
    assert!(!monitor.is_degraded());
    assert!(monitor.is_accepting_work());
}

#[test]
fn a_degraded_monitor_recovers_by_itself_when_somebody_asks() {
    let tree = ProcTree::new(1);
    let monitor = ResourceMonitor::builder(limits()).proc_root(tree.root()).refresh_after(ms(10)).build().unwrap();
    tree.stat(200, b"garbage");
    monitor.start(HOUR).unwrap();
    wait_until("five checks were demanded and failed", || {
        monitor.is_accepting_work();
        monitor.is_degraded()
    });
    tree.remove(200);
    wait_until("a demanded check brings the recovery forward", || monitor.is_accepting_work());
    assert!(!monitor.is_degraded());
}

#[test]
fn the_verdict_says_when_the_budget_makes_max_age_unreachable() {
    let tree = ProcTree::new(1);
    for pid in 200..260 {
        tree.process(pid, ProcTree::OWN_PID);
    }
    let limits = ResourceLimits::builder().build().unwrap();
    let monitor = ResourceMonitor::builder(limits)
        .proc_root(tree.root())
        .max_age(Duration::from_nanos(1))
        .cpu_budget(0.001)
        .build()
        .unwrap();
    monitor.check_now();
    assert!(monitor.verdict().to_string().contains("CPU budget"), "{}", monitor.verdict());
}

#[test]
fn a_zero_interval_is_refused_and_changes_nothing() {
    let tree = ProcTree::new(1);
    let monitor = monitor(&tree);
    let error = monitor.start(Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), highwater::ErrorKind::InvalidSetting);
    assert!(error.to_string().contains("interval 0"));
    assert!(monitor.latest().is_none());
    monitor.start(HOUR).unwrap();
    assert!(monitor.start(Duration::ZERO).is_err());
    assert!(monitor.is_accepting_work());
}

/// Checks come once per interval, which is longer than any test.
fn rarely_checked(tree: &ProcTree) -> ResourceMonitor {
    let monitor = ResourceMonitor::builder(limits()).proc_root(tree.root()).max_age(10 * HOUR).build().unwrap();
    monitor.start(HOUR).unwrap();
    monitor
}

fn wait_until_old(monitor: &ResourceMonitor) {
    wait_until("the last check is old", || monitor.seconds_since_last_check() > 0.2);
}

#[test]
fn a_rare_asker_is_told_what_is_true_now() {
    let askers: [fn(&ResourceMonitor) -> bool; 3] = [
        |monitor| monitor.is_accepting_work(),
        |monitor| monitor.verdict().is_accepting(),
        |monitor| monitor.readiness().pressure() < 1.0,
    ];
    for asks in askers {
        let tree = ProcTree::new(1);
        let monitor = rarely_checked(&tree);
        wait_until_old(&monitor);
        tree.set_resident_pages(900);
        assert!(!asks(&monitor), "full, and the first answer is yes: {}", monitor.verdict());
        tree.set_resident_pages(1);
        // A closed gate keeps looking, so there is nothing old to be found.
        wait_until("it has been seen", || monitor.latest().unwrap().memory_bytes == Some(PAGE));
        assert!(asks(&monitor), "free, and the first answer is no: {}", monitor.verdict());
    }
}

#[test]
fn with_no_cost_allowed_on_its_thread_an_asker_is_told_what_was_true() {
    let tree = ProcTree::new(1);
    let builder = ResourceMonitor::builder(limits()).proc_root(tree.root()).max_age(10 * HOUR);
    let monitor = builder.inline_check(Duration::ZERO).build().unwrap();
    monitor.start(HOUR).unwrap();
    wait_until_old(&monitor);
    tree.set_resident_pages(900);
    // The check thread may come between.
    let before = monitor.latest().unwrap().timestamp;
    let answer = monitor.is_accepting_work();
    assert!(answer || monitor.latest().unwrap().timestamp > before);
    wait_until("the check thread has checked", || !monitor.is_accepting_work());
}

#[test]
fn a_closed_gate_opens_by_itself_without_anybody_asking() {
    // Memory would be read without a check, where checks are dear, and whoever looks at the gate asks.
    let tree = ProcTree::new(1);
    for pid in 101..110 {
        tree.process(pid, ProcTree::OWN_PID);
    }
    let monitor = rarely_checked(&tree);
    let snapshots = monitor.snapshots();
    (101..110).for_each(|pid| tree.remove(pid));
    wait_until("a check has seen it", || {
        snapshots.try_recv().is_ok_and(|snapshot| snapshot.child_process_count == Some(0))
    });
    assert!(monitor.is_accepting_work());
}

#[test]
fn memory_refuses_nothing_by_an_old_reading() {
    let tree = ProcTree::new(900);
    let builder = ResourceMonitor::builder(limits()).proc_root(tree.root());
    let monitor = builder.refresh_after(HOUR).max_age(2 * HOUR).build().unwrap();
    monitor.check_now();
    assert!(monitor.try_admit(Work::new().memory_bytes(PAGE)).is_err());
    tree.set_resident_pages(1);
    // Nothing else reads it again for an hour.
    wait_until("the reading is too old to refuse by", || {
        monitor.try_admit(Work::new().memory_bytes(PAGE)).map(Permit::finish).is_ok()
    });
    tree.set_resident_pages(900);
    // A grant may be: it is judged on a reading no older than `refresh_after`.
    monitor.try_admit(Work::new().memory_bytes(PAGE)).unwrap().finish();
    assert!(monitor.is_accepting_work());
}

#[test]
fn pressure_grows_with_what_is_measured_and_what_is_reserved() {
    let tree = ProcTree::new(400);
    let monitor = monitor(&tree);
    let readiness = monitor.readiness();
    assert_eq!(readiness.pressure(), f64::INFINITY);
    monitor.check_now();
    assert_eq!(readiness.pressure(), 0.5);
    let permit = monitor.try_admit(Work::new().memory_bytes(200 * PAGE)).unwrap();
    assert_eq!(readiness.pressure(), 0.75);
    let closing = monitor.try_admit(Work::new().memory_bytes(200 * PAGE)).unwrap();
    assert_eq!((readiness.pressure(), readiness.is_accepting_work()), (1.0, false));
    closing.finish();
    permit.finish();
    assert_eq!(readiness.pressure(), 0.5);
    monitor.stop();
    assert_eq!(readiness.pressure(), f64::INFINITY);
}
