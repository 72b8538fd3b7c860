//! Three real builds at once in a control group of 512 MB, whose steps each map and touch 60 MB: `.ci/run builds`.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::groups::{limit_memory, Groups};
use common::{is_there, ms, ninja};
use highwater::{Job, MemoryScope, Outcome, ResourceLimits, ResourceMonitor};

const LIMIT: u64 = 512 << 20;

/// The steps of each build, and the tokens that there are: far more than fit.
const STEPS: usize = 14;
const TOKENS: usize = 12;

/// A program that maps and touches 60 MB, and keeps them for half a second. A build script too.
const STEP: &str = r#"fn main() {
    println!("cargo:rerun-if-env-changed=STAMP");
    if std::env::var_os("STAMP").is_some() {
        let touched = std::hint::black_box(vec![1_u8; 60 << 20]);
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert_eq!(touched[touched.len() / 2], 1);
    }
}
"#;

/// What became of the builds.
#[derive(Debug)]
struct Run {
    all_ended_well: bool,
    kills: u64,
    peak: u64,
    took: Duration,
}

fn text(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

fn kills(group: &Path) -> u64 {
    let control = text(&group.join("memory.oom_control"));
    control.lines().find_map(|line| line.strip_prefix("oom_kill ")).map_or(0, |kills| kills.parse().unwrap())
}

/// What is charged to the group and cannot be dropped.
fn used(group: &Path) -> u64 {
    let usage: u64 = text(&group.join("memory.usage_in_bytes")).trim().parse().unwrap_or_default();
    let stat = text(&group.join("memory.stat"));
    let value = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    usage - value("total_inactive_file ").unwrap_or_default() - value("total_active_file ").unwrap_or_default()
}

/// Runs commands in the group, all at once, and watches it.
fn run(group: &Path, commands: Vec<Command>) -> Run {
    let (before, began) = (kills(group), Instant::now());
    let procs = group.join("cgroup.procs");
    let mut children: Vec<_> = commands
        .into_iter()
        .map(|mut command| {
            // A shell enters the group, and becomes the command.
            let mut sh = Command::new("sh");
            let program = command.get_program().to_owned();
            sh.args(["-c", &format!("echo $$ >{} && exec \"$0\" \"$@\"", procs.display())]).arg(program);
            sh.args(command.get_args()).current_dir(command.get_current_dir().unwrap());
            for (name, value) in command.get_envs() {
                if let Some(value) = value {
                    sh.env(name, value);
                }
            }
            command.stdin(Stdio::null());
            sh.stdin(Stdio::null()).process_group(0).spawn().unwrap()
        })
        .collect();
    let (mut peak, mut ends) = (0, Vec::<ExitStatus>::new());
    while !children.is_empty() {
        peak = peak.max(used(group));
        children.retain_mut(|child| match child.try_wait().unwrap() {
            Some(status) => {
                ends.push(status);
                false
            }
            None => true,
        });
        thread::sleep(ms(5));
    }
    let took = began.elapsed();
    Run { all_ended_well: ends.iter().all(ExitStatus::success), kills: kills(group) - before, peak, took }
}

/// The three builds in this folder, each as wide as it is told, or as it likes.
fn builds(folder: &Path, widths: Option<[usize; 3]>) -> Vec<Command> {
    let programs = [
        vec!["make".into()],
        vec![ninja().unwrap().into_os_string()],
        ["cargo", "build", "-q", "--offline"].map(Into::into).into(),
    ];
    let commands = programs.into_iter().enumerate().map(|(index, words)| {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(folder);
        if let Some(widths) = widths {
            command.arg(format!("-j{}", widths[index]));
        }
        command
    });
    commands.collect()
}

/// Makes every step due, and the programs that cargo runs for them once and for all.
fn lay_out(folder: &Path) {
    let write = |file: &str, text: &str| {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("step.rs", STEP);
    assert!(Command::new("rustc").args(["-O", "step.rs"]).current_dir(folder).status().unwrap().success());
    let names: Vec<String> = (0..STEPS).map(|step| format!("s{step}")).collect();
    write("Makefile", &format!("all: {0}\n{0}:\n\t@STAMP=1 ./step >/dev/null\n", names.join(" ")));
    let edges: String = names.iter().map(|name| format!("build {name}: step\n")).collect();
    write("build.ninja", &format!("rule step\n  command = STAMP=1 ./step >/dev/null\n{edges}"));
    let names: Vec<String> = names.iter().map(|name| format!("c{name}")).collect();
    let members: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    write("Cargo.toml", &format!("[workspace]\nresolver = \"2\"\nmembers = [{}]\n", members.join(", ")));
    for name in &names {
        write(&format!("{name}/Cargo.toml"), &format!("[package]\nname = \"{name}\"\nedition = \"2021\"\n"));
        write(&format!("{name}/src/lib.rs"), "");
        write(&format!("{name}/build.rs"), STEP);
    }
    let built =
        Command::new("cargo").args(["build", "-q", "--offline"]).current_dir(folder).env_remove("STAMP").status();
    assert!(built.unwrap().success());
}

#[test]
#[ignore = "run by .ci/run builds"]
fn three_builds_that_a_jobserver_gates_end_well_where_others_of_their_width_are_killed() {
    if !is_there("make") || !is_there("cargo") || ninja().is_none() {
        return;
    }
    let Some(groups) = Groups::new("memory") else { return };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    lay_out(folder.path());
    limit_memory(&groups.outer, LIMIT);
    let group = &groups.inner;
    let mut stamp = 0;
    let mut run_with = |what: &str, mut commands: Vec<Command>| {
        stamp += 1;
        for command in &mut commands {
            command.env("STAMP", stamp.to_string());
        }
        let run = run(group, commands);
        println!("{what}: {run:?}, peak {:.1} %", run.peak as f64 * 100.0 / LIMIT as f64);
        run
    };

    let best = [[2, 2, 2], [3, 2, 2], [2, 2, 3]].map(|widths| {
        let run = run_with(&format!("-j by hand {widths:?}"), builds(folder.path(), Some(widths)));
        if run.all_ended_well && run.kills == 0 {
            run.took
        } else {
            Duration::MAX
        }
    });
    let best = best.into_iter().min().unwrap();

    let mut host = Command::new(std::env::current_exe().unwrap());
    host.args(["--ignored", "--exact", "--nocapture", "the_host_of_three_builds"]);
    let gated = [(); 2].map(|()| {
        let mut again = Command::new(host.get_program());
        again.args(host.get_args()).current_dir(folder.path()).env("HIGHWATER_BUILDS", folder.path());
        let run = run_with("gated", vec![again]);
        assert!(run.all_ended_well && run.kills == 0, "{run:?}");
        assert!(run.peak < LIMIT / 100 * 95, "{run:?}");
        run.took
    });
    let gated = gated.into_iter().min().unwrap();

    let width = TOKENS / 3 + 1;
    let by_hand = run_with(&format!("-j{width} by hand"), builds(folder.path(), Some([width; 3])));
    assert!(by_hand.kills > 0, "{by_hand:?}");

    let ratio = gated.as_secs_f64() / best.as_secs_f64();
    println!("gated: {ratio:.2} x of the best width by hand");
    // A busy machine tells little of times; benches/README.md has those of a quiet one.
    assert!(ratio < 1.5, "{ratio:.2}");
}

/// A process of its own, in the group.
#[test]
#[ignore = "three_builds_that_a_jobserver_gates_end_well_where_others_of_their_width_are_killed runs it"]
fn the_host_of_three_builds() {
    let Some(folder) = std::env::var_os("HIGHWATER_BUILDS") else { return };
    let limits = ResourceLimits::detect().unwrap();
    let monitor = ResourceMonitor::builder(limits).memory_scope(MemoryScope::Tree).build().unwrap();
    let server = monitor.jobserver().tokens(TOKENS).build().unwrap();
    let jobs = monitor.jobs().width(usize::MAX).jobserver(&server).build().unwrap();
    monitor.start(Duration::from_secs(1)).unwrap();
    let handles: Vec<_> = builds(Path::new(&folder), None)
        .into_iter()
        .map(|build| jobs.submit(Job::new(build).tries(1)).unwrap())
        .collect();
    let outcomes: Vec<Outcome> = handles.iter().map(|job| job.wait()).collect();
    println!("{outcomes:?}\n{:?}\n{}", server.tally(), jobs.costs());
    assert!(outcomes.iter().all(Outcome::is_success));
}
