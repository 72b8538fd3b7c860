//! The command line, and the limits that it gives.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, io};

use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use clap::{value_parser, Parser};
use highwater::{BoxError, Grouping, JobServer, ResourceLimits, ResourceLimitsBuilder, ResourceMonitor};

use crate::joblog;

/// Runs shell commands, one per line of standard input, as many at a time as the limits allow.
///
/// A limit that is not given is no limit; if none is given, those of the control group, the machine and the user hold.
/// Work is held back from 80 % of a limit, and shed from 95 %. Without `--jobs` and `--max-processes`, as many jobs run at
/// once as there are CPUs, and more while they leave CPUs idle. Processes that a job leaves behind are ended after it.
#[derive(Debug, Parser)]
#[command(name = "job_runner", allow_negative_numbers = true, args_override_self = true)]
pub(crate) struct Options {
    /// The most jobs that run at once
    #[arg(short, long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    jobs: Option<usize>,
    /// The most processes that all jobs together may have; a job's shell counts as one
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    max_processes: Option<u64>,
    /// The most memory that all jobs and the runner may use, in MB of 1024 x 1024 bytes
    #[arg(long, value_name = "MB", value_parser = value_parser!(u64).range(1..=u64::MAX >> 20))]
    max_memory_mb: Option<u64>,
    /// How often to check at least; a busy runner is checked more often
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) interval: Duration,
    /// Limits that override the options, in lines like `max_processes = 20`; read again on SIGHUP, but not under `nohup`
    #[arg(long, value_name = "FILE")]
    pub(crate) limits: Option<PathBuf>,
    /// How often a job that fails is run again
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) retries: u32,
    /// How long a job may take; then it is ended, and has failed
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Write a line about each job that has ended, in the format of GNU parallel; without `--resume` from the start
    #[arg(long, value_name = "FILE")]
    pub(crate) joblog: Option<PathBuf>,
    /// Leave out the lines that have ended with success, as the job log says
    #[arg(long, requires = "joblog")]
    pub(crate) resume: bool,
    /// Print the commands, and run none
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The memory of the machine that is left free, in MB
    #[arg(long, value_name = "MB", value_parser = value_parser!(u64).range(1..=u64::MAX >> 20))]
    min_free_mb: Option<u64>,
    /// The room on the disk of this folder that is left free, in MB
    #[arg(long, value_name = "MB", value_parser = value_parser!(u64).range(1..=u64::MAX >> 20))]
    min_free_disk_mb: Option<u64>,
    /// Be the jobserver of builds among the jobs, for steps that fit; through fifos for clients that know nothing else
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "pipes")]
    #[arg(value_parser = PossibleValuesParser::new(["pipes", "fifo"]))]
    jobserver: Option<String>,
    /// Learn what jobs cost by their first word, not from all of them together
    #[arg(long)]
    pub(crate) kind: bool,
    /// When to print what a job writes: all of it at its end, or each line; by default lines on a terminal, and all elsewhere
    #[arg(long, value_name = "WHEN", value_parser = PossibleValuesParser::new(["grouped", "lines"])
        .map(|when| if when == "lines" { Grouping::Lines } else { Grouping::Whole }))]
    pub(crate) output: Option<Grouping>,
}

impl Options {
    /// Reads the command line, and the file of limits as more of it. The error is one line.
    pub(crate) fn read() -> Result<Options, BoxError> {
        let options = parse(env::args_os())?;
        let Some(path) = &options.limits else { return Ok(options) };
        let text = fs_err::read_to_string(path)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let limits = lines.map(|line| format!("--{}", line.replace('_', "-").replace(char::is_whitespace, "")).into());
        parse(env::args_os().chain(limits)).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    pub(crate) fn limits(&self) -> Result<ResourceLimits, BoxError> {
        let mut limits = ResourceLimits::builder();
        if self.max_processes.is_none() && self.max_memory_mb.is_none() {
            limits = limits.detect()?;
        }
        limits = self.max_processes.into_iter().fold(limits, ResourceLimitsBuilder::max_processes);
        limits = self.max_memory_mb.into_iter().fold(limits, ResourceLimitsBuilder::max_memory_mb);
        limits = self.min_free_mb.into_iter().fold(limits, ResourceLimitsBuilder::min_available_memory_mb);
        let here = env::current_dir()?;
        limits = self.min_free_disk_mb.into_iter().fold(limits, |limits, mb| limits.min_free_disk_mb(&here, mb));
        Ok(limits.build()?)
    }

    /// The lines that are left out.
    pub(crate) fn done(&self) -> io::Result<HashSet<usize>> {
        self.joblog.as_deref().filter(|_| self.resume).map_or_else(|| Ok(HashSet::new()), joblog::done)
    }

    /// The most jobs that run at once. Whoever limits processes wants as many jobs as these allow.
    pub(crate) fn width(&self) -> Option<usize> {
        self.jobs.or(self.max_processes.map(|_| usize::MAX))
    }

    pub(crate) fn jobserver(&self, monitor: &ResourceMonitor) -> Result<Option<JobServer>, BoxError> {
        let through_fifos = self.jobserver.iter().filter(|channels| *channels == "fifo");
        let jobserver = through_fifos.fold(monitor.jobserver(), |jobserver, _| jobserver.fifos_in(env::temp_dir()));
        Ok(self.jobserver.as_ref().map(|_| jobserver.build()).transpose()?)
    }
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Options, String> {
    Options::try_parse_from(arguments).map_err(|error| {
        if !error.use_stderr() {
            error.exit();
        }
        let text = error.to_string();
        let said = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    })
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|seconds| !seconds.is_zero()).ok_or("not a number of seconds above 0".to_owned())
}
