//! Short jobs, one after the other as fast as they go: 3,000 shells that run `true`, through the example `job_runner`,
//! and through the programs that people use for the same, with as many at a time. All in turn, so that they see the same
//! machine. Printed is the fastest of the rounds, since whatever else runs on the machine makes them slower only.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const JOBS: u32 = 3000;
const WIDTH: &str = "20";
const ROUNDS: usize = 9;

/// A program that runs the jobs.
struct Runner {
    name: &'static str,
    command: fn(&Path) -> Command,
    /// The file that it reads them from.
    input: &'static str,
}

/// The first is what the others are compared with.
const RUNNERS: [Runner; 4] = [
    Runner { name: "`xargs -P 20`", command: xargs, input: "lines" },
    Runner { name: "`job_runner --max-processes 20`", command: job_runner, input: "lines" },
    Runner { name: "`make -j 20`", command: make, input: "rules" },
    Runner { name: "`parallel -j 20`", command: parallel, input: "lines" },
];

fn xargs(_: &Path) -> Command {
    command("xargs", &["-P", WIDTH, "-I{}", "/bin/sh", "-c", "{}"])
}

fn job_runner(example: &Path) -> Command {
    let mut command = Command::new(example);
    command.args(["--max-processes", WIDTH]);
    command
}

fn make(_: &Path) -> Command {
    command("make", &["--silent", "-j", WIDTH, "-f", "-"])
}

fn parallel(_: &Path) -> Command {
    command("parallel", &["-j", WIDTH])
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn main() {
    // `cargo bench` passes options for criterion, which has no part in this.
    let example = built_example();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("lines"), "true\n".repeat(JOBS as usize)).unwrap();
    fs::write(folder.path().join("rules"), rules()).unwrap();

    let is_there = |runner: &&Runner| {
        let program = (runner.command)(&example).get_program().to_owned();
        let found = Command::new(program).arg("--version").stdin(Stdio::null()).output().is_ok();
        if !found {
            println!("skipped: {} is not installed", runner.name);
        }
        found
    };
    let runners: Vec<&Runner> = RUNNERS.iter().filter(is_there).collect();
    let mut fastest = vec![f64::INFINITY; runners.len()];
    for _ in 0..ROUNDS {
        for (runner, fastest) in runners.iter().zip(&mut fastest) {
            *fastest = fastest.min(run((runner.command)(&example), &folder.path().join(runner.input)));
        }
    }

    println!("The fastest of {ROUNDS} rounds, {JOBS} jobs each.\n");
    println!("| | seconds | ms a job | ratio |\n| --- | --: | --: | --: |");
    for (runner, &seconds) in runners.iter().zip(&fastest) {
        let (each, ratio) = (seconds * 1e3 / f64::from(JOBS), seconds / fastest[0]);
        println!("| {} | {seconds:.2} | {each:.2} | {ratio:.2} x |", runner.name);
    }
}

/// A rule for each job. The semicolon makes it one for the shell, which make would do without.
fn rules() -> String {
    let mut rules = String::from("all:");
    for job in 0..JOBS {
        let _ = write!(rules, " job-{job}");
    }
    for job in 0..JOBS {
        let _ = write!(rules, "\njob-{job}:\n\ttrue;");
    }
    rules + "\n"
}

/// Built where `cargo build` puts it, as all that it depends on may be there already.
fn built_example() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut cargo = command("cargo", &["build", "--locked", "--release", "--example", "job_runner"]);
    assert!(cargo.args(["--target-dir", "target"]).current_dir(&root).status().unwrap().success());
    root.join("target/release/examples/job_runner")
}

fn run(mut command: Command, input: &Path) -> f64 {
    command.stdin(File::open(input).unwrap()).stdout(Stdio::null());
    let began = Instant::now();
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
    began.elapsed().as_secs_f64()
}
