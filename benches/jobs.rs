//! The example `job_runner` beside the programs that people use for the same, all in turn, so that they see the same
//! machine: short jobs as fast as they go, jobs that compute, and small jobs behind a large one. Printed is the fastest of
//! the rounds, since whatever else runs on the machine makes them slower only.
//!
//! `HIGHWATER_JOBS` is the number of short jobs (20,000 by default). With less than that, of everything there is one round.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const SHORT_JOBS: usize = 20_000;
const ROUNDS: usize = 3;

/// A program that runs jobs, with its options.
struct Runner {
    command: String,
    /// Whether it reads rules of make instead of lines.
    reads_rules: bool,
}

impl Runner {
    fn of_lines(command: &str) -> Runner {
        Runner { command: command.to_owned(), reads_rules: false }
    }

    fn of_rules(command: &str) -> Runner {
        Runner { command: command.to_owned(), reads_rules: true }
    }

    /// As a line would be typed, without what only has it read lines as commands.
    fn name(&self) -> &str {
        self.command.split(" -I").next().unwrap()
    }

    fn command(&self, example: &Path) -> Command {
        let mut words = self.command.split(' ');
        let mut command = match words.next().unwrap() {
            "job_runner" => Command::new(example),
            program => Command::new(program),
        };
        command.args(words);
        command
    }

    fn is_installed(&self, example: &Path) -> bool {
        let program = self.command(example).get_program().to_owned();
        let found = Command::new(program).arg("--version").stdin(Stdio::null()).output().is_ok();
        if !found {
            println!("skipped: `{}` is not installed", self.name());
        }
        found
    }
}

/// What a run took.
#[derive(Clone, Copy)]
struct Taken {
    seconds: f64,
    /// The most memory of the runner and its jobs together.
    mb: f64,
}

fn main() {
    // `cargo bench` passes options for criterion, which has no part in this.
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, kind, mb, ms] = &arguments[..] {
        return job(kind, mb.parse().unwrap(), ms.parse().unwrap());
    }
    let short_jobs = std::env::var("HIGHWATER_JOBS").map_or(SHORT_JOBS, |jobs| jobs.parse().unwrap());
    let bench = Bench {
        example: built_example(),
        folder: tempfile::tempdir().unwrap(),
        rounds: if short_jobs < SHORT_JOBS { 1 } else { ROUNDS },
    };
    println!("{}\n\nThe fastest of {} rounds.", peers::machine(), bench.rounds);
    bench.short_jobs(short_jobs);
    bench.jobs_that_compute();
    bench.jobs_behind_a_large_one();
}

struct Bench {
    example: PathBuf,
    folder: tempfile::TempDir,
    rounds: usize,
}

impl Bench {
    fn short_jobs(&self, jobs: usize) {
        let runners = self.installed(vec![
            Runner::of_lines("xargs -P8 -I{} sh -c {}"),
            Runner::of_lines("job_runner --jobs 8"),
            Runner::of_rules("make --silent -j8 -f -"),
            Runner::of_lines("parallel -j8"),
        ]);
        let taken = self.fastest(&runners, &vec!["true".to_owned(); jobs], false);
        println!(
            "\n{jobs} jobs `true`, eight at a time.\n\n| | seconds | jobs a second | rate |\n| --- | --: | --: | --: |"
        );
        for (runner, Taken { seconds, .. }) in runners.iter().zip(&taken) {
            let (rate, ratio) = (jobs as f64 / seconds, taken[0].seconds / seconds);
            println!("| `{}` | {seconds:.2} | {rate:.0} | {ratio:.2} x |", runner.name());
        }
    }

    fn jobs_that_compute(&self) {
        let cpus = thread::available_parallelism().unwrap();
        let runners = self.installed(vec![
            Runner::of_lines(&format!("xargs -P{cpus} -I{{}} sh -c {{}}")),
            Runner::of_lines("job_runner"),
            Runner::of_lines("parallel"),
        ]);
        let taken = self.fastest(&runners, &vec![line("computes", 15, 200); 60], true);
        println!("\n60 jobs of 15 MB that compute.\n\n| | seconds | | MB at most | |\n| --- | --: | --: | --: | --: |");
        for (runner, Taken { seconds, mb }) in runners.iter().zip(&taken) {
            let (longer, larger) = (seconds / taken[0].seconds, mb / taken[0].mb);
            println!("| `{}` | {seconds:.2} | {longer:.2} x | {mb:.0} | {larger:.2} x |", runner.name());
        }
    }

    fn jobs_behind_a_large_one(&self) {
        let runners = self.installed(vec![
            Runner::of_lines("xargs -P8 -I{} sh -c {}"),
            Runner::of_lines("job_runner --max-memory-mb 700"),
            Runner::of_lines("parallel -j8"),
        ]);
        let small = vec![line("waits", 5, 100); 60];
        let with_large = [vec![line("waits", 300, 100)], small.clone()].concat();
        let (without, with) = (self.fastest(&runners, &small, true), self.fastest(&runners, &with_large, true));
        println!("\n60 jobs of 5 MB, and with one of 300 MB before them.\n");
        println!("| | seconds | with it | | MB at most |\n| --- | --: | --: | --: | --: |");
        for ((runner, without), with) in runners.iter().zip(&without).zip(&with) {
            let (before, after, ratio) = (without.seconds, with.seconds, with.seconds / without.seconds);
            println!("| `{}` | {before:.2} | {after:.2} | {ratio:.2} x | {:.0} |", runner.name(), with.mb);
        }
    }

    fn installed(&self, runners: Vec<Runner>) -> Vec<Runner> {
        runners.into_iter().filter(|runner| runner.is_installed(&self.example)).collect()
    }

    /// The least that each runner takes for these jobs, in time and in memory, which is looked at only where that is
    /// wanted: it takes time of its own.
    fn fastest(&self, runners: &[Runner], jobs: &[String], with_memory: bool) -> Vec<Taken> {
        let (lines, rules) = (self.folder.path().join("lines"), self.folder.path().join("rules"));
        fs::write(&lines, jobs.join("\n") + "\n").unwrap();
        fs::write(&rules, rules_of(jobs)).unwrap();
        let mut fastest = vec![Taken { seconds: f64::INFINITY, mb: f64::INFINITY }; runners.len()];
        for _ in 0..self.rounds {
            for (runner, fastest) in runners.iter().zip(&mut fastest) {
                let input = if runner.reads_rules { &rules } else { &lines };
                let taken = run(runner.command(&self.example), input, with_memory);
                fastest.seconds = fastest.seconds.min(taken.seconds);
                fastest.mb = fastest.mb.min(taken.mb);
            }
        }
        fastest
    }
}

fn run(mut command: Command, input: &Path, with_memory: bool) -> Taken {
    command.stdin(File::open(input).unwrap()).stdout(Stdio::null()).stderr(Stdio::null()).env("RUST_LOG", "error");
    let began = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut bytes = 0;
    while with_memory && child.try_wait().unwrap().is_none() {
        bytes = bytes.max(memory_below(child.id()));
        thread::sleep(Duration::from_millis(10));
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "{command:?}: {status}");
    Taken { seconds: began.elapsed().as_secs_f64(), mb: bytes as f64 / f64::from(1 << 20) }
}

/// The memory of a process and all below it that is no file's.
fn memory_below(pid: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let mut pages = statm.split(' ').skip(1).map(|number| number.parse::<u64>().unwrap());
    let own = pages.next().unwrap_or(0).saturating_sub(pages.next().unwrap_or(0)) * 4096;
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = threads.map(|thread| {
        let list = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        list.split_whitespace().map(|pid| memory_below(pid.parse().unwrap())).sum::<u64>()
    });
    own + children.sum::<u64>()
}

/// A line that runs this program as a job.
fn line(kind: &str, mb: usize, ms: u64) -> String {
    format!("{} {kind} {mb} {ms}", std::env::current_exe().unwrap().display())
}

/// Has so much memory, and then waits so long, or computes for about so long on a CPU of its own.
fn job(kind: &str, mb: usize, ms: u64) {
    let memory = black_box(vec![1_u8; mb << 20]);
    match kind {
        "waits" => thread::sleep(Duration::from_millis(ms)),
        // The same for all, however much of a CPU they get.
        "computes" => drop(black_box((0..ms * 1_000_000).fold(1, |sum, number| black_box(sum ^ number)))),
        _ => panic!("{kind} is no kind of job"),
    }
    drop(memory);
}

/// A rule for each job. The semicolon makes it one for the shell, which make would do without.
fn rules_of(jobs: &[String]) -> String {
    let mut rules = String::from("all:");
    for number in 0..jobs.len() {
        let _ = write!(rules, " job-{number}");
    }
    for (number, job) in jobs.iter().enumerate() {
        let _ = write!(rules, "\njob-{number}:\n\t{job};");
    }
    rules + "\n"
}

/// Built where `cargo build` puts it, as all that it depends on may be there already.
fn built_example() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--locked", "--release", "--example", "job_runner", "--target-dir", "target"]);
    assert!(cargo.current_dir(&root).status().unwrap().success());
    root.join("target/release/examples/job_runner")
}
