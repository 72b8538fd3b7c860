//! Work that waits for room is admitted in its turn, and is told at once where waiting cannot help.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::{ms, wait_until, ProcTree, DEADLINE, PAGE};
use highwater::{Class, Permit, Readiness, ResourceLimits, ResourceMonitor, Verdict, Work};
use parking_lot::Mutex;

const FOREVER: Duration = Duration::MAX;

fn limits(processes: u64) -> ResourceLimits {
    ResourceLimits::builder().max_memory_bytes(1000 * PAGE).max_processes(processes).build().unwrap()
}

/// A monitor of a tree that a test lays out, with one process in it.
fn monitor(tree: &ProcTree) -> ResourceMonitor {
    ResourceMonitor::builder(limits(10)).proc_root(tree.root()).build().unwrap()
}

fn started(tree: &ProcTree) -> ResourceMonitor {
    let monitor = monitor(tree);
    monitor.start(Duration::from_secs(15)).unwrap();
    monitor
}

fn processes(processes: u64) -> Work {
    Work::new().processes(processes)
}

fn admit(readiness: &Readiness, work: Work) -> thread::JoinHandle<Result<Permit, Verdict>> {
    let readiness = readiness.clone();
    thread::spawn(move || readiness.admit(work, FOREVER))
}

fn wait_for_waiters(monitor: &ResourceMonitor, count: usize) {
    wait_until("the threads wait", || monitor.waiters() == count);
}

#[test]
fn what_is_finished_goes_to_the_one_that_waits_for_it() {
    let tree = ProcTree::new(1);
    let monitor = started(&tree);
    let holder = monitor.admit(processes(9), FOREVER).unwrap();
    let waiter = admit(&monitor.readiness(), processes(5));
    wait_for_waiters(&monitor, 1);
    holder.finish();
    waiter.join().unwrap().unwrap().finish();
    assert_eq!(monitor.holders(), []);
}

#[test]
fn what_is_dropped_goes_to_a_waiter_with_the_next_check() {
    let tree = ProcTree::new(1);
    let monitor = started(&tree);
    let holder = monitor.admit(processes(9), FOREVER).unwrap();
    let waiter = admit(&monitor.readiness(), processes(5));
    drop(holder);
    waiter.join().unwrap().unwrap().finish();
}

#[test]
fn what_a_check_sees_go_goes_to_a_waiter_without_anybody_else_asking() {
    // Without a check thread, those who wait check.
    for is_started in [true, false] {
        let tree = ProcTree::new(1);
        for pid in 200..208 {
            tree.process(pid, ProcTree::OWN_PID);
        }
        let monitor = if is_started { started(&tree) } else { monitor(&tree) };
        monitor.check_now();
        let waiter = admit(&monitor.readiness(), processes(2));
        wait_for_waiters(&monitor, 1);
        (200..208).for_each(|pid| tree.remove(pid));
        waiter.join().unwrap().unwrap().finish();
    }
}

#[test]
fn memory_that_is_free_again_goes_to_a_waiter() {
    let tree = ProcTree::new(900);
    let monitor = started(&tree);
    let waiter = admit(&monitor.readiness(), Work::new().memory_bytes(100 * PAGE));
    wait_for_waiters(&monitor, 1);
    tree.set_resident_pages(100);
    waiter.join().unwrap().unwrap().finish();
}

#[test]
fn new_limits_make_room_and_tell_at_once_whom_they_end_the_hope_of() {
    let tree = ProcTree::new(1);
    let monitor = started(&tree);
    let holder = monitor.admit(processes(9), FOREVER).unwrap();
    let (large, small) = (admit(&monitor.readiness(), processes(8)), admit(&monitor.readiness(), processes(5)));
    wait_for_waiters(&monitor, 2);
    monitor.update_limits(limits(8));
    let verdict = large.join().unwrap().unwrap_err();
    assert!(verdict.could_never_fit() && verdict.to_string().contains("; waited "), "{verdict}");
    wait_for_waiters(&monitor, 1);
    monitor.update_limits(limits(100));
    small.join().unwrap().unwrap().finish();
    holder.finish();
}

#[test]
fn a_stop_and_the_drop_of_the_monitor_end_every_wait_at_once() {
    for is_dropped in [false, true] {
        let tree = ProcTree::new(1);
        let monitor = started(&tree);
        let holder = monitor.admit(processes(9), FOREVER).unwrap();
        let waiters: Vec<_> = (0..4).map(|_| admit(&monitor.readiness(), processes(5))).collect();
        wait_for_waiters(&monitor, 4);
        if is_dropped {
            drop(monitor);
        } else {
            monitor.stop();
        }
        for waiter in waiters {
            let verdict = waiter.join().unwrap().unwrap_err().to_string();
            assert!(verdict.starts_with("not accepting work: the monitor is stopped; waited "), "{verdict}");
        }
        holder.finish();
    }
}

#[test]
fn where_waiting_cannot_help_the_answer_comes_at_once() {
    let tree = ProcTree::new(1);
    let monitor = monitor(&tree);
    let verdict = monitor.admit(processes(1), FOREVER).unwrap_err();
    assert_eq!(verdict.to_string(), "not accepting work: no check has been taken yet");
    monitor.start(Duration::from_secs(15)).unwrap();
    assert!(monitor.admit(processes(10), FOREVER).unwrap_err().could_never_fit());
    let holder = monitor.admit(processes(9), FOREVER).unwrap();
    let verdict = monitor.admit(processes(2), Duration::ZERO).unwrap_err();
    assert!(!verdict.to_string().contains("waited"), "{verdict}");
    assert!(monitor.wait_until_accepting(Duration::ZERO).is_err());
    holder.finish();
    monitor.wait_until_accepting(FOREVER).unwrap();
    monitor.stop();
    let verdict = monitor.admit(processes(1), FOREVER).unwrap_err();
    assert_eq!(verdict.to_string(), "not accepting work: the monitor is stopped");
}

#[test]
fn at_the_deadline_the_verdict_says_for_what_it_waited_and_who_holds_it() {
    let tree = ProcTree::new(1);
    let monitor = started(&tree);
    let work = |count, label| processes(count).label(label);
    let import = monitor.admit(work(4, "import"), FOREVER).unwrap();
    let scan = monitor.admit(work(3, "scan"), FOREVER).unwrap();
    let ahead = admit(&monitor.readiness(), processes(4));
    wait_for_waiters(&monitor, 1);
    let began = Instant::now();
    let verdict = monitor.admit(processes(5), ms(150)).unwrap_err();
    assert!(began.elapsed() >= ms(150));
    // The times are those of this machine now.
    let is_time = |word: &str| word.parse::<f64>().is_ok() && word.contains('.');
    let text = verdict.to_string();
    let text: Vec<_> = text.split(' ').map(|word| if is_time(word) { "T" } else { word }).collect();
    let text = text.join(" ");
    let expected =
        "refused: processes 0 + 7 reserved + 5 asked of 10 (120.0 %) would reach the hard threshold of 95 %; \
                    waited T s behind 1 other; held by import: 4 for T s, scan: 3 for T s; \
                    would fit once import ends";
    assert_eq!(text, expected);
    assert!(!verdict.could_never_fit());
    let holders: Vec<_> = monitor.holders().iter().map(|holder| (holder.label, holder.work, holder.pid)).collect();
    assert_eq!(holders, [(Some("import"), import.work(), None), (Some("scan"), scan.work(), None)]);
    import.finish();
    ahead.join().unwrap().unwrap().finish();
    scan.finish();
}

#[test]
fn one_that_gives_up_lets_those_pass_that_it_kept_waiting() {
    let tree = ProcTree::new(1);
    // Strictly in order.
    let builder = ResourceMonitor::builder(limits(10)).proc_root(tree.root()).overtaking(0, FOREVER);
    let monitor = builder.build().unwrap();
    monitor.start(Duration::from_secs(15)).unwrap();
    let holder = monitor.admit(processes(5), FOREVER).unwrap();
    let readiness = monitor.readiness();
    let front = thread::spawn(move || readiness.admit(processes(8), ms(300)));
    wait_for_waiters(&monitor, 1);
    let behind = admit(&monitor.readiness(), processes(2));
    wait_for_waiters(&monitor, 2);
    assert!(front.join().unwrap().is_err());
    behind.join().unwrap().unwrap().finish();
    holder.finish();
}

#[test]
fn a_class_is_served_before_those_below_and_first_come_first_served_within() {
    let tree = ProcTree::new(1);
    let monitor = started(&tree);
    let holder = monitor.admit(processes(9), FOREVER).unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut threads = Vec::new();
    // Each takes all the room there is, so one is served at a time.
    for (class, name) in
        [(Class::Background, "last"), (Class::Normal, "second"), (Class::Normal, "third"), (Class::Critical, "first")]
    {
        let (readiness, order) = (monitor.readiness(), Arc::clone(&order));
        threads.push(thread::spawn(move || {
            let permit = readiness.admit(processes(9).class(class).label(name), FOREVER).unwrap();
            order.lock().push(name);
            permit.finish();
        }));
        // In the queue before the next one comes.
        wait_for_waiters(&monitor, threads.len());
    }
    holder.finish();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(*order.lock(), ["first", "second", "third", "last"]);
}

#[test]
fn a_waiter_for_half_of_the_room_among_small_ones_is_passed_a_few_times_only() {
    let tree = ProcTree::new(1);
    let monitor = ResourceMonitor::builder(limits(100)).proc_root(tree.root()).build().unwrap();
    monitor.start(Duration::from_secs(15)).unwrap();
    let passed = Arc::new(AtomicUsize::new(0));
    let is_served = Arc::new(AtomicUsize::new(0));
    let holder = monitor.admit(processes(70), FOREVER).unwrap();
    let large = {
        let (readiness, is_served) = (monitor.readiness(), Arc::clone(&is_served));
        thread::spawn(move || {
            let permit = readiness.admit(processes(50), FOREVER).unwrap();
            is_served.store(1, Ordering::SeqCst);
            permit
        })
    };
    wait_for_waiters(&monitor, 1);
    let small: Vec<_> = (0..8)
        .map(|_| {
            let (readiness, passed, is_served) = (monitor.readiness(), Arc::clone(&passed), Arc::clone(&is_served));
            thread::spawn(move || {
                while is_served.load(Ordering::SeqCst) == 0 {
                    if let Ok(permit) = readiness.try_admit(processes(10)) {
                        passed.fetch_add(1, Ordering::SeqCst);
                        permit.finish();
                    }
                    thread::yield_now();
                }
            })
        })
        .collect();
    wait_until("it may not be passed any more", || monitor.try_admit(processes(1)).is_err());
    assert!(passed.load(Ordering::SeqCst) <= 16);
    holder.finish();
    large.join().unwrap().finish();
    small.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn those_who_wait_outlast_failed_checks() {
    let tree = ProcTree::new(1);
    let monitor = started(&tree);
    tree.stat(200, b"garbage");
    monitor.check_now();
    let waiter = admit(&monitor.readiness(), processes(2));
    wait_for_waiters(&monitor, 1);
    let verdict = monitor.admit(processes(2), ms(10)).unwrap_err().to_string();
    assert!(verdict.contains("the last check failed") && verdict.contains(" s behind 1 other"), "{verdict}");
    tree.remove(200);
    waiter.join().unwrap().unwrap().finish();
}

#[test]
fn ten_thousand_that_wait_are_all_served() {
    const WAITERS: usize = 10_000;
    let tree = ProcTree::new(1);
    let monitor = ResourceMonitor::builder(limits(1000)).proc_root(tree.root()).build().unwrap();
    monitor.start(Duration::from_secs(15)).unwrap();
    let holder = monitor.admit(processes(900), FOREVER).unwrap();
    let served = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..WAITERS)
        .map(|_| {
            let (readiness, served) = (monitor.readiness(), Arc::clone(&served));
            let thread = thread::Builder::new().stack_size(64 << 10).spawn(move || {
                let permit = readiness.admit(processes(100), FOREVER).unwrap();
                served.fetch_add(1, Ordering::SeqCst);
                permit.finish();
            });
            thread.unwrap()
        })
        .collect();
    wait_for_waiters(&monitor, WAITERS);
    holder.finish();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(served.load(Ordering::SeqCst), WAITERS);
}

#[test]
fn a_permit_of_a_thread_that_panics_is_given_back() {
    let tree = ProcTree::new(1);
    let monitor = started(&tree);
    let holder = monitor.admit(processes(9), FOREVER).unwrap();
    let readiness = monitor.readiness();
    let panicking = thread::spawn(move || {
        let _permit = readiness.admit(processes(9), FOREVER).unwrap();
        panic!("with the permit");
    });
    wait_for_waiters(&monitor, 1);
    let behind = admit(&monitor.readiness(), processes(9));
    wait_for_waiters(&monitor, 2);
    holder.finish();
    assert!(panicking.join().is_err());
    behind.join().unwrap().unwrap().finish();
}

#[test]
fn waiting_for_an_open_gate_keeps_nothing() {
    let tree = ProcTree::new(900);
    let monitor = started(&tree);
    let readiness = monitor.readiness();
    let waiter = thread::spawn(move || readiness.wait_until_accepting(DEADLINE));
    wait_for_waiters(&monitor, 1);
    tree.set_resident_pages(1);
    waiter.join().unwrap().unwrap();
    assert_eq!(monitor.holders(), []);
}
