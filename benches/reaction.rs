//! How long a limit can be passed before a caller that keeps asking is refused, beside the longest that the design
//! allows: the larger of `refresh_after` and the gap that the CPU budget puts between checks, and two checks.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use highwater::{ResourceLimits, ResourceMonitor};

/// The defaults of a monitor.
const REFRESH_AFTER: Duration = Duration::from_millis(100);
const CPU_BUDGET: f64 = 0.01;

const BALLAST_MB: usize = 64;

fn main() {
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let probe = highwater::SystemProbe::new();
    let used_mb = probe.memory_bytes().unwrap() >> 20;
    // The ballast takes memory from about a half of the limit to more than all of it.
    let limits = ResourceLimits::builder().max_memory_mb(used_mb + BALLAST_MB as u64).build().unwrap();
    let monitor = ResourceMonitor::new(limits);
    monitor.start(Duration::from_secs(15)).unwrap();
    let readiness = monitor.readiness();

    let mut worst = Duration::ZERO;
    criterion.bench_function("from passing a limit to the first refusal", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut taken = Duration::ZERO;
            for _ in 0..rounds {
                while !readiness.is_accepting_work() {
                    std::hint::spin_loop();
                }
                let ballast = black_box(vec![1_u8; BALLAST_MB << 20]);
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

    let check = median((0..51).map(|_| {
        let start = Instant::now();
        black_box(monitor.check_now());
        start.elapsed()
    }));
    let gap = check.div_f64(CPU_BUDGET);
    let allowed = REFRESH_AFTER.max(gap) + 2 * check;
    println!("a check takes {check:.1?}, so the design allows {allowed:.1?}; the worst of all rounds was {worst:.1?}");
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}
