//! The runner: takes jobs from the input, asks for a permit for each, starts it, and accounts for its end.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{never, select, Receiver};
use highwater::{Permit, Resource, ResourceMonitor, ResourceSnapshot, Snapshots, Verdict};
use nix::errno::Errno;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGTSTP, SIGTTIN};

use crate::job::{Cancel, Cost, Job, Outcome};
use crate::jobs::Jobs;
use crate::limits::{self, Limits};
use crate::options::Options;
use crate::progress::{Counts, Progress};
use crate::signals;
use crate::tally::Tally;
use crate::tasks::{Refusal, Tasks};
use crate::width::Width;

/// How long the first job is watched at most before others are started beside it.
const LEARNING: Duration = Duration::from_secs(10);

/// How long the runner's own share may be too large, while no job runs, before it is taken not to become smaller.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a check is taken while the first job is watched: less than a job of a few processes takes to start them all
/// (some 20 ms), so that its growth is seen.
const CLOSELY: Duration = Duration::from_millis(5);

/// How long a run that was ended by a signal waits until what it has to say is read.
const FAREWELL: Duration = Duration::from_secs(1);

/// The most texts that may wait to be printed when another job is started: jobs write no faster than somebody reads.
const BACKLOG: usize = 100;

/// How long nothing is looked at when nothing happens.
const IDLE: Duration = Duration::from_millis(100);

/// What the runner is made of.
pub(crate) struct Runner {
    pub(crate) options: Options,
    pub(crate) is_width_given: bool,
    pub(crate) monitor: ResourceMonitor,
    pub(crate) snapshots: Snapshots,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) input: Receiver<io::Result<Job>>,
    pub(crate) signals: Receiver<i32>,
    pub(crate) progress: Progress,
}

/// How a run ended.
pub(crate) struct Ending {
    pub(crate) tally: Tally,
    /// The signal that ended it early.
    pub(crate) interrupted: Option<i32>,
}

/// A run in progress. It has one thread, and waits in one place.
struct Run {
    runner: Runner,
    queue: VecDeque<Job>,
    input_open: bool,
    interrupted: Option<i32>,
    /// Why the next job is not started.
    held_back: Option<String>,
    /// Since when the runner itself has been too large for any job.
    stuck_since: Option<Instant>,
    /// When to look around next for what jobs have started elsewhere: a tenth of the time goes into that at most.
    next_look: Instant,
    tasks: Tasks,
    width: Width,
    tally: Tally,
}

enum Event {
    Job(Job),
    EndOfInput(Option<io::Error>),
    Signal(i32),
    Snapshot(Box<ResourceSnapshot>),
    Nothing,
}

enum Admission {
    Granted(Permit),
    NotNow(String),
    Never(String),
}

impl Runner {
    /// Runs all jobs.
    pub(crate) fn run(self) -> Ending {
        let mut run = Run {
            runner: self,
            queue: VecDeque::new(),
            input_open: true,
            interrupted: None,
            held_back: None,
            stuck_since: None,
            next_look: Instant::now(),
            tasks: Tasks::new(),
            width: Width::new(),
            tally: Tally::new(),
        };
        while !run.is_over() {
            let event = run.next_event();
            let is_input = matches!(event, Event::Job(_));
            run.handle(event);
            if !is_input {
                run.account();
                run.look_around();
            }
            run.start_jobs();
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
        let nothing_to_come = self.queue.is_empty() && !self.input_open;
        self.runner.jobs.is_empty() && (nothing_to_come || self.interrupted.is_some())
    }

    fn next_event(&self) -> Event {
        let no_input = never();
        let wants_input = self.input_open && self.queue.is_empty() && self.interrupted.is_none();
        let input = if wants_input { &self.runner.input } else { &no_input };
        let timeout = if self.is_watching_the_first() { CLOSELY } else { IDLE };
        select! {
            recv(input) -> job => match job {
                Ok(Ok(job)) => Event::Job(job),
                Ok(Err(error)) => Event::EndOfInput(Some(error)),
                Err(_) => Event::EndOfInput(None),
            },
            recv(self.runner.signals) -> signal => signal.map_or(Event::Nothing, Event::Signal),
            recv(self.runner.snapshots.receiver()) -> snapshot => snapshot.map_or(Event::Nothing, |snapshot| Event::Snapshot(Box::new(snapshot))),
            default(timeout) => Event::Nothing,
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Job(job) => self.queue.push_back(job),
            Event::EndOfInput(error) => {
                self.input_open = false;
                if let Some(error) = error {
                    self.runner.progress.say(&format!("could not read the commands: {error}"));
                    self.tally.failed += 1;
                }
            }
            Event::Signal(SIGCHLD) => {} // it has woken us
            Event::Signal(SIGHUP) if self.runner.options.limits.is_some() => self.reload_limits(),
            Event::Signal(signal @ (SIGTSTP | SIGTTIN)) => {
                if signals::shall_stop(signal) {
                    self.runner.jobs.stop_with_runner();
                }
            }
            Event::Signal(signal) => {
                self.runner.jobs.interrupt(self.interrupted.is_some());
                self.interrupted = Some(signal);
                self.held_back = Some("told to stop; a second signal kills what still runs".into());
            }
            Event::Snapshot(snapshot) => {
                self.tally.record(&snapshot);
                self.runner.jobs.note_costs();
                self.tasks.set_group(snapshot.cgroup_pids.as_ref());
                if self.is_learning() && self.runner.jobs.oldest_age() >= Some(LEARNING) {
                    self.tally.known_since = Some(Instant::now());
                }
            }
            // The snapshot of this check is an event as well.
            Event::Nothing if self.is_watching_the_first() => drop(self.runner.monitor.check_now()),
            Event::Nothing => {}
        }
    }

    fn reload_limits(&mut self) {
        match limits::load(&self.runner.options) {
            Ok(Limits { limits, is_width_given }) => {
                self.runner.monitor.update_limits(limits);
                self.runner.is_width_given = is_width_given;
            }
            Err(error) => log::error!("limits unchanged: {error}"),
        }
    }

    /// Whether no job's cost has been seen yet.
    fn is_learning(&self) -> bool {
        self.tally.known_since.is_none()
    }

    fn is_watching_the_first(&self) -> bool {
        self.is_learning() && !self.runner.jobs.is_empty()
    }

    /// The most that a job has been seen to cost, of those that have ended, run, or wait to be run again. One that was
    /// given up is not among them: the others need not be like it.
    fn cost(&self) -> Cost {
        let seen = self.tally.cost.max(self.runner.jobs.cost());
        self.queue.iter().fold(seen, |cost, job| cost.max(job.cost))
    }

    /// Accounts for the jobs that have ended, each exactly once: it is done, has failed, or waits in the queue again.
    fn account(&mut self) {
        for (job, outcome) in self.runner.jobs.take_ended() {
            if !matches!(outcome, Outcome::Cancelled(Cancel::Shed | Cancel::TooLarge(_))) {
                self.tally.cost = self.tally.cost.max(job.cost);
                self.tally.tasks = self.tally.tasks.max(job.tasks());
                self.tally.known_since.get_or_insert_with(Instant::now);
            }
            match outcome {
                Outcome::Done => self.tally.done += 1,
                Outcome::Failed(reason) => self.fail(&job, &reason),
                Outcome::Cancelled(Cancel::TooLarge(reason)) => self.fail(&job, &format!("shed, {reason}")),
                Outcome::Cancelled(Cancel::WantsTerminal) => self.fail(&job, "it wants the terminal, which no job has"),
                Outcome::Cancelled(Cancel::Shed) => {
                    self.tally.shed += 1;
                    self.runner.progress.say(&format!("job {} was shed and waits to be run again", job.id));
                    self.queue.push_back(job);
                }
                Outcome::Cancelled(Cancel::Interrupted) => {
                    self.runner.progress.say(&format!("job {} was interrupted", job.id));
                }
            }
        }
        self.runner.jobs.resume_if_alone();
    }

    fn look_around(&mut self) {
        let began = Instant::now();
        if began >= self.next_look {
            self.runner.jobs.look_around();
            self.next_look = began + began.elapsed() * 10;
        }
        if !self.runner.is_width_given {
            let latest = self.runner.monitor.latest();
            self.width.look(latest.and_then(|latest| latest.cpu_pressure).map(|pressure| pressure.some_percent));
        }
        let began = Instant::now();
        let is_due = self.tasks.is_look_due();
        if is_due || self.tasks.are_limited() && self.is_watching_the_first() {
            self.runner.jobs.note_tasks();
        }
        if is_due {
            self.tasks.look(began);
        }
    }

    fn fail(&mut self, job: &Job, reason: &str) {
        self.tally.failed += 1;
        let line = format!("job {} failed: {reason}: {}", job.id, job.command.to_string_lossy());
        self.runner.progress.say(&line);
    }

    /// Starts jobs until one is refused. That one is asked for again whenever something has happened. Waiting in `admit`
    /// would do the same for a thread that has nothing else to do: this one must see the ends of jobs, which make room.
    fn start_jobs(&mut self) {
        if self.interrupted.is_some() {
            return;
        }
        while let Some(job) = self.queue.pop_front() {
            match self.admit(&job) {
                Admission::Granted(permit) => {
                    self.held_back = None;
                    self.stuck_since = None;
                    if let Err((job, error)) = self.runner.jobs.start(job, permit) {
                        let reason = format!("could not be started: {error}");
                        if self.may_pass(&error) {
                            self.queue.push_front(job);
                            self.held_back = Some(reason);
                            return;
                        }
                        self.fail(&job, &reason);
                    }
                }
                Admission::NotNow(reason) => {
                    self.queue.push_front(job);
                    self.held_back = Some(reason);
                    return;
                }
                Admission::Never(reason) => self.fail(&job, &reason),
            }
        }
        self.held_back = None;
    }

    fn admit(&mut self, job: &Job) -> Admission {
        if self.runner.progress.printer().backlog() > BACKLOG {
            return Admission::NotNow("what jobs have written is read slowly".into());
        }
        let alone = self.runner.jobs.is_empty();
        if self.is_learning() && !alone {
            return Admission::NotNow("the first job shows what a job costs".into());
        }
        if let Some(reason) = self.is_wide_enough() {
            return Admission::NotNow(reason);
        }
        if let Some(Refusal { reason, could_never_fit }) = self.lacks_tasks(job, alone) {
            return if could_never_fit && alone { Admission::Never(reason) } else { Admission::NotNow(reason) };
        }
        let mut verdict = match self.runner.monitor.try_admit(job.cost.max(self.cost()).work()) {
            Ok(permit) => return Admission::Granted(permit),
            Err(verdict) => verdict,
        };
        if self.held_back.is_none() {
            self.tally.closed += 1;
        }
        if !alone {
            return Admission::NotNow(verdict.to_string());
        }
        if verdict.could_never_fit() {
            // What the largest job costs does not fit. This one may be smaller: it is tried alone.
            verdict = match self.runner.monitor.try_admit(job.cost.work()) {
                Ok(permit) => return Admission::Granted(permit),
                Err(verdict) => verdict,
            };
        }
        if verdict.could_never_fit() || self.is_stuck(&verdict) {
            return Admission::Never(verdict.to_string());
        }
        Admission::NotNow(verdict.to_string())
    }

    /// Why no other job is started beside those that run, where that is for the CPUs to say.
    fn is_wide_enough(&mut self) -> Option<String> {
        let (running, _) = self.runner.jobs.counts();
        if self.runner.is_width_given {
            None
        } else {
            self.width.refusal(running)
        }
    }

    /// Why there are not enough tasks left for a job, if so. One that would be alone is taken to need what it has had itself.
    fn lacks_tasks(&self, job: &Job, alone: bool) -> Option<Refusal> {
        let largest = self.queue.iter().map(Job::tasks).max().max(Some(self.tally.tasks.max(self.runner.jobs.tasks())));
        let largest = largest.unwrap_or_default();
        let asked = if alone { job.tasks() } else { job.tasks().max(largest) };
        self.tasks.refusal(asked, self.runner.jobs.tasks_to_come(largest))
    }

    /// Whether a job that could not be started for this reason can be a moment later: others may leave what they have, and
    /// jobs that run do.
    fn may_pass(&self, error: &io::Error) -> bool {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EAGAIN | Errno::ENOMEM | Errno::ENFILE) => true,
            Some(Errno::EMFILE) => !self.runner.jobs.is_empty(),
            _ => false,
        }
    }

    /// Whether the runner itself has been too large for long while no job ran: then no job's end is going to make room. What
    /// others fill, they may leave again, and a check that failed may succeed: for these a job waits.
    fn is_stuck(&mut self, verdict: &Verdict) -> bool {
        if !verdict.resource().is_some_and(is_filled_by_the_run_alone) {
            self.stuck_since = None;
            return false;
        }
        self.stuck_since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE
    }

    fn show(&mut self) {
        let (running, paused) = self.runner.jobs.counts();
        let counts = Counts { running, paused, done: self.tally.done, failed: self.tally.failed };
        self.runner.progress.show(counts, self.runner.monitor.latest().as_ref(), self.held_back.as_deref());
    }
}

/// Whether nobody but the runner and its jobs uses what this counts.
fn is_filled_by_the_run_alone(resource: Resource) -> bool {
    matches!(resource, Resource::Memory | Resource::Processes | Resource::OpenFiles)
}
