//! Memory that glibc's allocator keeps after a burst of requests: resident, and in use by nobody.
//!
//! An allocator belongs to the whole process, so every test has a process of its own.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use common::{ms, wait_until, LogCapture};
use highwater::{ResourceLimits, ResourceMonitor, ResourceMonitorBuilder};
use rusty_fork::rusty_fork_test;

const MB: usize = 1 << 20;

/// Threads that serve requests at the same time. Each has an arena of its own, for as long as there are no more than
/// glibc makes: eight for each CPU, and here are at least two.
const THREADS: usize = 14;

fn builder() -> ResourceMonitorBuilder {
    let limits = ResourceLimits::builder().max_memory_mb(400).build().unwrap();
    ResourceMonitor::builder(limits).settle(ms(200))
}

/// Serves a request: takes so many MB, uses them, and frees them.
fn serve(megabytes: usize) {
    let mut body = vec![0_u8; megabytes * MB];
    body.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::hint::black_box(&body);
}

/// Requests of 1 to 50 MB on each of the threads, which live on until `then` has returned.
fn burst<R>(then: impl FnOnce() -> R) -> R {
    let served = Barrier::new(THREADS + 1);
    let done = Barrier::new(THREADS + 1);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (served, done) = (&served, &done);
            scope.spawn(move || {
                for megabytes in [50, 31, 2, 17, 1, 9, 28 + thread % 3] {
                    serve(megabytes);
                }
                served.wait();
                done.wait();
            });
        }
        served.wait();
        let result = then();
        done.wait();
        result
    })
}

/// Whether the C library can be asked what its allocator keeps. A test skips where it cannot, and says so.
fn is_supported() -> bool {
    // SAFETY: the name ends with a NUL.
    #[allow(unsafe_code)]
    let found = unsafe { nix::libc::dlsym(nix::libc::RTLD_DEFAULT, b"mallinfo2\0".as_ptr().cast()) };
    if found.is_null() {
        eprintln!("skipped: the C library is not glibc, or one before 2.33");
    }
    !found.is_null()
}

/// Asks for so long, and says no to nothing.
fn ask_for(time: Duration, monitor: &ResourceMonitor) {
    let until = Instant::now() + time;
    wait_until("the time is over", || {
        monitor.is_accepting_work();
        Instant::now() >= until
    });
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn with_the_setting_a_burst_leaves_nothing_and_the_gate_opens() {
        if !is_supported() {
            return;
        }
        let log = LogCapture::install();
        let monitor = builder().return_freed_memory(true).build().unwrap();
        monitor.start(ms(500)).unwrap();
        burst(|| {
            let began = Instant::now();
            wait_until("the gate opens", || monitor.is_accepting_work());
            let resident = monitor.check_now().memory_bytes.unwrap() as usize;
            eprintln!("open after {:?} with {} MB", began.elapsed(), resident / MB);
            assert!(resident < 100 * MB, "{} MB are resident", resident / MB);
        });
        assert!(log.named("monitor.memory_retained").is_empty(), "{:?}", log.named("monitor.memory_retained"));
    }

    #[test]
    fn without_it_the_event_and_the_verdict_say_what_is_kept_and_what_to_set() {
        if !is_supported() {
            return;
        }
        let log = LogCapture::install();
        // Neither a manager nor a process group: the thread that trims is there for this alone.
        let monitor = builder().build().unwrap();
        burst(|| {
            // Not before, or the trim might come in the middle of it.
            monitor.start(ms(500)).unwrap();
            let resident = monitor.check_now().memory_bytes.unwrap() as usize;
            assert!(resident > 320 * MB, "only {} MB are retained", resident / MB);
            wait_until("the event", || !log.named("monitor.memory_retained").is_empty());
            let event = &log.named("monitor.memory_retained")[0];
            let [free, returned, kept] = ["free_mb", "returned_mb", "kept_mb"].map(|key| event.numbers[key]);
            let verdict = monitor.verdict();
            eprintln!("{free:.0} MB were free, {returned:.0} MB came back, {kept:.0} MB did not; {verdict}");
            assert!(event.level == log::Level::Warn && event.keys["return_freed_memory"] == "false");
            assert!(free > 300.0 && returned + kept <= free + 0.1 && kept > 0.0, "{event:?}");
            let is_said = verdict.to_string().contains("; the allocator keeps ");
            assert_eq!(is_said, !verdict.is_accepting(), "{verdict}");
            ask_for(Duration::from_secs(2), &monitor);
            assert_eq!(log.named("monitor.memory_retained").len(), 1, "it was said at every check");
        });
    }

    #[test]
    fn what_lies_below_blocks_in_use_comes_back_by_a_trim_and_the_gate_opens() {
        if !is_supported() {
            return;
        }
        let log = LogCapture::install();
        // 350 MB in blocks too small for mappings of their own. Of each sixteen neighbours one is kept.
        let mut blocks: Vec<_> = (0..3500).map(|number| (number, vec![1_u8; 100 << 10])).collect();
        blocks.retain(|(number, _)| number % 16 == 0);
        let monitor = builder().build().unwrap();
        monitor.start(ms(500)).unwrap();
        assert!(!monitor.is_accepting_work());
        // The gate opens while it is trimmed, once enough has come back.
        wait_until("the event", || !log.named("monitor.memory_retained").is_empty());
        wait_until("the gate opens", || monitor.is_accepting_work());
        let event = &log.named("monitor.memory_retained")[0];
        eprintln!("{:?}", event.numbers);
        assert!(event.numbers["returned_mb"] > 250.0 && event.numbers["kept_mb"] < 50.0, "{event:?}");
        let resident = monitor.check_now().memory_bytes.unwrap() as usize;
        assert!(resident < 100 * MB, "{} MB are resident", resident / MB);
        assert!(!monitor.verdict().to_string().contains("allocator"), "{}", monitor.verdict());
        std::hint::black_box(&blocks);
    }

    #[test]
    fn memory_that_is_in_use_is_no_fault_of_the_allocators() {
        if !is_supported() {
            return;
        }
        let log = LogCapture::install();
        let monitor = builder().build().unwrap();
        let mut body = vec![0_u8; 350 * MB];
        body.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        monitor.start(ms(100)).unwrap();
        ask_for(Duration::from_secs(2), &monitor);
        let verdict = monitor.verdict();
        assert!(!verdict.is_accepting() && !verdict.to_string().contains("allocator"), "{verdict}");
        assert!(log.named("monitor.memory_retained").is_empty());
        std::hint::black_box(&body);
    }
}
