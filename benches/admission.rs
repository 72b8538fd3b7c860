//! What it costs to be granted work and to give its room back: alone, and by eight threads at once; and the way from a
//! permit that is finished to the thread that waits for its room. Beside it a byte-counting semaphore of ten lines, and a
//! bare condition variable.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use highwater::{Ledger, ResourceLimits, ResourceMonitor, Work};
use peers::Semaphore;

/// The memory that each piece of work declares.
const WORK_MB: u64 = 8;
/// Room for all that is granted between two checks, and dropped.
const ROOM_MB: u64 = 1 << 30;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let limits = ResourceLimits::builder().max_memory_mb(ROOM_MB).max_processes(1 << 30).build().unwrap();
    let monitor = ResourceMonitor::new(limits);
    monitor.start(Duration::from_secs(15)).unwrap();
    let readiness = monitor.readiness();
    let work = Work::new().memory_mb(WORK_MB);
    let semaphore = Semaphore::new(ROOM_MB);

    for (name, threads) in [("grant and give back, one thread", 1), ("the same, eight threads", 8)] {
        let mut group = criterion.benchmark_group(name);
        in_company(&mut group, "highwater, dropped", threads, || drop(readiness.try_admit(work).unwrap()));
        in_company(&mut group, "highwater, finished", threads, || readiness.try_admit(work).unwrap().finish());
        in_company(&mut group, "semaphore of Mutex and Condvar", threads, || {
            semaphore.acquire(WORK_MB);
            semaphore.release(WORK_MB);
        });
    }
    beside_others(&mut criterion);
    hand_over(&mut criterion);
    criterion.final_summary();
}

/// A grant with a ledger of eight places that are taken, seven of them by other monitors: how many words are added up does
/// not depend on whose process they are. At most three times what it costs without.
fn beside_others(criterion: &mut Criterion) {
    let ledger = Ledger::create().unwrap();
    let sharing = || {
        let limits = ResourceLimits::builder().max_memory_mb(ROOM_MB).build().unwrap();
        let monitor = ResourceMonitor::builder(limits).ledger(ledger.clone()).build().unwrap();
        monitor.start(Duration::from_secs(15)).unwrap();
        monitor
    };
    let monitors: Vec<ResourceMonitor> = (0..8).map(|_| sharing()).collect();
    let held: Vec<_> = monitors.iter().map(|monitor| monitor.try_admit(Work::new().memory_mb(1)).unwrap()).collect();
    let readiness = monitors[0].readiness();
    let mut group = criterion.benchmark_group("grant and give back, with a ledger of eight");
    in_company(&mut group, "highwater, finished", 1, || {
        readiness.try_admit(Work::new().memory_mb(WORK_MB)).unwrap().finish();
    });
    group.finish();
    drop(held);
}

/// Measures what each call takes of elapsed time while so many threads call at once: the time of all calls over their
/// number.
fn in_company(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, threads: u64, call: impl Fn() + Sync) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|rounds| {
            let start = Barrier::new(usize::try_from(threads).unwrap() + 1);
            thread::scope(|scope| {
                let calls = || {
                    start.wait();
                    (0..rounds / threads + 1).for_each(|_| call());
                };
                let callers: Vec<_> = (0..threads).map(|_| scope.spawn(calls)).collect();
                start.wait();
                let began = Instant::now();
                callers.into_iter().for_each(|caller| caller.join().unwrap());
                began.elapsed()
            })
        });
    });
}

/// From the end of one thread's work to the first instruction of the one that waits for its room.
fn hand_over(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hand-over to a waiter");
    let limits = ResourceLimits::builder().max_processes(1000).build().unwrap();
    let monitor = ResourceMonitor::new(limits);
    monitor.start(Duration::from_secs(15)).unwrap();
    let all = Work::new().processes(900);
    group.bench_function("highwater, finished", |bencher| {
        bencher.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| {
                    let holder = monitor.admit(all, Duration::MAX).unwrap();
                    let readiness = monitor.readiness();
                    let waiter = thread::spawn(move || {
                        let permit = readiness.admit(all, Duration::MAX).unwrap();
                        let woken = Instant::now();
                        permit.finish();
                        woken
                    });
                    until_asleep(|| monitor.waiters() == 1);
                    let freed = Instant::now();
                    holder.finish();
                    waiter.join().unwrap() - freed
                })
                .sum()
        });
    });
    group.bench_function("bare Condvar", |bencher| {
        bencher.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| {
                    let (is_free, changed) = (Mutex::new(false), Condvar::new());
                    let is_waiting = AtomicBool::new(false);
                    thread::scope(|scope| {
                        let waiter = scope.spawn(|| {
                            let mut free = is_free.lock().unwrap();
                            is_waiting.store(true, Ordering::SeqCst);
                            while !*free {
                                free = changed.wait(free).unwrap();
                            }
                            Instant::now()
                        });
                        until_asleep(|| is_waiting.load(Ordering::SeqCst));
                        let freed = Instant::now();
                        *is_free.lock().unwrap() = true;
                        changed.notify_one();
                        waiter.join().unwrap() - freed
                    })
                })
                .sum()
        });
    });
    group.finish();
}

/// Waits until the condition holds, and for as long again as a thread needs to fall asleep after it.
fn until_asleep(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
    thread::sleep(Duration::from_micros(300));
}
