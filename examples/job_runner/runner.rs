//! The runner: gives the lines of the input to the jobs, and accounts for their ends. It has one thread, and waits in one
//! place.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::io;
use std::mem;
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{never, select, unbounded, Receiver};
use highwater::{
    BoxError, Job, JobEvent, JobHandle, JobServer, JobStep, Jobs, MemoryScope, Outcome, ResourceMonitor, Tally,
};
use nix::errno::Errno;
use nix::sys::signal::SigSet;
use procfs::process::Process;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::input::{self, Line};
use crate::joblog::JobLog;
use crate::options::{Channels, Options};
use crate::output::{Grouping, Output};

/// How long a job that is told to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// How long the runner's own share may be too large, while no job runs, before it is taken not to become smaller.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a run that was ended by a signal waits until what it has to say is read.
const FAREWELL: Duration = Duration::from_secs(1);

/// The most lines that wait for their start. One is enough, but for jobs that end faster than one is asked for.
const AHEAD: usize = 4;

/// How often the progress line is drawn, and how often one is printed where none can be drawn.
const DRAWN: Duration = Duration::from_millis(100);
const PRINTED: Duration = Duration::from_secs(1);

pub(crate) struct Runner {
    options: Options,
    monitor: ResourceMonitor,
    jobserver: Option<JobServer>,
    jobs: Jobs,
    events: Receiver<JobEvent>,
    signals: Receiver<i32>,
    lines: Receiver<io::Result<Line>>,
    reader: JoinHandle<()>,
    output: Output,
    log: Option<JobLog>,
    is_log_incomplete: bool,
    /// A line for which there was no descriptor left while other jobs ran.
    postponed: Option<Line>,
    /// The lines that an earlier run has done.
    done_before: HashSet<usize>,
    /// The lines that were given to the jobs, by the number of the job.
    given: HashMap<u64, Given>,
    streams: u64,
    is_input_open: bool,
    /// The signal that ends the run early.
    interrupted: Option<i32>,
    began: Instant,
    /// When progress was shown, and the numbers of jobs in it.
    shown: (Instant, String),
    /// The lines that have failed before they were jobs.
    failed: usize,
    /// The most processes and MB that were seen.
    peak: (usize, f64),
}

struct Given {
    line: Line,
    job: JobHandle,
    streams: u64,
}

impl Runner {
    pub(crate) fn new(options: Options) -> Result<Runner, BoxError> {
        let (lines, reader) = input::read()?;
        let output = Output::new()?;
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
            .target(env_logger::Target::Pipe(Box::new(output.clone())))
            .init();
        // What this process was started with is not for jobs.
        SigSet::empty().thread_set_mask()?;
        let signals = signals()?;
        let (log, mut done_before) = options.joblog.as_deref().map(JobLog::open).transpose()?.unzip();
        let limits = options.limits()?;
        log::info!("limits: {limits}");
        let monitor = ResourceMonitor::builder(limits).memory_scope(MemoryScope::Tree).build()?;
        let mut jobs = monitor.jobs().grace(GRACE).patience(PATIENCE).sole_parent(true);
        if let Some(width) = options.jobs.or(options.max_processes.map(|_| usize::MAX)) {
            jobs = jobs.width(width);
        }
        let jobserver = options.jobserver.map(|channels| match channels {
            Channels::Pipes => monitor.jobserver().build(),
            Channels::Fifo => monitor.jobserver().fifos_in(std::env::temp_dir()).build(),
        });
        let jobserver = jobserver.transpose()?;
        if let Some(jobserver) = &jobserver {
            jobs = jobs.jobserver(jobserver);
        }
        // However this ends, no job goes on without it.
        let jobs = jobs.build()?;
        let events = jobs.events();
        monitor.start(options.interval)?;
        done_before = done_before.filter(|_| options.resume);
        let (done_before, began) = (done_before.unwrap_or_default(), Instant::now());
        Ok(Runner {
            options,
            monitor,
            jobserver,
            jobs,
            events,
            signals,
            lines,
            reader,
            output,
            log,
            is_log_incomplete: false,
            postponed: None,
            done_before,
            given: HashMap::new(),
            streams: 1,
            is_input_open: true,
            interrupted: None,
            began,
            shown: (began, String::new()),
            failed: 0,
            peak: (0, 0.0),
        })
    }

    /// Runs all jobs, and returns the exit code.
    pub(crate) fn run(mut self) -> u8 {
        while !self.given.is_empty() || (self.is_input_open && self.interrupted.is_none()) {
            self.wait_for_something();
            self.show();
        }
        self.output.bar.finish_and_clear();
        let Tally { done, failed, run_again, .. } = self.jobs.tally();
        let failed = failed + self.failed;
        let (seconds, limiters) = (self.began.elapsed().as_secs_f64(), self.jobs.limiters());
        let (processes, mb) = self.peak;
        self.output.say(format_args!(
            "{done} done, {failed} failed, {run_again} run again, in {seconds:.1} s; limited by {limiters}\n\
             peak: {processes} processes, {mb:.1} MB"
        ));
        if let Some(jobserver) = &self.jobserver {
            self.output.say(format_args!("tokens: {}", jobserver.tally()));
        }
        // Whoever wants it to end now does not want it to wait for a reader that reads no more.
        self.output.wait(self.interrupted.map(|_| FAREWELL));
        let has_failed = failed > 0 || self.is_log_incomplete || self.output.is_lost();
        self.interrupted.map_or(u8::from(has_failed), |signal| 128 + signal as u8)
    }

    fn wait_for_something(&mut self) {
        self.jobs.hold(self.output.is_behind().then_some("printing"));
        let wants_line =
            self.is_input_open && self.interrupted.is_none() && self.jobs.waiting() < AHEAD && !self.output.is_behind();
        let wants_line = wants_line && self.postponed.is_none();
        let lines = if wants_line { self.lines.clone() } else { never() };
        select! {
            recv(self.events) -> event => event.into_iter().for_each(|event| self.account(event)),
            recv(self.signals) -> signal => signal.into_iter().for_each(|signal| self.obey(signal)),
            recv(lines) -> line => match line {
                Ok(Ok(line)) if self.done_before.contains(&line.number) => {}
                Ok(Ok(line)) => self.give(line),
                Ok(Err(error)) => {
                    self.output.say(format_args!("could not read the commands: {error}"));
                    self.failed += 1;
                }
                Err(_) => {
                    self.is_input_open = false;
                    self.jobs.expect_no_more();
                }
            },
            default(DRAWN) => {}
        }
    }

    /// Gives a line to the jobs. They start it when there is room.
    fn give(&mut self, line: Line) {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "--"]).arg(&line.command);
        let default = if self.output.bar.is_hidden() { Grouping::Grouped } else { Grouping::Lines };
        self.streams += 2;
        let streams = self.streams;
        let begun = self.output.begin(streams, &mut shell, self.options.output.unwrap_or(default));
        let is_exhausted = begun.as_ref().is_err_and(|error| error.raw_os_error() == Some(Errno::EMFILE as i32));
        if is_exhausted && !self.given.is_empty() {
            self.postponed = Some(line);
            return;
        }
        let mut job = Job::new(shell).retries(self.options.retries);
        if self.options.kind {
            let command = line.command.to_string_lossy();
            job = job.kind(command.split_ascii_whitespace().next().unwrap_or_default());
        }
        if let Some(timeout) = self.options.timeout {
            job = job.timeout(timeout);
        }
        match begun.map_err(BoxError::from).and_then(|()| Ok(self.jobs.submit(job)?)) {
            Ok(job) => drop(self.given.insert(job.id(), Given { line, job, streams })),
            Err(error) => {
                self.failed += 1;
                self.say_failed(&line, format_args!("could not be started: {error}"));
            }
        }
    }

    fn account(&mut self, JobEvent { id, what, .. }: JobEvent) {
        let Some(Given { line: Line { number, .. }, .. }) = self.given.get(&id) else { return };
        match what {
            JobStep::Requeued { .. } => {
                self.output.say(format_args!("job {number} was shed and waits to be run again"));
            }
            JobStep::Failed { outcome } => {
                self.output.say(format_args!("job {number} failed and is run again: {outcome}"));
            }
            JobStep::Ended { outcome, took, .. } => {
                let Some(Given { line, job, streams }) = self.given.remove(&id) else { return };
                self.output.end(streams);
                if let Some(Err(error)) = self.log.as_mut().map(|log| log.write(&line, &outcome, took)) {
                    if !mem::replace(&mut self.is_log_incomplete, true) {
                        log::error!("the job log lacks the end of job {}, and perhaps others: {error}", line.number);
                    }
                }
                match outcome {
                    outcome if outcome.is_success() => {}
                    Outcome::Cancelled if job.tries() == 0 => {}
                    Outcome::Cancelled => self.output.say(format_args!("job {} was interrupted", line.number)),
                    outcome => self.say_failed(&line, outcome),
                }
                if let Some(line) = self.postponed.take().filter(|_| self.interrupted.is_none()) {
                    self.give(line);
                }
            }
            _ => {}
        }
    }

    fn say_failed(&self, line: &Line, reason: impl Display) {
        let Line { number, command } = line;
        self.output.say(format_args!("job {number} failed: {reason}: {}", command.to_string_lossy()));
    }

    fn obey(&mut self, signal: i32) {
        match signal {
            SIGCHLD => {} // the jobs see to it
            SIGXFSZ => {} // the write that was too much says so
            SIGHUP if self.options.limits.is_some() => {
                let limits = Options::read().and_then(|options| options.limits().map_err(|error| error.to_string()));
                match limits {
                    Ok(limits) => self.monitor.update_limits(limits),
                    Err(error) => log::error!("limits unchanged: {error}"),
                }
            }
            SIGTSTP | SIGTTIN => {
                if let Err(error) = self.jobs.stop_on(signal) {
                    log::warn!("{error}");
                }
            }
            signal => {
                if self.interrupted.replace(signal).is_none() {
                    self.jobs.cancel_all();
                } else {
                    self.jobs.kill_all();
                }
            }
        }
    }

    /// Shows how things stand, if it is time to.
    fn show(&mut self) {
        let latest = self.monitor.latest();
        if let Some(latest) = &latest {
            let (processes, mb) = (latest.child_process_count.unwrap_or_default(), latest.memory_usage_mb());
            self.peak = (self.peak.0.max(processes), self.peak.1.max(mb));
        }
        let Tally { running, paused, done, failed, .. } = self.jobs.tally();
        let (running, failed) = (running - paused, failed + self.failed);
        let counts = format!("running {running}, paused {paused}, done {done}, failed {failed}");
        let is_drawn = !self.output.bar.is_hidden();
        let gap = if is_drawn { DRAWN } else { PRINTED };
        if self.shown.0.elapsed() < gap || (!is_drawn && self.shown.1 == counts) {
            return;
        }
        self.shown = (Instant::now(), counts.clone());
        let mut line = counts;
        if let Some(latest) = latest {
            let processes = latest.child_process_count.unwrap_or_default();
            line += &format!("; {processes} processes, {:.1} MB", latest.memory_usage_mb());
        }
        if let Some(mut remaining) = self.jobs.remaining(self.lines.len()) {
            remaining.at_most = remaining.at_most.filter(|_| self.reader.is_finished());
            line += &format!("; {remaining} left");
        }
        if self.interrupted.is_some() {
            line += "; told to stop, and a second signal kills what still runs";
        } else if let Some(reason) = self.jobs.held_back() {
            line += &format!("; holding back: {reason}");
        }
        if is_drawn {
            self.output.bar.set_message(line);
            self.output.bar.tick();
        } else {
            self.output.say(format_args!("{:6.1} s  {line}", self.began.elapsed().as_secs_f64()));
        }
    }
}

/// The signals that arrive from now on. One that was ignored at the start, as `nohup` does and a shell for what it starts
/// with `&`, stays so, for the jobs too: whoever ignored it wanted it to reach neither.
fn signals() -> Result<Receiver<i32>, BoxError> {
    let ignored = Process::myself()?.status()?.sigign;
    let handled = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGXFSZ].into_iter();
    let handled = handled.filter(|signal| ignored & (1 << (signal - 1)) == 0);
    // Whoever ignores SIGCHLD, as whoever started this may do, is told no status of a child.
    let mut signals = Signals::new(handled.chain([SIGCHLD]))?;
    let (sender, receiver) = unbounded();
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || signals.forever().all(|signal| sender.send(signal).is_ok()))?;
    Ok(receiver)
}
