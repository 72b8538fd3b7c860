//! Jobs that somebody else has a hand in, who need not know of the library: a tracer. A host traces and forks as a whole
//! process, so each test has one of its own.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{wait_until, Forked};
use highwater::{Job, JobEvent, JobHandle, JobStep, Jobs, MemoryScope, Outcome, ResourceLimits, ResourceMonitor};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::{mkfifo, Pid};
use rusty_fork::rusty_fork_test;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(120);

/// Jobs of any width, in a folder of their own.
struct Host {
    jobs: Jobs,
    _monitor: ResourceMonitor,
    folder: TempDir,
}

impl Host {
    fn new() -> Host {
        let limits = ResourceLimits::builder().max_processes(1000).build().unwrap();
        let monitor = ResourceMonitor::builder(limits).memory_scope(MemoryScope::Tree).build().unwrap();
        let jobs = monitor.jobs().width(usize::MAX).grace(Duration::from_millis(200)).build().unwrap();
        monitor.start(Duration::from_millis(200)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        mkfifo(&folder.path().join("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        Host { jobs, _monitor: monitor, folder }
    }

    fn job(&self, kind: &str, script: &str) -> JobHandle {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(&self.folder);
        self.jobs.spawn(Job::new(command).kind(kind)).unwrap()
    }

    /// A job that does nothing, and waits for nothing but the gate. Then it ends with 7.
    fn waiting_job(&self) -> (JobHandle, Pid) {
        let job = self.job("waits", ": > there; read line < gate; exit 7");
        wait_until("it is there", || self.path("there").exists());
        let pid = Pid::from_raw(job.pid().unwrap() as i32);
        (job, pid)
    }

    fn open_gate(&self) {
        fs::write(self.path("gate"), "\n").unwrap();
    }

    /// Returns once everything has been looked at that a job is ended for: one has been, for something that is found only
    /// where all that is below each job is read.
    fn wait_until_all_was_looked_at(&self) {
        let script = "timeout 1000 sh -c 'kill -TTIN $$; exec sleep 1000'; exit 1";
        let outcome = self.job("stopped below", script).wait_timeout(LONG);
        assert!(matches!(outcome, Some(Outcome::WantsTerminal)), "{outcome:?}");
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }
}

fn state_of(pid: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn ends(events: impl Iterator<Item = JobEvent>, job: &JobHandle) -> usize {
    events.filter(|event| event.id == job.id() && matches!(event.what, JobStep::Ended { .. })).count()
}

/// Stops a process as a tracer can: by a signal that would stop it to the tracer's wish, and by nothing but that wish. Calls
/// `stopped` each time, before the tracer has taken the news, which shows the stop to nobody else. It goes on as if nothing
/// had been.
fn stop_by_tracing(pid: Pid, mut stopped: impl FnMut(&str)) {
    let mut stop = |how| {
        wait_until("it is stopped", || state_of(pid) == Some('t'));
        stopped(how);
        let news = waitpid(pid, None).unwrap();
        ptrace::cont(pid, None).unwrap();
        news
    };
    kill(pid, Signal::SIGTTIN).unwrap();
    assert_eq!(stop("by a signal"), WaitStatus::Stopped(pid, Signal::SIGTTIN));
    ptrace::interrupt(pid).unwrap();
    assert!(matches!(stop("by the tracer"), WaitStatus::PtraceEvent(..)));
}

fn touch(path: &Path) {
    fs::write(path, "").unwrap();
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn stops_of_a_traced_job_are_no_ends_of_it_and_its_end_is_told_once() {
        let host = Host::new();
        let events = host.jobs.events();
        let (job, pid) = host.waiting_job();
        let tracer = Forked::run(|| {
            ptrace::seize(pid, Options::empty()).unwrap();
            stop_by_tracing(pid, |how| {
                touch(&host.path(how));
                wait_until("that was seen", || host.path(&format!("{how}, seen")).exists());
            });
            touch(&host.path("goes on"));
            wait_until("the tracer shall hear of the end", || host.path("end").exists());
            assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 7));
            Ok(())
        });
        for how in ["by a signal", "by the tracer"] {
            wait_until(how, || host.path(how).exists());
            assert_eq!(state_of(pid), Some('t'), "{how}");
            host.wait_until_all_was_looked_at();
            assert!(job.wait_timeout(Duration::ZERO).is_none(), "{how}");
            touch(&host.path(&format!("{how}, seen")));
        }
        wait_until("it goes on", || host.path("goes on").exists());
        host.open_gate();
        // Until its tracer has heard of the end, nobody else does.
        wait_until("it has ended", || state_of(pid) == Some('Z'));
        host.wait_until_all_was_looked_at();
        assert!(job.wait_timeout(Duration::ZERO).is_none());
        touch(&host.path("end"));
        let outcome = job.wait_timeout(LONG).unwrap();
        assert!(matches!(outcome, Outcome::Ended(status) if status.code() == Some(7)), "{outcome:?}");
        drop((tracer, host));
        assert_eq!(ends(events.iter(), &job), 1);
    }

    #[test]
    fn a_host_may_trace_its_jobs_itself() {
        let host = Host::new();
        let events = host.jobs.events();
        let (job, pid) = host.waiting_job();
        ptrace::seize(pid, Options::empty()).unwrap();
        stop_by_tracing(pid, |how| {
            host.wait_until_all_was_looked_at();
            assert!(job.wait_timeout(Duration::ZERO).is_none(), "{how}");
        });
        ptrace::interrupt(pid).unwrap();
        assert!(matches!(waitpid(pid, None).unwrap(), WaitStatus::PtraceEvent(..)));
        ptrace::detach(pid, None).unwrap();
        host.open_gate();
        let outcome = job.wait_timeout(LONG).unwrap();
        assert!(matches!(outcome, Outcome::Ended(status) if status.code() == Some(7)), "{outcome:?}");
        drop(host);
        assert_eq!(ends(events.iter(), &job), 1);
    }

    #[test]
    fn a_job_that_its_tracer_keeps_stopped_is_killed_when_its_grace_is_over() {
        let host = Host::new();
        let events = host.jobs.events();
        let (job, pid) = host.waiting_job();
        let tracer = Forked::run(|| {
            ptrace::seize(pid, Options::empty()).unwrap();
            ptrace::interrupt(pid).unwrap();
            assert!(matches!(waitpid(pid, None).unwrap(), WaitStatus::PtraceEvent(..)));
            touch(&host.path("stopped"));
            assert!(matches!(waitpid(pid, None).unwrap(), WaitStatus::Signaled(_, Signal::SIGKILL, _)));
            Ok(())
        });
        wait_until("it is stopped", || host.path("stopped").exists());
        job.cancel();
        let outcome = job.wait_timeout(LONG);
        assert!(matches!(outcome, Some(Outcome::Cancelled)), "{outcome:?}");
        drop((tracer, host));
        assert_eq!(ends(events.iter(), &job), 1);
    }
}
