//! Runs shell commands from standard input, as many at a time as the limits allow. What a host has to do is in `runner.rs`.
//!
//! ```sh
//! seq 200 | sed 's/.*/sleep 0.2/' | cargo run --release --example job_runner -- --max-processes 20
//! ```
//!
//! Ends with 0 when every job ended with success, 1 when one failed or something could not be read or written (jobs go on,
//! and it is said once), 2 when it was called wrongly, and 128 plus the number of the signal that ended it early: each job is
//! then told to end, and killed by a second signal. Ctrl-Z stops the jobs with the runner, and `fg` continues both.

mod input;
mod joblog;
mod options;
mod runner;

use std::process::ExitCode;

use crate::options::Options;
use crate::runner::Runner;

fn main() -> ExitCode {
    let ended = match Options::read() {
        Err(error) => Err((2, error)),
        Ok(options) if options.dry_run => options.done().and_then(input::print).map_err(|error| (1, error.into())),
        Ok(options) => Runner::new(options).and_then(Runner::run).map_err(|error| (1, error)),
    };
    ExitCode::from(ended.unwrap_or_else(|(code, error)| {
        eprintln!("error: {error}");
        code
    }))
}
