//! The runner: gives the lines of the input to the jobs, and accounts for their ends. It has one thread, and waits in one
//! place.

use std::collections::{HashMap, HashSet};
use std::io;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{never, select, Receiver};
use highwater::{
    HeldBack, Job, JobEvent, JobStep, Jobs, Outcome, Resource, ResourceMonitor, ResourceSnapshot, Snapshots,
};
use nix::sys::signal::{raise, Signal};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGTSTP, SIGTTIN};

use crate::input::Line;
use crate::joblog::JobLog;
use crate::limits;
use crate::options::Options;
use crate::output::{Output, Outputs};
use crate::progress::{Counts, Progress};
use crate::signals;
use crate::tally::Tally;

/// How long the runner's own share may be too large, while no job runs, before it is taken not to become smaller.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a run that was ended by a signal waits until what it has to say is read.
const FAREWELL: Duration = Duration::from_secs(1);

/// The most texts that may wait to be printed when another job is started: jobs write no faster than somebody reads.
const BACKLOG: usize = 100;

/// The most lines that wait for their start. One is enough, but for jobs that end faster than one is asked for.
const AHEAD: usize = 4;

/// How long nothing is looked at when nothing happens.
const IDLE: Duration = Duration::from_millis(100);

/// What the runner is made of.
pub(crate) struct Runner {
    pub(crate) options: Options,
    pub(crate) monitor: ResourceMonitor,
    pub(crate) snapshots: Snapshots,
    pub(crate) jobs: Jobs,
    pub(crate) events: Receiver<JobEvent>,
    pub(crate) outputs: Arc<Outputs>,
    pub(crate) input: Receiver<io::Result<Line>>,
    pub(crate) signals: Receiver<i32>,
    pub(crate) progress: Progress,
    pub(crate) log: Option<JobLog>,
    /// The lines that an earlier run has done.
    pub(crate) done_before: HashSet<usize>,
}

/// How a run ended.
pub(crate) struct Ending {
    pub(crate) tally: Tally,
    /// The signal that ended it early.
    pub(crate) interrupted: Option<i32>,
}

/// A line whose job was given to the jobs.
struct Given {
    line: Line,
    output: Output,
    tries: u32,
    is_started: bool,
}

/// A run in progress.
struct Run {
    runner: Runner,
    /// By the number of the job.
    given: HashMap<u64, Given>,
    /// The jobs that were given up, and why.
    given_up: HashMap<u64, String>,
    input_open: bool,
    interrupted: Option<i32>,
    /// Why the next job is not started.
    held_back: Option<String>,
    /// Whether the gate was closed at the last look.
    is_closed: bool,
    /// Since when the runner itself has been too large for any job.
    stuck_since: Option<Instant>,
    tally: Tally,
}

enum Event {
    Line(Line),
    EndOfInput(Option<io::Error>),
    Signal(i32),
    Job(JobEvent),
    Snapshot(Box<ResourceSnapshot>),
    Nothing,
}

impl Runner {
    /// Runs all jobs.
    pub(crate) fn run(self) -> Ending {
        let mut run = Run {
            runner: self,
            given: HashMap::new(),
            given_up: HashMap::new(),
            input_open: true,
            interrupted: None,
            held_back: None,
            is_closed: false,
            stuck_since: None,
            tally: Tally::new(),
        };
        while !run.is_over() {
            let event = run.next_event();
            run.handle(event);
            run.look_whether_held_back();
            run.show();
        }
        while let Ok(snapshot) = run.runner.snapshots.try_recv() {
            run.tally.record(&snapshot);
        }
        run.runner.progress.finish();
        run.runner.progress.say(&run.tally.to_string());
        // Whoever wants it to end now does not want it to wait for a reader that reads no more.
        run.runner.progress.printer().wait(run.interrupted.map(|_| FAREWELL));
        Ending { tally: run.tally, interrupted: run.interrupted }
    }
}

impl Run {
    fn is_over(&self) -> bool {
        self.given.is_empty() && (!self.input_open || self.interrupted.is_some())
    }

    fn next_event(&self) -> Event {
        let no_input = never();
        let wants_input = self.input_open
            && self.interrupted.is_none()
            && self.runner.jobs.waiting() < AHEAD
            && self.runner.progress.printer().backlog() <= BACKLOG;
        let input = if wants_input { &self.runner.input } else { &no_input };
        select! {
            recv(self.runner.events) -> event => event.map_or(Event::Nothing, Event::Job),
            recv(input) -> line => match line {
                Ok(Ok(line)) => Event::Line(line),
                Ok(Err(error)) => Event::EndOfInput(Some(error)),
                Err(_) => Event::EndOfInput(None),
            },
            recv(self.runner.signals) -> signal => signal.map_or(Event::Nothing, Event::Signal),
            recv(self.runner.snapshots.receiver()) -> snapshot => snapshot.map_or(Event::Nothing, |snapshot| Event::Snapshot(Box::new(snapshot))),
            default(IDLE) => Event::Nothing,
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Line(line) if self.runner.done_before.contains(&line.number) => self.tally.done_before += 1,
            Event::Line(line) => self.give(line, 1),
            Event::EndOfInput(error) => {
                self.input_open = false;
                if let Some(error) = error {
                    self.runner.progress.say(&format!("could not read the commands: {error}"));
                    self.tally.failed += 1;
                }
            }
            Event::Signal(SIGCHLD) => {} // the jobs see to it
            Event::Signal(SIGHUP) if self.runner.options.limits.is_some() => self.reload_limits(),
            Event::Signal(signal @ (SIGTSTP | SIGTTIN)) => {
                if signals::shall_stop(signal) {
                    self.stop();
                }
            }
            Event::Signal(signal) => self.interrupt(signal),
            Event::Job(JobEvent { id, what, .. }) => self.account(id, what),
            Event::Snapshot(snapshot) => self.tally.record(&snapshot),
            Event::Nothing => {}
        }
    }

    /// Gives a line to the jobs. They start it when there is room.
    fn give(&mut self, line: Line, tries: u32) {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "--"]).arg(&line.command);
        let output = match self.runner.outputs.of(&mut shell) {
            Ok(output) => output,
            Err(error) => return self.fail(&line, &format!("could not be started: {error}")),
        };
        let mut job = Job::new(shell).kind(self.runner.options.kind_of(&line));
        if let Some(timeout) = self.runner.options.timeout {
            job = job.timeout(timeout);
        }
        match self.runner.jobs.submit(job) {
            Ok(job) => drop(self.given.insert(job.id(), Given { line, output, tries, is_started: false })),
            Err(error) => self.fail(&line, &error.to_string()),
        }
    }

    fn account(&mut self, id: u64, step: JobStep) {
        match step {
            JobStep::Started { .. } => {
                if let Some(given) = self.given.get_mut(&id) {
                    given.is_started = true;
                }
            }
            JobStep::Requeued { .. } => {
                self.tally.shed += 1;
                if let Some(given) = self.given.get(&id) {
                    self.runner.progress.say(&format!("job {} was shed and waits to be run again", given.line.number));
                }
            }
            JobStep::Ended { outcome, usage, took } => {
                let Some(given) = self.given.remove(&id) else { return };
                given.output.finish();
                if given.is_started && matches!(outcome, Outcome::Ended(_)) {
                    self.tally.learn(usage);
                }
                self.end(id, &given.line, given.tries, given.is_started, &outcome, took);
            }
            _ => {}
        }
    }

    fn end(&mut self, id: u64, line: &Line, tries: u32, is_started: bool, outcome: &Outcome, took: Duration) {
        let status = match outcome {
            Outcome::Ended(status) => Some(*status),
            _ => None,
        };
        if let Some(log) = &mut self.runner.log {
            if let Err(error) = log.write(line, status, took) {
                log::error!("the end of job {} is not in the job log: {error}", line.number);
            }
        }
        match outcome {
            outcome if outcome.is_success() => self.tally.done += 1,
            Outcome::Cancelled => match self.given_up.remove(&id) {
                Some(reason) => self.fail(line, &reason),
                None if is_started => {
                    self.runner.progress.say(&format!("job {} was interrupted", line.number));
                }
                None => {}
            },
            Outcome::Ended(_) if tries <= self.runner.options.retries && self.interrupted.is_none() => {
                self.runner.progress.say(&format!("job {} failed and is run again: {outcome}", line.number));
                self.give(line.clone(), tries + 1);
            }
            outcome => self.fail(line, &outcome.to_string()),
        }
    }

    fn fail(&mut self, line: &Line, reason: &str) {
        self.tally.failed += 1;
        self.runner.progress.say(&format!("job {} failed: {reason}: {}", line.number, line.command.to_string_lossy()));
    }

    fn reload_limits(&mut self) {
        match limits::load(&self.runner.options) {
            Ok(limits) => self.runner.monitor.update_limits(limits.limits),
            Err(error) => log::error!("limits unchanged: {error}"),
        }
    }

    /// Stops with the jobs, until somebody continues this process.
    fn stop(&self) {
        self.runner.jobs.stop_with(|| {
            // To this thread: by the time that this returns, it has been continued.
            if let Err(error) = raise(Signal::SIGSTOP) {
                log::warn!("could not stop: {error}");
            }
        });
    }

    fn interrupt(&mut self, signal: i32) {
        if self.interrupted.is_some() {
            self.runner.jobs.kill_all();
        } else {
            self.runner.jobs.cancel_all();
        }
        self.interrupted = Some(signal);
    }

    fn look_whether_held_back(&mut self) {
        let held_back = self.runner.jobs.held_back();
        self.held_back = held_back.as_ref().map(ToString::to_string);
        let refusal = match held_back {
            Some(HeldBack::Verdict(verdict)) => Some(verdict),
            _ => None,
        };
        self.tally.closed += usize::from(refusal.is_some() && !self.is_closed);
        self.is_closed = refusal.is_some();
        // Whether nobody but the runner and its jobs uses what is too much: others may leave what they fill.
        let is_own = |resource| matches!(resource, Resource::Memory | Resource::Processes | Resource::OpenFiles);
        let is_stuck = self.runner.jobs.running() == 0 && refusal.is_some_and(|why| why.resource().is_some_and(is_own));
        if !is_stuck {
            self.stuck_since = None;
        } else if self.stuck_since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
            self.stuck_since = None;
            let reason = self.held_back.clone().unwrap_or_default();
            self.given_up.extend(self.given.keys().map(|id| (*id, reason.clone())));
            self.runner.jobs.cancel_all();
        }
        if self.interrupted.is_some() {
            self.held_back = Some("told to stop; a second signal kills what still runs".into());
        }
    }

    fn show(&mut self) {
        let (running, paused) = (self.runner.jobs.running(), self.runner.jobs.paused());
        let counts = Counts { running: running - paused, paused, done: self.tally.done, failed: self.tally.failed };
        self.runner.progress.show(counts, self.runner.monitor.latest().as_ref(), self.held_back.as_deref());
    }
}
