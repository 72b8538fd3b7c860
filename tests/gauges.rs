//! The host's own numbers: pushed by it, reserved by permits, judged like what is read.
#![allow(clippy::unwrap_used)]

mod common;

use std::thread;
use std::time::Duration;

use common::{in_forked_child, ms, wait_until, DEADLINE};
use highwater::{ErrorKind, Gauge, Resource, ResourceLimits, ResourceMonitor, Work};
use rusty_fork::rusty_fork_test;

/// A monitor that has checked and will not again within the test, so that only what is pushed can change its answer.
fn checked_once() -> ResourceMonitor {
    let monitor = ResourceMonitor::builder(ResourceLimits::builder().build().unwrap());
    let monitor = monitor.refresh_after(Duration::from_secs(3600)).max_age(Duration::from_secs(7200)).build().unwrap();
    monitor.check_now();
    monitor
}

fn connections(monitor: &ResourceMonitor) -> Gauge {
    monitor.gauge("connections", 100).unwrap()
}

#[test]
fn what_is_pushed_closes_and_opens_the_gate_at_once() {
    let monitor = checked_once();
    let gauge = connections(&monitor);
    gauge.add(79);
    assert!(monitor.is_accepting_work());
    assert!(monitor.verdict().to_string().ends_with("connections 79 of 100 (79.0 %)"), "{}", monitor.verdict());
    gauge.add(1);
    assert!(!monitor.is_accepting_work());
    let verdict = monitor.verdict();
    assert_eq!(verdict.resource(), Some(gauge.resource()));
    assert_eq!(verdict.resource().unwrap().to_string(), "connections");
    assert!(monitor.try_admit(Work::new()).is_err() && monitor.readiness().pressure() >= 1.0);
    gauge.sub(1);
    assert!(monitor.is_accepting_work() && monitor.readiness().pressure() < 1.0);
    gauge.set(1_000_000);
    assert!(monitor.verdict().to_string().contains("connections 1000000 of 100 (1000000.0 %)"));
    gauge.set(0);
    assert!(monitor.is_accepting_work());
}

#[test]
fn it_never_goes_below_zero_and_loses_no_addition_that_comes_late() {
    let monitor = checked_once();
    let gauge = connections(&monitor);
    gauge.sub(5);
    assert_eq!((gauge.get(), gauge.limit()), (0, 100));
    assert!(monitor.is_accepting_work());
    gauge.add(5);
    assert_eq!(gauge.get(), 0);
    gauge.add(7);
    assert_eq!(gauge.get(), 7);
    gauge.set(u64::MAX);
    assert!(gauge.get() > 1 << 40 && !monitor.is_accepting_work());
}

#[test]
fn work_reserves_what_it_declares_until_the_permit_ends() {
    let monitor = checked_once();
    let gauge = connections(&monitor);
    gauge.add(50);
    let permit = monitor.try_admit(Work::new().gauge(&gauge, 40)).unwrap();
    assert!(!monitor.is_accepting_work());
    let text = monitor.verdict().to_string();
    assert!(text.contains("connections 50 + 40 reserved of 100 (90.0 %) at or above the warning threshold"), "{text}");
    permit.finish();
    assert!(monitor.is_accepting_work());
    let refused = monitor.try_admit(Work::new().gauge(&gauge, 45)).unwrap_err();
    assert!(refused.to_string().contains("connections 50 + 45 asked of 100 (95.0 %) would reach the hard threshold"));
    assert!(monitor.try_admit(Work::new().gauge(&gauge, 95)).unwrap_err().could_never_fit());
    // Dropped, it is counted by the host from now on: reserved until the next check.
    drop(monitor.try_admit(Work::new().gauge(&gauge, 40)).unwrap());
    assert!(!monitor.is_accepting_work());
    monitor.check_now();
    assert!(monitor.is_accepting_work());
}

#[test]
fn whoever_waits_is_served_by_what_is_taken_off() {
    let monitor = checked_once();
    let gauge = connections(&monitor);
    for free in [|gauge: &Gauge| gauge.sub(60), |gauge: &Gauge| gauge.set(10)] {
        gauge.set(75);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| monitor.admit(Work::new().gauge(&gauge, 30), DEADLINE));
            wait_until("a thread waits", || monitor.waiters() == 1);
            free(&gauge);
            waiter.join().unwrap().unwrap().finish();
        });
    }
    gauge.set(90);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| monitor.wait_until_accepting(DEADLINE));
        wait_until("a thread waits", || monitor.waiters() == 1);
        drop(gauge);
        waiter.join().unwrap().unwrap();
    });
}

#[test]
fn a_gauge_that_is_dropped_leaves_the_judgement_and_its_place() {
    let monitor = checked_once();
    let gauge = connections(&monitor);
    gauge.add(90);
    let (clone, work) = (gauge.clone(), Work::new().gauge(&gauge, 90));
    drop(gauge);
    assert!(!monitor.is_accepting_work(), "a clone is the gauge");
    drop(clone);
    assert!(monitor.is_accepting_work() && !monitor.verdict().to_string().contains("connections"));
    // The next one in its place is not meant by the work of before.
    let next = monitor.gauge("licences", 10).unwrap();
    assert!(monitor.try_admit(work).is_ok() && next.get() == 0);
    let held = monitor.try_admit(Work::new().gauge(&next, 5)).unwrap();
    drop(next);
    let another = monitor.gauge("licences", 10).unwrap();
    assert!(monitor.try_admit(Work::new().gauge(&another, 7)).is_ok(), "what is held is another's");
    drop(held);
}

#[test]
fn what_is_declared_of_another_monitors_gauge_counts_for_nothing() {
    let monitors = [checked_once(), checked_once()];
    let [gauge, others] = [0, 1].map(|place| connections(&monitors[place]));
    assert!(monitors[0].try_admit(Work::new().gauge(&others, 99)).is_ok());
    assert!(monitors[0].try_admit(Work::new().gauge(&gauge, 99)).is_err());
}

#[test]
fn a_ninth_gauge_a_bad_name_and_no_limit_are_errors_that_name_them() {
    let monitor = checked_once();
    let kind_and_text = |name, limit| {
        let error = monitor.gauge(name, limit).unwrap_err();
        (error.kind(), error.to_string())
    };
    let (kind, text) = kind_and_text("slots", 0);
    assert!(kind == ErrorKind::InvalidLimit && text.contains("gauge limit 0 of slots"), "{text}");
    for name in ["", "Slots", "memory", "open_files", "a b"] {
        assert_eq!(kind_and_text(name, 1).0, ErrorKind::InvalidSetting, "{name}");
    }
    let names = ["g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8"];
    let mut gauges: Vec<Gauge> = names.map(|name| monitor.gauge(name, 10).unwrap()).into();
    assert!(kind_and_text("g1", 1).1.contains("gauge name g1 is taken"));
    assert!(kind_and_text("g9", 1).1.contains("gauge g9 is one too many"));
    gauges.pop();
    assert!(monitor.gauge("g9", 1).is_ok());
    for gauge in &gauges {
        gauge.set(8);
        assert_eq!(monitor.verdict().resource(), Some(gauge.resource()));
        gauge.set(0);
    }
}

#[test]
fn snapshots_show_the_gauges_and_a_start_keeps_them() {
    let monitor = checked_once();
    let gauge = connections(&monitor);
    gauge.set(7);
    let snapshot = monitor.check_now();
    let readings: Vec<_> =
        snapshot.gauges().map(|reading| (reading.name.name(), reading.value, reading.limit)).collect();
    assert_eq!(readings, [("connections", 7, 100)]);
    assert!(snapshot.to_string().ends_with(", connections 7 of 100"), "{snapshot}");
    monitor.start(ms(500)).unwrap();
    gauge.set(80);
    assert!(!monitor.is_accepting_work());
    monitor.stop();
    monitor.start(ms(500)).unwrap();
    assert_eq!(monitor.verdict().resource(), Some(gauge.resource()));
}

#[test]
fn what_grows_says_when_it_is_full() {
    let monitor = checked_once();
    let gauge = monitor.gauge("connections", 1 << 40).unwrap();
    let grown = |value: u64| {
        gauge.set(value << 30);
        let before = monitor.latest().unwrap().timestamp;
        wait_until("the clock of the readings has gone on by a step", || before.elapsed() > ms(20));
        monitor.check_now().exhaustion
    };
    grown(1);
    assert!(grown(2).is_some());
    let exhaustion = grown(3).unwrap();
    assert!(exhaustion.resource == gauge.resource() && exhaustion.soonest <= exhaustion.at_mean_rate, "{exhaustion:?}");
    let verdict = monitor.verdict();
    assert!(verdict.exhaustion().is_some() && verdict.to_string().contains("; connections full in "), "{verdict}");
    grown(0);
    assert_eq!(monitor.verdict().exhaustion(), None);
}

#[test]
fn a_gauge_may_outlive_its_monitor() {
    let monitor = checked_once();
    let gauge = connections(&monitor);
    let other = checked_once();
    let work = Work::new().gauge(&gauge, 99);
    assert!(other.try_admit(work).is_ok(), "it is no gauge of this monitor");
    drop(monitor);
    gauge.add(3);
    gauge.sub(1);
    assert_eq!(gauge.get(), 2);
}

#[test]
fn no_update_is_lost_among_threads_and_the_gate_follows_the_last() {
    let monitor = checked_once();
    let gauge = monitor.gauge("connections", 100_000).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    gauge.add(2);
                    gauge.sub(1);
                }
            });
        }
    });
    assert_eq!(gauge.get(), 80_000);
    assert!(!monitor.is_accepting_work());
    gauge.sub(1);
    assert!(monitor.is_accepting_work());
}

rusty_fork_test! {
    #[test]
    fn in_a_forked_child_it_counts_for_nothing_and_another_can_be_made() {
        let monitor = checked_once();
        let gauge = connections(&monitor);
        gauge.add(90);
        in_forked_child(|| {
            gauge.add(1);
            monitor.check_now();
            assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
            let own = connections(&monitor);
            own.add(85);
            assert!(matches!(monitor.verdict().resource(), Some(Resource::Gauge(name)) if name.name() == "connections"));
            Ok(())
        });
        assert_eq!((gauge.get(), monitor.is_accepting_work()), (90, false));
    }
}
