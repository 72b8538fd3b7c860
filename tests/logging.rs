//! The host's logger is a hook like any other: it may panic, and call back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use common::{ms, wait_until, Event, LogCapture, ProcTree, QuietJobs, PAGE};
use highwater::{Resource, ResourceLimits, ResourceMonitor};
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
    let builder = ResourceMonitor::builder(limits(1000)).proc_root(tree.root()).refresh_after(ms(5)).cpu_budget(1.0);
    // No line says that pressure cannot be watched in such a tree: the lines that these tests wait for are others.
    builder.ignore(Resource::MemoryPressure).ignore(Resource::CgroupMemory).build().unwrap()
}

static MONITOR: OnceLock<ResourceMonitor> = OnceLock::new();

/// Whether the next line about a critical level is to hang, whether one does, and whether it may go on.
static HANG: AtomicBool = AtomicBool::new(false);
static HANGS: AtomicBool = AtomicBool::new(false);
static GO_ON: AtomicBool = AtomicBool::new(false);

/// Hangs in the first line that comes while it is told to.
fn hang_once() {
    if HANG.swap(false, Ordering::SeqCst) {
        HANGS.store(true, Ordering::SeqCst);
        wait_until("it may go on", || GO_ON.load(Ordering::SeqCst));
    }
}

/// A host with one job, and how often that was paused.
fn one_job() -> (Arc<QuietJobs>, Arc<AtomicUsize>) {
    let pauses = Arc::new(AtomicUsize::new(0));
    let paused = Arc::clone(&pauses);
    let jobs = QuietJobs::new().naming(|| Some("job".to_string())).pausing(move || {
        paused.fetch_add(1, Ordering::Relaxed);
        Ok(())
    });
    (jobs.shared(), pauses)
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

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
    fn a_reading_that_a_logger_held_up_sheds_nothing() {
        install(hang_once);
        let tree = ProcTree::new(1);
        let monitor = monitor(&tree);
        let (jobs, pauses) = one_job();
        monitor.set_manager(jobs);
        // Below the threshold whenever the check thread looks, and above it in the one check of a caller's.
        std::thread::scope(|scope| {
            monitor.start(Duration::from_secs(3600)).unwrap();
            HANG.store(true, Ordering::SeqCst);
            tree.set_resident_pages(990);
            scope.spawn(|| monitor.check_now());
            wait_until("the caller's logger hangs", || HANGS.load(Ordering::SeqCst));
            tree.set_resident_pages(1);
            monitor.check_now();
            GO_ON.store(true, Ordering::SeqCst);
        });
        let snapshots = monitor.snapshots();
        wait_until("three checks later", || {
            monitor.is_accepting_work();
            snapshots.receiver().len() == 3
        });
        assert_eq!(pauses.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_reading_of_an_earlier_run_sheds_nothing_in_a_later_one() {
        install(hang_once);
        let tree = ProcTree::new(1);
        let monitor = monitor(&tree);
        monitor.start(ms(5)).unwrap();
        HANG.store(true, Ordering::SeqCst);
        tree.set_resident_pages(990);
        wait_until("the check thread's logger hangs", || HANGS.load(Ordering::SeqCst));
        monitor.stop();
        let (jobs, pauses) = one_job();
        monitor.set_manager(jobs);
        tree.set_resident_pages(1);
        monitor.start(ms(5)).unwrap();
        let snapshots = monitor.snapshots();
        GO_ON.store(true, Ordering::SeqCst);
        wait_until("hooks are called again", || monitor.latest().unwrap().running_jobs == 1);
        for _ in 0..5 {
            snapshots.recv_timeout(common::DEADLINE).unwrap();
        }
        assert_eq!(pauses.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_hook_that_panics_every_time_is_logged_once_and_asked_at_its_pace() {
        let log = LogCapture::install();
        let tree = ProcTree::new(990);
        let limits = limits(1000);
        let monitor =
            ResourceMonitor::builder(limits).proc_root(tree.root()).cpu_budget(1.0).settle(ms(200)).build().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let asks = Arc::clone(&asked);
        let panics = QuietJobs::new().counting(|| panic!("counting panics")).naming(move || {
            asks.fetch_add(1, Ordering::Relaxed);
            panic!("naming a job panics")
        });
        monitor.set_manager(panics.shared());
        monitor.start(ms(5)).unwrap();
        let snapshots = monitor.snapshots();
        wait_until("it was asked three times", || asked.load(Ordering::Relaxed) == 3);
        let checks = snapshots.receiver().len() + snapshots.missed() as usize;
        monitor.stop();
        assert!(checks > 3 * 2, "asked at a check in {checks} / 3");
        let hooks: Vec<_> =
            log.named("monitor.hook_panicked").into_iter().map(|event| event.keys["hook"].clone()).collect();
        assert_eq!(hooks.len(), 2, "{hooks:?}");
        assert_eq!(log.named("monitor.no_job_to_shed").len(), 1);
    }

    #[test]
    fn a_shed_is_logged_with_the_resource_that_is_critical_and_no_other() {
        let log = LogCapture::install();
        let tree = ProcTree::new(850);
        for pid in 200..210 {
            tree.process(pid, ProcTree::OWN_PID);
        }
        let limits = ResourceLimits::builder().max_memory_bytes(1000 * PAGE).max_processes(10).build().unwrap();
        let monitor = ResourceMonitor::builder(limits).proc_root(tree.root()).build().unwrap();
        monitor.set_manager(one_job().0);
        monitor.start(Duration::from_secs(3600)).unwrap();
        wait_until("the job is paused", || !log.named("monitor.pausing_oldest_job").is_empty());
        let reason = log.named("monitor.pausing_oldest_job")[0].keys["reason"].clone();
        assert_eq!(reason, "processes 10 of 10 (100.0 %) at or above the hard threshold of 95 %");
    }

    #[test]
    fn each_shed_is_followed_by_its_effect_and_three_in_vain_end_the_episode() {
        let log = LogCapture::install();
        let tree = ProcTree::new(990);
        let builder = ResourceMonitor::builder(limits(1000)).proc_root(tree.root()).cpu_budget(1.0).settle(ms(40));
        let monitor = builder.build().unwrap();
        // Each job is another one, so that each is a healthy one.
        let paused = Arc::new(AtomicUsize::new(0));
        let (next, pauses) = (Arc::clone(&paused), Arc::clone(&paused));
        let jobs = QuietJobs::new().naming(move || Some(next.load(Ordering::SeqCst).to_string())).pausing(move || {
            pauses.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        let cleared = Arc::new(AtomicBool::new(false));
        let clear = Arc::clone(&cleared);
        monitor.set_manager(jobs.clearing(move || clear.store(true, Ordering::SeqCst)).shared());
        monitor.start(ms(5)).unwrap();
        wait_until("it gives up", || !log.named("monitor.shed_ineffective").is_empty());
        let snapshots = monitor.snapshots();
        let settled = std::time::Instant::now() + ms(400);
        while std::time::Instant::now() < settled {
            snapshots.recv_timeout(common::DEADLINE).unwrap();
        }
        assert_eq!(paused.load(Ordering::SeqCst), 3);
        let effects = log.named("monitor.shed_effect");
        let jobs: Vec<_> = effects.iter().map(|event| event.keys["job_id"].clone()).collect();
        assert_eq!(jobs, ["0", "1", "2"]);
        let mb = (990 * PAGE) as f64 / f64::from(1 << 20);
        for Event { level, keys, numbers, .. } in effects {
            assert_eq!((level, keys["resource"].as_str()), (log::Level::Info, "memory"));
            assert_eq!([numbers["before_mb"], numbers["after_mb"], numbers["fell_mb"]], [mb, mb, 0.0]);
        }
        let ineffective = log.named("monitor.shed_ineffective");
        assert_eq!((ineffective.len(), ineffective[0].level), (1, log::Level::Warn));

        // The next episode is judged by itself.
        tree.set_resident_pages(1);
        wait_until("the host is told", || cleared.load(Ordering::SeqCst));
        tree.set_resident_pages(980);
        wait_until("the next job is shed", || paused.load(Ordering::SeqCst) == 4);
        tree.set_resident_pages(970);
        wait_until("its effect is said", || log.named("monitor.shed_effect").len() >= 4);
        let effect = &log.named("monitor.shed_effect")[3];
        assert_eq!(effect.numbers["fell_mb"], (10 * PAGE) as f64 / f64::from(1 << 20));
        assert_eq!(log.named("monitor.shed_ineffective").len(), 1);
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
