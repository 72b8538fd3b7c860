//! Runs shell commands from standard input, as many at a time as the limits allow: the reference host of `highwater`.
//!
//! ```sh
//! seq 200 | sed 's/.*/sleep 0.2/' | cargo run --release --example job_runner -- --max-processes 20
//! ```
//!
//! `runner.rs` is where to look for what a host has to do: it makes a monitor and its `Jobs`, gives them commands, and
//! accounts for their ends. All else is about lines: where they come from, and where they are written.
//!
//! Ends with 0 when every job ended with success, 1 when one failed or its output or its line of the job log could not be
//! written (jobs go on without a reader or a disk, which is said once), 2 when it was called wrongly, and 128 plus the
//! number of the signal that ended it early: each job is then told to end, and killed by a second signal. Ctrl-Z stops the
//! jobs with the runner, and `fg` continues both. What was ignored at the start stays ignored.

mod input;
mod joblog;
mod options;
mod output;
mod runner;

use std::process::ExitCode;

use crate::options::Options;
use crate::runner::Runner;

fn main() -> ExitCode {
    let ended = match Options::read() {
        Err(error) => Err((2, error)),
        Ok(options) if options.dry_run => input::print().map(|()| 0).map_err(|error| (1, error.to_string())),
        Ok(options) => Runner::new(options).map(Runner::run).map_err(|error| (1, error.to_string())),
    };
    ExitCode::from(ended.unwrap_or_else(|(code, error)| {
        eprintln!("error: {error}");
        code
    }))
}
