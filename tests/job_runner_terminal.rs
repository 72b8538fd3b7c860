//! The example `job_runner` at a terminal, below a shell with job control: what its keys do, to the runner and to its jobs.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::runner::{is_stopped, Terminal};
use common::wait_until;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use procfs::process::Process;

#[test]
fn ctrl_z_stops_the_jobs_with_the_runner_and_fg_continues_them() {
    let terminal = Terminal::new();
    terminal.run("< jobs 2> said", "touch started; until [ -e go ]; do sleep 0.05; done; echo 1 >> done\n");
    wait_until("the job runs", || terminal.has("started"));
    let (runner, job) = (terminal.process("job_runner"), terminal.process("sh"));
    for _ in 0..2 {
        terminal.press("\x1a");
        wait_until("both are stopped", || is_stopped(&runner) && is_stopped(&job));
        terminal.press("fg\n");
        wait_until("both go on", || !is_stopped(&runner) && !is_stopped(&job));
    }
    terminal.write("go", "");
    wait_until("the job is done", || terminal.has("done"));
    wait_until("the runner has ended", || !runner.is_alive());
}

#[test]
fn ctrl_c_and_ctrl_backslash_end_the_jobs_too() {
    for (key, code) in [("\x03", 130), ("\x1c", 131)] {
        let terminal = Terminal::new();
        terminal.run("< jobs 2> said", "touch started; sleep 1000; :\n");
        wait_until("the job runs", || terminal.has("started"));
        let job = terminal.process("sh");
        terminal.press(key);
        terminal.wait_for(&format!("ended with {code}"));
        assert!(!job.is_alive());
    }
}

#[test]
fn a_runner_that_reads_its_jobs_from_the_terminal_in_the_background_stops_with_them() {
    let terminal = Terminal::new();
    terminal.run("> stdout", "");
    terminal.press("touch started; until [ -e go ]; do sleep 0.05; done\n");
    wait_until("the job runs", || terminal.has("started"));
    let (runner, job) = (terminal.process("job_runner"), terminal.process("sh"));
    terminal.press("\x1a");
    wait_until("both are stopped", || is_stopped(&runner) && is_stopped(&job));
    terminal.press("bg\n");
    terminal.wait_for("[1]");
    // It asks for the next job once this one is started, and so at once.
    wait_until("both are stopped again", || is_stopped(&runner) && is_stopped(&job));
    terminal.press("fg\n");
    wait_until("both go on", || !is_stopped(&runner) && !is_stopped(&job));
    terminal.write("go", "");
    terminal.press("touch second\n\x04");
    wait_until("the second job is done", || terminal.has("second"));
    wait_until("the runner has ended", || !runner.is_alive());
}

#[test]
fn under_nohup_in_the_background_it_goes_on_after_a_hang_up() {
    let terminal = Terminal::new();
    terminal.write("jobs", "touch started; until [ -e go ]; do sleep 0.05; done; echo 1 >> done\n");
    terminal.press("nohup \"$RUNNER\" < jobs > said 2>&1 &\n");
    wait_until("the job runs", || terminal.has("started"));
    let (runner, job) = (terminal.process("job_runner"), terminal.process("sh"));
    for process in [&runner, &job] {
        kill(Pid::from_raw(-process.stat().unwrap().pgrp), Signal::SIGHUP).unwrap();
    }
    terminal.write("go", "");
    wait_until("the runner has ended", || !runner.is_alive());
    assert_eq!(terminal.text("done"), "1\n");
    assert!(terminal.text("said").contains("1 done, 0 failed"), "{}", terminal.text("said"));
}

#[test]
fn a_line_of_a_job_is_whole_on_a_terminal_too() {
    let terminal = Terminal::new();
    terminal.run("< jobs", "printf first-; touch started; until [ -e go ]; do sleep 0.05; done; echo second\n");
    wait_until("the job runs", || terminal.has("started"));
    wait_until("the progress line was drawn again and again", || {
        let shown = terminal.shown.lock().unwrap();
        String::from_utf8_lossy(&shown).matches("running 1, paused 0").count() > 3
    });
    terminal.write("go", "");
    terminal.wait_for("ended with 0");
    assert!(terminal.shows("first-second"), "{}", String::from_utf8_lossy(&terminal.shown.lock().unwrap()));
}

#[test]
fn a_job_that_wants_the_terminal_has_failed() {
    let terminal = Terminal::new();
    terminal.run("< jobs", "cat < /dev/tty\nstty sane < /dev/tty\necho 3 >> done\n");
    terminal.wait_for("ended with 1");
    for job in [1, 2] {
        assert!(terminal.shows(&format!("job {job} failed: it wants the terminal, which no job has: ")));
    }
    assert!(terminal.shows("1 done, 2 failed, "));
}

/// How long the runner leaves jobs to end.
const GRACE: Duration = Duration::from_secs(2);

#[test]
fn the_grace_of_a_job_goes_on_after_each_fg_where_it_was_at_ctrl_z() {
    // A machine that is held up for the whole grace shows nothing: it is asked again.
    wait_until("a job went on after each `fg`, and was killed at last", || {
        let terminal = Terminal::new();
        // Deaf, and writes while it may.
        let deaf = "trap '' TERM; while :; do echo >> turns; sleep 0.01; done\n";
        terminal.run("< jobs 2> said", deaf);
        wait_until("the job runs", || terminal.has("turns"));
        let (runner, job) = (terminal.process("job_runner"), terminal.process("sh"));
        let turns = || terminal.text("turns").lines().count();
        terminal.press("\x03");
        wait_until("it is told to end", || terminal.text("said").contains("told to stop"));
        for round in 1..=2 {
            terminal.press("\x1a");
            let are_stopped = || is_stopped(&runner) && is_stopped(&job);
            wait_until("both are stopped, or over", || are_stopped() || !runner.is_alive());
            let (before, since) = (turns(), Instant::now());
            wait_until("the grace would be over", || since.elapsed() > GRACE + Duration::from_millis(200));
            terminal.press(&format!("fg; echo after {round}: $?\n"));
            // A job whose grace is over has one look of the runner at most, a tenth of a second.
            wait_until("it has gone on, or is over", || turns() > before + 25 || !runner.is_alive());
            if turns() <= before + 25 {
                return false;
            }
        }
        terminal.wait_for("after 2: 130");
        !job.is_alive()
    });
}

#[test]
fn a_stopped_runner_goes_on_with_its_jobs_whoever_continues_it() {
    let terminal = Terminal::new();
    terminal.run("< jobs 2> said", "touch started; until [ -e go ]; do sleep 0.05; done; echo 1 >> done\n");
    wait_until("the job runs", || terminal.has("started"));
    let (runner, job) = (terminal.process("job_runner"), terminal.process("sh"));
    let pid = |process: &Process| Pid::from_raw(process.pid());
    for _ in 0..2 {
        terminal.press("\x1a");
        wait_until("both are stopped", || is_stopped(&runner) && is_stopped(&job));
        kill(pid(&runner), Signal::SIGCONT).unwrap();
        wait_until("both go on", || !is_stopped(&runner) && !is_stopped(&job));
        terminal.press("fg\n");
        wait_until("the runner is in front", || runner.stat().unwrap().tpgid == runner.stat().unwrap().pgrp);
    }
    terminal.write("go", "");
    wait_until("the runner has ended", || !runner.is_alive());
    assert!(terminal.text("said").contains("1 done, 0 failed, 0 run again"), "{}", terminal.text("said"));
}

#[test]
fn a_job_that_somebody_continues_before_its_runner_ends_once() {
    let terminal = Terminal::new();
    terminal.run("< jobs 2> said", "touch started; until [ -e go ]; do sleep 0.05; done; echo 1 >> done\n");
    wait_until("the job runs", || terminal.has("started"));
    let (runner, job) = (terminal.process("job_runner"), terminal.process("sh"));
    terminal.press("\x1a");
    wait_until("both are stopped", || is_stopped(&runner) && is_stopped(&job));
    terminal.write("go", "");
    kill(Pid::from_raw(-job.pid()), Signal::SIGCONT).unwrap();
    wait_until("the job has ended", || job.stat().map_or(true, |stat| stat.state == 'Z'));
    assert!(is_stopped(&runner));
    terminal.press("fg; echo ended with $?\n");
    terminal.wait_for("ended with 0");
    assert_eq!(terminal.text("done"), "1\n");
    assert!(terminal.text("said").contains("1 done, 0 failed, 0 run again"), "{}", terminal.text("said"));
}

#[test]
fn a_job_that_writes_to_a_terminal_that_stops_the_background_has_failed() {
    let terminal = Terminal::new();
    terminal.press("stty tostop\n");
    // By itself, below, with nobody above it, and in a group of its own.
    let jobs = [
        "echo > /dev/tty",
        "(echo > /dev/tty; exit 1) & wait",
        "(sh -c 'echo > /dev/tty' &); sleep 1000",
        "timeout 1000 sh -c 'echo > /dev/tty'; exit 1",
        "echo 5 >> done",
        // Deaf, so it is not stopped.
        "trap '' TTOU; echo six > /dev/tty && echo 6 >> done",
    ];
    terminal.run("< jobs", &jobs.join("\n"));
    terminal.wait_for("ended with 1");
    for job in 1..=4 {
        assert!(terminal.shows(&format!("job {job} failed: it wants the terminal, which no job has: ")), "{job}");
    }
    assert!(terminal.shows("2 done, 4 failed, ") && terminal.shows("six"));
}
