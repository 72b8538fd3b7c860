//! Starting and stopping, any number of times, from any thread.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use common::ms;
use highwater::{ProcessGroup, ResourceLimits, ResourceMonitor};
use nix::libc;
use rusty_fork::rusty_fork_test;

/// With a hook, so that there is an action thread too.
fn monitor() -> ResourceMonitor {
    let monitor = ResourceMonitor::new(ResourceLimits::builder().max_processes(50).build().unwrap());
    monitor.set_process_group(Arc::new(NothingToClean));
    monitor
}

struct NothingToClean;

impl ProcessGroup for NothingToClean {
    fn cleanup_orphans(&self) -> std::io::Result<Vec<u32>> {
        Ok(Vec::new())
    }
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
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn starts_and_stops_that_race_leave_no_thread_asleep() {
        let monitor = monitor();
        // A stop that was not heard would take an hour.
        let race = |act: &(dyn Fn() + Sync)| (0..40).for_each(|_| act());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| race(&|| monitor.start(Duration::from_secs(3600)).unwrap()));
                scope.spawn(|| race(&|| monitor.stop()));
            }
        });
        monitor.stop();
        assert_eq!(threads(), 2, "this one, and the one that runs the tests");
    }

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
        let threads_before = threads();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..300).for_each(|_| monitor.start(ms(1)).unwrap()));
                scope.spawn(|| (0..300).for_each(|_| monitor.stop()));
            }
        });
        monitor.stop();
        assert!(!monitor.is_accepting_work());
        monitor.start(Duration::from_secs(3600)).unwrap();
        assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
        // One that checks and one that acts.
        common::wait_until("both threads are there", || threads() == threads_before + 2);
    }

    #[test]
    fn the_threads_are_named_and_deaf_to_signals() {
        let monitor = monitor();
        monitor.update_limits(ResourceLimits::builder().min_free_disk_mb("/", 1).build().unwrap());
        monitor.start(ms(10)).unwrap();
        for thread in ["highwater", "highwater-act", "highwater-disk"] {
            // A thread names itself, a moment after it was started.
            let mut blocked = None;
            common::wait_until("a thread has the name", || {
                blocked = blocked_signals(thread);
                blocked.is_some()
            });
            let blocks = |signal: i32| blocked.unwrap() & (1 << (signal - 1)) != 0;
            assert!(blocks(libc::SIGTERM) && blocks(libc::SIGCHLD) && !blocks(libc::SIGSEGV), "{thread}: {blocked:x?}");
        }
    }
}
