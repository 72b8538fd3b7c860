//! A job: waiting to be run, and running.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use highwater::{Permit, Work};
use nix::sys::signal::Signal;

use crate::group::{Group, Sample};

/// How long a permit is held at most for a job that stays smaller than others have been seen to get.
const RAMP: Duration = Duration::from_secs(2);

/// How long a cancelled job may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(2);

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

    /// Runs it in a process group of its own. The job comes back with the error when it could not be started.
    pub(crate) fn start(self, permit: Permit) -> Result<RunningJob, (Job, io::Error)> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(&self.command).stdin(Stdio::null()).process_group(0);
        match shell.spawn() {
            Ok(child) => Ok(RunningJob {
                group: Group::led_by(child.id()),
                child,
                started: Instant::now(),
                permit: Some(permit),
                state: State::Running,
                alive: true,
                job: self,
            }),
            Err(error) => Err((self, error)),
        }
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
    pub(crate) started: Instant,
    child: Child,
    group: Group,
    permit: Option<Permit>,
    state: State,
    /// Whether a process of its group was alive in the last sample.
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
        self.permit.is_some() || self.is_cancelled()
    }

    /// Takes note of what it uses.
    pub(crate) fn observe(&mut self, sample: &Sample) {
        let usage = self.group.usage(sample);
        self.job.cost = self.job.cost.max(usage.cost);
        self.alive = usage.alive;
    }

    /// Gives the permit back once a check sees what was reserved: all of `expected` is there, or will not come.
    pub(crate) fn release_permit(&mut self, expected: Cost) {
        if self.job.cost.has_reached(expected) || self.started.elapsed() >= RAMP {
            self.permit = None;
        }
    }

    pub(crate) fn pause(&mut self) -> io::Result<()> {
        if let State::Running = self.state {
            self.group.signal(Signal::SIGSTOP)?;
            self.state = State::Paused;
        }
        Ok(())
    }

    pub(crate) fn resume(&mut self) -> io::Result<()> {
        if let State::Paused = self.state {
            self.group.signal(Signal::SIGCONT)?;
            self.state = State::Running;
        }
        Ok(())
    }

    /// Asks it to end, and sees to it later that it does: this does not wait.
    pub(crate) fn cancel(&mut self, why: Cancel) -> io::Result<()> {
        self.group.signal(Signal::SIGTERM)?;
        if self.is_paused() {
            self.group.signal(Signal::SIGCONT)?; // a stopped process dies of nothing but SIGKILL
        }
        self.state = State::Cancelled { kill_at: Some(Instant::now() + GRACE), why };
        Ok(())
    }

    /// Kills what is left of it, if it was cancelled and its grace is over, or `now` if it shall have none.
    pub(crate) fn kill_if_due(&mut self, now: bool) -> io::Result<()> {
        if let State::Cancelled { kill_at, .. } = &mut self.state {
            if kill_at.is_some_and(|at| now || at <= Instant::now()) {
                *kill_at = None;
                self.group.signal(Signal::SIGKILL)?;
            }
        }
        Ok(())
    }

    /// What became of it, or `None` while it runs.
    ///
    /// A cancelled job has ended when its whole group has: run again beside what was left, it would be there twice.
    pub(crate) fn try_end(&mut self) -> io::Result<Option<Outcome>> {
        if matches!(self.state, State::Cancelled { kill_at: Some(_), .. }) && self.alive {
            return Ok(None);
        }
        Ok(self.child.try_wait()?.map(|status| self.outcome(status)))
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
