//! Every check reaches every subscriber that keeps up.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::{ms, ProcTree, DEADLINE};
use crossbeam_channel::{never, select, RecvTimeoutError, TryRecvError};
use highwater::{ResourceLimits, ResourceMonitor};

fn monitor(tree: &ProcTree) -> ResourceMonitor {
    let limits = ResourceLimits::builder().max_processes(10).build().unwrap();
    ResourceMonitor::builder(limits).proc_root(tree.root()).cpu_budget(1.0).build().unwrap()
}

#[test]
fn every_subscriber_sees_every_check_from_its_subscription_on() {
    let tree = ProcTree::new(5);
    let monitor = monitor(&tree);
    let early = monitor.snapshots();
    monitor.check_now();
    let late = monitor.snapshots();
    tree.process(200, ProcTree::OWN_PID);
    monitor.check_now();
    let counts = |snapshots: &highwater::Snapshots| {
        std::iter::from_fn(|| snapshots.try_recv().ok()).map(|one| one.child_process_count.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((counts(&early), counts(&late)), (vec![0, 1], vec![1]));
    assert_eq!(early.try_recv().unwrap_err(), TryRecvError::Empty);
}

#[test]
fn a_slow_reader_delays_no_check_and_knows_what_it_missed() {
    let tree = ProcTree::new(5);
    let monitor = monitor(&tree);
    let slow = monitor.snapshots();
    for pid in 0..100 {
        tree.process(200 + pid, ProcTree::OWN_PID);
        monitor.check_now();
    }
    let first = slow.try_recv().unwrap().child_process_count.unwrap();
    assert_eq!(slow.missed() as usize, first - 1, "those before the first that is left");
    assert_eq!(slow.receiver().len() as u64 + slow.missed() + 1, 100);
}

#[test]
fn a_receiver_serves_in_select() {
    let tree = ProcTree::new(5);
    let monitor = monitor(&tree);
    let snapshots = monitor.snapshots();
    let nothing = never::<()>();
    monitor.start(ms(5)).unwrap();
    select! {
        recv(nothing) -> _ => unreachable!(),
        recv(snapshots.receiver()) -> snapshot => assert_eq!(snapshot.unwrap().memory_bytes, Some(5 * common::PAGE)),
        default(DEADLINE) => panic!("no snapshot"),
    }
}

#[test]
fn a_stop_does_not_end_a_subscription_and_the_end_of_the_monitor_does() {
    let tree = ProcTree::new(5);
    let monitor = monitor(&tree);
    let mut snapshots = monitor.snapshots();
    monitor.start(Duration::from_secs(3600)).unwrap();
    monitor.stop();
    assert!(snapshots.next().is_some());
    assert_eq!(snapshots.recv_timeout(ms(1)).unwrap_err(), RecvTimeoutError::Timeout);
    monitor.start(Duration::from_secs(3600)).unwrap();
    drop(monitor);
    assert!(snapshots.next().is_some());
    assert!(snapshots.next().is_none());
}
