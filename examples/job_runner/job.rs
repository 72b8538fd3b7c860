//! A job: waiting to be run, and running.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater::{Permit, ProcessGroupManager, SystemProbe, Work};
use nix::sys::signal::{killpg, Signal};
use nix::sys::wait::{waitid, Id, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;

use crate::sample::Sample;

/// How long a permit is held at most for a job that stays smaller than others have been seen to get.
const RAMP: Duration = Duration::from_secs(2);

/// How long a cancelled job may take to end before it is killed.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// What a job costs while it runs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) processes: u64,
    pub(crate) memory_bytes: u64,
}

impl Cost {
    /// What a job is taken to cost before any has been seen: its shell.
    pub(crate) const FIRST_GUESS: Cost = Cost { processes: 1, memory_bytes: 0 };

    /// The larger of both, resource by resource.
    pub(crate) fn max(self, other: Cost) -> Cost {
        Cost { processes: self.processes.max(other.processes), memory_bytes: self.memory_bytes.max(other.memory_bytes) }
    }

    /// Whether this is as much as `expected`. Jobs of one kind differ by a few pages, so nine tenths of the memory do.
    fn has_reached(self, expected: Cost) -> bool {
        self.processes >= expected.processes && self.memory_bytes >= expected.memory_bytes / 10 * 9
    }

    /// This cost, as the monitor is asked to admit it.
    pub(crate) fn work(self) -> Work {
        Work::new().processes(self.processes).memory_bytes(self.memory_bytes)
    }
}

/// A command that is to be run, or run again.
#[derive(Debug)]
pub(crate) struct Job {
    /// The number of its line of input, which is its name everywhere.
    pub(crate) id: String,
    pub(crate) command: OsString,
    /// The most that it has itself been seen to cost.
    pub(crate) cost: Cost,
}

impl Job {
    pub(crate) fn new(line: usize, command: OsString) -> Job {
        Job { id: line.to_string(), command, cost: Cost::FIRST_GUESS }
    }

    /// Runs it in a process group of its own, and has the manager take charge of what it starts elsewhere. The job
    /// comes back with the error when it could not be started.
    pub(crate) fn start(
        self,
        permit: Permit,
        processes: &Arc<ProcessGroupManager>,
    ) -> Result<RunningJob, (Job, io::Error)> {
        let serial = Serial::next();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(&self.command).stdin(Stdio::null()).process_group(0).env(Serial::MARK, serial.mark());
        match shell.spawn() {
            Ok(child) => {
                if let Err(error) = processes.track_backend_pid(child.id()) {
                    log::warn!("job {} is not watched for what it leaves behind: {error}", self.id);
                }
                Ok(RunningJob {
                    serial,
                    child,
                    adopted: Vec::new(),
                    processes: Arc::clone(processes),
                    started: Instant::now(),
                    permit: Some(permit),
                    state: State::Running,
                    leaving: None,
                    alive: true,
                    job: self,
                })
            }
            Err(error) => Err((self, error)),
        }
    }
}

/// A start of a job, the same job run again being another one. What a job starts carries it in its environment, so that
/// it is known whose it is, however fast it was orphaned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Serial(u64);

impl Serial {
    /// The name of the mark in the environment.
    pub(crate) const MARK: &'static str = "JOB_RUNNER_JOB";

    fn next() -> Serial {
        static STARTED: AtomicU64 = AtomicU64::new(1);
        Serial(STARTED.fetch_add(1, Ordering::Relaxed))
    }

    fn mark(self) -> String {
        format!("{}.{}", std::process::id(), self.0)
    }

    /// `None` for the mark of another runner.
    pub(crate) fn from_mark(mark: &str) -> Option<Serial> {
        let (runner, serial) = mark.split_once('.')?;
        let own = runner.parse() == Ok(std::process::id());
        serial.parse().ok().filter(|_| own).map(Serial)
    }
}

/// What a running job is made to do.
#[derive(Debug)]
enum State {
    Running,
    Paused,
    Cancelled { kill_at: Option<Instant>, why: Cancel },
}

/// Why a job was cancelled, and so what becomes of it.
#[derive(Debug, Clone)]
pub(crate) enum Cancel {
    /// To make room: it is run again.
    Shed,
    /// It was shed while it ran alone, so it cannot be run within the limits. Says what was too much.
    TooLarge(String),
    /// The runner was told to stop.
    Interrupted,
}

/// What became of a job that is no longer running.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done,
    Failed(String),
    Cancelled(Cancel),
}

/// A job with its processes.
#[derive(Debug)]
pub(crate) struct RunningJob {
    pub(crate) job: Job,
    serial: Serial,
    pub(crate) started: Instant,
    /// The shell, which leads the job's process group. Nobody else can be given the group's number until the shell is
    /// waited for: the group is signalled only while it has not been.
    child: Child,
    /// What it has started, and what was handed to this process when its parent was gone.
    adopted: Vec<u32>,
    processes: Arc<ProcessGroupManager>,
    permit: Option<Permit>,
    state: State,
    /// When to kill what the shell has left behind, once it has ended.
    leaving: Option<Instant>,
    /// Whether a process of the job was alive in the last sample.
    alive: bool,
}

impl RunningJob {
    pub(crate) fn is_paused(&self) -> bool {
        matches!(self.state, State::Paused)
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(self.state, State::Cancelled { .. })
    }

    /// Whether it was given up as too large, so that its cost says nothing about other jobs.
    pub(crate) fn is_too_large(&self) -> bool {
        matches!(self.state, State::Cancelled { why: Cancel::TooLarge(_), .. })
    }

    /// Whether its permit is still held, or its end is being waited for.
    pub(crate) fn is_changing(&self) -> bool {
        self.permit.is_some() || self.is_cancelled() || self.leaving.is_some()
    }

    /// Takes note of what it uses.
    pub(crate) fn observe(&mut self, sample: &Sample) {
        self.adopted.retain(|adopted| sample.children.iter().any(|child| child.pid == *adopted));
        for child in sample.children.iter().filter(|child| child.job == Some(self.serial)) {
            let is_new = child.alive && child.pid != self.child.id() && !self.adopted.contains(&child.pid);
            if is_new && self.processes.track_backend_pid(child.pid).is_ok() {
                self.adopted.push(child.pid);
            }
        }
        let usage = sample.of_job(self.child.id(), &self.elsewhere());
        self.job.cost = self.job.cost.max(usage.cost);
        self.alive = usage.alive;
    }

    pub(crate) fn is_started_as(&self, serial: Serial) -> bool {
        self.serial == serial
    }

    pub(crate) fn shell_id(&self) -> u32 {
        self.child.id()
    }

    /// What was seen of it besides its shell.
    fn elsewhere(&self) -> Vec<u32> {
        let below = |pid: &u32| self.processes.backend_pids(*pid).unwrap_or_default();
        let mut pids = below(&self.child.id());
        pids.extend(self.adopted.iter().flat_map(below));
        pids.extend(&self.adopted);
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Gives the permit back once a check sees what was reserved: all of `expected` is there, or will not come.
    pub(crate) fn release_permit(&mut self, expected: Cost) {
        if self.job.cost.has_reached(expected) || self.started.elapsed() >= RAMP {
            self.permit = None;
        }
    }

    pub(crate) fn pause(&mut self) -> io::Result<()> {
        if let State::Running = self.state {
            self.signal(Signal::SIGSTOP)?;
            self.state = State::Paused;
        }
        Ok(())
    }

    pub(crate) fn resume(&mut self) -> io::Result<()> {
        if let State::Paused = self.state {
            self.signal(Signal::SIGCONT)?;
            self.state = State::Running;
        }
        Ok(())
    }

    /// Asks it to end, and sees to it later that it does: this does not wait.
    pub(crate) fn cancel(&mut self, why: Cancel) -> io::Result<()> {
        self.signal(Signal::SIGTERM)?;
        if self.is_paused() {
            self.signal(Signal::SIGCONT)?; // a stopped process dies of nothing but SIGKILL
        }
        self.state = State::Cancelled { kill_at: Some(Instant::now() + GRACE), why };
        Ok(())
    }

    /// Kills what is left of it, if it was cancelled and its grace is over, or `now` if it shall have none.
    pub(crate) fn kill_if_due(&mut self, now: bool) -> io::Result<()> {
        if let State::Cancelled { kill_at, .. } = &mut self.state {
            if kill_at.is_some_and(|at| now || at <= Instant::now()) {
                *kill_at = None;
                self.signal(Signal::SIGKILL)?;
            }
        }
        Ok(())
    }

    /// Sends a signal to the whole job: to its process group at once, and to what was seen of it elsewhere. What is in
    /// both may get it twice; what is just being forked gets it once at least.
    fn signal(&self, signal: Signal) -> io::Result<()> {
        killpg(Pid::from_raw(self.child.id() as i32), signal)?;
        for pid in self.adopted.iter().chain([&self.child.id()]) {
            // Those that have ended are tracked no more.
            let _ = self.processes.signal_backend(*pid, signal as i32);
        }
        Ok(())
    }

    /// What became of it, or `None` while it runs, or something that it has left behind does. That is told to end when
    /// the shell has ended, and killed after a grace: run again beside what was left, a job would be there twice.
    pub(crate) fn try_end(&mut self, probe: &SystemProbe) -> io::Result<Option<Outcome>> {
        match self.leaving {
            None if !self.shell_has_ended()? => return Ok(None),
            None if self.has_left_something(probe) => {
                self.leaving = Some(Instant::now() + GRACE);
                self.alive = true; // until a sample says otherwise
                self.signal(Signal::SIGTERM)?;
                return Ok(None);
            }
            Some(kill_at) if self.alive && Instant::now() < kill_at => return Ok(None),
            Some(_) => self.signal(Signal::SIGKILL)?,
            None => {}
        }
        Ok(self.child.try_wait()?.map(|status| self.outcome(status)))
    }

    /// Looks at the shell without taking its status: its zombie holds the number of the group.
    fn shell_has_ended(&self) -> io::Result<bool> {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        Ok(waitid(Id::Pid(Pid::from_raw(self.child.id() as i32)), look)? != WaitStatus::StillAlive)
    }

    fn has_left_something(&self, probe: &SystemProbe) -> bool {
        let shell = self.child.id();
        // What cannot be counted may be there.
        let in_group = probe.count_group_members(shell, shell).unwrap_or(1);
        let seen = self.processes.look().map_or(true, |()| !self.elsewhere().is_empty());
        in_group > 0 || seen
    }

    fn outcome(&self, status: ExitStatus) -> Outcome {
        match &self.state {
            // A job that finished before the signal reached it is done, and must not be run again.
            _ if status.success() => Outcome::Done,
            State::Cancelled { why, .. } => Outcome::Cancelled(why.clone()),
            State::Running | State::Paused => Outcome::Failed(status.to_string()),
        }
    }
}
