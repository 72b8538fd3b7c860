//! Jobs of a host that does what no host should: takes statuses that are not its own, ends its first thread, calls back from its
//! logger, and changes everything while jobs run. All of that is process-wide, so each test has a process of its own.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::wait_until;
use common::{in_forked_child, without_first_thread};
use highwater::{Job, JobStep, Jobs, MemoryScope, Outcome, ResourceLimits, ResourceMonitor};
use nix::sys::signal::{signal, SigHandler, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag};
use nix::unistd::Pid;
use rusty_fork::rusty_fork_test;

const LONG: Duration = Duration::from_secs(120);

fn limits(processes: u64) -> ResourceLimits {
    ResourceLimits::builder().max_processes(processes).build().unwrap()
}

fn jobs_of(is_sole_parent: bool) -> (ResourceMonitor, Jobs) {
    let monitor = ResourceMonitor::builder(limits(1000)).memory_scope(MemoryScope::Tree).build().unwrap();
    let jobs = monitor.jobs().width(8).grace(Duration::from_millis(200)).sole_parent(is_sole_parent).build().unwrap();
    monitor.start(Duration::from_millis(200)).unwrap();
    (monitor, jobs)
}

fn sh(script: &str) -> Job {
    let mut sh = Command::new("sh");
    sh.args(["-c", script]);
    Job::new(sh)
}

fn ignore_ends_of_children() {
    // SAFETY: to ignore a signal runs no code of this process.
    #[allow(unsafe_code)]
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.unwrap();
}

/// A logger that does this for each line.
struct Calling<F>(F);

impl<F: Fn() + Send + Sync> log::Log for Calling<F> {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        (self.0)();
    }

    fn flush(&self) {}
}

fn call_for_each_line(call: impl Fn() + Send + Sync + 'static) {
    log::set_boxed_logger(Box::new(Calling(call))).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
}

/// Runs jobs of each kind that there is to leave something behind, and sees that nothing of them is left.
fn run_jobs_that_leave_something(is_sole_parent: bool) -> Result<(), String> {
    let (_monitor, jobs) = jobs_of(is_sole_parent);
    let folder = tempfile::tempdir().unwrap();
    let left = "setsid sh -c 'trap : TERM; echo $$ > pid; while :; do sleep 0.02; done' &";
    for script in ["exit 7", &format!("{left} until [ -e pid ]; do sleep 0.01; done; exit 7")] {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(&folder);
        let job = jobs.spawn(Job::new(command)).unwrap();
        match job.wait_timeout(LONG) {
            Some(Outcome::Ended(status)) if status.code() == Some(7) => {}
            outcome => return Err(format!("{script}: {outcome:?}")),
        }
    }
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    if Path::new("/proc").join(pid.trim()).exists() {
        return Err(format!("{pid} is left"));
    }
    Ok(())
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn what_jobs_leave_is_ended_also_where_the_first_thread_of_the_host_is_gone() {
        for is_sole_parent in [false, true] {
            in_forked_child(|| without_first_thread(move || run_jobs_that_leave_something(is_sole_parent)));
        }
    }

    #[test]
    fn a_job_whose_status_the_host_takes_has_one_end() {
        let (_monitor, jobs) = jobs_of(false);
        let events = jobs.events();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thief = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let _ = waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG));
                thread::yield_now();
            }
        });
        let handles: Vec<_> = (0..200).map(|_| jobs.submit(sh("exit 3")).unwrap()).collect();
        for job in &handles {
            let outcome = job.wait_timeout(LONG).unwrap();
            assert!(matches!(outcome, Outcome::Lost(_) | Outcome::Ended(_)), "{outcome:?}");
        }
        is_over.store(true, Ordering::Relaxed);
        thief.join().unwrap();
        drop(jobs);
        let mut ends: Vec<u64> =
            events.iter().filter(|event| matches!(event.what, JobStep::Ended { .. })).map(|event| event.id).collect();
        ends.sort_unstable();
        assert_eq!(ends, Vec::from_iter(1..=200));
    }

    #[test]
    fn jobs_of_a_host_that_ignores_the_ends_of_children_end_whole() {
        let (_monitor, jobs) = jobs_of(false);
        ignore_ends_of_children();
        let folder = tempfile::tempdir().unwrap();
        let left = "setsid sh -c 'trap : TERM; echo $$ > pid; while :; do sleep 0.02; done' &";
        for script in ["exit 7", &format!("{left} until [ -e pid ]; do sleep 0.01; done; exit 7")] {
            let mut command = Command::new("sh");
            command.args(["-c", script]).current_dir(&folder);
            let outcome = jobs.spawn(Job::new(command)).unwrap().wait_timeout(LONG);
            assert!(matches!(outcome, Some(Outcome::Lost(_))), "{script}: {outcome:?}");
        }
        let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
        assert!(!Path::new("/proc").join(pid.trim()).exists());
    }

    #[test]
    fn a_logger_may_call_the_jobs_and_panic() {
        static JOBS: Mutex<Option<Arc<Jobs>>> = Mutex::new(None);
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let (monitor, jobs) = jobs_of(false);
        let jobs = Arc::new(jobs);
        *JOBS.lock().unwrap() = Some(Arc::clone(&jobs));
        call_for_each_line(|| {
            let jobs = JOBS.lock().unwrap().clone();
            if let Some(jobs) = jobs {
                CALLS.fetch_add(1, Ordering::Relaxed);
                let _ = (jobs.running(), jobs.waiting(), jobs.paused(), jobs.held_back(), jobs.costs().to_string());
                jobs.submit(sh("exit 0")).unwrap().cancel();
                jobs.stop_with(|| ());
                panic!("a logger that panics");
            }
        });
        std::panic::set_hook(Box::new(|_| ()));
        ignore_ends_of_children();
        let handles: Vec<_> = (0..20).map(|_| jobs.submit(sh("exit 3")).unwrap()).collect();
        for job in &handles {
            assert!(job.wait_timeout(LONG).is_some());
        }
        assert!(CALLS.load(Ordering::Relaxed) > 0);
        JOBS.lock().unwrap().take();
        drop((jobs, monitor));
    }

    #[test]
    fn what_comes_to_light_when_its_job_has_ended_is_gone_when_the_jobs_are() {
        let (_monitor, jobs) = jobs_of(false);
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo $HIGHWATER_JOB > mark"]).current_dir(&folder);
        assert!(jobs.spawn(Job::new(command)).unwrap().wait_timeout(LONG).unwrap().is_success());
        let mark = fs::read_to_string(folder.path().join("mark")).unwrap();
        let mut late = Command::new("sh");
        late.args(["-c", "setsid sh -c 'trap : TERM; echo $$ > pid; while :; do sleep 0.02; done' &"]);
        late.current_dir(&folder).env("HIGHWATER_JOB", mark.trim()).status().unwrap();
        let pid = || fs::read_to_string(folder.path().join("pid")).unwrap_or_default();
        wait_until("it is there", || pid().ends_with('\n'));
        // An end that it is seen at.
        let script = sh("setsid sleep 1000 & exit 0");
        assert!(jobs.spawn(script).unwrap().wait_timeout(LONG).unwrap().is_success());
        drop(jobs);
        assert!(!Path::new("/proc").join(pid().trim()).exists());
    }

    #[test]
    fn jobs_may_be_dropped_by_their_own_thread() {
        static JOBS: Mutex<Option<Jobs>> = Mutex::new(None);
        let monitor = ResourceMonitor::builder(limits(1000)).memory_scope(MemoryScope::Tree).build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let costs = folder.path().join("costs");
        let jobs = monitor.jobs().grace(Duration::from_millis(200)).costs_file(&costs).build().unwrap();
        monitor.start(Duration::from_millis(200)).unwrap();
        let events = jobs.events();
        static PANICS: AtomicUsize = AtomicUsize::new(0);
        std::panic::set_hook(Box::new(|_| {
            PANICS.fetch_add(1, Ordering::Relaxed);
        }));
        ignore_ends_of_children();
        let other = jobs.spawn(sh("exec sleep 1000").kind("other")).unwrap();
        let pid = other.pid().unwrap();
        let job = jobs.submit(sh("exit 3")).unwrap();
        *JOBS.lock().unwrap() = Some(jobs);
        call_for_each_line(|| drop(JOBS.lock().unwrap().take()));
        assert!(job.wait_timeout(LONG).is_some());
        let outcome = other.wait_timeout(LONG);
        assert!(matches!(outcome, Some(Outcome::Cancelled)), "{outcome:?}");
        wait_until("it is gone", || !Path::new(&format!("/proc/{pid}")).exists());
        assert_eq!(events.iter().filter(|event| matches!(event.what, JobStep::Ended { .. })).count(), 2);
        wait_until("what is known is written", || costs.exists());
        assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn everything_may_change_while_jobs_run() {
        let (monitor, jobs) = jobs_of(true);
        let events = jobs.events();
        let monitor = Arc::new(monitor);
        let count = AtomicUsize::new(0);
        thread::scope(|scope| {
            for number in 0..6 {
                let (jobs, monitor, count) = (&jobs, Arc::clone(&monitor), &count);
                scope.spawn(move || {
                    for round in 0..60u64 {
                        count.fetch_add(1, Ordering::Relaxed);
                        let job = jobs.submit(sh("setsid sleep 0.02 & exit 0").kind(format!("{}", round % 3))).unwrap();
                        match (number, round % 10) {
                            (0, 3) => monitor.stop(),
                            (0, 5) => monitor.start(Duration::from_millis(50)).unwrap(),
                            (1, 4) => monitor.update_limits(limits(3)),
                            (1, 7) => monitor.update_limits(limits(1000)),
                            (2, 2) => jobs.cancel_all(),
                            (3, 6) => jobs.kill_all(),
                            (4, 5) => jobs.stop_with(|| thread::sleep(Duration::from_millis(1))),
                            (5, _) => job.cancel(),
                            (_, 9) => drop(job.wait_timeout(Duration::from_millis(20))),
                            _ => {}
                        }
                    }
                });
            }
        });
        monitor.update_limits(limits(1000));
        monitor.start(Duration::from_millis(50)).unwrap();
        let last = jobs.submit(sh("exit 0")).unwrap();
        assert!(last.wait_timeout(LONG).unwrap().is_success());
        drop(monitor);
        drop(jobs);
        let mut ends: Vec<u64> =
            events.iter().filter(|event| matches!(event.what, JobStep::Ended { .. })).map(|event| event.id).collect();
        ends.sort_unstable();
        assert_eq!(ends, Vec::from_iter(1..=count.load(Ordering::Relaxed) as u64 + 1));
        assert!(waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)).is_err(), "a child is left");
    }
}

rusty_fork_test! {
    /// A receive with a timeout is not restarted after a signal, and fails with `EINTR` (signal(7)): of a signal that nobody
    /// handles, no host expects that. The kernel takes the first thread before all others.
    #[test]
    fn the_end_of_a_job_interrupts_no_system_call_of_the_host() {
        in_forked_child(|| {
            let (_monitor, jobs) = jobs_of(false);
            let (mut own, mut other) = UnixStream::pair().unwrap();
            thread::spawn(move || {
                for _ in 0..20 {
                    let job = jobs.submit(sh("exec sleep 1000")).unwrap();
                    // Until its start has returned, the C library blocks every signal on the thread that starts it.
                    wait_until("the job has started", || job.pid().is_some());
                    job.cancel();
                    job.wait();
                }
                own.write_all(b".").unwrap();
            });
            other.set_read_timeout(Some(LONG)).unwrap();
            other.read(&mut [0]).map(drop).map_err(|error| error.to_string())
        });
    }
}
