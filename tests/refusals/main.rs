//! Every call that the library makes of the kernel is refused in its turn, and so is every allocation; and the clocks do
//! what clocks may do.
//!
//! The program has functions in the place of those of the C library ([`kernel`], [`clocks`]), by the names that glibc has
//! for them, and with variable arguments as these machines pass them. They are there for the whole process, and so are
//! the allocator and what is counted: each test has a process of its own.
#![cfg(all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;

#[allow(unsafe_code)]
mod clocks;
mod gate;
mod jobs;
#[allow(unsafe_code)]
mod kernel;
#[allow(unsafe_code)]
mod memory;
mod trial;
mod turn;

use highwater::{Ledger, MemoryScope, ResourceLimitsBuilder, ResourceMonitorBuilder};
use rusty_fork::rusty_fork_test;

use gate::{attached, builder, family, lean, managed, monitored, reached, shared, wide};
use trial::in_turn;

#[global_allocator]
static ALLOCATOR: memory::Refusing = memory::Refusing;

fn opens_by_itself(
    name: &str,
    scope: MemoryScope,
    build: fn(ResourceLimitsBuilder, MemoryScope) -> ResourceMonitorBuilder,
) {
    let family = family();
    let child = family.0.as_raw().unsigned_abs();
    in_turn(name, |trial| {
        let made = || build(wide(), scope).build();
        monitored(trial, scope, true, made, |monitor| attached(monitor, child)).map(|()| 0)
    });
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn a_gate_opens_by_itself_whatever_was_refused() {
        opens_by_itself("monitor", MemoryScope::Own, builder);
    }

    #[test]
    fn a_gate_is_closed_at_its_limit_whatever_was_refused() {
        let _family = family();
        in_turn("monitor at its limit", |trial| {
            let made = || lean(reached(), MemoryScope::Own).build();
            monitored(trial, MemoryScope::Own, false, made, |_| Ok(())).map(|()| 0)
        });
    }

    #[test]
    fn no_process_is_left_out_whatever_was_refused() {
        opens_by_itself("monitor of a tree", MemoryScope::Tree, lean);
    }

    #[test]
    fn a_manager_is_called_whatever_was_refused() {
        let _family = family();
        in_turn("manager", |trial| managed(trial).map(|()| 0));
    }

    #[test]
    fn a_ledger_is_shared_or_an_error_whatever_was_refused() {
        let _family = family();
        in_turn("ledger", |trial| shared(trial, Ledger::create).map(|_| 0));
    }

    #[test]
    fn a_ledger_in_a_file_is_shared_or_an_error_whatever_was_refused() {
        let _family = family();
        in_turn("ledger in a file", |trial| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ledger");
            let is_open = shared(trial, || Ledger::open(&path))?;
            let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.path()).collect();
            common::ensure(left.iter().all(|left| *left == path), &format!("left are {left:?}"))?;
            // It is kept open for good.
            Ok(usize::from(is_open))
        });
    }

    #[test]
    fn a_job_runs_once_or_never_whatever_was_refused() {
        in_turn("job", |trial| jobs::run(trial).map(|()| 0));
    }

    #[test]
    fn a_jobserver_serves_or_is_an_error_whatever_was_refused() {
        in_turn("jobserver", |trial| jobs::serve(trial, false).map(|()| 0));
        in_turn("jobserver of fifos", |trial| jobs::serve(trial, true).map(|()| 0));
    }

    #[test]
    fn asking_allocates_nothing_that_could_be_refused() {
        memory::nothing_is_allocated_by_asking();
    }

    #[test]
    fn a_process_goes_on_or_ends_when_an_allocation_is_refused() {
        memory::the_process_goes_on_or_ends();
    }

    #[test]
    fn the_time_of_day_has_no_part_in_anything() {
        clocks::set();
    }

    #[test]
    fn a_gate_is_open_while_time_stands_still_and_after() {
        clocks::still();
    }

    #[test]
    fn a_gate_is_closed_by_a_jump_of_the_clock_and_opened_by_the_next_check() {
        clocks::ahead();
    }
}
