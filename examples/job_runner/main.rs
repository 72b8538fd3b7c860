//! Runs shell commands from standard input, as many at a time as the limits allow: the reference host of `highwater`.
//!
//! ```sh
//! seq 200 | sed 's/.*/sleep 0.2/' | cargo run --release --example job_runner -- --max-processes 20
//! ```
//!
//! Where to look for what a host has to do: `runner.rs` asks for a permit before each start, `job.rs` attaches it to the
//! job's shell and finishes it when nothing of the job is left, and `jobs.rs` is the `JobManager` that pauses and cancels jobs when a limit is near. What
//! jobs leave behind, the `ProcessGroupManager` set up in this file cleans up.
//!
//! Ends with 0 when every job ended with success, 1 when one failed, 2 when it was called wrongly, and 128 plus the
//! number of the signal that ended it early: each job is then told to end, and killed by a second signal. Ctrl-Z stops the
//! jobs with the runner, and `fg` continues both. What was ignored at the start stays ignored.

mod damped;
mod input;
mod job;
mod jobs;
mod limits;
mod options;
mod orphans;
mod output;
mod printer;
mod progress;
mod runner;
mod signals;
mod tally;
mod tasks;
mod tree;
mod width;

use std::process::ExitCode;
use std::sync::Arc;

use highwater::{BoxError, MemoryScope, ProcessGroupManager, ResourceMonitor};

use nix::sys::signal::{SigSet, Signal};

use crate::jobs::Jobs;
use crate::limits::Limits;
use crate::options::Options;
use crate::output::Outputs;
use crate::progress::Progress;
use crate::runner::{Ending, Runner};

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
    let progress = Progress::new()?;
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .target(env_logger::Target::Pipe(Box::new(progress.stderr())))
        .init();
    let Limits { limits, is_width_given } = limits;
    log::info!("limits: {limits}");

    // Before any job is started, or its end could be missed.
    let signals = signals::receive()?;
    // Jobs inherit what the thread that starts them blocks: so far, whatever this process was started with.
    SigSet::empty().thread_set_mask()?;

    // What jobs leave behind comes to this process. It stays in its own group, or Ctrl-C would not reach it in a
    // pipeline.
    let processes = Arc::new(ProcessGroupManager::new().with_own_group(false).with_grace(job::GRACE));
    processes.setup()?;
    // However this ends, no job goes on without it.
    let _guard = processes.kill_on_drop(Signal::SIGTERM as i32, job::GRACE);

    let monitor = ResourceMonitor::builder(limits).memory_scope(MemoryScope::Tree).build()?;
    let outputs = Outputs::new(options.grouping(), progress.printer().clone())?;
    let jobs = Arc::new(Jobs::new(monitor.readiness(), processes.clone(), outputs));
    monitor.set_manager(jobs.clone());
    monitor.set_process_group(processes.clone());
    let snapshots = monitor.snapshots();
    monitor.start(options.interval)?;

    Ok(Runner { options, is_width_given, monitor, snapshots, jobs, input: input::jobs()?, signals, progress }.run())
}
