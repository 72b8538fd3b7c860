//! Checks by several threads at once, on a probe that reads whatever a test says.

#[path = "../../tests/common/waiting.rs"]
mod waiting;

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::waiting::{wait_until, DEADLINE};
use super::Config;
use crate::host::{BoxError, JobManager};
use crate::monitor::ResourceMonitor;
use crate::readers::cgroup::{Alarms, Watch};
use crate::readers::probe::Probe;
use crate::sys::allocator::Info;
use crate::sys::fork::Mutex;
use crate::sys::Allocator;
use crate::vocabulary::{
    Error, ErrorKind, Found, Identity, MemoryScope, Reading, Resource, ResourceLimits, Settings, Work,
};

/// A probe whose readings are numbered from 1; what each one finds, or does, is the test's to say. Own memory, read
/// alone, is what the readings' number would make it.
struct Scripted<F> {
    readings: AtomicUsize,
    /// How many readings there had been, each time that it was asked to prepare.
    prepared: Arc<Mutex<Vec<usize>>>,
    script: F,
}

impl<F: Fn(usize, &mut Reading) + Send + Sync> Probe for Scripted<F> {
    fn prepare(&self, _: &Settings) {
        self.prepared.lock().push(self.readings.load(Ordering::SeqCst));
    }

    fn read(&self, _: &Settings, into: &mut Reading) {
        into.clear();
        into.snapshot.memory_bytes = Some(1);
        into.snapshot.child_process_count = Some(0);
        (self.script)(self.readings.fetch_add(1, Ordering::SeqCst) + 1, into);
    }

    fn read_memory(&self, _: &Settings) -> Found {
        let mut reading = Reading::default();
        reading.snapshot.memory_bytes = self.own_memory().ok();
        reading.found()
    }

    fn own_memory(&self) -> Result<u64, Error> {
        let mut reading = Reading::default();
        (self.script)(self.readings.fetch_add(1, Ordering::SeqCst) + 1, &mut reading);
        reading.snapshot.memory_bytes.ok_or_else(|| Error::new(ErrorKind::Read, "not this time"))
    }

    fn descendant(&self, pid: u32) -> Result<(Identity, bool), Error> {
        Err(Error::process(format!("process {pid} is not there")))
    }

    fn arm(&self, _: &Settings, _: &Watch) -> Alarms {
        Alarms::default()
    }

    fn is_outdated(&self, _: &Alarms) -> bool {
        false
    }
}

impl<F> Scripted<F> {
    fn new(script: F) -> Scripted<F> {
        Scripted { readings: AtomicUsize::new(0), prepared: Arc::default(), script }
    }
}

/// A manager without a job to name. What it counts as running is a test's to say.
pub(super) struct Counting<F>(pub(super) F);

impl<F: Fn() -> usize + Send + Sync> JobManager for Counting<F> {
    fn running_count(&self) -> usize {
        (self.0)()
    }

    fn active_job_count(&self) -> usize {
        (self.0)()
    }

    fn oldest_running_job(&self) -> Option<String> {
        None
    }

    fn pause_job(&self, _: &str, _: Resource) -> Result<(), BoxError> {
        Ok(())
    }

    fn cancel_job(&self, _: &str, _: Resource) -> Result<(), BoxError> {
        Ok(())
    }
}

fn monitor(settings: Settings, script: impl Fn(usize, &mut Reading) + Send + Sync + 'static) -> ResourceMonitor {
    let probe = Box::new(Scripted::new(script));
    let limits = ResourceLimits::builder().max_processes(100).build().unwrap();
    ResourceMonitor::with_config(Config { settings, probe, ..Config::default() }, limits)
}

#[test]
fn a_probe_that_panics_is_a_failed_check_and_the_thread_lives_on() {
    // In this scope memory is not read alone, and every reading is a check.
    let memory_scope = MemoryScope::Tree;
    let settings = Settings { refresh_after: Duration::ZERO, memory_scope, ..Settings::default() };
    let monitor = monitor(settings, |number, _| assert!(!(2..=3).contains(&number), "reading {number}"));
    monitor.start(DEADLINE).unwrap();
    assert!(monitor.is_accepting_work());
    let snapshots = monitor.snapshots();
    let mut failed = Vec::new();
    wait_until("three more checks are demanded and taken", || {
        monitor.is_accepting_work();
        failed.extend(snapshots.try_recv().map(|snapshot| snapshot.probe_failed()));
        failed.len() == 3
    });
    assert_eq!(failed, [true, true, false]);
    assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
}

#[test]
fn the_verdict_tells_of_the_panic() {
    let monitor = monitor(Settings::default(), |_, _| panic!("of reading"));
    assert!(monitor.check_now().probe_failed());
    assert_eq!(
        monitor.verdict().to_string(),
        "not accepting work: the last check failed: a reading panicked: of reading"
    );
}

#[test]
fn a_herd_that_finds_the_last_check_old_takes_one_fresh_one() {
    let (entered, reading) = channel();
    let (release, released) = channel();
    let gates: Mutex<(Sender<()>, Receiver<()>)> = Mutex::new((entered, released));
    // Longer than a thread of the herd may be late by: what is fresh for one must not be old for the next.
    let settings = Settings { refresh_after: Duration::from_millis(500), ..Settings::default() };
    let monitor = monitor(settings, move |number, _| {
        if number == 2 {
            let gates = gates.lock();
            gates.0.send(()).unwrap();
            gates.1.recv_timeout(DEADLINE).unwrap();
        }
    });
    monitor.check_now();
    let numbers = monitor.snapshots();
    wait_until("the check is old", || monitor.seconds_since_last_check() > 0.6);
    std::thread::scope(|scope| {
        let herd: Vec<_> = (0..8).map(|_| scope.spawn(|| monitor.try_admit(Work::new().processes(1)))).collect();
        reading.recv_timeout(DEADLINE).unwrap();
        // All of them are judged on what the one who reads will find.
        release.send(()).unwrap();
        let granted = herd.into_iter().map(|one| one.join().unwrap()).filter(Result::is_ok).count();
        assert_eq!(granted, 8);
    });
    assert_eq!(numbers.receiver().len(), 1, "one check for all");
}

#[test]
fn a_check_that_began_before_the_published_one_is_returned_and_not_published() {
    let (entered, reading) = channel();
    let (release, released) = channel();
    let gates: Mutex<(Sender<()>, Receiver<()>)> = Mutex::new((entered, released));
    let monitor = monitor(Settings::default(), move |number, into| {
        into.snapshot.child_process_count = Some(number);
        if number == 1 {
            let gates = gates.lock();
            gates.0.send(()).unwrap();
            gates.1.recv_timeout(DEADLINE).unwrap();
        }
    });
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| monitor.check_now());
        reading.recv_timeout(DEADLINE).unwrap();
        assert_eq!(monitor.check_now().child_process_count, Some(2));
        release.send(()).unwrap();
        assert_eq!(slow.join().unwrap().child_process_count, Some(1));
    });
    assert_eq!(monitor.latest().unwrap().child_process_count, Some(2));
}

#[test]
fn climbing_memory_closes_the_gate_long_before_the_budget_allows_a_check() {
    // A budget that puts hours between checks; memory doubles with every reading.
    let settings = Settings { cpu_budget: 1e-9, ..Settings::default() };
    let probe =
        Scripted::new(|number: usize, into: &mut Reading| into.snapshot.memory_bytes = Some(10 << number.min(20)));
    let limits = ResourceLimits::builder().max_memory_bytes(1000).build().unwrap();
    let config = Config { settings, probe: Box::new(probe), ..Config::default() };
    let monitor = ResourceMonitor::with_config(config, limits);
    monitor.start(DEADLINE).unwrap();
    wait_until("the coarse clock has gone on", || monitor.seconds_since_last_check() > 0.0);
    monitor.check_now();
    assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
    let snapshots = monitor.snapshots();
    wait_until("the gate closes", || !monitor.is_accepting_work());
    assert!(monitor.verdict().to_string().contains("memory"), "{}", monitor.verdict());
    assert!(snapshots.try_recv().is_err(), "without a check");
}

#[test]
fn a_probe_prepares_before_the_first_reading_of_a_start_and_of_nothing_else() {
    let probe = Scripted::new(|_, _: &mut Reading| ());
    let prepared = Arc::clone(&probe.prepared);
    let config = Config { settings: Settings::default(), probe: Box::new(probe), ..Config::default() };
    let monitor = ResourceMonitor::with_config(config, ResourceLimits::builder().build().unwrap());
    monitor.check_now();
    assert!(prepared.lock().is_empty());
    monitor.start(DEADLINE).unwrap();
    monitor.start(DEADLINE).unwrap();
    monitor.check_now();
    assert_eq!(*prepared.lock(), [1]);
}

#[test]
fn a_second_start_waits_for_the_first_check_of_the_first() {
    for _ in 0..5 {
        let (entered, reading) = channel();
        let (release, released) = channel::<()>();
        let released = Mutex::new(released);
        let monitor = &monitor(Settings::default(), move |number, _| {
            if number == 1 {
                entered.send(()).unwrap();
                let _ = released.lock().recv();
            }
        });
        std::thread::scope(|scope| {
            scope.spawn(|| monitor.start(DEADLINE).unwrap());
            reading.recv_timeout(DEADLINE).unwrap();
            let second = scope.spawn(|| {
                monitor.start(DEADLINE).unwrap();
                monitor.is_accepting_work()
            });
            // Either it has come back by then, which is wrong, or it waits.
            let deadline = Instant::now() + Duration::from_millis(50);
            while !second.is_finished() && Instant::now() < deadline {
                std::thread::yield_now();
            }
            drop(release);
            assert!(second.join().unwrap(), "{}", monitor.verdict());
        });
    }
}

#[test]
fn a_start_from_within_a_start_takes_the_first_check_itself() {
    let monitor = Arc::new(monitor(Settings::default(), |_, _| ()));
    let (starts, accepting) = (Arc::downgrade(&monitor), Arc::new(AtomicUsize::new(0)));
    let found_accepting = Arc::clone(&accepting);
    monitor.set_manager(Arc::new(Counting(move || {
        if let Some(monitor) = starts.upgrade() {
            monitor.start(DEADLINE).unwrap();
            found_accepting.fetch_add(usize::from(monitor.is_accepting_work()), Ordering::SeqCst);
        }
        0
    })));
    monitor.start(DEADLINE).unwrap();
    assert!(accepting.load(Ordering::SeqCst) > 0, "{}", monitor.verdict());
}

#[test]
fn a_degraded_monitor_is_checked_once_a_second_however_often_it_is_asked() {
    let settings = Settings { refresh_after: Duration::ZERO, ..Settings::default() };
    let monitor = monitor(settings, |_, into| into.snapshot.memory_bytes = None);
    let snapshots = monitor.snapshots();
    monitor.start(DEADLINE).unwrap();
    wait_until("a degraded monitor has taken one more check", || {
        monitor.is_accepting_work();
        snapshots.receiver().len() == 6
    });
    assert!(monitor.is_degraded());
    let times: Vec<_> = snapshots.take(6).map(|snapshot| snapshot.timestamp).collect();
    // Less a step of the coarse clock, by which the delay is measured.
    assert!(times[5] - times[4] > Duration::from_millis(980), "{:?}", times[5] - times[4]);
}

/// 60 MB are free, and 30 are in use.
extern "C" fn much_is_free() -> Info {
    Info::of(60 << 20, 30 << 20)
}

/// A monitor whose 90 MB of 100 shut its gate, over an allocator that a test makes up.
fn shut(allocator: Allocator) -> ResourceMonitor {
    let probe = Box::new(Scripted::new(|_, into: &mut Reading| into.snapshot.memory_bytes = Some(90 << 20)));
    let limits = ResourceLimits::builder().max_memory_mb(100).build().unwrap();
    let settle = Some(Duration::from_millis(1));
    let settings = Settings { settle, refresh_after: Duration::ZERO, ..Settings::default() };
    ResourceMonitor::with_config(Config { settings, probe, allocator, ..Config::default() }, limits)
}

#[test]
fn a_callers_check_has_the_allocator_trimmed_without_a_hook() {
    static TRIMS: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn count(_: usize) -> c_int {
        TRIMS.fetch_add(1, Ordering::SeqCst);
        1
    }
    let monitor = shut(Allocator::of(much_is_free, count));
    monitor.start(DEADLINE).unwrap();
    wait_until("it is trimmed", || !monitor.is_accepting_work() && TRIMS.load(Ordering::SeqCst) == 1);
    let verdict = monitor.verdict().to_string();
    assert!(verdict.contains("; the allocator keeps 60.0 MB that are free"), "{verdict}");
}

#[test]
fn a_stop_does_not_wait_for_a_trim() {
    static HAS_ENTERED: AtomicBool = AtomicBool::new(false);
    static HELD: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    extern "C" fn hang(_: usize) -> c_int {
        HAS_ENTERED.store(true, Ordering::SeqCst);
        drop(HELD.lock());
        1
    }
    let held = HELD.lock();
    let monitor = shut(Allocator::of(much_is_free, hang));
    monitor.start(DEADLINE).unwrap();
    wait_until("the trim hangs", || !monitor.is_accepting_work() && HAS_ENTERED.load(Ordering::SeqCst));
    // Returns while the trim hangs, and so does a start after it.
    monitor.stop();
    monitor.start(DEADLINE).unwrap();
    assert!(monitor.check_now().memory_bytes.is_some());
    drop(held);
    monitor.stop();
}
