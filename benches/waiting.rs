//! Programs whose work waits for room: how much of it is served, how near the limit memory comes, and how long the large
//! waits among the small. Beside them the semaphore that such a program writes itself, which is told the need of all work
//! and tuned to the same limit.
//!
//! ```sh
//! cargo bench --manifest-path benches/Cargo.toml --bench waiting
//! ```
//!
//! Each row is a program of its own, a copy of this one, so that none finds the memory of another. In all of them glibc's
//! thresholds are fixed, so that freed memory goes back to the kernel. Rows that are to be compared have their turns one
//! after the other, and the medians of the rounds are printed. `-- NAME` runs the rows whose name contains that.

use std::hint::black_box;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use highwater::{ResourceLimits, ResourceMonitor, Work};
use nix::time::{clock_gettime, ClockId};
use peers::Semaphore;
use procfs::process::Process;

/// Names the row that a copy of this program is to fill.
const ROW: &str = "HIGHWATER_BENCH_ROW";
const THRESHOLDS: (&str, &str) =
    ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=524288:glibc.malloc.trim_threshold=524288");

const MB: u64 = 1 << 20;
const LIMIT_MB: u64 = 400;
/// What remains of it below the hard threshold, less what such a program takes for itself.
const TUNED_MB: u64 = 372;
const FOREVER: Duration = Duration::MAX;

/// A row: its name, what fills it for the keeper of this name, and the numbers that it is filled with.
type Row = (&'static str, fn(&str) -> Vec<f64>, &'static [&'static str]);

const SERVED: &[&str] = &["served a second", "MB at most"];
const IN_TIME: &[&str] = &["served a second", "MB at most", "ms until done (median)", "ms (99 of 100)"];

/// Each is filled once by the library, and once by the semaphore.
const COMPARED: [Row; 4] = [
    ("1 to 50 MB for 50 to 300 ms", |keeper| varied(&Keeper::new(keeper)), SERVED),
    ("8 MB for 1 ms, 2,000 a second", |keeper| short(&Keeper::new(keeper), false), IN_TIME),
    ("8 MB for 1 ms, touched", |keeper| short(&Keeper::new(keeper), true), IN_TIME),
    (
        "300 MB among 10 MB",
        |keeper| large_among_small(&Keeper::new(keeper)),
        &["ms until granted (median)", "ms at most", "us after the last release"],
    ),
];

const ALONE: [Row; 2] = [
    ("half of the room among small ones", |_| half_of_the_room(), &["passed it at most", "ms at most"]),
    ("1,000 waiters for 10 s", |_| thousand_waiters(), &["% of a core", "ms until all are served"]),
];

const ROUNDS: usize = 5;

fn main() {
    if let Ok(row) = std::env::var(ROW) {
        let (name, keeper) = row.split_once('/').unwrap();
        let (_, fill, _) = COMPARED.iter().chain(&ALONE).find(|(row, ..)| *row == name).unwrap();
        let numbers = fill(keeper);
        return println!("{}", numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
    }
    // Built and listed by cargo as a test, it has nothing to do.
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    println!("{}\n", peers::machine());
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let is_wanted = |(name, ..): &&Row| name.contains(&wanted);
    for (name, _, numbers) in COMPARED.iter().filter(is_wanted) {
        let rounds = (0..ROUNDS).map(|_| [fill(name, "highwater"), fill(name, "semaphore")]);
        let (ours, theirs): (Vec<_>, Vec<_>) = rounds.map(|[ours, theirs]| (ours, theirs)).unzip();
        println!("{name}\n    highwater: {}\n    semaphore: {}", text(&ours, numbers), text(&theirs, numbers));
        println!("    {}: {:.2} x", numbers[0], median(&ours, 0) / median(&theirs, 0));
    }
    for (name, _, numbers) in ALONE.iter().filter(is_wanted) {
        println!("{name}\n    highwater: {}", text(&[fill(name, "highwater")], numbers));
    }
}

/// Has a copy of this program fill a row.
fn fill(name: &str, keeper: &str) -> Vec<f64> {
    let mut copy = Command::new(std::env::current_exe().unwrap());
    let output = copy.env(ROW, format!("{name}/{keeper}")).env(THRESHOLDS.0, THRESHOLDS.1).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(|number| number.parse().unwrap()).collect()
}

fn text(rounds: &[Vec<f64>], numbers: &[&str]) -> String {
    let number = |(index, name): (usize, &&str)| {
        // Of what must never be, the worst round.
        let all = rounds.iter().map(|round| round[index]);
        let value = if name.ends_with("at most") { all.fold(0.0, f64::max) } else { median(rounds, index) };
        format!("{value:.1} {name}")
    };
    numbers.iter().enumerate().map(number).collect::<Vec<_>>().join(", ")
}

fn median(rounds: &[Vec<f64>], index: usize) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(|round| round[index]).collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The keeper of the room.
enum Keeper {
    Monitor(ResourceMonitor),
    Semaphore(Semaphore),
}

/// The way in which the work gives its room back to a monitor. To the semaphore it does at its end.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// The permit is dropped once the memory is there, and measured from then on.
    Dropped,
    /// The permit is finished when nothing is left.
    Finished,
}

impl Keeper {
    fn new(name: &str) -> Keeper {
        if name == "semaphore" {
            return Keeper::Semaphore(Semaphore::new(TUNED_MB));
        }
        // Tuned as the semaphore is: this program sheds nothing, so the gate need not close long before the hard threshold.
        let limits = ResourceLimits::builder().max_memory_mb(LIMIT_MB).warn_percent(94);
        let monitor = ResourceMonitor::new(limits.build().unwrap());
        monitor.start(Duration::from_secs(15)).unwrap();
        Keeper::Monitor(monitor)
    }

    /// Takes memory once there is room for it, and gives it back when `using` it is over.
    fn serve(&self, mb: u64, is_touched: bool, end: End, using: impl FnOnce()) {
        let memory = || is_touched.then(|| take(mb));
        match self {
            Keeper::Monitor(monitor) => {
                let permit = monitor.admit(Work::new().memory_mb(mb), FOREVER).unwrap();
                let memory = memory();
                let permit = Some(permit).filter(|_| end == End::Finished);
                using();
                drop(memory);
                if let Some(permit) = permit {
                    permit.finish();
                }
            }
            Keeper::Semaphore(semaphore) => {
                semaphore.acquire(mb);
                let memory = memory();
                using();
                drop(memory);
                semaphore.release(mb);
            }
        }
    }
}

/// Memory that is there, not only promised.
fn take(mb: u64) -> Vec<u8> {
    black_box(vec![1; (mb * MB) as usize])
}

/// A number that is as good as random, and the same in every row.
fn scattered(index: u64, below: u64) -> u64 {
    // The finalizer of splitmix64.
    let mixed = (index ^ (index >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % below
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Runs `during`, and tells the largest resident memory meanwhile.
fn peak_mb(during: impl FnOnce()) -> f64 {
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let myself = Process::myself().unwrap();
            let mut most = 0;
            while !has_ended.load(SeqCst) {
                most = most.max(myself.statm().unwrap().resident);
                thread::sleep(ms(1));
            }
            (most * procfs::page_size()) as f64 / MB as f64
        });
        during();
        has_ended.store(true, SeqCst);
        sampler.join().unwrap()
    })
}

/// As many threads serve one request after the other, each numbered, for as long as `is_over` says `false`.
fn serve_all(threads: usize, serve: impl Fn(u64) -> bool + Sync) {
    let next = AtomicU64::new(1);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| while serve(next.fetch_add(1, SeqCst)) {});
        }
    });
}

/// Requests that take 1 to 50 MB for 50 to 300 ms; three times as many at once as fit.
fn varied(keeper: &Keeper) -> Vec<f64> {
    const LENGTH: Duration = Duration::from_secs(5);
    let served = AtomicU64::new(0);
    let began = Instant::now();
    let peak = peak_mb(|| {
        serve_all(3 * LIMIT_MB as usize / 25, |index| {
            let mb = 1 + scattered(index, 50);
            keeper.serve(mb, true, End::Dropped, || thread::sleep(ms(50 + scattered(index + (1 << 32), 251))));
            let is_in_time = began.elapsed() < LENGTH;
            served.fetch_add(is_in_time.into(), SeqCst);
            is_in_time
        });
    });
    vec![served.into_inner() as f64 / LENGTH.as_secs_f64(), peak]
}

/// 2,000 requests a second that take 8 MB for a millisecond, on 64 threads.
fn short(keeper: &Keeper, is_touched: bool) -> Vec<f64> {
    const A_SECOND: u64 = 2000;
    const SECONDS: u64 = 3;
    let late = Mutex::new(Vec::new());
    let began = Instant::now();
    let peak = peak_mb(|| {
        serve_all(64, |index| {
            let due = began + Duration::from_secs_f64(index as f64 / A_SECOND as f64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            keeper.serve(8, is_touched, End::Finished, || thread::sleep(ms(1)));
            if began.elapsed() >= Duration::from_secs(SECONDS) {
                return false;
            }
            late.lock().unwrap().push(due.elapsed());
            true
        });
    });
    let mut late = late.into_inner().unwrap();
    late.sort_unstable();
    let late_ms = |of_100: usize| late[late.len() * of_100 / 100].as_secs_f64() * 1e3;
    vec![late.len() as f64 / SECONDS as f64, peak, late_ms(50), late_ms(99)]
}

/// 24 threads take 10 MB for 20 to 40 ms, again and again, and one comes that takes 300 MB. Where it is not served in 8 s
/// that is the answer.
fn large_among_small(keeper: &Keeper) -> Vec<f64> {
    const TIMES: usize = 5;
    const PATIENCE: Duration = Duration::from_secs(8);
    let is_over = &AtomicBool::new(false);
    let released = &Mutex::new(Instant::now());
    let mut waited = Vec::new();
    let mut woken = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            serve_all(24, |index| {
                keeper.serve(10, true, End::Finished, || thread::sleep(ms(20 + scattered(index, 21))));
                *released.lock().unwrap() = Instant::now();
                !is_over.load(SeqCst)
            });
        });
        while waited.len() < TIMES {
            thread::sleep(ms(200));
            let (tell, told) = mpsc::channel();
            let asked = Instant::now();
            scope.spawn(move || {
                let using = || tell.send((Instant::now(), *released.lock().unwrap())).unwrap_or_default();
                keeper.serve(300, false, End::Finished, using);
            });
            let Ok((running, released)) = told.recv_timeout(PATIENCE) else { break };
            waited.push((running - asked).as_secs_f64() * 1e3);
            woken.push(running.saturating_duration_since(released).as_secs_f64() * 1e6);
        }
        is_over.store(true, SeqCst);
    });
    if waited.len() < TIMES {
        return vec![PATIENCE.as_secs_f64() * 1e3, PATIENCE.as_secs_f64() * 1e3, f64::NAN];
    }
    waited.sort_unstable_by(f64::total_cmp);
    woken.sort_unstable_by(f64::total_cmp);
    vec![waited[TIMES / 2], waited[TIMES - 1], woken[TIMES / 2]]
}

/// One waits for half of the room, among 16 threads that come for a tenth of it without end. Those that were granted just
/// before it came, and had not been counted, count as well.
fn half_of_the_room() -> Vec<f64> {
    const TIMES: usize = 21;
    let monitor = ResourceMonitor::new(ResourceLimits::builder().max_processes(1000).build().unwrap());
    monitor.start(Duration::from_secs(15)).unwrap();
    let granted = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let (mut passed, mut longest) = (0, Duration::ZERO);
    thread::scope(|scope| {
        scope.spawn(|| {
            serve_all(16, |_| {
                let permit = monitor.admit(Work::new().processes(100), FOREVER).unwrap();
                granted.fetch_add(1, SeqCst);
                thread::sleep(ms(1));
                permit.finish();
                !is_over.load(SeqCst)
            });
        });
        for _ in 0..TIMES {
            thread::sleep(ms(20));
            let (asked, before) = (Instant::now(), granted.load(SeqCst));
            let permit = monitor.admit(Work::new().processes(500), FOREVER).unwrap();
            passed = passed.max(granted.load(SeqCst) - before);
            longest = longest.max(asked.elapsed());
            permit.finish();
        }
        is_over.store(true, SeqCst);
    });
    vec![passed as f64, longest.as_secs_f64() * 1e3]
}

/// A thousand threads wait for 10 s, and then there is room for all.
fn thousand_waiters() -> Vec<f64> {
    const WAITERS: usize = 1000;
    const LENGTH: Duration = Duration::from_secs(10);
    let cpu = || Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap());
    let monitor =
        ResourceMonitor::new(ResourceLimits::builder().max_memory_mb(1 << 20).max_processes(2000).build().unwrap());
    monitor.start(Duration::from_secs(15)).unwrap();
    let holder = monitor.admit(Work::new().processes(1599), FOREVER).unwrap();
    let last = Arc::new(Mutex::new(Instant::now()));
    let waiters: Vec<_> = (0..WAITERS)
        .map(|_| {
            let (readiness, last) = (monitor.readiness(), Arc::clone(&last));
            thread::spawn(move || {
                let permit = readiness.admit(Work::new().processes(400), FOREVER).unwrap();
                *last.lock().unwrap() = Instant::now();
                permit.finish();
            })
        })
        .collect();
    while monitor.waiters() < WAITERS {
        thread::sleep(ms(1));
    }
    let before = cpu();
    thread::sleep(LENGTH);
    let share = (cpu() - before).as_secs_f64() / LENGTH.as_secs_f64();
    let freed = Instant::now();
    holder.finish();
    waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    let took = *last.lock().unwrap() - freed;
    vec![100.0 * share, took.as_secs_f64() * 1e3]
}
