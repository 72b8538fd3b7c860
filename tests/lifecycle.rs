//! Starting and stopping, any number of times, from any thread.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::time::Duration;

use common::ms;
use highwater::{ResourceLimits, ResourceMonitor};
use nix::libc;
use rusty_fork::rusty_fork_test;

fn monitor() -> ResourceMonitor {
    ResourceMonitor::new(ResourceLimits::builder().max_processes(50).build().unwrap())
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The mask of signals that the thread of this name blocks.
fn blocked_signals(thread: &str) -> Option<u64> {
    fs::read_dir("/proc/self/task")
        .unwrap()
        // A thread may end while it is looked at.
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok())
        .find(|status| status.lines().any(|line| line.strip_prefix("Name:\t") == Some(thread)))
        .and_then(|status| {
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t").map(str::to_string))?;
            u64::from_str_radix(&mask, 16).ok()
        })
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 120_000)]

    #[test]
    fn a_thousand_rounds_leak_no_thread_and_no_descriptor() {
        let monitor = monitor();
        let threads_before = threads();
        monitor.start(ms(1)).unwrap();
        monitor.stop();
        let descriptors_before = descriptors();
        for _ in 0..1000 {
            monitor.start(ms(1)).unwrap();
            assert!(monitor.is_accepting_work());
            monitor.stop();
            assert!(!monitor.is_accepting_work());
        }
        assert_eq!(descriptors(), descriptors_before);
        // A joined thread is off the task list a moment after the join.
        common::wait_until("every thread is gone", || threads() == threads_before);
        drop(monitor);
        assert!(descriptors() < descriptors_before);
    }

    #[test]
    fn threads_that_race_start_and_stop_end_in_a_consistent_state() {
        let monitor = monitor();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..300).for_each(|_| monitor.start(ms(1)).unwrap()));
                scope.spawn(|| (0..300).for_each(|_| monitor.stop()));
            }
        });
        monitor.stop();
        assert!(!monitor.is_accepting_work());
        let threads_stopped = threads();
        monitor.start(Duration::from_secs(3600)).unwrap();
        assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
        assert_eq!(threads(), threads_stopped + 1);
    }

    #[test]
    fn the_check_thread_is_named_and_deaf_to_signals() {
        let monitor = monitor();
        monitor.start(ms(10)).unwrap();
        // A thread names itself, a moment after it was started.
        let mut blocked = None;
        common::wait_until("a thread is named highwater", || {
            blocked = blocked_signals("highwater");
            blocked.is_some()
        });
        let blocked = blocked.unwrap();
        for (signal, is_blocked) in [(libc::SIGTERM, true), (libc::SIGCHLD, true), (libc::SIGSEGV, false)] {
            assert_eq!(blocked & (1 << (signal - 1)) != 0, is_blocked, "signal {signal}");
        }
    }
}
