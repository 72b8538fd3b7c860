//! A check in the steady state allocates nothing on the heap, whoever takes it.
//!
//! The allocator counts for the whole process, so every test has one of its own.
#![allow(clippy::unwrap_used)]

mod common;

use std::alloc::System;
use std::hint::black_box;
use std::thread;

use common::groups::Groups;
use common::{ms, Children, DEADLINE};
use highwater::{MemoryScope, Resource, ResourceLimits, ResourceMonitor};
use rusty_fork::rusty_fork_test;
use stats_alloc::{Region, StatsAlloc, INSTRUMENTED_SYSTEM};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How often the whole process asked for memory meanwhile.
fn allocations_during(work: impl FnOnce()) -> usize {
    let region = Region::new(ALLOCATOR);
    work();
    let change = region.change();
    change.allocations + change.reallocations
}

const ROUNDS: usize = 100;

/// Whatever else starts on the machine may make a buffer grow; what allocates in every check does so in every attempt.
fn allocates_nothing(work: impl Fn(), children: usize) {
    work();
    let attempts: Vec<_> = (0..5).map(|_| allocations_during(&work)).collect();
    assert!(attempts.contains(&0), "{children} children: {attempts:?} allocations in {ROUNDS} checks");
}

fn checks_on_the_caller_allocate_nothing(monitor: &ResourceMonitor, children: usize) {
    let check = || {
        for _ in 0..ROUNDS {
            assert_eq!(monitor.check_now().child_process_count, Some(children));
        }
    };
    allocates_nothing(check, children);
}

/// Nor does what a host does meanwhile: asking, and reading what the checks found.
fn checks_on_the_thread_allocate_nothing(monitor: &ResourceMonitor, children: usize) {
    let readiness = monitor.readiness();
    let snapshots = monitor.snapshots();
    monitor.start(ms(5)).unwrap();
    let read = |count: usize| {
        for _ in 0..count {
            let snapshot = snapshots.recv_timeout(DEADLINE).unwrap();
            assert_eq!(snapshot.child_process_count, Some(children));
            black_box(readiness.is_accepting_work());
        }
    };
    allocates_nothing(|| read(ROUNDS), children);
    monitor.stop();
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn the_counter_counts_on_every_thread() {
        assert!(allocations_during(|| drop(black_box(Box::new(1)))) >= 1);
        let mut list = vec![1_u8; 10];
        assert!(allocations_during(|| list.reserve_exact(black_box(1000))) >= 1);
        let (ask, asked) = crossbeam_channel::bounded(0);
        let (answer, answered) = crossbeam_channel::bounded(0);
        let thread = thread::spawn(move || {
            for () in asked {
                drop(black_box(Box::new(1)));
                answer.send(()).unwrap();
            }
        });
        let elsewhere = || {
            ask.send(()).unwrap();
            answered.recv().unwrap();
        };
        elsewhere();
        assert!(allocations_during(elsewhere) >= 1);
        drop(ask);
        thread.join().unwrap();
    }

    // One test, because several would run side by side and see each other's children start.
    #[test]
    fn a_check_in_the_steady_state_allocates_nothing_with_0_and_with_50_children() {
        let limits = ResourceLimits::builder().max_memory_mb(1 << 20).max_processes(1000);
        let limits = limits.min_available_memory_mb(1).min_free_disk_mb("/proc/..", 1).max_cpu_pressure_percent(100);
        let limits = limits.threshold(Resource::CpuPressure, 99, 100).build().unwrap();
        let monitor = ResourceMonitor::builder(limits).refresh_after(ms(1)).cpu_budget(1.0).build().unwrap();
        // With limits above, so that there is all to be read that there can be.
        let groups: Vec<_> = ["memory", "pids"].into_iter().filter_map(Groups::new).collect();
        for group in &groups {
            group.limit_amply();
            group.enter();
        }
        for count in [0, 50] {
            let _children = Children::sleepers(count);
            checks_on_the_caller_allocate_nothing(&monitor, count);
            checks_on_the_thread_allocate_nothing(&monitor, count);
            // The monitor was stopped, and its checks go on.
            checks_on_the_caller_allocate_nothing(&monitor, count);
        }
        drop(groups);
        // Together they have more than the limit, but for the pages that they share.
        let limits = ResourceLimits::builder().max_memory_mb(75).max_processes(1000).build().unwrap();
        let builder = ResourceMonitor::builder(limits).memory_scope(MemoryScope::Tree);
        let monitor = builder.refresh_after(ms(1)).cpu_budget(1.0).build().unwrap();
        let _children = Children::sleepers(50);
        checks_on_the_caller_allocate_nothing(&monitor, 50);
        assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
    }
}
