//! Runs shell commands from standard input, as many at a time as the limits allow: the reference host of `highwater`.
//!
//! ```sh
//! seq 200 | sed 's/.*/sleep 0.2/' | cargo run --release --example job_runner -- --max-processes 20
//! ```
//!
//! Where to look for what a host has to do: `main.rs` makes a monitor and its `Jobs`, `runner.rs` gives them commands, reads
//! their ends, and passes on what a signal wants. All else is about lines: where they come from, and where they are written.
//!
//! Ends with 0 when every job ended with success, 1 when one failed, 2 when it was called wrongly, and 128 plus the
//! number of the signal that ended it early: each job is then told to end, and killed by a second signal. Ctrl-Z stops the
//! jobs with the runner, and `fg` continues both. What was ignored at the start stays ignored.

mod input;
mod joblog;
mod limits;
mod options;
mod output;
mod printer;
mod progress;
mod runner;
mod signals;
mod tally;

use std::collections::HashSet;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use highwater::{BoxError, MemoryScope, ResourceMonitor};
use nix::sys::signal::SigSet;

use crate::joblog::JobLog;
use crate::limits::Limits;
use crate::options::Options;
use crate::output::Outputs;
use crate::progress::Progress;
use crate::runner::{Ending, Runner};
use crate::tally::Tally;

/// How long a job that is told to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let options = match Options::from_command_line() {
        Ok(options) => options,
        Err(code) => return code,
    };
    let limits = match limits::load(&options) {
        Ok(limits) => limits,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    match run(options, limits) {
        Ok(Ending { interrupted: Some(signal), .. }) => ExitCode::from(128 + signal as u8),
        Ok(Ending { tally, .. }) if tally.failed > 0 => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options, limits: Limits) -> Result<Ending, BoxError> {
    let input = input::lines()?;
    if options.dry_run {
        for line in input {
            writeln!(io::stdout(), "{}", line?.command.to_string_lossy())?;
        }
        return Ok(Ending { tally: Tally::new(), interrupted: None });
    }
    let progress = Progress::new()?;
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .target(env_logger::Target::Pipe(Box::new(progress.stderr())))
        .init();
    let Limits { limits, is_width_given } = limits;
    log::info!("limits: {limits}");
    // What this process was started with is not for jobs.
    SigSet::empty().thread_set_mask()?;
    let signals = signals::receive()?;

    let done_before = match &options.joblog {
        Some(path) if options.resume => JobLog::done(path)?,
        _ => HashSet::new(),
    };
    let log = options.joblog.as_deref().map(JobLog::open).transpose()?;
    let outputs = Outputs::new(options.grouping(), progress.printer().clone())?;

    let monitor = ResourceMonitor::builder(limits).memory_scope(MemoryScope::Tree).build()?;
    let mut jobs = monitor.jobs().grace(GRACE).sole_parent(true);
    if is_width_given {
        jobs = jobs.width(usize::MAX);
    }
    // However this ends, no job goes on without it.
    let jobs = jobs.build()?;
    let (snapshots, events) = (monitor.snapshots(), jobs.events());
    monitor.start(options.interval)?;

    let runner =
        Runner { options, monitor, snapshots, jobs, events, outputs, input, signals, progress, log, done_before };
    Ok(runner.run())
}
