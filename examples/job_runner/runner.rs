//! The runner, one thread: gives the lines of the input to the jobs, and accounts for their ends.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::{self, IsTerminal, Read};
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{never, select, unbounded, Receiver};
use highwater::{
    BoxError, Grouping, Job, JobEvent, JobOutput, JobStep, Jobs, JobsBuilder, MemoryScope, Origin, Outcome,
    ResourceMonitor, Stream,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::sys::signal::SigSet;
use procfs::process::Process;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::input::{self, Line};
use crate::joblog::JobLog;
use crate::options::Options;

/// How long a job that is told to end may take before it is killed, and the runner's own share be too large before it is taken
/// not to become smaller; how long a run that was ended by a signal waits until what it has to say is read.
const GRACE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(10);
const FAREWELL: Duration = Duration::from_secs(1);

/// The most lines that wait for their start. One is enough, but for jobs that end faster than one is asked for.
const AHEAD: usize = 4;

/// How often the progress line is drawn, and how often one is printed where none can be drawn.
const DRAWN: Duration = Duration::from_millis(100);
const PRINTED: Duration = Duration::from_secs(1);

pub(crate) struct Runner {
    options: Options,
    monitor: ResourceMonitor,
    jobs: Jobs,
    events: Receiver<JobEvent>,
    signals: Receiver<i32>,
    lines: Receiver<Line>,
    /// The thread that reads them, until the last was received.
    reader: Option<JoinHandle<io::Result<()>>>,
    output: JobOutput,
    bar: ProgressBar,
    log: Option<JobLog>,
    /// The lines that were given to the jobs, by the number of the job.
    given: HashMap<u64, Line>,
    is_incomplete: bool,
    interrupted: Option<i32>,
    /// When progress was shown, and the numbers of jobs in it.
    shown: (Instant, String),
}

impl Runner {
    pub(crate) fn new(options: Options) -> Result<Runner, BoxError> {
        let (output, bar) = printing(options.output)?;
        let log = env_logger::Target::Pipe(Box::new(output.writer(Stream::Stderr)));
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).target(log).init();
        // What this process was started with is not for jobs.
        SigSet::empty().thread_set_mask()?;
        let signals = signals()?;
        let log = options.joblog.as_deref().map(|path| JobLog::open(path, options.resume)).transpose()?;
        let (lines, reader) = input::read(options.done()?)?;
        let limits = options.limits()?;
        log::info!("limits: {limits}");
        let monitor = ResourceMonitor::builder(limits).memory_scope(MemoryScope::Tree).build()?;
        let jobs = monitor.jobs().grace(GRACE).patience(PATIENCE).sole_parent(true).output(&output);
        let jobs = options.width().into_iter().fold(jobs, JobsBuilder::width);
        let jobserver = options.jobserver(&monitor)?;
        let jobs = jobserver.iter().fold(jobs, JobsBuilder::jobserver).build()?;
        monitor.start(options.interval)?;
        Ok(Runner {
            options,
            monitor,
            events: jobs.events(),
            jobs,
            signals,
            lines,
            reader: Some(reader),
            output,
            bar,
            log,
            given: HashMap::new(),
            is_incomplete: false,
            interrupted: None,
            shown: (Instant::now(), String::new()),
        })
    }

    /// Runs all jobs, and returns the exit code.
    pub(crate) fn run(mut self) -> Result<u8, BoxError> {
        while !self.given.is_empty() || (self.reader.is_some() && self.interrupted.is_none()) {
            self.wait_for_something()?;
            self.show();
        }
        self.bar.finish_and_clear();
        let summary = self.jobs.summary();
        self.say(&summary);
        // Whoever wants it to end now does not want it to wait for a reader that reads no more.
        self.output.wait(self.interrupted.map_or(Duration::MAX, |_| FAREWELL));
        let has_failed = summary.tally.failed > 0 || self.is_incomplete || self.output.is_lost();
        Ok(self.interrupted.map_or(u8::from(has_failed), |signal| 128 + signal as u8))
    }

    fn wait_for_something(&mut self) -> Result<(), BoxError> {
        let wants_line = self.reader.is_some() && self.interrupted.is_none() && self.jobs.waiting() < AHEAD;
        let lines = if wants_line { self.lines.clone() } else { never() };
        select! {
            recv(self.events) -> event => event.into_iter().for_each(|event| self.account(event)),
            recv(self.signals) -> signal => signal.into_iter().for_each(|signal| self.obey(signal)),
            recv(lines) -> line => match line {
                Ok(line) => self.give(line)?,
                Err(_) => if let Some(Ok(Err(error))) = self.reader.take().map(JoinHandle::join) {
                    self.is_incomplete = true;
                    self.say(format_args!("could not read the commands: {error}"));
                },
            },
            default(DRAWN) => {}
        }
        Ok(())
    }

    /// Gives a line to the jobs. They start it when there is room.
    fn give(&mut self, line: Line) -> Result<(), BoxError> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "--"]).arg(&line.command);
        let job = Job::new(shell).retries(self.options.retries);
        let mut job = self.options.timeout.into_iter().fold(job, Job::timeout);
        if self.options.kind {
            let command = line.command.to_string_lossy();
            job = job.kind(command.split_ascii_whitespace().next().unwrap_or_default());
        }
        self.given.insert(self.jobs.submit(job)?.id(), line);
        Ok(())
    }

    fn account(&mut self, JobEvent { id, what, .. }: JobEvent) {
        let Some(Line { number, command }) = self.given.get(&id) else { return };
        let is_worth_a_line = match &what {
            JobStep::Started { .. } => false,
            // One that had not been started goes without saying.
            JobStep::Ended { outcome: Outcome::Cancelled, took, .. } => !took.is_zero(),
            JobStep::Ended { outcome, .. } => !outcome.is_success(),
            _ => true,
        };
        if is_worth_a_line {
            self.say(format_args!("job {number} {what}: {}", command.to_string_lossy()));
        }
        let JobStep::Ended { outcome, took, .. } = what else { return };
        let Some(line) = self.given.remove(&id) else { return };
        if let Some(Err(error)) = self.log.as_mut().map(|log| log.write(&line, &outcome, took)) {
            (self.log, self.is_incomplete) = (None, true);
            log::error!("the job log lacks the end of job {} and of all that end later: {error}", line.number);
        }
    }

    fn say(&self, line: impl Display) {
        self.output.say(Stream::Stderr, format!("{line}\n"));
    }

    fn obey(&mut self, signal: i32) {
        match signal {
            SIGCHLD | SIGXFSZ => {} // the jobs see to the one, and the write that was too much says the other
            SIGHUP if self.options.limits.is_some() => match Options::read().and_then(|options| options.limits()) {
                Ok(limits) => self.monitor.update_limits(limits),
                Err(error) => log::error!("limits unchanged: {error}"),
            },
            SIGTSTP | SIGTTIN => self.jobs.stop_on(signal).unwrap_or_else(|error| log::warn!("{error}")),
            _ if self.interrupted.replace(signal).is_none() => self.jobs.cancel_all(),
            _ => self.jobs.kill_all(),
        }
    }

    /// Shows how things stand, if it is time to.
    fn show(&mut self) {
        if self.reader.as_ref().is_some_and(JoinHandle::is_finished) {
            self.jobs.expect_no_more();
        }
        let is_drawn = !self.bar.is_hidden();
        if self.shown.0.elapsed() < if is_drawn { DRAWN } else { PRINTED } {
            return;
        }
        let progress = self.jobs.progress(self.lines.len());
        let counts = progress.tally.to_string();
        if !is_drawn && self.shown.1 == counts {
            return;
        }
        self.shown = (Instant::now(), counts);
        let more = self.interrupted.map_or("", |_| "; told to stop, and a second signal kills what still runs");
        let line = format!("{progress}{more}");
        if is_drawn {
            self.bar.set_message(line);
            self.bar.tick();
        } else {
            self.say(format_args!("{:6.1} s  {line}", self.bar.elapsed().as_secs_f64()));
        }
    }
}

/// The way to all that is printed, above the progress line, which is drawn where standard error is a terminal.
fn printing(grouping: Option<Grouping>) -> Result<(JobOutput, ProgressBar), BoxError> {
    let is_drawn = io::stderr().is_terminal();
    let target = if is_drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}")?;
    let bar = ProgressBar::with_draw_target(None, target).with_style(style);
    let above = bar.clone();
    let print = move |origin: Origin, text: &mut dyn Read| match is_drawn {
        true => above.suspend(|| origin.stream.print(text)),
        false => origin.stream.print(text),
    };
    let default = if io::stdout().is_terminal() { Grouping::Lines } else { Grouping::Whole };
    Ok((JobOutput::new(grouping.unwrap_or(default), print)?, bar))
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
