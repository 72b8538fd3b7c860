//! The example `job_runner` where something around it is broken: its input, its output, the disk, descriptors, the process that
//! it is. What it does is looked at, not its words.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use common::runner::job_runner;
use common::{wait_until, wait_within};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Long enough for a run on a loaded machine; reached only by a failure.
const RUN_DEADLINE: Duration = Duration::from_secs(120);

/// A shell that runs a script with `$RUNNER`, in a folder of its own.
struct Shell {
    folder: TempDir,
}

impl Shell {
    fn new() -> Shell {
        Shell { folder: tempfile::tempdir().unwrap() }
    }

    fn start(&self, script: &str) -> Child {
        let mut shell = Command::new("bash");
        shell
            .args(["-c", script])
            .env("RUNNER", job_runner().get_program())
            .env_remove("RUST_LOG")
            .current_dir(&self.folder);
        let output = |name| Stdio::from(File::create(self.folder.path().join(name)).unwrap());
        shell.stdin(Stdio::piped()).stdout(output("stdout")).stderr(output("stderr")).spawn().unwrap()
    }

    fn run(&self, script: &str) -> Option<i32> {
        end(self.start(script)).code()
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap_or_default()
    }

    /// The number of lines that were logged, beside what is said of the run.
    fn logged(&self) -> usize {
        self.text("stderr").lines().filter(|line| line.starts_with('[')).count()
    }

    /// The numbers that jobs have written, in order.
    fn done(&self) -> Vec<u32> {
        let mut done: Vec<u32> = self.text("done").lines().map(|line| line.parse().unwrap()).collect();
        done.sort_unstable();
        done
    }
}

#[track_caller]
fn end(mut child: Child) -> ExitStatus {
    drop(child.stdin.take());
    let mut status = None;
    wait_within(RUN_DEADLINE, "it has ended", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// Twenty jobs that write each.
const TWENTY: &str = "seq 20 | sed 's/.*/echo & >> done; echo out of &/'";

#[test]
fn an_input_that_cannot_be_read_fails_the_run_once() {
    let shell = Shell::new();
    assert_eq!(shell.run("timeout 60 $RUNNER < /"), Some(1));
    assert!(shell.text("stderr").lines().count() < 10);
    assert_eq!(shell.run("$RUNNER <&-"), Some(0));
}

#[test]
fn jobs_go_on_without_an_output_and_the_run_has_failed_if_something_was_lost() {
    for (redirection, code, has_said) in [
        (">&-", 0, false),
        ("2>&-", 0, false),
        (">&- 2>&-", 0, false),
        ("> /dev/full", 1, true),
        ("2> /dev/full", 1, false),
        ("> >(exec 0<&-; touch gone)", 1, true),
    ] {
        let shell = Shell::new();
        let wait = if redirection.contains("gone") { "until [ -e gone ]; do sleep 0.01; done; " } else { "" };
        let script = format!("({wait}{TWENTY}) | ($RUNNER {redirection}; exit $?)");
        assert_eq!(shell.run(&script), Some(code), "{redirection}: {}", shell.text("stderr"));
        assert_eq!(shell.done(), Vec::from_iter(1..=20), "{redirection}");
        assert_eq!(shell.logged(), usize::from(has_said), "{redirection}: {}", shell.text("stderr"));
    }
}

#[test]
fn a_full_disk_under_the_job_log_is_said_once_and_fails_the_run_and_a_resumed_one_does_the_rest() {
    let shell = Shell::new();
    fs::create_dir(shell.folder.path().join("disk")).unwrap();
    let hundred = "seq 100 | sed 's/.*/echo & >> done/'";
    let script = format!(
        "mount -t tmpfs -o size=4k none disk || exit 77
         {hundred} | $RUNNER --joblog disk/log; code=$?; cp disk/log log; exit $code"
    );
    let script = format!("exec unshare --mount bash -c {}", quoted(&script));
    if shell.run(&script) == Some(77) {
        println!("skipped: nothing can be mounted here");
        return;
    }
    assert_eq!(shell.done(), Vec::from_iter(1..=100));
    assert_eq!(shell.logged(), 1, "{}", shell.text("stderr"));
    let log = shell.text("log");
    assert!(log.ends_with('\n') && log.lines().all(|line| line.split('\t').count() == 9), "{log}");
    let logged = log.lines().count() - 1;
    assert!((10..100).contains(&logged), "{logged}");

    // Half a line at the end, as of a runner that was killed with the machine.
    let half = log.trim_end().rsplit_once('\t').unwrap().0.to_owned();
    fs::write(shell.folder.path().join("log"), half).unwrap();
    fs::remove_file(shell.folder.path().join("done")).unwrap();
    assert_eq!(shell.run(&format!("{hundred} | $RUNNER --joblog log --resume")), Some(0));
    assert!(shell.done().len() >= 100 - logged, "{:?}", shell.done());
    assert_eq!(
        shell.run(&format!("rm done; {hundred} | $RUNNER --joblog log --resume; code=$?; touch done; exit $code")),
        Some(0)
    );
    assert!(shell.done().len() <= 1, "{:?}", shell.done());
}

fn quoted(script: &str) -> String {
    format!("'{}'", script.replace('\'', "'\\''"))
}

#[test]
fn a_job_log_may_be_a_pipe() {
    let shell = Shell::new();
    assert_eq!(shell.run(&format!("{TWENTY} | timeout 60 $RUNNER --joblog >(cat > log)")), Some(0));
    wait_until("all are there", || shell.text("log").lines().count() == 21);
}

#[test]
fn few_descriptors_have_jobs_wait_and_fail_none() {
    for most in [64, 80] {
        let shell = Shell::new();
        let jobs = "seq 60 | sed 's/.*/echo & >> done; sleep 0.1/'";
        let script = format!("ulimit -n {most}; {jobs} | $RUNNER --max-processes 200");
        assert_eq!(shell.run(&script), Some(0), "{most}: {}{}", shell.text("stdout"), shell.text("stderr"));
        // Twice, where one was ended as descriptors ran out, and run again.
        let mut done = shell.done();
        done.dedup();
        assert_eq!(done, Vec::from_iter(1..=60), "{most}");
    }
}

#[test]
fn a_limit_on_the_size_of_files_ends_no_runner_and_jobs_have_it_too() {
    let shell = Shell::new();
    let jobs =
        "printf '%s\\n' 'echo 1 >> done' 'head -c 5000 /dev/zero > large; echo $? > code' 'head -c 200000 /dev/zero'";
    let script = format!("{jobs} | (ulimit -f 4; $RUNNER | tail -c 100 > tail; exit ${{PIPESTATUS[0]}})");
    let code = shell.run(&script);
    assert!(matches!(code, Some(0 | 1)), "{code:?}: {}", shell.text("stderr"));
    assert_eq!(shell.done(), [1]);
    // 128 and SIGXFSZ.
    assert_eq!(shell.text("code").trim(), "153");
}

#[test]
fn a_full_disk_for_temporary_files_loses_nothing() {
    let shell = Shell::new();
    fs::create_dir(shell.folder.path().join("disk")).unwrap();
    let script = "mount -t tmpfs -o size=64k none disk || exit 77
        echo 'head -c 10000000 /dev/zero' | TMPDIR=$PWD/disk $RUNNER | tr -dc '\\0' | wc -c > count; exit ${PIPESTATUS[1]}";
    if shell.run(&format!("exec unshare --mount bash -c {}", quoted(script))) == Some(77) {
        println!("skipped: nothing can be mounted here");
        return;
    }
    assert_eq!(shell.text("count").trim(), "10000000");
}

#[test]
fn a_job_starts_as_soon_as_its_line_is_whole() {
    let shell = Shell::new();
    let mut runner = shell.start("exec $RUNNER");
    let mut input = runner.stdin.take().unwrap();
    for (number, pieces) in [["ec", "ho 1 >> done\n"], ["echo", " 2 >> done\necho 3"]].iter().enumerate() {
        input.write_all(pieces[0].as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(shell.done().len(), number);
        input.write_all(pieces[1].as_bytes()).unwrap();
        wait_until("it was run", || shell.done().len() == number + 1);
    }
    drop(input);
    assert!(end(runner).success());
    assert!(shell.text("stdout").contains("3\n"));
}

#[test]
fn a_runner_that_is_the_first_process_reaps_orphans_and_ends_by_signals() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let shell = Shell::new();
        let jobs = "setsid -f true; setsid -f sh -c 'exit 3'; echo 1 >> done\nsetsid sleep 1000 & echo 2 >> done; exec sleep 1000";
        fs::write(shell.folder.path().join("jobs"), jobs).unwrap();
        let mut runner = shell.start("exec unshare --pid --fork --kill-child --mount-proc $RUNNER < jobs");
        wait_within(RUN_DEADLINE, "both have begun", || {
            shell.done().len() == 2 || runner.try_wait().unwrap().is_some()
        });
        if shell.done().is_empty() {
            println!("skipped: no namespaces here: {}", shell.text("stderr"));
            return;
        }
        let children = |pid: u32| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let first: i32 = children(runner.id()).trim().parse().unwrap();
        wait_until("all that have ended are reaped", || {
            let is_zombie =
                |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
            !children(first as u32).split_whitespace().any(is_zombie)
        });
        let began = Instant::now();
        kill(Pid::from_raw(first), signal).unwrap();
        assert_eq!(end(runner).code(), Some(128 + signal as i32));
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}

#[test]
fn jobs_of_a_killed_runner_are_found_by_their_mark_and_end_with_it_where_they_ask_for_it() {
    let shell = Shell::new();
    let mut runner = shell.start("exec $RUNNER --max-processes 100");
    let jobs = "echo $$ > one; exec sleep 1000\necho $$ > two; exec setpriv --pdeathsig KILL sleep 1000\n";
    runner.stdin.as_mut().unwrap().write_all(jobs.as_bytes()).unwrap();
    let pid = |file| shell.text(file).trim().to_owned();
    let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    wait_until("both run", || ["one", "two"].iter().all(|file| name(&pid(file)) == "sleep\n"));
    runner.kill().unwrap();
    runner.wait().unwrap();
    let two = format!("/proc/{}/stat", pid("two"));
    wait_until("one of them ends", || fs::read_to_string(&two).map_or(true, |stat| stat.contains(") Z ")));
    let mark = format!("HIGHWATER_JOB={}.", runner.id());
    let environment = fs::read(format!("/proc/{}/environ", pid("one"))).unwrap();
    assert!(BufReader::new(&*environment).split(0).any(|entry| entry.unwrap().starts_with(mark.as_bytes())));
    kill(Pid::from_raw(pid("one").parse().unwrap()), Signal::SIGKILL).unwrap();
}

#[test]
fn a_job_that_nobody_may_signal_has_failed_when_its_time_is_over_and_does_not_keep_the_runner() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only the first user makes a program with his rights");
        return;
    }
    let shell = Shell::new();
    // It becomes the first user wholly, and the runner is another one.
    let script = "cp $RUNNER runner && cp $(command -v setpriv) privileged && chmod 4755 privileged && chmod 777 .
        echo 'exec ./privileged --reuid=0 --regid=0 --clear-groups sh -c \"echo \\$\\$ > pid; exec sleep 1000\"' > jobs
        echo 'echo 2 >> done' >> jobs
        exec setpriv --reuid=100000 --regid=100000 --clear-groups ./runner --timeout 0.5 --jobs 2 < jobs";
    let code = shell.run(script);
    let _ = kill(Pid::from_raw(shell.text("pid").trim().parse().unwrap()), Signal::SIGKILL);
    assert_eq!((code, shell.done()), (Some(1), vec![2]), "{}", shell.text("stderr"));
    let said = shell.text("stderr");
    assert!(said.contains("job 1 failed: it may not be signalled, and goes on: exec ./privileged"), "{said}");
}
