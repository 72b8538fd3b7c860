//! Jobs that are admitted, started and attached stay within their limits, use the room that there is, and are all served.
//! They are counted by an observer that shares nothing with the library.
//!
//! `HIGHWATER_SECONDS` says how long the longer ones run (3 by default). From a minute on they also say how much of the
//! room was used: in a few seconds, that says more about the machine's other work.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::groups::{limit_memory, Groups};
use common::{ms, DEADLINE};
use highwater::{ResourceLimits, ResourceMonitor, Work};
use rusty_fork::rusty_fork_test;

const MB: u64 = 1 << 20;
/// The time from which on the use of the room is judged.
const LONG: Duration = Duration::from_secs(60);

fn duration() -> Duration {
    let seconds = std::env::var("HIGHWATER_SECONDS").map_or(3, |seconds| seconds.parse().expect("a number of seconds"));
    Duration::from_secs(seconds)
}

fn started(limits: ResourceLimits) -> ResourceMonitor {
    let monitor = ResourceMonitor::new(limits);
    monitor.start(Duration::from_secs(15)).unwrap();
    monitor
}

fn processes(limit: u64) -> ResourceMonitor {
    started(ResourceLimits::builder().max_processes(limit).build().unwrap())
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::null());
    command
}

/// The amounts that were there at an instant each, one after the other.
struct Observed(Vec<(Instant, u64)>);

impl Observed {
    /// Looks again and again for as long as `during` runs.
    fn during(look: impl Fn() -> u64 + Sync, during: impl FnOnce()) -> Observed {
        let has_ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let observer = scope.spawn(|| {
                let mut observed = Vec::new();
                while !has_ended.load(Ordering::Relaxed) {
                    observed.push((Instant::now(), look()));
                    thread::sleep(ms(1));
                }
                observed.push((Instant::now(), 0));
                observed
            });
            // Also if it panics, or the scope would wait for the observer for ever.
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(during));
            has_ended.store(true, Ordering::Relaxed);
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Observed(observer.join().unwrap())
        })
    }

    fn most(&self) -> u64 {
        self.0.iter().map(|(_, amount)| *amount).max().unwrap()
    }

    /// The mean over time of what is made of each amount, which was there until the next one.
    fn mean(&self, of: impl Fn(u64) -> f64) -> f64 {
        let seconds = |pair: &[(Instant, u64)]| (pair[1].0 - pair[0].0).as_secs_f64();
        let sum: f64 = self.0.windows(2).map(|pair| of(pair[0].1) * seconds(pair)).sum();
        sum / self.0.windows(2).map(seconds).sum::<f64>()
    }
}

/// The number of descendants that this process had at one instant. A listing takes long enough to see a process and the
/// one that came after its end; what is in two listings was there from the end of the first to the start of the second.
fn descendants() -> u64 {
    let first = listed_descendants();
    listed_descendants().intersection(&first).count() as u64
}

/// By the lists of children that the kernel keeps for each thread: reading every process on the machine would take a
/// tenth of such a process's life.
fn listed_descendants() -> HashSet<u32> {
    let mut found = HashSet::new();
    let mut parents = vec![std::process::id()];
    while let Some(parent) = parents.pop() {
        for thread in fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            parents.extend(
                children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()).filter(|pid| found.insert(*pid)),
            );
        }
    }
    found
}

/// So many clients at once, each of which reads an answer to its end.
fn ask<'scope>(scope: &'scope thread::Scope<'scope, '_>, requests: usize, served: &'scope AtomicU64) -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..requests {
        scope.spawn(move || {
            let mut answer = String::new();
            TcpStream::connect(address).unwrap().read_to_string(&mut answer).unwrap();
            served.fetch_add(u64::from(answer == "served\n"), Ordering::Relaxed);
        });
    }
    listener
}

/// Answers a request by a process that starts two more.
fn answering(request: TcpStream) -> Command {
    let mut command = shell("sleep 0.05 & sleep 0.06 & wait; echo served");
    command.stdout(OwnedFd::from(request));
    command
}

/// So many threads that start one process each, again and again. Returns what was observed, and how many were served.
fn crowd(threads: usize) -> (Observed, u64) {
    let monitor = processes(20);
    let served = AtomicU64::new(0);
    let end = Instant::now() + duration();
    let observed = Observed::during(descendants, || {
        thread::scope(|scope| {
            for thread in 0..threads {
                let (monitor, served) = (&monitor, &served);
                scope.spawn(move || {
                    let length = format!("0.0{}", 3 + thread % 7);
                    loop {
                        let permit = monitor.admit(Work::new().processes(1), DEADLINE).unwrap();
                        let mut child = Command::new("sleep").arg(&length).stdin(Stdio::null()).spawn().unwrap();
                        permit.attach(child.id()).unwrap();
                        assert!(child.wait().unwrap().success());
                        permit.finish();
                        served.fetch_add(1, Ordering::Relaxed);
                        if Instant::now() >= end {
                            break;
                        }
                    }
                });
            }
        });
    });
    assert_eq!((monitor.waiters(), monitor.holders().len()), (0, 0));
    (observed, served.into_inner())
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 900_000)]

    #[test]
    fn a_server_that_forks_for_each_request_serves_all_and_stays_below_its_limit() {
        const REQUESTS: usize = 60;
        let monitor = processes(10);
        let served = AtomicU64::new(0);
        let observed = Observed::during(descendants, || {
            thread::scope(|scope| {
                for request in ask(scope, REQUESTS, &served).incoming().take(REQUESTS) {
                    let permit = monitor.admit(Work::new().processes(3), DEADLINE).unwrap();
                    let mut child = answering(request.unwrap()).spawn().unwrap();
                    permit.attach(child.id()).unwrap();
                    scope.spawn(move || {
                        assert!(child.wait().unwrap().success());
                        permit.finish();
                    });
                }
            });
        });
        println!("{} processes at most", observed.most());
        assert_eq!(served.into_inner(), REQUESTS as u64);
        assert!(observed.most() < 10, "{} processes", observed.most());
        assert!(observed.most() > 3, "{} processes", observed.most());
    }

    /// It looks who has ended when the next request comes, which may have to wait for room until then.
    #[test]
    fn a_server_of_one_thread_that_drops_its_permits_late_does_so_too() {
        const REQUESTS: usize = 60;
        let monitor = processes(10);
        let served = AtomicU64::new(0);
        let observed = Observed::during(descendants, || {
            thread::scope(|scope| {
                let mut in_progress = Vec::new();
                for request in ask(scope, REQUESTS, &served).incoming().take(REQUESTS) {
                    let permit = monitor.admit(Work::new().processes(3), DEADLINE).unwrap();
                    let child = answering(request.unwrap()).spawn().unwrap();
                    permit.attach(child.id()).unwrap();
                    in_progress.push((child, permit));
                    in_progress.retain_mut(|(child, _)| child.try_wait().unwrap().is_none());
                }
                for (mut child, permit) in in_progress {
                    assert!(child.wait().unwrap().success());
                    drop(permit);
                }
            });
        });
        println!("{} processes at most", observed.most());
        assert_eq!(served.into_inner(), REQUESTS as u64);
        assert!(observed.most() < 10, "{} processes", observed.most());
    }

    #[test]
    fn threads_that_start_a_process_each_leave_no_room_idle() {
        let (observed, served) = crowd(16);
        let idle = observed.mean(|processes| f64::from(u8::from(processes < 12)));
        println!("{served} served; {} processes at most, below 12 for {:.1} % of the time", observed.most(), 100.0 * idle);
        assert!(observed.most() < 20, "{} processes", observed.most());
        assert!(idle < 0.05 || duration() < LONG, "below 12 for {:.1} % of the time", 100.0 * idle);
    }

    #[test]
    fn more_threads_than_there_is_room_for_stay_below_the_limit() {
        let (observed, served) = crowd(40);
        println!("{served} served; {} processes at most", observed.most());
        assert!(observed.most() <= 16, "{} processes, which is beyond the warning threshold", observed.most());
        assert!(served >= 40, "{served} served");
    }

    /// Their memory is there long after their processes are.
    #[test]
    fn jobs_that_grow_late_are_not_killed_and_fill_their_group() {
        const JOBS: usize = 12;
        let Some(groups) = Groups::new("memory") else { return };
        limit_memory(&groups.outer, 1024 * MB);
        groups.enter();
        let (small, large) = if duration() < LONG { ("0.3", "2") } else { ("3", "15") };
        // `dd` has all in memory before it writes, and keeps it for as long as nobody reads on.
        let hold = format!("head -c 1 > /dev/null; sleep {large}");
        let script = format!("sleep {small}; dd if=/dev/zero bs=200M count=1 2> /dev/null | {{ {hold}; }}");
        let monitor = started(ResourceLimits::builder().build().unwrap());
        let number = |file: &str| number_in(&groups.outer.join(file));
        let observed = Observed::during(|| number("memory.usage_in_bytes"), || {
            thread::scope(|scope| {
                for _ in 0..JOBS {
                    scope.spawn(|| {
                        let permit = monitor.admit(Work::new().memory_mb(200), DEADLINE).unwrap();
                        let mut child = shell(&script).spawn().unwrap();
                        permit.attach(child.id()).unwrap();
                        assert!(child.wait().unwrap().success());
                        permit.finish();
                    });
                }
            });
        });
        let used = observed.mean(|bytes| bytes as f64) / (1024 * MB) as f64;
        println!("{} MB at most, {:.0} % of the group on average", observed.most() / MB, 100.0 * used);
        assert_eq!(kills(&groups.outer), 0);
        assert!(observed.most() > 600 * MB, "{} MB at most", observed.most() / MB);
        assert!(used > 0.6 || duration() < LONG, "{:.0} % used on average", 100.0 * used);
    }
}

fn number_in(file: &Path) -> u64 {
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

/// The number of processes that the kernel has killed in a group for want of memory.
fn kills(group: &Path) -> u64 {
    let text = fs::read_to_string(group.join("memory.oom_control")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap().parse().unwrap()
}
