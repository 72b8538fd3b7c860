//! The example `job_runner` from end to end: real jobs, real signals, real limits.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::groups::{limit_memory, limit_pids, Groups};
use common::runner::{job_runner, processes_of, MARK};
use common::{wait_until, wait_within};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{kill, SigSet, Signal};
use nix::unistd::{chown, Pid};
use procfs::process::Process;
use procfs::CurrentSI;
use tempfile::TempDir;

/// Long enough for a run of many jobs on a loaded machine; reached only by a failure.
const RUN_DEADLINE: Duration = Duration::from_secs(300);

/// What jobs wait at until it is opened: their command `flock -s NAME true`, one process, ends when this lock does.
struct Gate(Flock<File>);

impl Gate {
    fn open(self) {
        self.0.unlock().unwrap();
    }
}

/// Takes this much memory, touched, for as long as `job` lasts: `dd` is left holding what nobody reads.
fn holding_mb(mb: u32, job: &str) -> String {
    format!("dd if=/dev/zero bs={mb}M count=1 2>/dev/null | ({job})")
}

/// A `job_runner` in a folder of its own, which its jobs work in.
struct Run {
    runner: Child,
    folder: TempDir,
}

impl Run {
    fn start(options: &[&str]) -> Run {
        Run::start_in(tempfile::tempdir().unwrap(), options)
    }

    fn start_in(folder: TempDir, options: &[&str]) -> Run {
        Run::start_as(job_runner(), folder, options)
    }

    /// Starts a runner by a script, which begins it as its `"$@"`.
    fn start_by(script: &str, options: &[&str]) -> Run {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(job_runner().get_program());
        Run::start_as(shell, tempfile::tempdir().unwrap(), options)
    }

    fn start_as(mut command: Command, folder: TempDir, options: &[&str]) -> Run {
        let runner = command
            .args(options)
            .current_dir(&folder)
            .env(MARK, folder.path())
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(File::create(folder.path().join("stdout")).unwrap())
            .stderr(File::create(folder.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        Run { runner, folder }
    }

    /// Gives the runner one more job.
    fn feed(&mut self, job: &str) {
        // A runner that has ended already is found out when its end is looked at.
        let _ = writeln!(self.runner.stdin.as_mut().unwrap(), "{job}");
    }

    /// A closed gate.
    fn gate(&self, name: &str) -> Gate {
        let file = File::create(self.folder.path().join(name)).unwrap();
        Gate(Flock::lock(file, FlockArg::LockExclusive).unwrap())
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.path().join(file), text).unwrap();
    }

    fn has(&self, file: &str) -> bool {
        self.folder.path().join(file).exists()
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap_or_default()
    }

    #[track_caller]
    fn wait_for(&self, file: &str, text: &str) {
        wait_until(&format!("{file} says `{text}`"), || self.read(file).contains(text));
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.runner.id() as i32), signal).unwrap();
    }

    /// Waits until the runner has ended, with nothing more to run and nothing left running.
    #[track_caller]
    fn end(mut self) -> Ended {
        drop(self.runner.stdin.take());
        let mut status = None;
        wait_within(RUN_DEADLINE, "the runner has ended", || {
            status = self.runner.try_wait().unwrap();
            status.is_some()
        });
        wait_until("no process of the run is left", || processes_of(self.folder.path()).is_empty());
        let mut done: Vec<u32> = self.read("done").lines().map(|number| number.parse().unwrap()).collect();
        done.sort_unstable();
        Ended { status: status.unwrap(), stdout: self.read("stdout"), stderr: self.read("stderr"), done }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.runner.kill();
        let _ = self.runner.wait();
        for process in processes_of(self.folder.path()) {
            let _ = kill(Pid::from_raw(process.pid()), Signal::SIGKILL);
        }
    }
}

/// What a run has left behind.
#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
    /// The numbers that the jobs wrote when they were done.
    done: Vec<u32>,
}

impl Ended {
    /// How many jobs are done, have failed and were run again, as the summary says.
    fn counts(&self) -> (u32, u32, u32) {
        let number = |label| number_before(&self.stderr, label) as u32;
        (number(" done, "), number(" failed, "), number(" run again, "))
    }

    /// Whether so much of the time that the summary says it the run was limited by this.
    fn is_limited_by(&self, limiter: &str) -> bool {
        self.stderr.lines().any(|line| line.contains("; limited by ") && line.contains(&format!("{limiter} ")))
    }

    /// The most processes and the most MB that were seen.
    fn peak(&self) -> (u32, f64) {
        let peak = self.stderr.split("peak:").nth(1).unwrap_or_else(|| panic!("no peak: {self:?}"));
        (number_before(peak, " processes") as u32, number_before(peak, " MB"))
    }
}

/// The number that stands before the last of these labels.
fn number_before(text: &str, label: &str) -> f64 {
    let number = text.rsplit_once(label).and_then(|(head, _)| head.split_ascii_whitespace().last()?.parse().ok());
    number.unwrap_or_else(|| panic!("no number before `{label}`: {text}"))
}

#[test]
fn two_hundred_milliseconds_of_sleep_sixty_times_stay_below_twenty_processes() {
    let mut run = Run::start(&["--max-processes", "20"]);
    for _ in 0..60 {
        run.feed("sleep 0.2; :");
    }
    let ended = run.end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.counts(), (60, 0, 0), "{ended:?}");
    assert!(ended.peak().0 < 20, "{ended:?}");
}

#[test]
fn jobs_of_four_processes_under_twenty_all_finish_once() {
    let mut run = Run::start(&["--max-processes", "20"]);
    for number in 1..=60 {
        run.feed(&format!("sleep 0.2 & sleep 0.2 & sleep 0.2 & wait; echo {number} >> done"));
    }
    let ended = run.end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.done, Vec::from_iter(1..=60), "{ended:?}");
    assert_eq!(ended.counts(), (60, 0, 0), "{ended:?}");
    assert!(ended.is_limited_by("processes"), "{ended:?}");
    assert!(ended.peak().0 < 20, "{ended:?}");
}

#[test]
fn processes_that_jobs_have_handed_over_count_as_theirs() {
    let mut run = Run::start(&["--max-processes", "20"]);
    // The shell and its sleep, and four that are no descendants of the shell any more.
    for number in 1..=12 {
        let handed_over = "setsid -f sh -c 'sleep 1000 & sleep 1000 & sleep 1000; :'";
        run.feed(&format!("{handed_over}; sleep 0.3; echo {number} >> done"));
    }
    let ended = run.end();
    assert_eq!((ended.counts(), &ended.done), ((12, 0, 0), &Vec::from_iter(1..=12)), "{ended:?}");
    assert!(ended.peak().0 < 20, "{ended:?}");
}

#[test]
fn jobs_that_take_memory_stay_below_the_limit_and_all_finish_once() {
    let mut run = Run::start(&["--max-memory-mb", "150", "--max-processes", "100"]);
    for number in 1..=12 {
        run.feed(&format!("{}; echo {number} >> done", holding_mb(40, "sleep 0.5")));
    }
    let ended = run.end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.done, Vec::from_iter(1..=12), "{ended:?}");
    assert_eq!(ended.counts(), (12, 0, 0), "{ended:?}");
    assert!(ended.is_limited_by("memory"), "{ended:?}");
    let (_, peak_mb) = ended.peak();
    assert!(peak_mb < 150.0, "{ended:?}");
}

#[test]
fn one_job_that_is_far_larger_leaves_room_for_many_beside_it() {
    const SMALL: u32 = 20;
    let mut run = Run::start(&["--max-memory-mb", "700", "--jobs", &SMALL.to_string()]);
    let go = run.gate("go");
    run.feed(&holding_mb(300, "sleep 0.5"));
    for number in 1..=3 {
        run.feed(&holding_mb(5, &format!("sleep 0.5; echo {number} >> done")));
    }
    for number in 4..4 + SMALL {
        run.feed(&holding_mb(5, &format!("flock -s go true; echo {number} >> done")));
    }
    run.wait_for("stderr", &format!("running {SMALL}, "));
    go.open();
    let ended = run.end();
    assert_eq!(ended.counts(), (4 + SMALL, 0, 0), "{ended:?}");
    assert_eq!(ended.done, Vec::from_iter(1..4 + SMALL), "{ended:?}");
}

#[test]
fn jobs_that_take_their_memory_late_are_not_killed() {
    const JOBS: u32 = 16;
    let Some(groups) = Groups::new("memory") else { return };
    limit_memory(&groups.outer, 1024 << 20);
    let enter = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", groups.inner.display());
    // As many as their sleep bears, were it not for what they will need: 3.2 GB.
    let mut run = Run::start_by(&enter, &["--jobs", &JOBS.to_string()]);
    for number in 1..=JOBS {
        // Several checks see it as small as a shell.
        run.feed(&format!("sleep 3; {}", holding_mb(200, &format!("sleep 1; echo {number} >> done"))));
    }
    let ended = run.end();
    let kills = fs::read_to_string(groups.outer.join("memory.oom_control")).unwrap();
    assert!(kills.contains("oom_kill 0\n"), "{kills}: {ended:?}");
    assert_eq!((ended.counts(), &ended.done), ((JOBS, 0, 0), &Vec::from_iter(1..=JOBS)), "{ended:?}");
}

#[test]
fn jobs_that_outgrow_the_limit_are_shed_and_run_again() {
    let mut run = Run::start(&["--max-processes", "20"]);
    run.feed("sleep 0.5; :");
    // Two processes each until they grow, then seven.
    let (grow, go) = (run.gate("grow"), run.gate("go"));
    for number in 1..=12 {
        let part = "(flock -s go true; :) &";
        run.feed(&format!("flock -s grow true; {part} {part} {part} wait; echo {number} >> done"));
    }
    run.wait_for("stderr", "running 8");
    grow.open();
    run.wait_for("stderr", "waits to be run again, as it had too little room");
    go.open();
    let mut ended = run.end();
    assert!(ended.status.success(), "{ended:?}");
    ended.done.dedup();
    assert_eq!(ended.done, Vec::from_iter(1..=12), "{ended:?}");
    let (done, failed, shed) = ended.counts();
    assert_eq!((done, failed), (13, 0), "{ended:?}");
    assert!(shed > 0, "{ended:?}");
    let log = ended.stderr;
    assert!(log.contains("event=monitor.pausing_oldest_job job_id=2 reason="), "{log}");
    assert!(log.contains("event=monitor.pause_failed_falling_back_to_cancel job_id=2 reason="), "{log}");
}

#[test]
fn a_limit_of_one_process_fits_no_job() {
    let mut run = Run::start(&["--max-processes", "1"]);
    run.feed("echo 1 >> done");
    let ended = run.end();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("job 1 failed: refused: processes 0 + 1 asked of 1 (100.0 %)"), "{ended:?}");
    assert!(ended.stderr.contains("it could never fit"), "{ended:?}");
    assert_eq!((ended.counts(), ended.done), ((0, 1, 0), vec![]));
}

#[test]
fn a_job_shed_while_it_runs_alone_has_failed_and_is_not_run_again() {
    let too_many = format!("{}wait", "sleep 1000 & ".repeat(20));
    let too_large = holding_mb(200, "sleep 1000");
    for (resource, options, job) in
        [("processes", ["--max-processes", "20"], too_many), ("memory", ["--max-memory-mb", "100"], too_large)]
    {
        let mut run = Run::start(&options);
        run.feed(&format!("echo 1 >> started; {job}"));
        run.feed("echo 2 >> done");
        run.wait_for("stderr", "job 1 failed");
        assert_eq!(run.read("started"), "1\n");
        let ended = run.end();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let reason = format!("job 1 failed: shed once, {resource} critical, at most ");
        assert!(ended.stderr.contains(&reason), "{ended:?}");
        assert_eq!((ended.counts(), ended.done), ((1, 1, 0), vec![2]), "{}", ended.stderr);
    }
}

#[test]
fn jobs_run_side_by_side_again_after_one_that_could_never_fit() {
    let mut run = Run::start(&["--max-processes", "20"]);
    let (grow, go) = (run.gate("grow"), run.gate("go"));
    run.feed("sleep 0.5; :");
    run.feed(&format!("flock -s grow true; {}wait", "sleep 1000 & ".repeat(20)));
    run.feed("touch beside; flock -s go true");
    wait_until("another job runs beside the one that grows", || run.has("beside"));
    grow.open();
    run.wait_for("stderr", "job 2 waits to be run again");
    go.open();
    run.wait_for("stderr", "job 2 failed: ");
    // Neither ends without the other.
    run.feed("touch fourth; until [ -e fifth ]; do sleep 0.05; done");
    run.feed("touch fifth; until [ -e fourth ]; do sleep 0.05; done");
    let ended = run.end();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_eq!(ended.counts(), (4, 1, 1), "{ended:?}");
}

#[test]
fn a_job_is_paused_for_memory_and_continues_when_the_pressure_has_cleared() {
    // The settle time is one interval: this long, the job stays paused before it would be cancelled.
    let mut run = Run::start(&["--max-memory-mb", "100", "--max-processes", "100", "--interval", "5"]);
    let (grow, free, go) = (run.gate("grow"), run.gate("free"), run.gate("go"));
    run.feed("sleep 0.5; :");
    run.feed("echo $$ > oldest; flock -s go true; echo 2 >> done");
    let memory = holding_mb(150, "flock -s free true");
    run.feed(&format!("flock -s grow true; {memory}; flock -s go true; echo 3 >> done"));
    wait_until("the oldest job runs", || run.read("oldest").ends_with('\n'));
    let oldest = Process::new(run.read("oldest").trim().parse().unwrap()).unwrap();
    grow.open();
    wait_until("it is paused", || oldest.stat().unwrap().state == 'T');
    free.open();
    wait_until("it continues", || oldest.stat().unwrap().state != 'T');
    go.open();
    let ended = run.end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!((ended.counts(), &ended.done), ((3, 0, 0), &vec![2, 3]), "{ended:?}");
}

#[test]
fn a_job_that_fails_makes_the_runner_fail() {
    let mut run = Run::start(&[]);
    run.feed("echo 1 >> done");
    run.feed("exit 3");
    run.feed("");
    run.feed("kill -KILL $$");
    run.feed("echo 5 >> done");
    let ended = run.end();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("job 2 failed: exit status: 3: exit 3\n"), "{ended:?}");
    assert!(ended.stderr.contains("job 4 failed: signal: 9 (SIGKILL): kill -KILL $$\n"), "{ended:?}");
    assert_eq!((ended.counts(), ended.done), ((2, 2, 0), vec![1, 5]));
}

#[test]
fn a_bad_option_or_value_is_named_in_one_line() {
    let cases: [(&[&str], &str); 14] = [
        (&["--bogus"], "--bogus"),
        (&["extra"], "extra"),
        (&["--max-processes"], "--max-processes"),
        (&["--max-processes", "0"], "'0' for '--max-processes"),
        (&["--max-processes", "many"], "'many' for '--max-processes"),
        (&["--max-memory-mb", "-5"], "'-5' for '--max-memory-mb"),
        (&["--max-memory-mb", "99999999999999999"], "'99999999999999999' for '--max-memory-mb"),
        (&["--interval", "0"], "'0' for '--interval"),
        (&["--interval", "nan"], "'nan' for '--interval"),
        (&["--limits", "missing"], "`missing`: No such file"),
        (&["--limits", "zero"], "zero: invalid value '0' for '--max-processes"),
        (&["--limits", "unknown"], "unknown: unexpected argument '--max-files'"),
        (&["--resume"], "--joblog <FILE>"),
        (&["--limits", "garbled"], "garbled: a value is required for '--max-processes"),
    ];
    for (options, named) in cases {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("zero"), "# none\nmax_processes = 0\n").unwrap();
        fs::write(folder.path().join("unknown"), "max_files = 5\n").unwrap();
        fs::write(folder.path().join("garbled"), "max_processes\n").unwrap();
        let mut run = Run::start_in(folder, options);
        run.feed("echo 1 >> done");
        let ended = run.end();
        assert_eq!(ended.status.code(), Some(2), "{options:?}: {ended:?}");
        assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains(named), "{options:?}: {ended:?}");
        assert_eq!((ended.stderr.lines().count(), ended.stdout.as_str()), (1, ""), "{options:?}: {ended:?}");
        assert!(ended.done.is_empty(), "{options:?}");
    }
}

#[test]
fn help_names_every_option() {
    let ended = Run::start(&["--help"]).end();
    assert!(ended.status.success(), "{ended:?}");
    for option in [
        "--jobs <N>",
        "--max-processes <N>",
        "--max-memory-mb <MB>",
        "--interval <SECONDS>",
        "--limits <FILE>",
        "--retries <N>",
        "--timeout <SECONDS>",
        "--joblog <FILE>",
        "--resume",
        "--dry-run",
        "--min-free-mb <MB>",
        "--min-free-disk-mb <MB>",
        "--jobserver",
        "--kind",
        "--output <WHEN>",
        "--help",
    ] {
        assert!(ended.stdout.contains(option), "{option}: {ended:?}");
    }
}

#[test]
fn sighup_reloads_the_limits_and_a_broken_file_changes_none() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("limits"), "max_processes = 7\n").unwrap();
    let mut run = Run::start_in(folder, &["--limits", "limits"]);
    let go = run.gate("go");
    run.feed("sleep 0.5; :");
    // Two processes each.
    for number in 1..=10 {
        run.feed(&format!("flock -s go true; echo {number} >> done"));
    }
    run.wait_for("stderr", "running 3, paused 0, done 1,");

    run.write("limits", "max_processes = 100\nmax_processes = plenty\n");
    run.signal(Signal::SIGHUP);
    run.wait_for("stderr", "limits unchanged: limits: invalid value 'plenty' for '--max-processes");

    run.write("limits", "max_processes = 12\n");
    run.signal(Signal::SIGHUP);
    run.wait_for("stderr", "running 5, paused 0, done 1,");
    assert!(!run.read("stderr").contains("running 10"), "{}", run.read("stderr"));

    run.write("limits", "max_processes = 100\n");
    run.signal(Signal::SIGHUP);
    run.wait_for("stderr", "running 10, paused 0, done 1,");
    go.open();
    let ended = run.end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!((ended.counts(), ended.done), ((11, 0, 0), Vec::from_iter(1..=10)));
}

#[test]
fn sigint_ends_every_job_and_starts_no_other() {
    let mut run = Run::start(&["--max-processes", "20"]);
    run.feed("sleep 0.5 & sleep 0.5 & wait");
    for number in 2..=10 {
        run.feed(&format!("echo {number} >> started; sleep 1000 & sleep 1000 & wait; echo {number} >> done"));
    }
    // Three processes each.
    wait_until("the line says that six run and that more are held back", || {
        run.read("stderr").lines().any(|line| line.contains("running 6,") && line.contains("holding back: "))
    });
    wait_until("the first of them runs", || run.read("started").contains("2\n"));
    run.signal(Signal::SIGINT);
    let ended = run.end();
    assert_eq!(ended.status.code(), Some(130), "{ended:?}");
    assert_eq!((ended.counts(), &ended.done), ((1, 0, 0), &vec![]), "{ended:?}");
    assert!(ended.stderr.contains("job 2 was cancelled: "), "{ended:?}");
}

#[test]
fn a_job_deaf_to_sigterm_is_killed_after_a_grace() {
    let mut run = Run::start(&[]);
    run.feed("trap '' TERM; touch deaf; sleep 1000; :");
    wait_until("the job is deaf", || run.has("deaf"));
    run.signal(Signal::SIGINT);
    let ended = run.end();
    assert_eq!(ended.status.code(), Some(130), "{ended:?}");
}

#[test]
fn a_second_sigint_kills_before_the_grace_is_over() {
    const GRACE: Duration = Duration::from_secs(2);
    // A machine that is held up for the whole grace shows nothing: it is asked again.
    wait_until("a job was killed within the grace", || {
        let mut run = Run::start(&[]);
        run.feed("trap 'touch told' TERM; touch ready; while :; do sleep 0.05; done");
        wait_until("the job is ready", || run.has("ready"));
        let first = Instant::now();
        run.signal(Signal::SIGINT);
        wait_until("it was told to end", || run.has("told"));
        run.signal(Signal::SIGINT);
        let ended = run.end();
        assert_eq!(ended.status.code(), Some(130), "{ended:?}");
        first.elapsed() < GRACE
    });
}

#[test]
fn a_job_is_done_once_what_it_left_without_its_environment_has_ended() {
    let mut run = Run::start(&["--max-processes", "20"]);
    // In a session of its own, and slow to end. Nothing says whose it is, but that it was seen below the job.
    let deaf = "trap 'sleep 0.3; touch ended; exit' TERM; touch deaf; while :; do sleep 0.05; done";
    run.feed(&format!("env -i setsid sh -c \"{deaf}\" & until [ -e deaf ]; do sleep 0.05; done; sleep 0.5"));
    // Starts when the first has shown what a job costs, which is at its end.
    run.feed("cp ended seen");
    let ended = run.end();
    assert_eq!(ended.counts(), (2, 0, 0), "{ended:?}");
}

#[test]
fn what_jobs_leave_behind_is_ended_and_nobody_elses() {
    let stranger = common::Children::sleepers(1);
    let mut run = Run::start(&["--max-processes", "20"]);
    // In the background, in a session of its own, and by a double fork into one.
    let leftovers = ["sleep 1000 &", "setsid sleep 1000 & sleep 0.05", "setsid -f sh -c 'sleep 1000; :'; sleep 0.05"];
    for job in leftovers.iter().cycle().take(51) {
        run.feed(job);
    }
    // Which sees to it that nothing is left. A job of more processes than any before it may be shed, and is run again.
    let ended = run.end();
    let (done, failed, _) = ended.counts();
    assert_eq!((done, failed), (51, 0), "{ended:?}");
    assert!(fs::read_to_string(format!("/proc/{}/stat", stranger.0[0].id())).unwrap().contains(") S "));
}

#[test]
fn jobs_wait_while_others_fill_the_group_and_a_line_says_for_what() {
    const MB: u64 = 1 << 20;
    let Some(groups) = Groups::new("memory") else { return };
    limit_memory(&groups.outer, 200 * MB);
    let enter = format!("echo $$ > {}/cgroup.procs; ", groups.inner.display());
    // Longer than a runner waits that is itself too large.
    let others = holding_mb(170, "echo full > full; sleep 12");
    let folder = tempfile::tempdir().unwrap();
    let mut neighbour =
        Command::new("sh").args(["-c", &(enter.clone() + &others)]).current_dir(&folder).spawn().unwrap();
    let usage = groups.outer.join("memory.usage_in_bytes");
    wait_until("the neighbour fills the group", || {
        fs::read_to_string(&usage).unwrap().trim().parse::<u64>().unwrap() > 165 * MB
    });
    let mut run = Run::start_by(&(enter + "exec \"$@\""), &[]);
    for number in 1..=5 {
        run.feed(&format!("echo {number} >> done"));
    }
    run.wait_for("stderr", "running 0, paused 0, done 0, failed 0");
    run.wait_for("stderr", "holding back: not accepting work: cgroup memory ");
    let ended = run.end();
    assert!(neighbour.wait().unwrap().success());
    assert_eq!((ended.counts(), &ended.done), ((5, 0, 0), &Vec::from_iter(1..=5)), "{ended:?}");
}

#[test]
fn a_runner_that_is_itself_too_large_for_any_job_does_not_wait_for_ever() {
    let mut run = Run::start(&["--max-memory-mb", "1"]);
    run.feed("echo 1 >> done");
    let ended = run.end();
    assert_eq!((ended.counts(), ended.status.code()), ((0, 1, 0), Some(1)), "{ended:?}");
    assert!(ended.stderr.contains("job 1 failed: not accepting work: memory "), "{ended:?}");
}

#[test]
fn a_line_that_begins_with_a_dash_is_a_command() {
    let mut run = Run::start(&[]);
    // As an option of the shell, this would be a job that is done.
    run.feed("-x; echo 1 >> done");
    let ended = run.end();
    assert!(ended.stderr.contains("-x: not found") || ended.stderr.contains("-x: command not found"), "{ended:?}");
    assert_eq!((ended.counts(), ended.done), ((1, 0, 0), vec![1]));
}

#[test]
fn every_signal_that_ends_the_runner_ends_its_jobs() {
    for signal in [Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTERM] {
        let mut run = Run::start(&[]);
        run.feed("touch started; sleep 1000; :");
        wait_until("the job runs", || run.has("started"));
        run.signal(signal);
        // Which sees to it that nothing is left.
        let ended = run.end();
        assert_eq!(ended.status.code(), Some(128 + signal as i32), "{ended:?}");
        assert!(ended.stderr.contains("job 1 was cancelled: "), "{ended:?}");
    }
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored_by_the_runner_and_its_jobs() {
    for (name, signal) in [
        ("HUP", Signal::SIGHUP),
        ("INT", Signal::SIGINT),
        ("QUIT", Signal::SIGQUIT),
        ("TERM", Signal::SIGTERM),
        ("TSTP", Signal::SIGTSTP),
    ] {
        let mut run = Run::start_by(&format!("trap '' {name}; exec \"$@\""), &[]);
        let go = run.gate("go");
        run.feed("touch started; flock -s go true; echo 1 >> done");
        wait_until("the job runs", || run.has("started"));
        run.signal(signal);
        run.feed(&format!("kill -{name} $$; echo 2 >> done"));
        go.open();
        let ended = run.end();
        assert_eq!((ended.status.code(), &ended.done), (Some(0), &vec![1, 2]), "{name}: {ended:?}");
    }
}

#[test]
fn ctrl_z_stops_nothing_where_no_shell_could_continue_it() {
    let mut run = Run::start_by("exec setsid \"$@\"", &[]);
    let go = run.gate("go");
    run.feed("touch started; flock -s go true; echo 1 >> done");
    wait_until("the job runs", || run.has("started"));
    run.signal(Signal::SIGTSTP);
    run.feed("echo 2 >> done");
    go.open();
    let ended = run.end();
    assert_eq!((ended.status.code(), &ended.done), (Some(0), &vec![1, 2]), "{ended:?}");
}

#[test]
fn a_job_gets_no_input_and_what_signals_do_by_default() {
    // What a runner blocks from its start is not for jobs (some shells unblock all, and then this shows nothing), and neither
    // is what a program in Rust makes of writing to nobody.
    let before = SigSet::thread_get_mask().unwrap();
    SigSet::all().thread_block().unwrap();
    let mut run = Run::start(&[]);
    before.thread_set_mask().unwrap();
    run.feed("cat; readlink /proc/self/fd/0 > input; grep -E '^Sig(Blk|Ign)' /proc/self/status > signals");
    wait_until("the job is done", || run.read("signals").contains("SigIgn"));
    assert_eq!(run.read("input"), "/dev/null\n");
    let signals = run.read("signals");
    let set = |name| u64::from_str_radix(signals.split_once(name).unwrap().1.lines().next().unwrap(), 16).unwrap();
    assert_eq!(set("SigBlk:\t"), 0, "{signals}");
    assert_eq!(set("SigIgn:\t") & (1 << (Signal::SIGPIPE as u64 - 1)), 0, "{signals}");
    assert!(run.end().status.success());
}

#[test]
fn lines_of_jobs_that_write_at_once_are_whole_and_together() {
    for options in [&[][..], &["--output", "grouped"], &["--output", "lines"]] {
        let mut run = Run::start(&[options, &["--max-processes", "40"]].concat());
        run.feed("sleep 0.3");
        // They take turns, and write a part of a line each time. The last line has no end.
        let turns = |own: &str, other: &str| {
            let turn = |n: u32| format!("printf {own}; touch {own}{n}; until [ -e {other}{n} ]; do sleep 0.02; done; ");
            let line = |n: u32| format!("{}{}{}", turn(n), turn(n + 1), turn(n + 2));
            format!("{}echo; {}printf {own} >&2", line(1), line(4))
        };
        run.feed(&turns("b", "c"));
        run.feed(&turns("c", "b"));
        let ended = run.end();
        assert_eq!(ended.counts(), (3, 0, 0), "{ended:?}");
        let written: Vec<_> = ended.stdout.lines().filter(|line| line.starts_with(['b', 'c'])).collect();
        let mut sorted = written.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, ["bbb", "bbb", "ccc", "ccc"], "{ended:?}");
        if !options.contains(&"lines") {
            assert!(written == sorted || written == ["ccc", "ccc", "bbb", "bbb"], "{ended:?}");
        }
        // Among what the runner says of the run.
        let errors: Vec<_> = ended.stderr.lines().filter(|line| ["b", "c"].contains(line)).collect();
        assert!(errors == ["b", "c"] || errors == ["c", "b"], "{ended:?}");
    }
}

#[test]
fn output_is_complete_however_much_and_wherever_it_is_written() {
    for grouping in ["grouped", "lines"] {
        let mut run = Run::start(&["--output", grouping]);
        // More than a pipe holds, and by a name that would empty a file.
        run.feed("seq -f job-one-%.0f 100000; echo job-one-last > /dev/stdout");
        run.feed("printf job-two");
        let ended = run.end();
        assert_eq!(ended.counts(), (2, 0, 0), "{grouping}");
        let written: Vec<_> = ended.stdout.lines().filter(|line| line.starts_with("job-one-")).collect();
        assert_eq!(written.len(), 100_001, "{grouping}");
        assert_eq!((written[0], written[99_999], written[100_000]), ("job-one-1", "job-one-100000", "job-one-last"));
        assert_eq!(ended.stdout.lines().filter(|line| *line == "job-two").count(), 1, "{grouping}");
        assert_eq!(ended.stdout.lines().count(), 100_002, "nothing but what jobs write stands there");
    }
}

#[test]
fn a_runner_whose_output_nobody_reads_still_ends_by_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = job_runner();
    let mut runner = command.current_dir(&folder).env(MARK, folder.path());
    runner = runner.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut run = Run { runner: runner.spawn().unwrap(), folder };
    run.feed("seq 100000");
    run.feed("touch second; sleep 1000; :");
    wait_until("the second job runs", || run.has("second"));
    run.signal(Signal::SIGINT);
    let _unread = run.runner.stdout.take();
    let ended = run.end();
    assert_eq!(ended.status.code(), Some(130), "{ended:?}");
}

/// A runner by a user who has 45 other processes and may have 60 tasks. It is given as `"$@"` to a script of the first user.
fn limited_user(number: u32, script: &str) -> Option<(common::Children, Run)> {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only the first user can be another one, for whom such a limit holds");
        return None;
    }
    // A number for each process of this test, or they would count each other's.
    let user = number + std::process::id();
    // The folder of the build need not be one that everybody can enter.
    let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let program = folder.path().join("program");
    fs::copy(job_runner().get_program(), &program).unwrap();
    chown(folder.path(), Some(user.into()), Some(user.into())).unwrap();
    let others = (0..45).map(|_| Command::new("sleep").arg("1000").uid(user).gid(user).spawn().unwrap());
    let others = common::Children(others.collect());
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh", "prlimit", "--nproc=60", "setpriv", "--clear-groups"]);
    shell.arg(format!("--reuid={user}")).arg(program);
    Some((others, Run::start_as(shell, folder, &["--max-processes", "100"])))
}

#[test]
fn jobs_wait_for_what_other_programs_of_the_user_leave_of_his_limit() {
    let Some((_others, mut run)) = limited_user(100_000, "exec \"$@\"") else { return };
    for number in 1..=60 {
        run.feed(&format!("sleep 0.1; echo {number} >> done"));
    }
    let ended = run.end();
    assert_eq!((ended.counts(), &ended.done), ((60, 0, 0), &Vec::from_iter(1..=60)), "{ended:?}");
}

#[test]
fn a_job_that_cannot_be_started_for_want_of_a_task_is_started_later() {
    // Those outside of its namespace are not seen, but count.
    let script = "exec unshare --pid --fork --kill-child --mount-proc \"$@\"";
    let Some((_others, mut run)) = limited_user(200_000, script) else { return };
    for number in 1..=60 {
        run.feed(&format!("echo {number} >> done; exec sleep 0.1"));
    }
    let ended = run.end();
    assert_eq!((ended.counts(), &ended.done), ((60, 0, 0), &Vec::from_iter(1..=60)), "{ended:?}");
}

/// A job of the test below.
#[test]
#[ignore = "a job of threads_of_jobs_count_where_a_group_limits_them, which runs it"]
fn sixteen_threads() {
    thread::scope(|scope| (0..16).for_each(|_| drop(scope.spawn(|| thread::sleep(Duration::from_millis(300))))));
}

#[test]
fn threads_of_jobs_count_where_a_group_limits_them() {
    let Some(groups) = Groups::new("pids") else { return };
    limit_pids(&groups.outer, "40");
    let mut run = Run::start_by(&format!("echo $$ > {}/cgroup.procs; exec \"$@\"", groups.inner.display()), &[]);
    let test = std::env::current_exe().unwrap();
    for number in 1..=8 {
        run.feed(&format!("{} --exact --ignored sixteen_threads && echo {number} >> done", test.display()));
    }
    let ended = run.end();
    assert_eq!((ended.counts(), &ended.done), ((8, 0, 0), &Vec::from_iter(1..=8)), "{ended:?}");
}

fn cpus() -> u32 {
    thread::available_parallelism().unwrap().get() as u32
}

/// The time that CPUs have been idle, all of them together.
fn idle_seconds() -> f64 {
    procfs::KernelStats::current().unwrap().total.idle as f64 / procfs::ticks_per_second() as f64
}

#[test]
fn as_many_jobs_that_compute_run_at_once_as_there_are_cpus() {
    let mut run = Run::start(&[]);
    let jobs = 4 * cpus() + 8;
    for number in 1..=jobs {
        run.feed(&format!("i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done; echo {number} >> done"));
    }
    let ended = run.end();
    assert_eq!((ended.counts(), &ended.done), ((jobs, 0, 0), &Vec::from_iter(1..=jobs)), "{ended:?}");
    // One more may be tried while the machine is busy with none of them, as at the end.
    assert!(ended.peak().0 <= cpus() + 1, "{ended:?}");
}

#[test]
fn as_many_jobs_run_at_once_as_told() {
    let width = cpus() + 3;
    let mut run = Run::start(&["--jobs", &width.to_string()]);
    let go = run.gate("go");
    run.feed("true");
    for number in 1..=2 * width {
        run.feed(&format!("echo >> begun; flock -s go true; echo {number} >> done"));
    }
    wait_until("as many run as told", || run.read("begun").lines().count() as u32 >= width);
    run.wait_for("stderr", &format!("running {width}, "));
    assert_eq!(run.read("begun").lines().count() as u32, width);
    go.open();
    let ended = run.end();
    assert_eq!((ended.counts(), &ended.done), ((2 * width + 1, 0, 0), &Vec::from_iter(1..=2 * width)), "{ended:?}");
}

#[test]
fn more_jobs_run_at_once_while_they_wait() {
    let mut run = Run::start(&[]);
    let go = run.gate("go");
    run.feed("sleep 0.1");
    for number in 1..=8 * cpus() {
        run.feed(&format!("flock -s go true; echo {number} >> done"));
    }
    let (began, idle_before) = (Instant::now(), idle_seconds());
    let idle_cpus = || (idle_seconds() - idle_before) / began.elapsed().as_secs_f64();
    let are_all = || run.read("stderr").contains(&format!("running {},", 8 * cpus()));
    let is_busy = || began.elapsed() > Duration::from_secs(20) && idle_cpus() < 0.5;
    wait_within(RUN_DEADLINE, "several times as many run as there are CPUs", || are_all() || is_busy());
    if !are_all() {
        println!("skipped: others leave no CPU idle, and so none for more jobs");
    }
    go.open();
    let ended = run.end();
    assert_eq!(ended.done, Vec::from_iter(1..=8 * cpus()), "{ended:?}");
}

#[test]
fn what_cannot_be_seen_of_jobs_is_said_once() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only the first user makes a namespace of processes");
        return;
    }
    // In `/proc`, processes have other numbers than they call each other by.
    let script = "exec unshare --pid --fork --kill-child \"$@\"";
    let mut run = Run::start_by(script, &["--max-processes", "100", "--interval", "0.1"]);
    for number in 1..=40 {
        run.feed(&format!("echo {number} >> done; exec sleep 0.5"));
    }
    let ended = run.end();
    assert_eq!((ended.counts(), &ended.done), ((40, 0, 0), &Vec::from_iter(1..=40)), "{ended:?}");
    for line in ["counts twice while it runs", "what jobs leave behind is seen late", "observe failed"] {
        assert_eq!(ended.stderr.lines().filter(|said| said.contains(line)).count(), 1, "{line}: {ended:?}");
    }
    // The library says once of each hook that it fails.
    let logged = ended.stderr.lines().filter(|line| line.starts_with('['));
    let others = logged.filter(|line| !line.contains("event=monitor.process_group_failed"));
    assert_eq!(others.count(), 2, "{ended:?}");
}

#[test]
fn a_job_that_takes_too_long_has_failed() {
    let mut run = Run::start(&["--timeout", "0.3"]);
    run.feed("sleep 1000; :");
    run.feed("echo 2 >> done");
    let ended = run.end();
    assert!(ended.stderr.contains("job 1 failed: ended after 300ms, which is its timeout: sleep"), "{ended:?}");
    assert_eq!((ended.counts(), ended.done), ((1, 1, 0), vec![2]));
}

#[test]
fn a_job_that_fails_is_run_again_as_often_as_told() {
    let mut run = Run::start(&["--retries", "2"]);
    run.feed("echo x >> first; [ $(wc -l < first) = 3 ]");
    run.feed("echo x >> second; exit 3");
    wait_until("both were run three times", || [run.read("first"), run.read("second")] == ["x\nx\nx\n", "x\nx\nx\n"]);
    let ended = run.end();
    assert_eq!((ended.status.code(), ended.counts()), (Some(1), (1, 1, 4)), "{ended:?}");
    assert!(ended.stderr.contains("job 1 failed and is run again: exit status: 1: "), "{ended:?}");
    assert!(ended.stderr.contains("job 2 failed: exit status: 3: "), "{ended:?}");
}

#[test]
fn a_run_that_was_killed_is_resumed_by_its_job_log() {
    let mut run = Run::start(&["--joblog", "log"]);
    let jobs: Vec<String> = (1..=4).map(|n| format!("echo {n} >> ran; [ {n} = 2 -o -e go ]")).collect();
    run.feed(&jobs[1]);
    run.wait_for("log", "\techo 2 >> ran");
    run.feed("touch third; sleep 1000; :");
    wait_until("the next job runs", || run.has("third"));
    run.signal(Signal::SIGKILL);
    run.runner.wait().unwrap();
    let log = run.read("log");
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert_eq!(lines[0], "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand");
    assert!(lines[1].starts_with("1\t:\t") && lines[1].contains("\t0\t0\t0\t0\techo 2"), "{log}");
    // What it has left behind knows nothing of its end.
    processes_of(run.folder.path()).iter().for_each(|left| {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(left.pid()), Signal::SIGKILL);
    });
    let folder = std::mem::replace(&mut run.folder, tempfile::tempdir().unwrap());
    fs::write(folder.path().join("go"), "").unwrap();

    let mut again = Run::start_in(folder, &["--joblog", "log", "--resume"]);
    jobs.iter().for_each(|job| again.feed(job));
    again.wait_for("ran", "4\n");
    let mut ran: Vec<String> = again.read("ran").lines().map(str::to_owned).collect();
    ran.sort_unstable();
    let ended = again.end();
    assert_eq!(ended.counts(), (3, 0, 0), "{ended:?}");
    // The first line was done: another one stands there now.
    assert_eq!(ran, ["2", "2", "3", "4"]);
}

#[test]
fn a_log_is_begun_anew_but_for_a_run_that_is_resumed_and_the_last_end_of_a_line_counts() {
    let above = tempfile::tempdir().unwrap();
    let log = above.path().join("log");
    // Each run has a folder of its own, and the log is in the one above.
    let begin = |options: &[&str], script: &str| {
        let folder = tempfile::tempdir_in(above.path()).unwrap();
        let mut run = Run::start_in(folder, &[&["--joblog", "../log"], options].concat());
        run.feed(script);
        run.end()
    };
    assert_eq!(begin(&[], "true").counts(), (1, 0, 0));
    assert_eq!(begin(&[], "false").counts(), (0, 1, 0));
    assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 2, "the first is forgotten");
    assert_eq!(begin(&["--resume"], "echo 1 >> done").done, [1]);
    assert!(begin(&["--resume"], "echo 1 >> done").done.is_empty());
    assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 3);
    fs::write(&log, "what is dear to somebody\n").unwrap();
    let ended = begin(&["--resume"], "echo 1 >> done");
    assert!(ended.stderr.contains("`../log` is no log of jobs"), "{ended:?}");
    assert_eq!(
        (ended.status.code(), fs::read_to_string(&log).unwrap().as_str()),
        (Some(1), "what is dear to somebody\n")
    );
    let ended = begin(&["--joblog", "missing/log"], "echo 1 >> done");
    assert!(ended.done.is_empty() && ended.stderr.contains("`missing/log`"), "{ended:?}");
}

#[test]
fn a_floor_below_the_disk_of_the_folder_holds_back_exactly_where_it_is_reached() {
    let run_with = |mb: &str| {
        let mut run = Run::start(&["--min-free-disk-mb", mb, "--min-free-mb", "1", "--max-processes", "20"]);
        run.feed("echo 1 >> done");
        run
    };
    assert_eq!(run_with("1").end().done, [1]);
    // Between what is left and all there is.
    let disk = nix::sys::statvfs::statvfs(std::env::temp_dir().as_path()).unwrap();
    let floor = ((disk.blocks_available() + disk.blocks()) / 2 * disk.fragment_size()) >> 20;
    let full = run_with(&floor.to_string());
    full.wait_for("stderr", "holding back: not accepting work: disk space");
    full.signal(Signal::SIGTERM);
    assert!(full.end().done.is_empty());
}

#[test]
fn lines_that_wait_take_little_memory_however_long_and_many_they_are() {
    const MOST: usize = 100 << 20;
    let mut run = Run::start(&["--jobs", "1"]);
    let gate = run.gate("gate");
    run.feed("exec flock -s gate true");
    let mut input = run.runner.stdin.take().unwrap();
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    // Ends when the runner does.
    let writer = thread::spawn(move || {
        let line = format!("true {}\n", "x".repeat(5000));
        while count.fetch_add(line.len(), Relaxed) < MOST && input.write_all(line.as_bytes()).is_ok() {}
    });
    wait_until("the writer is held back", || {
        let before = written.load(Relaxed);
        thread::sleep(Duration::from_millis(300));
        before > 4 << 20 && before == written.load(Relaxed)
    });
    assert!(written.load(Relaxed) < MOST / 2);
    let memory = Process::new(run.runner.id() as i32).unwrap().statm().unwrap().resident * 4096;
    assert!(memory < 60 << 20, "{memory}");
    run.signal(Signal::SIGTERM);
    drop(gate);
    assert_eq!(run.end().status.code(), Some(128 + 15));
    writer.join().unwrap();
}

#[test]
fn a_dry_run_prints_the_commands_and_runs_none() {
    let mut run = Run::start(&["--dry-run"]);
    run.feed("touch ran");
    run.feed("-x");
    run.wait_for("stdout", "touch ran\n-x\n");
    assert!(!run.has("ran"));
    drop(run.runner.stdin.take());
    assert!(run.runner.wait().unwrap().success());
}

#[test]
fn lines_may_end_as_elsewhere_or_not_at_all_and_be_no_text() {
    let mut run = Run::start(&[]);
    let input = run.runner.stdin.as_mut().unwrap();
    input.write_all(b"echo 1 >> done\r\n\r\n: \xff\xfe; echo 3 >> done\n").unwrap();
    input.write_all(b"touch nul\0l\n").unwrap();
    // A line of a megabyte is more than a program may be given.
    input.write_all(&[b": ".as_slice(), &vec![b'x'; 1 << 20], b"\n"].concat()).unwrap();
    input.write_all(b"echo 6 >> done").unwrap();
    let ended = run.end();
    assert_eq!((ended.counts(), ended.done), ((3, 2, 0), vec![1, 3, 6]), "{}", ended.stderr);
    assert!(ended.stderr.contains("job 4 failed: could not be started: "), "{}", ended.stderr);
    assert!(ended.stderr.contains("job 5 failed: could not be started: Argument list too long"), "{}", ended.stderr);
}

#[test]
fn the_remaining_time_is_told_as_a_range_once_the_input_is_known_and_enough_has_ended() {
    let mut run = Run::start(&["--max-processes", "6"]);
    let job = |n: u32| format!("exec sleep 0.{}", n * 5 % 7 + 2);
    (1..=40).for_each(|n| run.feed(&job(n)));
    run.wait_for("stderr", "; at least ");
    drop(run.runner.stdin.take());
    let told = |line: &str| Some(line.split_once(" left")?.0.rsplit_once("; ")?.1.to_owned());
    let lines = || run.read("stderr").lines().map(str::to_owned).collect::<Vec<_>>();
    let is_range = |line: &String| told(line).is_some_and(|told| !told.starts_with("at least"));
    wait_until("a range is told", || lines().iter().any(is_range));
    let (line, told) =
        lines().iter().find(|line| is_range(line)).map(|line| (line.clone(), told(line).unwrap())).unwrap();
    let ended = run.end();
    assert_eq!(ended.counts(), (40, 0, 0), "{ended:?}");
    // Such as `about 4 s`, `3 to 5 s`, `at most 2 s`.
    let at_most = number_before(&told, " s");
    let took = number_before(&ended.stderr, " s; limited by ") - number_before(&line, " s  running");
    assert!(at_most * 2.0 + 1.0 >= took && at_most <= took * 3.0 + 2.0, "{told}, and it took {took} s: {ended:?}");
    let early = ended.stderr.lines().filter(|line| line.contains(" left") && line.contains("done 0,"));
    assert_eq!(early.count(), 0, "{ended:?}");
}

#[test]
fn the_summary_says_what_has_limited_a_run() {
    let spin = "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done".to_owned();
    let runs: [(&[&str], String, &str); 3] = [
        (&[], spin, "CPU"),
        (&["--max-memory-mb", "150", "--max-processes", "100"], holding_mb(60, "sleep 0.3"), "memory"),
        (&["--max-processes", "5"], "exec sleep 0.3".into(), "processes"),
    ];
    for (options, job, limiter) in runs {
        let mut run = Run::start(options);
        (0..16).for_each(|_| run.feed(&job));
        let ended = run.end();
        assert_eq!(ended.counts(), (16, 0, 0), "{ended:?}");
        assert!(ended.stderr.contains(&format!("; limited by {limiter} ")), "{ended:?}");
    }
    let mut run = Run::start(&[]);
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(200));
        run.feed("exit 0");
    }
    let ended = run.end();
    assert!(ended.stderr.contains("; limited by input "), "{ended:?}");
}

#[test]
fn a_reader_that_is_slow_is_what_limits_a_run() {
    let mut run = Run::start_by("\"$@\" | (sleep 3; cat)", &["--max-processes", "10"]);
    (0..20).for_each(|_| run.feed("exec seq 50000"));
    let ended = run.end();
    assert_eq!(ended.counts(), (20, 0, 0), "{}", ended.stderr);
    assert!(ended.stderr.contains("; limited by printing "), "{}", ended.stderr.lines().last().unwrap());
}

#[test]
fn builds_among_the_jobs_start_what_the_jobserver_allows_and_the_summary_says_how_much() {
    if !common::is_there("make") {
        return;
    }
    for option in ["--jobserver", "--jobserver=fifo"] {
        let mut run = Run::start(&[option]);
        for number in 0..2 {
            let rules = "all: a b c d e\\na b c d e:\\n\\t@sleep 0.2\\n";
            run.feed(&format!("printf '{rules}' >makefile{number}; make -f makefile{number}"));
        }
        let ended = run.end();
        assert_eq!(ended.counts(), (2, 0, 0), "{ended:?}");
        let most = number_before(&ended.stderr, " at most, ");
        assert!(most >= 1.0 && ended.stderr.contains("\ntokens: "), "{ended:?}");
    }
}
