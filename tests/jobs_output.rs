//! What jobs write, read and handed to the host.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{self, Read};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::{in_forked_child, wait_until};
use crossbeam_channel::bounded;
use highwater::{
    Grouping, HeldBack, Job, JobOutput, JobStep, Jobs, Limiter, MemoryScope, Origin, Outcome, ResourceLimits,
    ResourceMonitor, Stream,
};

const LONG: Duration = Duration::from_secs(120);

/// Jobs, one at a time: those of another are descendants of this process as well.
struct Host {
    jobs: Jobs,
    output: JobOutput,
    _monitor: ResourceMonitor,
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Host {
    fn new(grouping: Grouping, print: impl FnMut(Origin, &mut dyn Read) -> io::Result<()> + Send + 'static) -> Host {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = ResourceLimits::builder().max_processes(100).build().unwrap();
        let monitor = ResourceMonitor::builder(limits).memory_scope(MemoryScope::Tree).build().unwrap();
        let output = JobOutput::new(grouping, print).unwrap();
        let jobs = monitor.jobs().width(8).output(&output).build().unwrap();
        monitor.start(Duration::from_millis(200)).unwrap();
        Host { jobs, output, _monitor: monitor, _alone: alone }
    }

    fn run(&self, job: Job) -> Outcome {
        self.jobs.submit(job).unwrap().wait_timeout(LONG).unwrap()
    }
}

fn sh(script: &str) -> Job {
    let mut sh = Command::new("sh");
    sh.args(["-c", script]);
    Job::new(sh)
}

/// Each text that was handed over, and who has written it.
#[derive(Clone, Default)]
struct Texts(Arc<Mutex<Vec<Text>>>);

type Text = (Option<u64>, Stream, String);

impl Texts {
    fn print(&self) -> impl FnMut(Origin, &mut dyn Read) -> io::Result<()> + Send + 'static {
        let texts = self.clone();
        move |origin, text| {
            let mut bytes = Vec::new();
            text.read_to_end(&mut bytes)?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            texts.0.lock().unwrap().push((origin.job, origin.stream, text));
            Ok(())
        }
    }

    /// All that was handed over of a stream, in its order, by whoever has written it.
    fn of(&self, job: Option<u64>, stream: Stream) -> Vec<String> {
        let texts = self.0.lock().unwrap();
        let of_stream = texts.iter().filter(|(by, to, _)| (*by, *to) == (job, stream));
        of_stream.map(|(_, _, text)| text.clone()).collect()
    }
}

#[test]
fn each_text_has_its_job_and_stream_and_comes_before_what_is_said_of_the_end() {
    for grouping in [Grouping::Whole, Grouping::Lines] {
        let texts = Texts::default();
        let host = Host::new(grouping, texts.print());
        let events = host.jobs.events();
        let parts = "printf 'a '; sleep 0.1; echo line; sleep 0.1; printf unended; echo error >&2";
        let (first, second) = (host.jobs.submit(sh(parts)).unwrap(), host.jobs.submit(sh(parts)).unwrap());
        let mut ended = 0;
        while ended < 2 {
            let event = events.recv_timeout(LONG).unwrap();
            if matches!(event.what, JobStep::Ended { .. }) {
                host.output.say(Stream::Stdout, format!("{} {}\n", event.id, event.what));
                ended += 1;
            }
        }
        assert!(host.output.wait(LONG));
        for id in [first.id(), second.id()] {
            let lines: &[&str] = match grouping {
                Grouping::Whole => &["a line\nunended\n"],
                Grouping::Lines => &["a line\n", "unended\n"],
            };
            assert_eq!(texts.of(Some(id), Stream::Stdout), lines, "{grouping:?}");
            assert_eq!(texts.of(Some(id), Stream::Stderr), ["error\n"], "{grouping:?}");
            let order = texts.0.lock().unwrap();
            let said = order.iter().position(|(by, _, text)| by.is_none() && *text == format!("{id} is done\n"));
            let written = order.iter().rposition(|(by, ..)| *by == Some(id));
            assert!(said > written && written.is_some(), "{order:?}");
        }
        assert!(!host.output.is_lost());
    }
}

#[test]
fn every_try_is_handed_over_and_much_of_it_comes_whole() {
    let texts = Texts::default();
    let host = Host::new(Grouping::Whole, texts.print());
    let job = host.jobs.submit(sh("seq 100000; exit 3").retries(1)).unwrap();
    assert_eq!(job.wait_timeout(LONG).unwrap().status().unwrap().code(), Some(3));
    assert!(host.output.wait(LONG));
    let tries = texts.of(Some(job.id()), Stream::Stdout);
    assert_eq!(tries.len(), 2);
    for text in tries {
        assert_eq!((text.lines().count(), text.lines().last()), (100_000, Some("100000")));
    }
    // Nothing is handed over of a stream to which nothing was written.
    assert!(texts.of(Some(job.id()), Stream::Stderr).is_empty());
}

#[test]
fn a_hundred_megabytes_are_handed_over_to_the_byte() {
    for grouping in [Grouping::Whole, Grouping::Lines] {
        let handed_over = Arc::new(Mutex::new(0));
        let sum = Arc::clone(&handed_over);
        let host = Host::new(grouping, move |_, text| {
            *sum.lock().unwrap() += io::copy(text, &mut io::sink())?;
            Ok(())
        });
        // Lines of 1 KB.
        let line = "x".repeat(1023);
        assert!(host.run(sh(&format!("yes {line} | head -n 102400"))).is_success());
        assert!(host.output.wait(LONG));
        assert_eq!(*handed_over.lock().unwrap(), 100 << 20, "{grouping:?}");
    }
}

#[test]
fn while_a_text_is_long_in_printing_no_job_is_started_and_those_that_run_end() {
    let (open, gate) = bounded::<()>(0);
    let host = Host::new(Grouping::Lines, move |_, text| {
        // Until it is opened, and not any more.
        let _ = gate.recv();
        io::copy(text, &mut io::sink()).map(drop)
    });
    let quiet = host.jobs.spawn(sh("sleep 0.5")).unwrap();
    host.output.say(Stream::Stdout, "a line that nobody reads\n");
    wait_until("it is behind", || host.output.is_behind());
    assert!(!host.output.wait(Duration::from_millis(10)));
    let next = host.jobs.submit(sh("echo")).unwrap();
    assert!(quiet.wait_timeout(LONG).unwrap().is_success());
    wait_until("it says so", || matches!(host.jobs.held_back(), Some(HeldBack::Output)));
    assert_eq!(next.tries(), 0);
    drop(open);
    assert!(next.wait_timeout(LONG).unwrap().is_success());
    assert!(host.output.wait(LONG) && !host.output.is_behind());
    assert!(host.jobs.limiters().of(Limiter::Output) > Duration::ZERO);
}

#[test]
fn a_printer_that_fails_or_panics_has_lost_something_and_no_more() {
    let texts = Texts::default();
    let (mut print, mut calls) = (texts.print(), 0);
    let host = Host::new(Grouping::Lines, move |origin, text| {
        calls += 1;
        match calls {
            1 => Err(io::Error::from_raw_os_error(nix::libc::ENOSPC)),
            2 => panic!("from the printer"),
            _ => print(origin, text),
        }
    });
    for _ in 0..3 {
        assert!(host.run(sh("echo line")).is_success());
    }
    assert!(host.output.wait(LONG) && host.output.is_lost());
    assert_eq!(texts.of(Some(3), Stream::Stdout), ["line\n"]);
    assert_eq!(texts.0.lock().unwrap().len(), 1);
}

#[test]
fn a_job_that_cannot_be_started_leaves_nothing_open() {
    let host = Host::new(Grouping::Lines, |_, _| Ok(()));
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let started = |name: &str| host.run(Job::new(Command::new(name)));
    // What is opened once.
    assert!(matches!(started("/nowhere"), Outcome::NotStarted(_)) && started("true").is_success());
    assert!(host.output.wait(LONG));
    let before = open();
    for _ in 0..20 {
        assert!(matches!(started("/nowhere"), Outcome::NotStarted(_)) && started("true").is_success());
    }
    assert!(host.output.wait(LONG));
    wait_until("nothing more is open", || open() <= before);
}

#[test]
fn a_forked_child_waits_for_nothing_that_only_its_parent_can_print() {
    let texts = Texts::default();
    let host = Host::new(Grouping::Lines, texts.print());
    in_forked_child(|| {
        host.output.say(Stream::Stdout, "from the child\n");
        let is_over = host.output.wait(LONG) && !host.output.is_behind();
        if is_over {
            Ok(())
        } else {
            Err("it waited".into())
        }
    });
    assert!(host.output.wait(LONG));
    assert!(texts.of(None, Stream::Stdout).is_empty());
}
