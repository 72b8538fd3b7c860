//! Room for jobs whose commands are not known yet.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{ms, wait_until};
use highwater::{HeldBack, Job, Jobs, JobsBuilder, MemoryScope, Outcome, ResourceLimits, ResourceMonitor, Work};
use rusty_fork::rusty_fork_test;

const LONG: Duration = Duration::from_secs(120);

/// Jobs under a limit of 400 MB, from 320 of which on nothing more is admitted.
fn jobs(settings: impl FnOnce(JobsBuilder) -> JobsBuilder) -> (ResourceMonitor, Jobs) {
    let limits = ResourceLimits::builder().max_memory_mb(400).build().unwrap();
    let monitor = ResourceMonitor::builder(limits).memory_scope(MemoryScope::Tree).build().unwrap();
    let jobs = settings(monitor.jobs()).build().unwrap();
    monitor.start(ms(200)).unwrap();
    (monitor, jobs)
}

fn sh(script: &str) -> Job {
    let mut sh = Command::new("sh");
    sh.args(["-c", script]);
    Job::new(sh)
}

fn mb(mb: u64) -> Work {
    Work::new().memory_mb(mb)
}

rusty_fork_test! {
    #[test]
    fn a_permit_counts_as_a_job_before_and_after_its_start() {
        let (_monitor, jobs) = jobs(|jobs| jobs.width(1));
        let permit = jobs.admit("entry", Work::new(), LONG).unwrap();
        assert!(matches!(jobs.admit("entry", Work::new(), ms(50)), Err(HeldBack::Width(1))));
        let job = permit.start(sh("sleep 1000")).unwrap();
        wait_until("it is started", || job.pid().is_some());
        assert!(matches!(jobs.admit("other", Work::new(), Duration::ZERO), Err(HeldBack::Width(1))));
        assert_eq!((jobs.running(), jobs.waiting()), (1, 0));
        job.cancel();
        assert!(matches!(job.wait(), Outcome::Cancelled));
        assert!(jobs.admit("entry", Work::new(), LONG).unwrap().start(sh("true")).unwrap().wait().is_success());
    }

    #[test]
    fn a_permit_reserves_what_was_declared_until_it_is_dropped() {
        let (monitor, jobs) = jobs(|jobs| jobs.width(usize::MAX));
        let permit = jobs.admit("entry", mb(200), LONG).unwrap();
        let refused = monitor.try_admit(mb(300)).unwrap_err();
        assert!(!refused.could_never_fit());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| jobs.admit("large", mb(300), LONG).map(drop));
            wait_until("it waits", || jobs.waiting() == 1);
            drop(permit);
            waiting.join().unwrap().unwrap();
        });
        wait_until("all is given back", || monitor.try_admit(mb(300)).is_ok());
        assert!(monitor.holders().iter().all(|holder| holder.label.is_none()));
    }

    #[test]
    fn a_kind_that_is_not_known_is_given_one_permit_until_it_is() {
        let (_monitor, jobs) = jobs(|jobs| jobs.width(usize::MAX));
        let first = jobs.admit("entry", Work::new(), LONG).unwrap();
        let held_back = jobs.admit("entry", Work::new(), ms(50)).map(drop);
        assert!(matches!(&held_back, Err(HeldBack::Learning(kind)) if kind == "entry"), "{held_back:?}");
        drop(jobs.admit("other", Work::new(), LONG).unwrap());
        assert!(first.start(sh("true")).unwrap().wait().is_success());
        let (_second, _third) = (jobs.admit("entry", Work::new(), LONG).unwrap(), jobs.admit("entry", Work::new(), LONG).unwrap());
    }

    #[test]
    fn the_job_is_of_the_kind_and_cost_that_were_asked_for() {
        let (_monitor, jobs) = jobs(|jobs| jobs);
        let permit = jobs.admit("entry", mb(30), LONG).unwrap();
        let job = permit.start(sh("exit 3").kind("mine").work(mb(10_000))).unwrap();
        assert!(matches!(job.wait(), Outcome::Ended(status) if status.code() == Some(3)));
        assert!(jobs.costs().to_string().contains("entry"), "{}", jobs.costs());
    }

    #[test]
    fn what_could_never_fit_is_refused_at_once() {
        let (_monitor, jobs) = jobs(|jobs| jobs);
        let asked = Instant::now();
        match jobs.admit("entry", mb(10_000), LONG) {
            Err(HeldBack::Verdict(verdict)) => assert!(verdict.could_never_fit(), "{verdict}"),
            other => panic!("{other:?}"),
        }
        assert!(asked.elapsed() < LONG / 2);
    }

    #[test]
    fn a_permit_that_outlives_its_jobs_starts_nothing() {
        let (monitor, jobs) = jobs(|jobs| jobs);
        let kept = jobs.admit("entry", mb(200), LONG).unwrap();
        let unused = jobs.admit("other", Work::new(), LONG).unwrap();
        jobs.cancel_all();
        drop(jobs);
        drop(unused);
        assert!(matches!(kept.start(sh("true")).unwrap().wait(), Outcome::Cancelled));
        wait_until("its room is given back", || monitor.try_admit(mb(300)).is_ok());
    }

    #[test]
    fn cancelling_all_ends_neither_a_permit_nor_who_waits_for_one() {
        let (_monitor, jobs) = jobs(|jobs| jobs.width(1));
        let permit = jobs.admit("entry", Work::new(), LONG).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| jobs.admit("other", Work::new(), LONG).map(drop));
            wait_until("it waits", || jobs.waiting() == 1);
            jobs.cancel_all();
            assert!(permit.start(sh("true")).unwrap().wait().is_success());
            waiting.join().unwrap().unwrap();
        });
    }
}
