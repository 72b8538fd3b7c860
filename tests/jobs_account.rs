//! What jobs tell of a run: what has limited it, how long it will go on, and how often they have failed.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::wait_until;
use highwater::{
    HeldBack, Job, JobHandle, JobStep, Jobs, JobsBuilder, Limiter, MemoryScope, Outcome, Resource, ResourceLimits,
    ResourceLimitsBuilder, ResourceMonitor,
};

const LONG: Duration = Duration::from_secs(120);

/// Jobs under limits. One at a time: the jobs of another are descendants of this process as well.
struct Host {
    jobs: Jobs,
    began: Instant,
    _monitor: ResourceMonitor,
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Host {
    fn new(limits: ResourceLimitsBuilder, settings: impl FnOnce(JobsBuilder) -> JobsBuilder) -> Host {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = limits.build().unwrap();
        let monitor = ResourceMonitor::builder(limits).memory_scope(MemoryScope::Tree).build().unwrap();
        let began = Instant::now();
        let jobs = settings(monitor.jobs()).build().unwrap();
        monitor.start(Duration::from_millis(200)).unwrap();
        Host { jobs, began, _monitor: monitor, _alone: alone }
    }

    fn submit(&self, script: &str) -> JobHandle {
        self.jobs.submit(sh(script)).unwrap()
    }

    /// What has limited most of the time, once these have ended. All times together are the time that has passed.
    #[track_caller]
    fn most_limited_by(&self, handles: &[JobHandle]) -> Limiter {
        for handle in handles {
            assert!(handle.wait_timeout(LONG).unwrap().is_success());
        }
        let least = self.began.elapsed();
        let limiters = self.jobs.limiters();
        let (sum, most) = (limiters.total(), self.began.elapsed());
        // It begins a moment after `began`.
        assert!(sum <= most && sum + Duration::from_millis(500) >= least, "{least:?} to {most:?}: {limiters:?}");
        let (limiter, time) = limiters.iter().max_by_key(|(_, time)| *time).unwrap();
        assert!(time * 2 > sum, "{limiters:?}");
        limiter
    }
}

fn sh(script: &str) -> Job {
    let mut sh = Command::new("sh");
    sh.args(["-c", script]);
    Job::new(sh)
}

#[test]
fn a_run_of_jobs_that_compute_is_limited_by_the_cpus() {
    let host = Host::new(ResourceLimits::builder().max_processes(1000), |jobs| jobs);
    let cpus = thread::available_parallelism().unwrap().get();
    let spin = "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done";
    let handles: Vec<_> = (0..8 * cpus).map(|_| host.submit(spin)).collect();
    assert_eq!(host.most_limited_by(&handles), Limiter::Cpus);
}

#[test]
fn a_run_of_jobs_that_take_memory_is_limited_by_memory() {
    let host = Host::new(ResourceLimits::builder().max_memory_mb(200), |jobs| jobs.width(usize::MAX));
    let hold = "x=$(head -c 40M /dev/zero | tr '\\0' x); sleep 0.2";
    let handles: Vec<_> = (0..12).map(|_| host.submit(hold)).collect();
    assert_eq!(host.most_limited_by(&handles), Limiter::Resource(Resource::Memory));
}

#[test]
fn a_run_of_many_jobs_under_a_limit_on_processes_is_limited_by_it() {
    let host = Host::new(ResourceLimits::builder().max_processes(5), |jobs| jobs.width(usize::MAX));
    let handles: Vec<_> = (0..20).map(|_| host.submit("exec sleep 0.2")).collect();
    assert_eq!(host.most_limited_by(&handles), Limiter::Resource(Resource::Processes));
}

#[test]
fn a_run_whose_jobs_come_slowly_is_limited_by_their_coming() {
    let host = Host::new(ResourceLimits::builder().max_processes(100), |jobs| jobs);
    let handle = |_| {
        thread::sleep(Duration::from_millis(100));
        host.submit("exit 0")
    };
    let handles: Vec<_> = (0..10).map(handle).collect();
    assert_eq!(host.most_limited_by(&handles), Limiter::NoJob);
}

#[test]
fn jobs_that_the_host_holds_wait_for_its_reason_and_the_last_ones_for_nothing() {
    let host = Host::new(ResourceLimits::builder().max_processes(100), |jobs| jobs);
    host.jobs.hold(Some("printing"));
    let job = host.submit("exit 0");
    assert!(job.wait_timeout(Duration::from_millis(300)).is_none());
    assert_eq!(host.jobs.held_back().unwrap().to_string(), "printing");
    host.jobs.hold(None);
    assert_eq!(host.most_limited_by(&[job]), Limiter::Host("printing"));
    let last = host.submit("exec sleep 0.2");
    host.jobs.expect_no_more();
    assert!(last.wait().is_success());
    assert!(host.jobs.limiters().of(Limiter::LastJobs) >= Duration::from_millis(100));
    let tally = host.jobs.tally();
    assert_eq!((tally.done, tally.failed, tally.cancelled, tally.running), (2, 0, 0, 0));
}

#[test]
fn a_job_waits_for_a_host_that_is_too_large_as_long_as_it_has_patience() {
    let patience = Duration::from_millis(300);
    let host = Host::new(ResourceLimits::builder().max_memory_mb(1), |jobs| jobs.patience(patience));
    let began = Instant::now();
    match host.submit("exit 0").wait_timeout(LONG) {
        Some(Outcome::NeverFits(reason @ HeldBack::Verdict(_))) => {
            assert_eq!(reason.limiter(), Limiter::Resource(Resource::Memory));
        }
        outcome => panic!("{outcome:?}"),
    }
    assert!(began.elapsed() >= patience);
    drop(host);

    let host = Host::new(ResourceLimits::builder().max_memory_mb(1), |jobs| jobs);
    assert!(host.submit("exit 0").wait_timeout(patience * 3).is_none());
}

#[test]
fn a_job_that_fails_is_run_again_as_often_as_told_and_beside_others() {
    let host = Host::new(ResourceLimits::builder().max_processes(100), |jobs| jobs.width(usize::MAX));
    let events = host.jobs.events();
    let other = host.submit("exec sleep 1000");
    let failing = host.jobs.submit(sh("exit 3").kind("failing").retries(2)).unwrap();
    match failing.wait_timeout(LONG) {
        Some(Outcome::Ended(status)) => assert_eq!(status.code(), Some(3)),
        outcome => panic!("{outcome:?}"),
    }
    assert_eq!(failing.tries(), 3);
    let slow = sh("exec sleep 1000").kind("slow").timeout(Duration::from_millis(100)).retries(1);
    let slow = host.jobs.submit(slow).unwrap();
    assert!(matches!(slow.wait_timeout(LONG), Some(Outcome::TimedOut(_))));
    assert_eq!(slow.tries(), 2);
    other.cancel();
    drop(host);
    let failures = events.iter().filter(|event| matches!(event.what, JobStep::Failed { .. }));
    assert_eq!(failures.map(|event| event.id).collect::<Vec<_>>(), [2, 2, 3]);
}

#[test]
fn a_job_that_fails_after_it_was_cancelled_is_not_run_again() {
    let host = Host::new(ResourceLimits::builder().max_processes(100), |jobs| jobs);
    let job = host.jobs.spawn(sh("trap 'exit 3' TERM; while :; do sleep 0.02; done").retries(5)).unwrap();
    host.jobs.cancel_all();
    assert!(matches!(job.wait_timeout(LONG), Some(Outcome::Cancelled)));
    assert_eq!(job.tries(), 1);
}

#[test]
fn half_way_the_remaining_time_is_about_right_and_before_anything_is_known_none_is_told() {
    let host = Host::new(ResourceLimits::builder().max_processes(100), |jobs| jobs.width(4));
    assert_eq!(host.jobs.remaining(10), None);
    // 0.1 to 0.7 s, in no order.
    let handles: Vec<_> = (1..=40).map(|n| host.submit(&format!("exec sleep 0.{}", n * 5 % 7 + 1))).collect();
    assert_eq!(host.jobs.remaining(0), None);
    wait_until("half of them have ended", || host.jobs.waiting() + host.jobs.running() <= 20);
    assert_eq!(host.jobs.remaining(0).unwrap().at_most, None, "more may come");
    host.jobs.expect_no_more();
    let (told, twice, began) = (host.jobs.remaining(0).unwrap(), host.jobs.remaining(20).unwrap(), Instant::now());
    handles.iter().for_each(|handle| drop(handle.wait_timeout(LONG)));
    let took = began.elapsed();
    assert!(told.at_least < took * 3 / 2 && told.at_most.unwrap() * 3 / 2 > took, "{told}: {took:?}");
    assert!(told.at_most.unwrap() < told.at_least * 4, "{told}");
    assert!(twice.at_most.unwrap() > told.at_most.unwrap() * 3 / 2, "{told} {twice}");
    assert_eq!(host.jobs.remaining(0), None);
}
