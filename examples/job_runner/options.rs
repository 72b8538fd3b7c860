//! The command line.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::input::Line;
use crate::output::Grouping;

/// Runs shell commands, one per line of standard input, as many at a time as the limits allow.
///
/// A limit that is not given is no limit; if none is given, those of the control group, the machine and the user hold.
/// Work is held back from 80 % of a limit, and shed from 95 %. Without `--max-processes`, as many jobs run at once as there
/// are CPUs, and more while they leave CPUs idle.
#[derive(Debug, Parser)]
#[command(name = "job_runner", allow_negative_numbers = true)]
pub(crate) struct Options {
    /// The most processes that all jobs together may have; a job's shell counts as one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_processes: Option<u64>,

    /// The most memory that all jobs and the runner may use, in MB of 1024 x 1024 bytes
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..=u64::MAX >> 20))]
    pub(crate) max_memory_mb: Option<u64>,

    /// How often to check at least; a busy runner is checked more often
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) interval: Duration,

    /// Limits that override the options: lines like `max_processes = 20` and `max_memory_mb = 1000`; read again on
    /// SIGHUP, but not under `nohup`
    #[arg(long, value_name = "FILE")]
    pub(crate) limits: Option<PathBuf>,

    /// How often a job that fails is run again
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) retries: u32,

    /// How long a job may take; then it is ended, and has failed
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,

    /// Write a line about each job that has ended, in the format of GNU parallel
    #[arg(long, value_name = "FILE")]
    pub(crate) joblog: Option<PathBuf>,

    /// Leave out the lines that have ended with success, as the job log says
    #[arg(long, requires = "joblog")]
    pub(crate) resume: bool,

    /// Print the commands, and run none
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// The memory of the machine that is left free, in MB
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..=u64::MAX >> 20))]
    pub(crate) min_free_mb: Option<u64>,

    /// The room on the disk of this folder that is left free, in MB
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..=u64::MAX >> 20))]
    pub(crate) min_free_disk_mb: Option<u64>,

    /// Learn what jobs cost by their first word, not from all of them together
    #[arg(long)]
    kind: bool,

    /// When to print what a job writes; by default each line on a terminal, and the whole elsewhere
    #[arg(long, value_name = "WHEN")]
    output: Option<Grouping>,
}

impl Options {
    /// The lines that this one is like.
    pub(crate) fn kind_of(&self, line: &Line) -> String {
        let command = line.command.to_string_lossy();
        let word = command.split_ascii_whitespace().next().filter(|_| self.kind);
        word.unwrap_or("sh").to_owned()
    }

    /// When to print what jobs write.
    pub(crate) fn grouping(&self) -> Grouping {
        let default = if io::stdout().is_terminal() { Grouping::Lines } else { Grouping::Grouped };
        self.output.unwrap_or(default)
    }

    /// Reads the command line. The error is the exit code, and what was wrong has been named in one line.
    pub(crate) fn from_command_line() -> Result<Options, ExitCode> {
        Options::try_parse().map_err(|error| {
            if error.use_stderr() {
                let text = error.to_string();
                eprintln!("{}", text.lines().next().unwrap_or("error: bad usage"));
                ExitCode::from(2)
            } else {
                let _ = error.print();
                ExitCode::SUCCESS
            }
        })
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(Duration::ZERO) => Err("must be longer than 0 seconds".to_owned()),
        Ok(interval) => Ok(interval),
        Err(error) => Err(error.to_string()),
    }
}
