//! The host's logger is a hook like any other: it may panic, and call back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::OnceLock;

use common::{ms, wait_until, ProcTree, PAGE};
use highwater::{ResourceLimits, ResourceMonitor};
use rusty_fork::rusty_fork_test;

/// Does what the test says for every line.
struct Logger(fn());

static LINES: AtomicUsize = AtomicUsize::new(0);

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        LINES.fetch_add(1, Ordering::Relaxed);
        self.0();
    }

    fn flush(&self) {}
}

fn install(line: fn()) {
    log::set_boxed_logger(Box::new(Logger(line))).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
}

fn limits(pages: u64) -> ResourceLimits {
    ResourceLimits::builder().max_memory_bytes(pages * PAGE).build().unwrap()
}

fn monitor(tree: &ProcTree) -> ResourceMonitor {
    ResourceMonitor::builder(limits(1000)).proc_root(tree.root()).refresh_after(ms(5)).cpu_budget(1.0).build().unwrap()
}

static MONITOR: OnceLock<ResourceMonitor> = OnceLock::new();

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 120_000)]

    #[test]
    fn a_logger_that_panics_changes_nothing() {
        install(|| panic!("in the logger"));
        let tree = ProcTree::new(1);
        let monitor = monitor(&tree);
        monitor.start(ms(5)).unwrap();
        for pages in [900, 1] {
            tree.set_resident_pages(pages);
            wait_until("the gate follows", || monitor.is_accepting_work() == (pages == 1));
        }
        monitor.update_limits(limits(2000));
        monitor.stop();
        assert!(LINES.load(Ordering::Relaxed) >= 4, "started, warning, limits updated, stopped");
    }

    #[test]
    fn a_logger_that_calls_back_deadlocks_nothing() {
        install(|| {
            // A monitor that is just being made is not there to be called.
            let Some(monitor) = MONITOR.get() else { return };
            // Once is enough: each of these may have something to log.
            static CALLED: AtomicUsize = AtomicUsize::new(0);
            if CALLED.fetch_add(1, Ordering::Relaxed) < 3 {
                monitor.check_now();
                monitor.verdict();
                monitor.latest();
                monitor.update_limits(limits(1001));
                monitor.stop();
                monitor.start(ms(5)).unwrap();
            }
        });
        let tree = ProcTree::new(1);
        let monitor = MONITOR.get_or_init(|| monitor(&tree));
        // The first lines come from this thread, then some from the check thread.
        monitor.start(ms(5)).unwrap();
        tree.set_resident_pages(990);
        wait_until("the check thread logs", || LINES.load(Ordering::Relaxed) > 6 && !monitor.is_accepting_work());
        monitor.stop();
    }
}
