//! How far a limit is passed before the monitor says so.
//!
//! - How long, when memory jumps and a caller keeps asking: beside the longest that the design allows, the larger of
//!   `refresh_after` and the gap that the CPU budget puts between checks, and two checks.
//! - How far, when memory grows by 1 GiB a second, checks are 15 s apart and a caller asks every 10 ms.
//! - How far, when memory grows by 50 MiB a second and nobody asks after the first 5 s: by climbing usage alone.
//! - How long, when memory is above the limit already and somebody says so: from the word, through the pipe that
//!   `MEMORY_PRESSURE_WATCH` names, to the first refusal. Nobody's question brings a check forward.
//! - How long, when forty processes begin to compete for the CPUs and a caller keeps asking: beside the kernel's own
//!   average of ten seconds, which starts with what was before.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use criterion::Criterion;
use highwater::{ResourceLimits, ResourceMonitor, SystemProbe};

/// The defaults of a monitor.
const REFRESH_AFTER: Duration = Duration::from_millis(100);
const CPU_BUDGET: f64 = 0.01;

const INTERVAL: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_millis(10);
const MB: u64 = 1 << 20;
const BALLAST_MB: u64 = 64;

fn main() {
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let worst = jump(&mut criterion);
    let check = median((0..51).map(|_| time_of_a_check()));
    let allowed = REFRESH_AFTER.max(check.div_f64(CPU_BUDGET)) + 2 * check;
    println!("memory jumps:       refused after {worst:.1?} at the worst; the design allows {allowed:.1?}");

    let fast = median((0..5).map(|_| grow_while_asked(1024)));
    println!("1 GiB a second:     refused {fast} MiB above the threshold, asked every 10 ms (median of 5)");
    let slow = median((0..3).map(|_| grow_unasked(50)));
    println!("50 MiB a second:    seen {slow} MiB above the threshold, asked by nobody after 5 s (median of 3)");
    let told = (0..20).map(|_| told()).max().unwrap();
    println!("word of a stall:    refused after {told:.1?} at the worst of 20; the aim is 50 ms");
    for percent in [48, 64] {
        let (ours, kernels) = crowd(percent);
        let ratio = kernels.as_secs_f64() / ours.as_secs_f64();
        println!(
            "a crowd on the CPUs: {percent} % after {ours:.1?}; by avg10 after {kernels:.1?}, {ratio:.0} x as late"
        );
    }
}

fn own_memory() -> u64 {
    SystemProbe::new().memory_bytes().unwrap()
}

/// A monitor that warns when memory has grown by so many MiB.
fn monitor_warning_above(mb: u64) -> (ResourceMonitor, u64) {
    let limits = ResourceLimits::builder().max_memory_bytes((own_memory() + mb * MB) * 100 / 80).build().unwrap();
    let threshold = limits.max_memory_bytes().unwrap() * 80 / 100;
    let monitor = ResourceMonitor::new(limits);
    monitor.start(INTERVAL).unwrap();
    (monitor, threshold)
}

/// The longest time from the jump to the first refusal.
fn jump(criterion: &mut Criterion) -> Duration {
    let (monitor, _) = monitor_warning_above(BALLAST_MB / 2);
    let readiness = monitor.readiness();
    let mut worst = Duration::ZERO;
    criterion.bench_function("from passing a limit to the first refusal", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut taken = Duration::ZERO;
            for _ in 0..rounds {
                while !readiness.is_accepting_work() {
                    std::hint::spin_loop();
                }
                let ballast = take(BALLAST_MB);
                let passed = Instant::now();
                while readiness.is_accepting_work() {
                    std::hint::spin_loop();
                }
                worst = worst.max(passed.elapsed());
                taken += passed.elapsed();
                drop(ballast);
            }
            taken
        });
    });
    worst
}

fn time_of_a_check() -> Duration {
    let monitor = ResourceMonitor::new(ResourceLimits::builder().build().unwrap());
    monitor.check_now();
    let start = Instant::now();
    black_box(monitor.check_now());
    start.elapsed()
}

/// How many MiB above the threshold memory is when a caller that asks every 10 ms is first refused.
fn grow_while_asked(mb_per_second: u64) -> u64 {
    let (monitor, threshold) = monitor_warning_above(2 * mb_per_second);
    let readiness = monitor.readiness();
    grow(mb_per_second, || (!readiness.is_accepting_work()).then(|| own_memory().saturating_sub(threshold) / MB))
}

/// How many MiB above the threshold memory is when a check first finds it there.
fn grow_unasked(mb_per_second: u64) -> u64 {
    let (monitor, threshold) = monitor_warning_above(12 * mb_per_second);
    let snapshots = monitor.snapshots();
    let began = Instant::now();
    grow(mb_per_second, || {
        if began.elapsed() < Duration::from_secs(5) {
            monitor.is_accepting_work();
        }
        let found = snapshots.try_recv().ok().and_then(|snapshot| snapshot.memory_bytes);
        found.filter(|bytes| *bytes >= threshold).map(|bytes| (bytes - threshold) / MB)
    })
}

/// From the word that memory is short to the first refusal.
fn told() -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::env::set_var("MEMORY_PRESSURE_WATCH", &pipe);
    let limits = ResourceLimits::builder().max_memory_bytes((own_memory() + 32 * MB) * 100 / 80).build().unwrap();
    let hour = Duration::from_secs(3600);
    let monitor = ResourceMonitor::builder(limits).refresh_after(hour).build().unwrap();
    monitor.start(hour).unwrap();
    std::env::remove_var("MEMORY_PRESSURE_WATCH");
    let _ballast = take(64);
    assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
    let mut pipe = File::options().write(true).open(&pipe).unwrap();
    let said = Instant::now();
    pipe.write_all(b"!").unwrap();
    while monitor.is_accepting_work() {
        std::hint::spin_loop();
    }
    said.elapsed()
}

/// From the start of forty busy processes to the first refusal for this much pressure on the CPUs, and to the moment at which
/// the kernel's average says as much.
fn crowd(percent: u8) -> (Duration, Duration) {
    let avg10 = || -> f64 {
        let text = std::fs::read_to_string("/proc/pressure/cpu").unwrap();
        text.split("avg10=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap()
    };
    let limits = ResourceLimits::builder().max_cpu_pressure_percent(percent * 5 / 4).build().unwrap();
    let monitor = ResourceMonitor::new(limits);
    monitor.start(INTERVAL).unwrap();
    while avg10() > 5.0 || !monitor.is_accepting_work() {
        thread::sleep(TICK);
    }
    let began = Instant::now();
    let busy = || Command::new("/bin/sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let mut crowd: Vec<Child> = (0..40).map(|_| busy()).collect();
    let after = |is_said: &dyn Fn() -> bool| {
        while !is_said() {
            thread::sleep(TICK);
        }
        began.elapsed()
    };
    let ours = after(&|| !monitor.is_accepting_work());
    let kernels = after(&|| avg10() >= f64::from(percent));
    for child in &mut crowd {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    (ours, kernels)
}

/// Takes memory at a steady pace on another thread, and looks every 10 ms what has come of it.
fn grow<T>(mb_per_second: u64, mut look: impl FnMut() -> Option<T>) -> T {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            let mut held = Vec::new();
            while !ended.load(Relaxed) {
                if (held.len() as f64) < began.elapsed().as_secs_f64() * mb_per_second as f64 {
                    held.push(take(1));
                } else {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        loop {
            if let Some(seen) = look() {
                ended.store(true, Relaxed);
                return seen;
            }
            thread::sleep(TICK);
        }
    })
}

/// Memory that is there, not only promised.
fn take(mb: u64) -> Vec<u8> {
    black_box(vec![1; (mb * MB) as usize])
}

fn median<T: Ord + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values[values.len() / 2]
}
