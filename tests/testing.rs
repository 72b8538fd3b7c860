//! A host is tested without memory, processes or time: a script says what is read, and moves the clock.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::{wait_until, QuietJobs};
use highwater::testing::{self, verdicts, Script};
use highwater::{BoxError, JobManager, MemoryScope, Permit, Resource, ResourceLimits, ResourceMonitor, Verdict, Work};

const MB: u64 = 1024 * 1024;

/// The interval of every monitor here.
const INTERVAL: Duration = Duration::from_secs(15);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn limits() -> ResourceLimits {
    ResourceLimits::builder().max_memory_mb(100).max_processes(50).build().unwrap()
}

/// A monitor that was started with nothing used.
fn started() -> (ResourceMonitor, Script) {
    let (monitor, script) = testing::monitor(limits());
    monitor.start(INTERVAL).unwrap();
    assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
    (monitor, script)
}

/// A manager with one job, which writes down what it is told to do with it.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Told {
    fn note(&self, what: &str, resource: Resource) -> Result<(), BoxError> {
        self.0.lock().unwrap().push(format!("{what} for {resource}"));
        Ok(())
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl JobManager for Told {
    fn running_count(&self) -> usize {
        1
    }

    fn active_job_count(&self) -> usize {
        3
    }

    fn oldest_running_job(&self) -> Option<String> {
        Some("job".to_owned())
    }

    fn pause_job(&self, _: &str, critical: Resource) -> Result<(), BoxError> {
        self.note("pause", critical)
    }

    fn cancel_job(&self, _: &str, critical: Resource) -> Result<(), BoxError> {
        self.note("cancel", critical)
    }

    fn pressure_cleared(&self) {
        self.0.lock().unwrap().push("cleared".to_owned());
    }

    fn prune_stale(&self) -> Result<(), BoxError> {
        self.0.lock().unwrap().push("prune".to_owned());
        Ok(())
    }
}

#[test]
fn the_gate_closes_at_80_percent_and_opens_again_below() {
    let (monitor, script) = started();
    for (mb, is_open) in [(79, true), (80, false), (200, false), (79, true)] {
        script.memory_mb(mb).check();
        assert_eq!(monitor.is_accepting_work(), is_open, "{}", monitor.verdict());
    }
    script.processes(40).check();
    let verdict = monitor.verdict();
    assert_eq!(verdict.resource(), Some(Resource::Processes));
    let expected = "not accepting work: processes 40 of 50 (80.0 %) at or above the warning threshold of 80 %";
    assert!(verdict.to_string().starts_with(expected), "{verdict}");
}

#[test]
fn what_is_scripted_is_found_by_whoever_asks_after_100_ms() {
    let (monitor, script) = started();
    script.memory_mb(90);
    assert!(monitor.is_accepting_work(), "nobody has looked");
    script.advance(Duration::from_millis(200));
    assert!(!monitor.is_accepting_work(), "{}", monitor.verdict());
}

#[test]
fn an_idle_host_is_checked_once_per_interval() {
    let (monitor, script) = started();
    let snapshots = monitor.snapshots();
    let first = monitor.latest().unwrap().timestamp;
    script.advance(4 * INTERVAL);
    let times: Vec<_> = snapshots.receiver().try_iter().map(|check| check.timestamp - first).collect();
    assert_eq!(times, [INTERVAL, 2 * INTERVAL, 3 * INTERVAL, 4 * INTERVAL]);
}

#[test]
fn at_95_percent_a_job_is_paused_then_cancelled_and_told_of_the_end() {
    let (monitor, script) = testing::monitor(limits());
    let told = Arc::new(Told::default());
    monitor.set_manager(told.clone());
    monitor.start(INTERVAL).unwrap();
    script.memory_mb(94).check();
    assert!(told.take().is_empty());
    script.memory_mb(95).check();
    assert_eq!(told.take(), ["pause for memory"]);
    script.advance(INTERVAL - secs(1));
    assert_eq!(told.take(), [""; 0], "it is given a settle time");
    script.advance(secs(2));
    assert_eq!(told.take(), ["cancel for memory", "prune"]);
    script.memory_mb(10).check();
    assert_eq!(told.take(), ["cleared"]);
    assert_eq!((monitor.latest().unwrap().running_jobs, monitor.latest().unwrap().active_sheets), (1, 3));
}

#[test]
fn a_check_thread_that_hangs_makes_the_gate_stale_and_opens_it_when_it_goes_on() {
    let (monitor, script) = started();
    script.hang().advance(3 * INTERVAL);
    assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
    script.advance(secs(1));
    assert!(!monitor.is_accepting_work());
    let expected = "not accepting work: the last check is stale: 46000 ms old, more than max_age 45000 ms";
    assert_eq!(monitor.verdict().to_string(), expected);
    let began = Instant::now();
    let refusal = monitor.try_admit(Work::new().processes(1)).unwrap_err();
    assert_eq!(refusal.to_string(), expected);
    assert!(began.elapsed() < INTERVAL, "nobody waits for a check that hangs");
    assert_eq!(monitor.seconds_since_last_check(), 46.0);
    script.resume();
    assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
    script.hang();
    // Dropped while it hangs.
}

#[test]
fn a_monitor_that_hangs_stops_and_starts_again() {
    let (monitor, script) = started();
    script.hang().advance(secs(60));
    monitor.stop();
    assert_eq!(monitor.verdict().to_string(), verdicts::stopped().to_string());
    script.resume();
    monitor.start(INTERVAL).unwrap();
    script.advance(secs(60));
    assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
}

#[test]
fn five_failures_degrade_and_checks_back_off_until_one_succeeds() {
    let (monitor, script) = started();
    let snapshots = monitor.snapshots();
    script.fail(Resource::Memory, "could not read /proc/self/statm").advance(INTERVAL);
    assert_eq!(monitor.verdict().to_string(), verdicts::failed("could not read /proc/self/statm").to_string());
    script.advance(3 * INTERVAL);
    assert!(!monitor.is_degraded());
    script.advance(INTERVAL);
    assert!(monitor.is_degraded());
    let verdict = verdicts::degraded(5, "could not read /proc/self/statm");
    assert_eq!(monitor.verdict().to_string(), verdict.to_string());
    assert_eq!(snapshots.receiver().len(), 5);
    let fifth = snapshots.receiver().try_iter().last().unwrap().timestamp;
    script.advance(10 * INTERVAL);
    let later: Vec<_> = snapshots.receiver().try_iter().map(|check| (check.timestamp - fifth).as_secs()).collect();
    assert_eq!(later, [15, 45, 105], "after an interval that doubles");
    script.memory_mb(10);
    assert!(!monitor.is_accepting_work() && monitor.is_degraded(), "{}", monitor.verdict());
    // The question has brought the next check forward.
    script.settle();
    assert!(monitor.is_accepting_work() && !monitor.is_degraded(), "{}", monitor.verdict());
}

#[test]
fn an_optional_resource_that_fails_is_said_and_closes_nothing() {
    let (monitor, script) = started();
    script.fail(Resource::OpenFiles, "no /proc/self/fd").check();
    let verdict = monitor.verdict();
    assert!(verdict.is_accepting() && verdict.to_string().contains("open files not all judged: no /proc/self/fd"));
}

#[test]
fn every_resource_can_close_the_gate() {
    let limits = ResourceLimits::builder()
        .max_memory_mb(100)
        .max_processes(100)
        .max_memory_pressure_percent(50)
        .max_cpu_pressure_percent(50)
        .max_io_pressure_percent(50)
        .min_available_memory_mb(10)
        .min_free_disk_mb("/", 10);
    let (monitor, script) = testing::monitor(limits.build().unwrap());
    monitor.start(INTERVAL).unwrap();
    for (resource, open, closed, limit) in [
        (Resource::Memory, 79 * MB, 80 * MB, None),
        (Resource::Processes, 79, 80, None),
        (Resource::CgroupMemory, 79 * MB, 80 * MB, Some(100 * MB)),
        (Resource::CgroupPids, 79, 80, Some(100)),
        (Resource::OpenFiles, 79, 80, Some(100)),
        (Resource::MemoryPressure, 3999, 4000, None),
        (Resource::CpuPressure, 3999, 4000, None),
        (Resource::IoPressure, 3999, 4000, None),
        (Resource::MachineMemory, 89 * MB, 90 * MB, Some(100 * MB)),
        (Resource::DiskSpace, 89 * MB, 90 * MB, Some(100 * MB)),
    ] {
        script.set(resource, open, limit).check();
        assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
        script.set(resource, closed, limit).check();
        assert_eq!(monitor.verdict().resource(), Some(resource), "{}", monitor.verdict());
        script.set(resource, open, limit).check();
    }
    assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
}

#[test]
fn two_scripts_do_not_disturb_each_other() {
    std::thread::scope(|scope| {
        for closed in [true, false] {
            scope.spawn(move || {
                for round in 0..50 {
                    let (monitor, script) = started();
                    let began = monitor.latest().unwrap().timestamp;
                    script.memory_mb(if closed { 90 } else { 10 }).advance(2 * INTERVAL);
                    assert_eq!(monitor.is_accepting_work(), !closed, "round {round}: {}", monitor.verdict());
                    let last = monitor.latest().unwrap().timestamp;
                    assert!(last - began <= 2 * INTERVAL, "{:?}", last - began);
                }
            });
        }
    });
}

#[test]
fn a_waiter_is_served_by_a_check_and_gives_up_by_the_moved_clock() {
    let (monitor, script) = started();
    script.memory_mb(90).check();
    let readiness = monitor.readiness();
    let (told, outcomes) = mpsc::channel();
    std::thread::scope(|scope| {
        let wait = |timeout: Duration| {
            let (readiness, told) = (readiness.clone(), told.clone());
            scope.spawn(move || told.send(readiness.admit(Work::new().memory_mb(1), timeout).map(drop)).unwrap());
            wait_until("it waits", || monitor.waiters() == 1);
        };
        wait(secs(30));
        script.advance(secs(29));
        assert_eq!(monitor.waiters(), 1);
        script.memory_mb(10).advance(Duration::from_millis(100));
        assert!(outcomes.recv().unwrap().is_ok());
        script.memory_mb(90).check();
        wait(secs(30));
        script.advance(secs(31));
        let refusal = outcomes.recv().unwrap().unwrap_err().to_string();
        assert!(refusal.contains("memory 90.0 MB of 100.0 MB") && refusal.contains("waited 3"), "{refusal}");
    });
}

/// What is waited for without an end, on a thread of its own.
fn admitted(monitor: &ResourceMonitor, processes: u64) -> JoinHandle<Result<Permit, Verdict>> {
    let (readiness, before) = (monitor.readiness(), monitor.waiters());
    let thread = thread::spawn(move || readiness.admit(Work::new().processes(processes), Duration::MAX));
    wait_until("it waits", || monitor.waiters() == before + 1);
    thread
}

#[test]
fn those_who_wait_outlast_a_degraded_monitor_and_are_served_by_the_check_that_ends_it() {
    let (monitor, script) = started();
    let holder = monitor.try_admit(Work::new().processes(30)).unwrap();
    let waiter = admitted(&monitor, 20);
    script.fail(Resource::Memory, "could not read /proc/self/statm").advance(5 * INTERVAL);
    assert!(monitor.is_degraded());
    holder.finish();
    script.advance(INTERVAL);
    assert_eq!(monitor.waiters(), 1, "nothing is known of the room");
    script.memory_mb(10).advance(INTERVAL);
    assert!(!monitor.is_degraded());
    waiter.join().unwrap().unwrap().finish();
}

#[test]
fn nobody_is_served_by_a_stale_check_and_whoever_waits_is_by_the_next() {
    let (monitor, script) = started();
    let holder = monitor.try_admit(Work::new().processes(30)).unwrap();
    let waiter = admitted(&monitor, 20);
    script.hang().advance(secs(60));
    assert_eq!(monitor.verdict().to_string(), verdicts::stale(secs(60), secs(45)).to_string());
    holder.finish();
    script.advance(secs(60));
    assert_eq!(monitor.waiters(), 1);
    script.resume();
    waiter.join().unwrap().unwrap().finish();
}

#[test]
fn a_clock_that_jumps_ends_the_waits_whose_deadline_it_has_passed_and_no_other() {
    let (monitor, script) = started();
    let holder = monitor.try_admit(Work::new().processes(30)).unwrap();
    let large = admitted(&monitor, 20);
    let readiness = monitor.readiness();
    let in_a_hurry = thread::spawn(move || readiness.admit(Work::new().processes(20), secs(60)));
    wait_until("both wait", || monitor.waiters() == 2);
    script.hang().advance(secs(3600)).resume();
    let refusal = in_a_hurry.join().unwrap().unwrap_err().to_string();
    assert!(refusal.contains("waited 3600.0 s behind 1 other"), "{refusal}");
    assert_eq!(monitor.waiters(), 1);
    let refusal = monitor.try_admit(Work::new().processes(1)).unwrap_err().to_string();
    assert_eq!(refusal, "refused: 1 other waits and may not be passed any more");
    holder.finish();
    large.join().unwrap().unwrap().finish();
    assert!(monitor.try_admit(Work::new().processes(1)).is_ok());
}

#[test]
fn a_permit_is_reserved_until_a_check_and_can_be_attached_to_what_the_script_has() {
    let (monitor, script) = testing::build(ResourceMonitor::builder(limits()).memory_scope(MemoryScope::Tree)).unwrap();
    monitor.start(INTERVAL).unwrap();
    let permit = monitor.try_admit(Work::new().processes(30)).unwrap();
    assert!(monitor.try_admit(Work::new().processes(20)).is_err());
    drop(permit);
    script.check();
    let permit = monitor.try_admit(Work::new().memory_mb(60)).unwrap();
    assert!(permit.attach(4242).is_err(), "not in the script");
    script.subtree(4242, 20 * MB, 3).memory_mb(20).processes(3);
    permit.attach(4242).unwrap();
    script.check();
    let usage = permit.usage().unwrap();
    assert_eq!((usage.memory_bytes, usage.processes), (20 * MB, 3));
    let verdict = monitor.try_admit(Work::new().memory_mb(40)).unwrap_err();
    assert!(verdict.to_string().contains("memory 20.0 MB + 40.0 MB reserved"), "{verdict}");
    script.subtree(4242, 0, 0).memory_mb(0).processes(0).check();
    assert!(monitor.try_admit(Work::new().memory_mb(90)).is_ok(), "{}", monitor.verdict());
}

#[test]
fn a_hook_may_ask_and_stop_the_monitor_that_calls_it() {
    let (monitor, script) = started();
    let (monitor, asked) = (Arc::new(monitor), Arc::new(AtomicUsize::new(0)));
    let (weak, counts) = (Arc::downgrade(&monitor), Arc::clone(&asked));
    monitor.set_manager(
        QuietJobs::new()
            .naming(move || {
                let monitor = weak.upgrade()?;
                counts.fetch_add(usize::from(!monitor.is_accepting_work()), SeqCst);
                monitor.stop();
                None
            })
            .shared(),
    );
    script.memory_mb(99).advance(INTERVAL);
    assert_eq!(asked.load(SeqCst), 1);
    assert!(monitor.verdict().to_string().starts_with(&verdicts::stopped().to_string()), "{}", monitor.verdict());
    script.advance(secs(3600));
}

#[test]
fn a_monitor_without_a_start_or_already_gone_is_scripted_as_well() {
    let (monitor, script) = testing::monitor(limits());
    script.advance(secs(60)).hang();
    assert!(!monitor.is_accepting_work());
    script.memory_mb(10).check();
    assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
    script.advance(secs(3));
    assert!(monitor.verdict().to_string().contains("stale"), "{}", monitor.verdict());
    drop(monitor);
    assert!(script.memory_mb(1).advance(secs(1)).settle().resume().check().is_none());
}

#[test]
fn a_readiness_always_says_yes_or_no() {
    let yes = testing::accepting();
    assert!(yes.is_accepting_work() && yes.verdict().is_accepting() && yes.pressure() == 0.0);
    let permits: Vec<_> = (0..100).map(|_| yes.try_admit(Work::new().memory_mb(1 << 20)).unwrap()).collect();
    assert!(yes.clone().admit(Work::new().processes(1000), Duration::ZERO).is_ok());
    drop(permits);
    assert!(yes.is_accepting_work());

    let (monitor, script) = started();
    script.memory_mb(10).check();
    script.advance(secs(1)).memory_mb(85).check();
    for verdict in [monitor.verdict(), verdicts::never_fits(Resource::Memory, 96 * MB, 100 * MB), verdicts::stopped()] {
        let no = testing::refusing(verdict.clone());
        let is_given = |told: &Verdict| {
            let facts = |verdict: &Verdict| (verdict.to_string(), verdict.resource(), verdict.could_never_fit());
            facts(told) == facts(&verdict)
        };
        assert!(!no.is_accepting_work() && is_given(&no.verdict()), "{}", no.verdict());
        assert!(is_given(&no.try_admit(Work::new()).unwrap_err()));
        assert!(is_given(&no.admit(Work::new().processes(1), secs(3600)).unwrap_err()));
        assert!(is_given(&no.wait_until_accepting(secs(3600)).unwrap_err()));
    }
}

#[test]
fn a_permit_of_a_test_is_held_and_ends_like_any_other() {
    let permit = testing::permit(Work::new().processes(2).label("import"));
    assert_eq!(permit.work(), Work::new().processes(2).label("import"));
    assert!(permit.usage().is_none() && permit.attach(std::process::id()).is_err());
    permit.finish();
    drop(testing::permit(Work::new().memory_mb(1024)));
}

#[test]
fn verdicts_say_what_those_of_a_monitor_say() {
    let (monitor, script) = testing::monitor(ResourceLimits::builder().max_memory_mb(100).build().unwrap());
    script.memory_mb(80).check();
    let too_much = |monitor: &ResourceMonitor, mb| monitor.try_admit(Work::new().memory_mb(mb)).unwrap_err();
    let same = |verdict: Verdict, made: Verdict| {
        let facts = |verdict: &Verdict| (verdict.is_accepting(), verdict.resource(), verdict.could_never_fit());
        assert_eq!((verdict.to_string(), facts(&verdict)), (made.to_string(), facts(&made)));
    };
    same(monitor.verdict(), verdicts::closed(Resource::Memory, 80 * MB, 100 * MB));
    script.memory_mb(70).check();
    same(too_much(&monitor, 25), verdicts::too_much(Resource::Memory, 70 * MB, 25 * MB, 100 * MB));
    script.memory_mb(0).check();
    same(too_much(&monitor, 95), verdicts::never_fits(Resource::Memory, 95 * MB, 100 * MB));
    assert!(verdicts::accepting().is_accepting());
    script.advance(secs(3));
    same(monitor.verdict(), verdicts::stale(secs(3), secs(2)));
}

#[test]
#[should_panic(expected = "cgroup memory has a limit of the kernel's")]
fn a_limit_that_the_kernel_always_has_must_be_scripted() {
    testing::monitor(limits()).1.set(Resource::CgroupMemory, 1, None);
}

#[test]
#[should_panic(expected = "a readiness cannot refuse")]
fn a_refusal_needs_a_verdict_that_refuses() {
    drop(testing::refusing(verdicts::accepting()));
}
