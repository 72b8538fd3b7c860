//! The example `job_runner` at a terminal, below a shell with job control: what its keys do, to the runner and to its jobs.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::runner::{is_stopped, Terminal};
use common::wait_until;

#[test]
fn ctrl_z_stops_the_jobs_with_the_runner_and_fg_continues_them() {
    let terminal = Terminal::new();
    terminal.run("< jobs > stdout", "touch started; until [ -e go ]; do sleep 0.05; done; echo 1 >> done\n");
    wait_until("the job runs", || terminal.has("started"));
    let (runner, job) = (terminal.process("job_runner"), terminal.process("sh"));
    for _ in 0..2 {
        terminal.press("\x1a");
        wait_until("both are stopped", || is_stopped(&runner) && is_stopped(&job));
        terminal.press("fg\n");
        wait_until("both go on", || !is_stopped(&runner) && !is_stopped(&job));
    }
    fs::write(terminal.folder.path().join("go"), "").unwrap();
    wait_until("the job is done", || terminal.has("done"));
    wait_until("the runner has ended", || !runner.is_alive());
}

#[test]
fn ctrl_c_and_ctrl_backslash_end_the_jobs_too() {
    for (key, code) in [("\x03", 130), ("\x1c", 131)] {
        let terminal = Terminal::new();
        terminal.run("< jobs > stdout", "touch started; sleep 1000; :\n");
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
    fs::write(terminal.folder.path().join("go"), "").unwrap();
    terminal.press("touch second\n\x04");
    wait_until("the second job is done", || terminal.has("second"));
    wait_until("the runner has ended", || !runner.is_alive());
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
    fs::write(terminal.folder.path().join("go"), "").unwrap();
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
