//! A job: waiting to be run, and running.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater::{Error, Permit, ProcessGroupManager, Work, WorkUsage};
use nix::errno::Errno;
use nix::sys::signal::{killpg, Signal};
use nix::sys::wait::{waitid, Id, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;

use crate::orphans::{self, Orphan};
use crate::output::{Output, Outputs};
use crate::tree;

/// The age from which on the process group manager has charge of a job, which costs a look each, and its output is read. What
/// a younger one leaves behind is known by its mark, and a pipe holds what it writes.
const LONG_LIVED: Duration = Duration::from_millis(50);

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

    /// Both together.
    pub(crate) fn and(self, other: Cost) -> Cost {
        Cost { processes: self.processes + other.processes, memory_bytes: self.memory_bytes + other.memory_bytes }
    }

    /// The most that checks have measured.
    fn peak(usage: WorkUsage) -> Cost {
        Cost { processes: usage.peak_processes, memory_bytes: usage.peak_memory_bytes }
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
    /// The most tasks that it has been seen to have.
    tasks: u64,
}

impl Job {
    pub(crate) fn new(line: usize, command: OsString) -> Job {
        Job { id: line.to_string(), command, cost: Cost::FIRST_GUESS, tasks: 0 }
    }

    /// The tasks that it is taken to need: a process is one at least.
    pub(crate) fn tasks(&self) -> u64 {
        self.tasks.max(self.cost.processes)
    }

    /// Runs it in a process group of its own. The permit goes with the processes that it is for. The job comes back with the error
    /// when it could not be started.
    pub(crate) fn start(
        self,
        permit: Permit,
        processes: &Arc<ProcessGroupManager>,
        outputs: &Arc<Outputs>,
    ) -> Result<RunningJob, (Job, io::Error)> {
        let serial = Serial::next();
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", "--"])
            .arg(&self.command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .env(Serial::MARK, serial.mark());
        let mut child = match shell.spawn() {
            Ok(child) => child,
            Err(error) => {
                permit.finish();
                return Err((self, error));
            }
        };
        let output = match outputs.of(&mut child) {
            Ok(output) => Some(output),
            Err(error) => {
                log::error!("what job {} writes is lost: {error}", self.id);
                None
            }
        };
        Ok(RunningJob {
            job: self,
            serial,
            started: Instant::now(),
            child,
            output,
            wants_terminal: false,
            shell_end: None,
            orphans: Vec::new(),
            processes: Arc::clone(processes),
            tasks: 0,
            is_tracked: false,
            permit,
            state: State::Running,
            leaving: None,
        })
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
    /// It reads the terminal by its name, or changes how that is set, and would be stopped for ever.
    WantsTerminal,
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
    output: Option<Output>,
    wants_terminal: bool,
    /// Set once the shell has ended. The error says that its status is lost.
    shell_end: Option<Result<(), Errno>>,
    /// Those of its processes that were handed over to this one, as of the last list of them.
    orphans: Vec<u32>,
    /// The tasks that it had when they were last counted.
    tasks: u64,
    processes: Arc<ProcessGroupManager>,
    /// Whether the manager has been told of it.
    is_tracked: bool,
    permit: Permit,
    state: State,
    /// When to kill what the shell has left behind, once it has ended.
    leaving: Option<Instant>,
}

impl RunningJob {
    /// Attaches the permit: what the processes have grown to is not reserved any more, what they may still grow to is, as
    /// long as they live.
    pub(crate) fn attach(&self) -> Result<(), Error> {
        self.permit.attach(self.child.id())
    }

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

    pub(crate) fn shell_id(&self) -> u32 {
        self.child.id()
    }

    /// Takes note of what checks have measured of it.
    pub(crate) fn note_cost(&mut self) {
        if let Some(usage) = self.permit.usage() {
            self.job.cost = self.job.cost.max(Cost::peak(usage));
        }
    }

    /// Takes note of what it costs together with its orphans, which no check measures as part of it. None takes them off
    /// what is reserved for it either, so jobs that have orphans count as larger than they are.
    pub(crate) fn note_orphans(&mut self) {
        if self.orphans.is_empty() {
            return;
        }
        self.look_at_shell();
        // What was below the shell at its end has been measured there.
        if self.shell_end.is_none() {
            let WorkUsage { processes, memory_bytes, .. } = self.permit.usage().unwrap_or_default();
            let orphans = self.orphans.iter().map(|pid| orphans::cost(*pid));
            self.job.cost = self.job.cost.max(orphans.fold(Cost { processes, memory_bytes }, Cost::and));
        }
    }

    /// Counts its tasks.
    pub(crate) fn note_tasks(&mut self) {
        let roots = self.orphans.iter().chain([&self.child.id()]).copied().collect::<Vec<_>>();
        self.tasks = roots.into_iter().flat_map(tree::below).map(|process| tree::threads(&process)).sum();
        self.job.tasks = self.job.tasks.max(self.tasks);
    }

    /// The tasks that it has not been seen to have yet, but is taken to need.
    pub(crate) fn tasks_to_come(&self, of_largest: u64) -> u64 {
        self.job.tasks().max(of_largest).saturating_sub(self.tasks)
    }

    /// Whether it is old enough for the manager to have charge of it, and it does not.
    pub(crate) fn is_to_be_tracked(&self) -> bool {
        !self.is_tracked && self.shell_end.is_none() && self.started.elapsed() >= LONG_LIVED
    }

    /// Puts the manager in charge of the shell and of all that is below it, in whatever group and session.
    pub(crate) fn track(&mut self) {
        if !self.is_tracked {
            // One that cannot be has ended, or could not be the next time either.
            self.is_tracked = true;
            if let Err(error) = self.processes.track_backend_pid(self.child.id()) {
                log::debug!("job {} is not watched for what it starts elsewhere: {error}", self.job.id);
            }
        }
    }

    /// Takes note of which orphans are its own. One that has neither its mark nor its group any more may have been seen
    /// below the shell before.
    pub(crate) fn adopt(&mut self, orphans: &[Orphan]) {
        self.orphans = if orphans.is_empty() {
            Vec::new()
        } else {
            let below = self.processes.backend_pids(self.child.id()).unwrap_or_default();
            let own = orphans.iter().filter(|orphan| self.has_started(orphan) || below.contains(&orphan.pid));
            own.map(|orphan| orphan.pid).collect()
        };
    }

    /// Whether the mark or the group of an orphan says that it comes from this start of the job.
    pub(crate) fn has_started(&self, orphan: &Orphan) -> bool {
        orphan.job == Some(self.serial) || orphan.group == Some(self.child.id())
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

    /// Stops it together with the runner, whatever it is made to do.
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Has it go on as before, after the runner and it were stopped for so long, which is not counted as its time.
    pub(crate) fn go_on(&mut self, stopped: Duration) -> io::Result<()> {
        self.started += stopped;
        self.leaving = self.leaving.map(|kill_at| kill_at + stopped);
        if let State::Cancelled { kill_at, .. } = &mut self.state {
            *kill_at = kill_at.map(|kill_at| kill_at + stopped);
        }
        if self.is_paused() {
            return Ok(());
        }
        self.signal(Signal::SIGCONT)
    }

    /// Asks it to end, and sees to it later that it does: this does not wait.
    pub(crate) fn cancel(&mut self, why: Cancel) -> io::Result<()> {
        self.signal(Signal::SIGTERM)?;
        if self.is_paused() || self.wants_terminal {
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
    fn signal(&mut self, signal: Signal) -> io::Result<()> {
        killpg(Pid::from_raw(self.child.id() as i32), signal)?;
        self.track();
        for orphan in &self.orphans {
            // One that has ended meanwhile is tracked no more, here and below.
            let _ = self.processes.track_backend_pid(*orphan);
        }
        for pid in self.orphans.iter().chain([&self.child.id()]) {
            let _ = self.processes.signal_backend(*pid, signal as i32);
        }
        Ok(())
    }

    /// Looks at the shell without taking its status: its zombie holds the number of the group.
    pub(crate) fn look_at_shell(&mut self) {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        self.shell_end = match waitid(Id::Pid(Pid::from_raw(self.child.id() as i32)), look) {
            Ok(WaitStatus::StillAlive) => None,
            Ok(WaitStatus::Stopped(_, by)) => {
                // The kernel stops the whole group for it.
                self.wants_terminal = matches!(by, Signal::SIGTTIN | Signal::SIGTTOU);
                None
            }
            Ok(_) => Some(Ok(())),
            Err(error) => Some(Err(error)),
        };
    }

    /// Whether it was stopped because it wants the terminal, which is not for jobs, and was not told to end yet.
    pub(crate) fn is_to_be_refused_the_terminal(&self) -> bool {
        self.wants_terminal && !self.is_cancelled()
    }

    /// What became of it, or `None` while it runs, or something that it has left behind does. That is told to end when
    /// the shell has ended, and killed after a grace: run again beside what was left, a job would be there twice.
    pub(crate) fn try_end(&mut self) -> io::Result<Option<Outcome>> {
        match self.shell_end {
            None => return Ok(None),
            Some(end) => end?,
        }
        if !self.orphans.is_empty() {
            match self.leaving {
                None => {
                    self.leaving = Some(Instant::now() + GRACE);
                    self.signal(Signal::SIGTERM)?;
                    return Ok(None);
                }
                Some(kill_at) if Instant::now() < kill_at => return Ok(None),
                Some(_) => self.signal(Signal::SIGKILL)?,
            }
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

    /// Has its output read from now on, if it is old enough.
    pub(crate) fn watch_output(&mut self) {
        if self.started.elapsed() >= LONG_LIVED {
            self.output.iter_mut().for_each(Output::watch);
        }
    }

    /// Prints what it has written, and gives its room back at once: nothing of it is left.
    pub(crate) fn finish(mut self) -> Job {
        self.note_cost();
        if let Some(output) = self.output {
            output.finish();
        }
        self.permit.finish();
        self.job
    }
}
