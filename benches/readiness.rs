//! What it costs to ask whether the gate is open: alone, beside another thread that asks, and beside one more that
//! changes the answer 1,000 times a second. The same question behind a lock, and the clock alone, for comparison. And what
//! it costs to update a gauge, beside a bare atomic.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use highwater::{ResourceLimits, ResourceMonitor};
use nix::time::{clock_gettime, ClockId};
use parking_lot::RwLock;

/// The time between two writes of the writer.
const WRITE_GAP: Duration = Duration::from_millis(1);

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    coarse_clock(&mut criterion);

    // Two sets of limits that this process stays far below, so that every write is a change and the gate stays open.
    let limits = [1_u64 << 30, 1 << 31]
        .map(|processes| ResourceLimits::builder().max_memory_mb(1 << 20).max_processes(processes).build().unwrap());
    let monitor = ResourceMonitor::new(limits[0].clone());
    monitor.start(Duration::from_secs(15)).unwrap();
    let readiness = monitor.readiness();
    assert!(readiness.is_accepting_work(), "{}", readiness.verdict());
    let mut turn = 0;
    ask_in_company(
        &mut criterion.benchmark_group("is_accepting_work"),
        || readiness.is_accepting_work(),
        || {
            turn ^= 1;
            monitor.update_limits(limits[turn].clone());
        },
    );

    let gauge = monitor.gauge("connections", 1 << 40).unwrap();
    let bare = AtomicU64::new(0);
    let mut group = criterion.benchmark_group("a gauge, added to and taken off");
    group.bench_function("a bare atomic", |bencher| {
        bencher.iter(|| {
            black_box(&bare).fetch_add(1, Ordering::SeqCst);
            black_box(&bare).fetch_sub(1, Ordering::SeqCst);
        });
    });
    group.bench_function("the gauge", |bencher| {
        bencher.iter(|| {
            black_box(&gauge).add(1);
            black_box(&gauge).sub(1);
        });
    });
    drop(group);

    let locked = Locked::new();
    assert!(locked.is_accepting_work());
    ask_in_company(
        &mut criterion.benchmark_group("behind a parking_lot::RwLock"),
        || locked.is_accepting_work(),
        || locked.publish(true),
    );
    criterion.final_summary();
}

/// The least that an answer which knows its age can cost.
fn coarse_clock(criterion: &mut Criterion) {
    criterion.bench_function("coarse clock alone", |bencher| bencher.iter(coarse_now));
}

fn coarse_now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).unwrap().into()
}

/// Measures `ask` on this thread: alone, while another thread asks too, and while a third one writes.
fn ask_in_company(
    group: &mut BenchmarkGroup<'_, WallTime>,
    ask: impl Fn() -> bool + Sync,
    mut write: impl FnMut() + Send,
) {
    group.bench_function("one thread", |bencher| bencher.iter(&ask));

    let ended = Flag::default();
    thread::scope(|scope| {
        let _end = ended.raise_on_drop();
        scope.spawn(|| ask_until(&ended, &ask));
        group.bench_function("two threads", |bencher| bencher.iter(&ask));
    });

    let ended = Flag::default();
    thread::scope(|scope| {
        let _end = ended.raise_on_drop();
        scope.spawn(|| ask_until(&ended, &ask));
        scope.spawn(|| write_until(&ended, &mut write));
        group.bench_function("two threads, writer at 1 kHz", |bencher| bencher.iter(&ask));
    });
}

fn ask_until(ended: &Flag, ask: impl Fn() -> bool) {
    while !ended.is_raised() {
        for _ in 0..1000 {
            black_box(ask());
        }
    }
}

fn write_until(ended: &Flag, mut write: impl FnMut()) {
    let mut due = Instant::now();
    while !ended.is_raised() {
        write();
        due += WRITE_GAP;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Tells the threads beside a measurement that it is over.
#[derive(Default)]
struct Flag(AtomicBool);

impl Flag {
    fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn raise_on_drop(&self) -> Raise<'_> {
        Raise(self)
    }
}

struct Raise<'flag>(&'flag Flag);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0 .0.store(true, Ordering::Relaxed);
    }
}

/// The gate as it is often written: a few fields behind a lock.
struct Locked(RwLock<State>);

struct State {
    open: bool,
    checked_at: Duration,
    max_age: Duration,
}

impl Locked {
    fn new() -> Locked {
        Locked(RwLock::new(State { open: true, checked_at: coarse_now(), max_age: Duration::from_secs(3600) }))
    }

    fn is_accepting_work(&self) -> bool {
        let now = coarse_now();
        let state = self.0.read();
        state.open && now.saturating_sub(state.checked_at) <= state.max_age
    }

    fn publish(&self, open: bool) {
        let mut state = self.0.write();
        state.open = open;
        state.checked_at = coarse_now();
    }
}
