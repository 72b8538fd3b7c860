//! Jobs that somebody else has a hand in, who knows nothing of the library: a tracer, somebody who continues what was paused,
//! and a program that nobody may signal. A process traces, forks and changes its user as a whole, so each test has one of its
//! own.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{wait_until, Forked, LogCapture};
use highwater::{
    Job, JobEvent, JobHandle, JobStep, Jobs, MemoryScope, Outcome, ResourceLimits, ResourceLimitsBuilder,
    ResourceMonitor,
};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{kill, Signal};
use nix::sys::statvfs::{statvfs, FsFlags};
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::{geteuid, mkfifo, seteuid, setresuid, Pid, Uid};
use rusty_fork::rusty_fork_test;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(120);

/// Jobs of any width, in a folder of their own.
struct Host {
    jobs: Jobs,
    monitor: ResourceMonitor,
    folder: TempDir,
}

impl Host {
    fn new() -> Host {
        Host::within(ResourceLimits::builder().max_processes(1000), Duration::from_millis(200))
    }

    fn within(limits: ResourceLimitsBuilder, interval: Duration) -> Host {
        let limits = limits.build().unwrap();
        let monitor = ResourceMonitor::builder(limits).memory_scope(MemoryScope::Tree).build().unwrap();
        let jobs = monitor.jobs().width(usize::MAX).grace(Duration::from_millis(200)).build().unwrap();
        monitor.start(interval).unwrap();
        let folder = tempfile::tempdir().unwrap();
        mkfifo(&folder.path().join("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        Host { jobs, monitor, folder }
    }

    fn spawn(&self, job: Job) -> JobHandle {
        self.jobs.spawn(job).unwrap()
    }

    /// A job of the shell.
    fn job(&self, kind: &str, script: &str) -> JobHandle {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(&self.folder);
        self.spawn(Job::new(command).kind(kind))
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

/// A program with the rights of the first user, which becomes him wholly: the rest of us may not signal it. This process
/// is another user from now on.
struct SetUserId(TempDir);

impl SetUserId {
    fn new() -> Option<SetUserId> {
        if !geteuid().is_root() {
            println!("skipped: only the first user makes a program with his rights");
            return None;
        }
        let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        if statvfs(folder.path()).unwrap().flags().contains(FsFlags::ST_NOSUID) {
            println!("skipped: a program here has the rights of whoever starts it");
            return None;
        }
        let program = folder.path().join("setpriv");
        let found = Command::new("sh").args(["-c", "command -v setpriv"]).output().unwrap().stdout;
        fs::copy(String::from_utf8(found).unwrap().trim(), &program).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o4755)).unwrap();
        let user = Uid::from_raw(100_000);
        setresuid(user, user, Uid::from_raw(0)).unwrap();
        // Or nobody but the first user might look at this process any more.
        nix::sys::prctl::set_dumpable(true).unwrap();
        Some(SetUserId(folder))
    }

    fn command(&self) -> String {
        let program = self.0.path().join("setpriv");
        // In another session it has a child without any rights.
        let child = "setsid setpriv --reuid=100000 --clear-groups sleep 1000 & echo $! > child";
        let script = format!("{child}; echo $$ > privileged; exec sleep 1000");
        format!("{} --reuid=0 --regid=0 --clear-groups sh -c '{script}'", program.display())
    }

    fn job(&self, host: &Host) -> Job {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec {}", self.command())]).current_dir(&host.folder);
        Job::new(command).kind("privileged")
    }

    /// The process and its child, once they are what they are to be.
    fn started(&self, host: &Host) -> (Pid, Pid) {
        let [privileged, child] = ["privileged", "child"].map(|file| {
            let text = || fs::read_to_string(host.path(file)).unwrap_or_default();
            wait_until("it is there", || text().ends_with('\n') && comm(text().trim()) == "sleep\n");
            Pid::from_raw(text().trim().parse().unwrap())
        });
        (privileged, child)
    }

    fn kill(&self, pid: Pid) {
        seteuid(Uid::from_raw(0)).unwrap();
        kill(pid, Signal::SIGKILL).unwrap();
        seteuid(Uid::from_raw(100_000)).unwrap();
    }
}

impl Drop for SetUserId {
    fn drop(&mut self) {
        seteuid(Uid::from_raw(0)).unwrap();
        // Its folder is the first user's.
        let _ = fs::remove_dir_all(self.0.path());
    }
}

fn comm(pid: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
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
    fn jobs_are_dropped_although_a_tracer_has_not_heard_of_an_end() {
        let log = LogCapture::install();
        let host = Host::new();
        let (job, pid) = host.waiting_job();
        let tracer = Forked::run(|| {
            ptrace::seize(pid, Options::empty()).unwrap();
            touch(&host.path("traced"));
            Ok(())
        });
        wait_until("it is traced", || host.path("traced").exists());
        job.cancel();
        let said = || log.named("jobs.signal_failed").iter().any(|event| event.keys["error"].contains("has not ended"));
        wait_until("that it does not end is said", said);
        assert!(state_of(pid) == Some('Z') && job.wait_timeout(Duration::ZERO).is_none());
        drop(host);
        let outcome = job.wait();
        assert!(matches!(outcome, Outcome::Lost(_)), "{outcome:?}");
        drop(tracer);
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

    #[test]
    fn a_paused_job_that_somebody_continues_goes_on_whole_and_counts_as_running() {
        // What is done about pressure is done once in an interval.
        let host = Host::within(ResourceLimits::builder().max_memory_mb(150), LONG * 10);
        let pid_in = |file: &str| {
            let text = || fs::read_to_string(host.path(file)).unwrap_or_default();
            wait_until(file, || text().ends_with('\n'));
            Pid::from_raw(text().trim().parse().unwrap())
        };
        // Known to be small, so nobody watches how they grow.
        assert!(host.job("sh", "exit 0").wait_timeout(LONG).unwrap().is_success());
        let below = "sh -c 'echo $$ > below; read line < gate'";
        let oldest = host.job("sh", &format!("setsid {below} & echo $$ > first; read line < gate"));
        let processes = [pid_in("first"), pid_in("below")];
        let are_stopped = || processes.map(|pid| state_of(pid) == Some('T'));
        let large = host.job("sh", "x=$(head -c 160M /dev/zero | tr '\\0' x); : > grown; read line < gate");
        // No check has seen it grow, or it would have been held.
        wait_until("it has grown", || host.path("grown").exists());
        host.monitor.check_now();
        wait_until("the oldest is paused", || are_stopped() == [true, true]);
        // The first process alone, as by somebody who knows no other.
        kill(processes[0], Signal::SIGCONT).unwrap();
        wait_until("all of it goes on", || are_stopped() == [false, false]);
        // The other one may be held now, or be let go, as nothing else may run.
        let is_other_paused = || large.pid().and_then(|pid| state_of(Pid::from_raw(pid as i32))) == Some('T');
        wait_until("it counts as running", || host.jobs.paused() == usize::from(is_other_paused()));
        assert!(oldest.wait_timeout(Duration::ZERO).is_none());
    }

    #[test]
    fn a_job_that_may_not_be_signalled_is_lost_5_s_after_its_grace_and_the_log_says_so() {
        let Some(program) = SetUserId::new() else { return };
        let log = LogCapture::install();
        let host = Host::new();
        let events = host.jobs.events();
        let job = host.spawn(program.job(&host));
        let (pid, child) = program.started(&host);
        assert_eq!(job.pid(), Some(pid.as_raw() as u32));
        job.cancel();
        let outcome = job.wait_timeout(LONG);
        assert!(matches!(&outcome, Some(Outcome::Lost(_))), "{outcome:?}");
        assert_eq!(outcome.unwrap().to_string(), "it may not be signalled, and goes on");
        let said = log.named("jobs.signal_failed");
        assert!(said.iter().any(|event| event.keys["error"].contains("may not be signalled")), "{said:?}");
        assert!(state_of(pid) == Some('S') && host.jobs.running() == 0);
        // What may be signalled was.
        assert!(matches!(state_of(child), None | Some('Z')));
        assert!(host.job("other", "exit 0").wait_timeout(LONG).unwrap().is_success());
        // It is a child still, and waited for one day.
        program.kill(pid);
        wait_until("its status was taken", || state_of(pid).is_none());
        drop(host);
        assert_eq!(ends(events.iter(), &job), 1);
    }

    #[test]
    fn what_a_job_leaves_behind_and_may_not_be_signalled_holds_back_no_end_for_ever() {
        let Some(program) = SetUserId::new() else { return };
        let log = LogCapture::install();
        let host = Host::new();
        let job = host.job("leaves", &format!("{} & wait", program.command()));
        let (pid, _) = program.started(&host);
        job.cancel();
        let outcome = job.wait_timeout(LONG);
        assert!(matches!(outcome, Some(Outcome::Cancelled)), "{outcome:?}");
        let said = log.named("jobs.signal_failed");
        assert!(said.iter().any(|event| event.keys["error"].contains("left behind")), "{said:?}");
        assert_eq!(state_of(pid), Some('S'));
        let second = host.spawn(program.job(&host));
        wait_until("another one is there", || program.started(&host).0 != pid);
        let (second_pid, _) = program.started(&host);
        drop(host);
        assert!(matches!(second.wait(), Outcome::Lost(_)));
        [pid, second_pid].into_iter().for_each(|pid| program.kill(pid));
    }
}
