//! Jobs: real programs, started, paused, ended and run again under the limits of a monitor.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::groups::Groups;
use common::wait_until;
use highwater::{
    HeldBack, Job, JobEvent, JobStep, Jobs, JobsBuilder, Limiter, MemoryScope, Outcome, Resource, ResourceLimits,
    ResourceLimitsBuilder, ResourceMonitor, Work,
};

const LONG: Duration = Duration::from_secs(120);

/// Jobs under limits, whose monitor runs. One at a time: the jobs of another are descendants of this process as well.
struct Host {
    jobs: Jobs,
    monitor: ResourceMonitor,
    folder: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Host {
    fn new(limits: ResourceLimitsBuilder, settings: impl FnOnce(JobsBuilder) -> JobsBuilder) -> Host {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let monitor =
            ResourceMonitor::builder(limits.build().unwrap()).memory_scope(MemoryScope::Tree).build().unwrap();
        let jobs = settings(monitor.jobs()).build().unwrap();
        monitor.start(Duration::from_millis(200)).unwrap();
        Host { jobs, monitor, folder: tempfile::tempdir().unwrap(), _alone: alone }
    }

    fn of_processes(processes: u64) -> Host {
        Host::new(ResourceLimits::builder().max_processes(processes), |jobs| jobs.width(usize::MAX))
    }

    /// A job of the shell, in a folder of its own.
    fn sh(&self, script: &str) -> Job {
        let mut sh = Command::new("sh");
        sh.args(["-c", script]).current_dir(&self.folder);
        Job::new(sh)
    }

    fn has(&self, file: &str) -> bool {
        self.folder.path().join(file).exists()
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap_or_default()
    }
}

fn ended_with(outcome: &Outcome) -> Option<i32> {
    match outcome {
        Outcome::Ended(status) => status.code(),
        _ => None,
    }
}

/// The ends among the events, by job.
fn ends(events: impl Iterator<Item = JobEvent>) -> Vec<u64> {
    let mut ends: Vec<u64> =
        events.filter(|event| matches!(event.what, JobStep::Ended { .. })).map(|event| event.id).collect();
    ends.sort_unstable();
    ends
}

#[test]
fn each_job_runs_once_and_its_end_is_told_once() {
    let host = Host::of_processes(20);
    let events = host.jobs.events();
    let handles: Vec<_> = (0..60)
        .map(|number| host.jobs.submit(host.sh(&format!("echo {number} >> ran; exit {}", number % 3))).unwrap())
        .collect();
    for (number, handle) in handles.iter().enumerate() {
        let outcome = handle.wait_timeout(LONG).unwrap();
        assert_eq!(ended_with(&outcome), Some(number as i32 % 3), "{outcome}");
        assert_eq!(handle.pid(), None);
    }
    let mut ran: Vec<u32> = host.text("ran").lines().map(|line| line.parse().unwrap()).collect();
    ran.sort_unstable();
    assert_eq!(ran, Vec::from_iter(0..60));
    drop(host);
    assert_eq!(ends(events.iter()), Vec::from_iter(1..=60));
}

#[test]
fn no_more_run_than_the_limits_and_the_width_allow() {
    let host = Host::new(ResourceLimits::builder().max_processes(100), |jobs| jobs.width(3));
    let handles: Vec<_> = (0..12).map(|_| host.jobs.submit(host.sh("exec sleep 0.1")).unwrap()).collect();
    let mut most = 0;
    while handles.iter().any(|handle| handle.wait_timeout(Duration::ZERO).is_none()) {
        most = most.max(host.jobs.running());
        std::thread::yield_now();
    }
    assert_eq!(most, 3);
    assert!(host.monitor.latest().is_some());
}

#[test]
fn a_spawn_returns_once_the_job_runs() {
    let host = Host::of_processes(20);
    let job = host.jobs.spawn(host.sh("exec sleep 1000")).unwrap();
    let pid = job.pid().unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    job.cancel();
    assert!(matches!(job.wait_timeout(LONG), Some(Outcome::Cancelled)));
    // Its end is told already.
    job.cancel();
    assert!(matches!(job.wait(), Outcome::Cancelled));
}

#[test]
fn a_job_that_waits_is_cancelled_at_once() {
    let host = Host::new(ResourceLimits::builder().max_processes(100), |jobs| jobs.width(1));
    let first = host.jobs.spawn(host.sh("exec sleep 1000")).unwrap();
    let second = host.jobs.submit(host.sh("touch ran")).unwrap();
    second.cancel();
    assert!(matches!(second.wait_timeout(LONG), Some(Outcome::Cancelled)));
    assert_eq!(host.jobs.running(), 1);
    host.jobs.kill_all();
    assert!(matches!(first.wait_timeout(LONG), Some(Outcome::Cancelled)));
    assert!(!host.has("ran"));
}

#[test]
fn a_job_that_is_just_being_started_is_cancelled_like_any_other() {
    let host = Host::new(ResourceLimits::builder().max_processes(100), |jobs| jobs.width(1));
    for round in 0..100 {
        let handles: Vec<_> =
            (0..3).map(|_| host.jobs.submit(host.sh("exec sleep 1000").kind("sleep")).unwrap()).collect();
        // At another point of the start each time.
        std::thread::sleep(Duration::from_micros(round * 20));
        host.jobs.cancel_all();
        for handle in handles {
            assert!(matches!(handle.wait_timeout(LONG), Some(Outcome::Cancelled)), "round {round}");
        }
    }
}

#[test]
fn a_job_that_is_just_being_started_is_killed_like_any_other() {
    let host = Host::new(ResourceLimits::builder().max_processes(100), |jobs| jobs.width(1).grace(LONG * 10));
    for round in 0..100 {
        // Deaf from its first instruction.
        let mut deaf = Command::new("env");
        deaf.args(["--ignore-signal=TERM", "sleep", "1000"]);
        let job = host.jobs.submit(Job::new(deaf)).unwrap();
        // At another point of the start each time.
        std::thread::sleep(Duration::from_micros(round * 20));
        host.jobs.kill_all();
        assert!(matches!(job.wait_timeout(LONG), Some(Outcome::Cancelled)), "round {round}");
    }
}

#[test]
fn jobs_of_an_endless_grace_can_be_killed() {
    let host = Host::new(ResourceLimits::builder().max_processes(100), |jobs| jobs.grace(Duration::MAX));
    let deaf = "trap '' TERM; touch deaf; while :; do sleep 0.05; done";
    let job = host.jobs.spawn(host.sh(deaf)).unwrap();
    wait_until("it is deaf", || host.has("deaf"));
    job.cancel();
    assert!(job.wait_timeout(Duration::from_millis(300)).is_none());
    host.jobs.kill_all();
    assert!(matches!(job.wait_timeout(LONG), Some(Outcome::Cancelled)));
    // What it leaves behind has as much time, told once.
    let left = "setsid sh -c 'trap \"echo x >> told\" TERM; touch there; while :; do sleep 0.02; done' & until [ -e there ]; do sleep 0.01; done";
    let job = host.jobs.spawn(host.sh(left)).unwrap();
    wait_until("it is told to end", || host.has("told"));
    assert!(job.wait_timeout(Duration::from_millis(500)).is_none());
    host.jobs.kill_all();
    assert!(job.wait_timeout(LONG).is_some());
    assert!(host.text("told").lines().count() <= 6, "{}", host.text("told"));
}

#[test]
fn a_job_that_runs_or_has_ended_waits_no_more() {
    let host = Host::of_processes(20);
    for round in 0..100 {
        let job = host.jobs.spawn(host.sh("exec sleep 1000")).unwrap();
        assert_eq!((host.jobs.waiting(), host.jobs.running()), (0, 1), "round {round}");
        job.cancel();
        assert!(host.jobs.spawn(Job::new(Command::new("/no/such/program"))).unwrap().wait_timeout(LONG).is_some());
        assert_eq!(host.jobs.waiting(), 0, "round {round}");
        assert!(job.wait_timeout(LONG).is_some());
    }
}

#[test]
fn a_job_that_is_just_being_refused_is_cancelled_at_once() {
    let host = Host::new(ResourceLimits::builder().max_processes(100), |jobs| jobs.width(usize::MAX));
    host.monitor.stop();
    for round in 0..300 {
        let job = host.jobs.submit(host.sh("exit 0")).unwrap();
        std::thread::sleep(Duration::from_micros(round % 100));
        job.cancel();
        assert!(matches!(job.wait_timeout(LONG), Some(Outcome::Cancelled)), "round {round}");
    }
}

#[test]
fn what_cannot_be_started_says_why_and_the_others_run() {
    let host = Host::of_processes(20);
    let missing = host.jobs.spawn(Job::new(Command::new("/no/such/program"))).unwrap();
    let folder = host.jobs.spawn(Job::new(Command::new("/"))).unwrap();
    let mut long = Command::new("true");
    long.arg("x".repeat(1 << 20));
    let long = host.jobs.spawn(Job::new(long)).unwrap();
    for (job, errno) in [(missing, libc::ENOENT), (folder, libc::EACCES), (long, libc::E2BIG)] {
        match job.wait_timeout(LONG) {
            Some(Outcome::NotStarted(error)) => assert_eq!(error.raw_os_error(), Some(errno)),
            outcome => panic!("{outcome:?}"),
        }
    }
    assert!(host.jobs.spawn(host.sh("exit 0")).unwrap().wait().is_success());
}

#[test]
fn what_could_never_fit_is_refused_and_the_others_run() {
    let host = Host::of_processes(10);
    let large = host.jobs.submit(host.sh("touch ran").work(Work::new().processes(10))).unwrap();
    match large.wait_timeout(LONG) {
        Some(Outcome::NeverFits(HeldBack::Verdict(verdict))) => assert!(verdict.could_never_fit(), "{verdict}"),
        outcome => panic!("{outcome:?}"),
    }
    assert!(host.jobs.spawn(host.sh("exit 0")).unwrap().wait().is_success());
    assert!(!host.has("ran"));
}

#[test]
fn the_patience_with_a_host_that_is_too_large_goes_on_after_a_stop_where_it_was() {
    // A machine that is held up for all of it shows nothing: it is asked again.
    wait_until("a job waits on after a stop that was longer than the patience", || {
        let patience = Duration::from_millis(1500);
        let host = Host::new(ResourceLimits::builder().max_memory_mb(1), |jobs| jobs.patience(patience));
        let job = host.jobs.submit(host.sh("exit 0")).unwrap();
        let is_crowded = |held_back: HeldBack| matches!(held_back.limiter(), Limiter::Resource(Resource::Memory));
        wait_until("it is refused", || host.jobs.held_back().is_some_and(is_crowded));
        host.jobs.stop_with(|| std::thread::sleep(patience));
        let has_waited = job.wait_timeout(Duration::from_millis(300)).is_none();
        let outcome = job.wait_timeout(LONG).unwrap();
        assert!(matches!(outcome, Outcome::NeverFits(_)), "{outcome:?}");
        has_waited
    });
}

#[test]
fn a_job_that_takes_too_long_is_ended_and_killed_if_it_is_deaf() {
    let host = Host::new(ResourceLimits::builder().max_processes(20), |jobs| {
        jobs.width(usize::MAX).grace(Duration::from_millis(100))
    });
    let deaf = "trap '' TERM; touch deaf; while :; do sleep 0.05; done";
    let job = host.jobs.spawn(host.sh(deaf).timeout(Duration::from_millis(200))).unwrap();
    match job.wait_timeout(LONG) {
        Some(Outcome::TimedOut(timeout)) => assert_eq!(timeout, Duration::from_millis(200)),
        outcome => panic!("{outcome:?}"),
    }
    assert!(host.has("deaf"));
}

#[test]
fn a_job_has_ended_once_nothing_of_it_is_left() {
    let host = Host::of_processes(30);
    // In the background, in a session of its own, and by a double fork into one; slow to end.
    let slow = "sh -c 'trap \"sleep 0.2; echo x >> ended; exit\" TERM; echo x >> there; while :; do sleep 0.02; done'";
    for start in [format!("{slow} &"), format!("setsid {slow} &"), format!("setsid -f {slow};")] {
        let there = host.text("there").lines().count() + 1;
        let wait = format!("until [ $(cat there 2>/dev/null | wc -l) = {there} ]; do sleep 0.01; done");
        let job = host.jobs.spawn(host.sh(&format!("{start} {wait}")).kind(start.clone())).unwrap();
        assert!(job.wait_timeout(LONG).unwrap().is_success());
        assert_eq!(host.text("ended").lines().count(), there, "{start}");
    }
}

#[test]
fn the_end_of_the_jobs_is_the_end_of_each_job() {
    let host = Host::of_processes(20);
    let handles: Vec<_> = (0..5).map(|_| host.jobs.submit(host.sh("exec sleep 1000").kind("sleep")).unwrap()).collect();
    wait_until("one runs", || host.jobs.running() > 0);
    let pid = handles[0].pid().unwrap();
    drop(host);
    assert!(handles.iter().all(|handle| matches!(handle.wait(), Outcome::Cancelled)));
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn the_first_of_a_kind_runs_without_others_of_its_kind_until_it_is_known() {
    let host = Host::of_processes(50);
    let gate = host.folder.path().join("gate");
    let first = "until [ -e gate ]; do sleep 0.01; done";
    let first = host.jobs.spawn(host.sh(first).kind("slow")).unwrap();
    let second = host.jobs.submit(host.sh("exit 0").kind("slow")).unwrap();
    let other = host.jobs.submit(host.sh("exit 0").kind("quick")).unwrap();
    assert!(other.wait_timeout(LONG).unwrap().is_success());
    assert!(second.wait_timeout(Duration::ZERO).is_none());
    assert_eq!(host.jobs.waiting(), 1);
    fs::write(gate, "").unwrap();
    assert!(first.wait_timeout(LONG).unwrap().is_success());
    assert!(second.wait_timeout(LONG).unwrap().is_success());
}

#[test]
fn processes_of_jobs_stay_below_the_limit_once_their_kind_is_known() {
    let host = Host::of_processes(20);
    let snapshots = host.monitor.snapshots();
    let four = "sleep 0.15 & sleep 0.15 & sleep 0.15 & wait";
    host.jobs.spawn(host.sh(four)).unwrap().wait();
    let handles: Vec<_> = (0..20).map(|_| host.jobs.submit(host.sh(four)).unwrap()).collect();
    assert!(handles.iter().all(|handle| handle.wait_timeout(LONG).unwrap().is_success()));
    let most = std::iter::from_fn(|| snapshots.try_recv().ok())
        .filter_map(|snapshot| snapshot.child_process_count)
        .max()
        .unwrap();
    assert!((8..20).contains(&most), "{most}");
    assert!(host.jobs.costs().to_string().contains("and 4 processes"), "{}", host.jobs.costs());
}

#[test]
fn costs_are_kept_in_a_file_and_a_damaged_one_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("costs");
    let costs_after_another = || {
        let host = Host::new(ResourceLimits::builder().max_processes(20), |jobs| jobs.costs_file(&file));
        assert!(host.jobs.spawn(host.sh("exit 0").kind("cc")).unwrap().wait().is_success());
        host.jobs.costs().to_string()
    };
    // How much memory it had depends on whether a check has come upon it.
    let is_of = |costs: &str, jobs: u32| costs.starts_with("cc: ") && costs.ends_with(&format!(" (the last {jobs})"));
    for (jobs, damaged) in [(1, false), (2, false), (1, true)] {
        if damaged {
            fs::write(&file, "cc\0 is no number").unwrap();
        }
        let costs = costs_after_another();
        assert!(is_of(&costs, jobs), "{costs}");
    }
}

#[test]
fn the_usage_of_a_job_is_what_checks_have_seen_and_its_peak_stays_after_its_end() {
    let host = Host::of_processes(20);
    let gate = host.folder.path().join("gate");
    let job = host.jobs.spawn(host.sh(&holding(40, &gate.display().to_string()))).unwrap();
    wait_until("it is seen", || job.usage().memory_bytes >= 40 << 20 && job.usage().processes >= 1);
    fs::write(gate, "").unwrap();
    assert!(job.wait_timeout(LONG).unwrap().is_success());
    let usage = job.usage();
    assert!(usage.peak_memory_bytes >= 40 << 20 && usage.peak_processes >= 1, "{usage:?}");
}

/// A job whose shell takes so much memory, and for moments twice as much, and keeps it until a file is there.
fn holding(mb: u32, until: &str) -> String {
    format!("x=$(head -c {mb}M /dev/zero | tr '\\0' x); until [ -e {until} ]; do sleep 0.02; done")
}

#[test]
fn a_job_that_was_shed_is_run_again_alone_and_has_not_failed() {
    let host = Host::of_processes(40);
    let events = host.jobs.events();
    let job = "until [ -e all ]; do sleep 0.02; done; for each in $(seq 13); do sleep 1000 & done
        until [ -e go ]; do sleep 0.02; done";
    // Of kinds of their own, so nothing is known of them; together too many. What they leave is ended.
    let handles: Vec<_> =
        (0..3).map(|kind| host.jobs.submit(host.sh(job).kind(format!("kind {kind}"))).unwrap()).collect();
    wait_until("all run", || host.jobs.running() == 3);
    fs::write(host.folder.path().join("all"), "").unwrap();
    let is_requeued = |event: &JobEvent| matches!(event.what, JobStep::Requeued { .. });
    let began = Instant::now();
    let mut seen = Vec::new();
    while !seen.iter().any(is_requeued) {
        assert!(began.elapsed() < LONG, "{seen:?}");
        seen.extend(events.recv_timeout(Duration::from_millis(100)));
    }
    // From now on they end, so that what is run again has the room for itself.
    fs::write(host.folder.path().join("go"), "").unwrap();
    let outcomes: Vec<_> = handles.iter().map(|handle| handle.wait_timeout(LONG).unwrap()).collect();
    assert!(outcomes.iter().all(Outcome::is_success), "{outcomes:?}");
    drop(host);
    seen.extend(events.iter());
    assert!(seen.iter().any(is_requeued), "{seen:?}");
    assert_eq!(ends(seen.into_iter()), [1, 2, 3]);
}

#[test]
fn a_job_that_is_too_large_alone_is_given_up_with_its_numbers() {
    let host = Host::new(ResourceLimits::builder().max_memory_mb(120), |jobs| jobs.grace(Duration::from_millis(200)));
    let job = host.jobs.spawn(host.sh(&holding(130, "never"))).unwrap();
    match job.wait_timeout(LONG) {
        Some(Outcome::Shed(tries)) => {
            assert_eq!(tries.tries, 1);
            assert!(tries.usage.peak_memory_bytes > 0, "{tries}");
            assert!(tries.to_string().starts_with("once, memory critical, at most "), "{tries}");
        }
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn a_job_that_the_kernel_has_killed_for_memory_is_run_again() {
    let Some(groups) = Groups::new("memory") else { return };
    fs::write(groups.inner.join("memory.limit_in_bytes"), (60 << 20).to_string()).unwrap();
    let host = Host::of_processes(20);
    let events = host.jobs.events();
    // The first time in a group that is too small for it.
    let group = groups.inner.display();
    let script =
        format!("[ -e tried ] && exit 0; touch tried; echo $$ > {group}/cgroup.procs; {}", holding(100, "never"));
    let job = host.jobs.spawn(host.sh(&script)).unwrap();
    let outcome = job.wait_timeout(LONG).unwrap();
    assert!(outcome.is_success(), "{outcome:?}");
    drop(host);
    let requeued = events.iter().find_map(|event| match event.what {
        JobStep::Requeued { tries } => Some(tries),
        _ => None,
    });
    assert_eq!(requeued.unwrap().critical, None);
}

#[test]
fn a_job_killed_by_somebody_else_has_ended_so() {
    let host = Host::of_processes(20);
    let job = host.jobs.spawn(host.sh("kill -9 $$")).unwrap();
    match job.wait_timeout(LONG) {
        Some(Outcome::Ended(status)) => assert_eq!(status.to_string(), "signal: 9 (SIGKILL)"),
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn a_job_has_no_input_and_a_group_of_its_own() {
    let host = Host::of_processes(20);
    let script = "cat > input; ps -o pgid= -p $$ | tr -d ' ' > group; echo $$ > pid; \
                  grep -E 'SigBlk|SigIgn' /proc/self/status > signals";
    assert!(host.jobs.spawn(host.sh(script)).unwrap().wait_timeout(LONG).unwrap().is_success());
    assert_eq!(host.text("input"), "");
    assert_eq!(host.text("group"), host.text("pid"));
    let signals = host.text("signals");
    assert!(signals.contains("SigBlk:\t0000000000000000"), "{signals}");
    // But for what was ignored before this program was started, which is none of it.
    let ignored = u64::from_str_radix(signals.trim().rsplit('\t').next().unwrap(), 16).unwrap();
    assert_eq!(ignored & (1 << (libc::SIGPIPE - 1)), 0, "{signals}");
}

#[test]
fn twenty_threads_share_the_jobs() {
    let host = Host::of_processes(20);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert!(host.jobs.spawn(host.sh("exit 0")).unwrap().wait_timeout(LONG).unwrap().is_success());
                }
            });
        }
    });
    assert_eq!((host.jobs.waiting(), host.jobs.running(), host.jobs.paused()), (0, 0, 0));
}

#[test]
fn a_job_that_stops_itself_holds_back_nobody_and_goes_on_or_ends_when_told() {
    let host = Host::of_processes(20);
    let stops = |name: &str| host.sh(&format!("touch {name}; kill -STOP $$; exit 7")).kind(name);
    let [first, second] = ["first", "second"].map(|name| {
        let job = host.jobs.spawn(stops(name)).unwrap();
        wait_until("it has stopped", || state_of(job.pid().unwrap()) == Some('T'));
        job
    });
    let third = host.jobs.spawn(stops("third").timeout(Duration::from_millis(300))).unwrap();
    assert!(host.jobs.spawn(host.sh("exit 0").kind("other")).unwrap().wait_timeout(LONG).unwrap().is_success());
    assert!(first.wait_timeout(Duration::ZERO).is_none());
    // Told by somebody else.
    Command::new("kill").args(["-CONT", &first.pid().unwrap().to_string()]).status().unwrap();
    assert_eq!(ended_with(&first.wait_timeout(LONG).unwrap()), Some(7));
    second.cancel();
    assert!(matches!(second.wait_timeout(LONG), Some(Outcome::Cancelled)));
    assert!(matches!(third.wait_timeout(LONG), Some(Outcome::TimedOut(_))));
}

/// The letter for the state of a process; `None` if it is gone.
fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// A job of the test below: moves to the group of a child of its own.
#[test]
#[ignore = "a job of a_job_that_is_in_another_group_or_session_is_ended_whole, which runs it"]
fn changes_its_group() {
    let mut child = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
    let group = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), group).unwrap();
    fs::write("there", format!("{}\n", child.id())).unwrap();
    child.wait().unwrap();
}

#[test]
fn a_job_that_is_in_another_group_or_session_is_ended_whole() {
    let host = Host::of_processes(30);
    let own =
        format!("exec {} --exact --ignored changes_its_group > log 2>&1", std::env::current_exe().unwrap().display());
    for script in [
        // In a group, a session, and by a daemon's double fork; and its first process itself.
        "bash -c 'set -m; sleep 1000 & echo $! > there; wait'",
        "setsid sh -c 'echo $$ > there; exec sleep 1000' & wait",
        "setsid -f sh -c 'echo $$ > there; exec sleep 1000'; sleep 1000",
        &own,
    ] {
        let job = host.jobs.spawn(host.sh(script).kind(script)).unwrap();
        wait_until("it is elsewhere", || host.text("there").ends_with('\n'));
        let pid: u32 = host.text("there").trim().parse().unwrap();
        job.cancel();
        assert!(matches!(job.wait_timeout(LONG), Some(Outcome::Cancelled)), "{script}");
        // One that was never seen alive may be its owner's, who takes its status.
        assert!(matches!(state_of(pid), None | Some('Z')), "{script}");
        fs::remove_file(host.folder.path().join("there")).unwrap();
    }
}

#[test]
fn a_daemon_that_a_job_leaves_behind_ends_with_it_also_if_it_is_deaf() {
    let host = Host::new(ResourceLimits::builder().max_processes(20), |jobs| jobs.grace(Duration::from_millis(100)));
    let daemon = "setsid -f sh -c 'trap \"\" TERM HUP; echo $$ > there; while :; do sleep 0.05; done' \
                  </dev/null >/dev/null 2>&1; until [ -s there ]; do sleep 0.01; done";
    let job = host.jobs.spawn(host.sh(daemon)).unwrap();
    assert!(job.wait_timeout(LONG).unwrap().is_success());
    assert!(!Path::new(&format!("/proc/{}", host.text("there").trim())).exists());
}

#[test]
fn a_hundred_megabytes_of_output_are_a_file_of_that_size() {
    let host = Host::of_processes(20);
    let path = host.folder.path().join("output");
    let mut head = Command::new("head");
    head.args(["-c", "100M", "/dev/zero"]).stdout(fs::File::create(&path).unwrap());
    assert!(host.jobs.spawn(Job::new(head)).unwrap().wait_timeout(LONG).unwrap().is_success());
    assert_eq!(fs::metadata(path).unwrap().len(), 100 << 20);
}

#[test]
fn a_forked_child_has_no_jobs_and_waits_for_none() {
    let host = Host::of_processes(20);
    let job = host.jobs.spawn(host.sh("exec sleep 1000")).unwrap();
    common::in_forked_child(|| {
        job.cancel();
        assert!(host.jobs.submit(host.sh("exit 0")).is_err());
        assert!(host.jobs.spawn(host.sh("exit 0")).is_err());
        assert!(matches!(job.wait(), Outcome::Lost(_)));
        // Asks the manager.
        assert_eq!(host.monitor.check_now().running_jobs, 0);
        assert_eq!((host.jobs.waiting(), host.jobs.running()), (0, 0));
        host.jobs.kill_all();
        Ok(())
    });
    assert_eq!(host.jobs.running(), 1);
    assert!(job.wait_timeout(Duration::ZERO).is_none());
}

/// The job of [`jobs_that_grow_at_once_are_held_and_none_is_shed`]: fills so much memory, slower than that is checked, and
/// keeps it for a while.
#[test]
#[ignore = "jobs_that_grow_at_once_are_held_and_none_is_shed runs it, as a job"]
fn a_job_that_grows() {
    let mb: usize = std::env::var("GROWS_TO_MB").unwrap().parse().unwrap();
    let blocks: Vec<Vec<u8>> = (0..mb)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(4));
            vec![1; 1 << 20]
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(blocks.len(), mb);
}

#[test]
fn jobs_that_grow_at_once_are_held_and_none_is_shed() {
    let host = Host::new(ResourceLimits::builder().max_memory_mb(400), |jobs| jobs.width(usize::MAX));
    let grows_to = |mb: u32| {
        let mut job = Command::new(std::env::current_exe().unwrap());
        job.args(["--exact", "--ignored", "a_job_that_grows"]).env("GROWS_TO_MB", mb.to_string());
        job.stdout(std::process::Stdio::null());
        Job::new(job).kind("grows")
    };
    let succeeds = |handle: &highwater::JobHandle| handle.wait_timeout(LONG).is_some_and(|end| end.is_success());
    let small: Vec<_> = (0..8).map(|_| host.jobs.submit(grows_to(1)).unwrap()).collect();
    assert!(small.iter().all(succeeds));
    let events = host.jobs.events();
    // Each is taken to be small, so they are all started at once.
    let large: Vec<_> = (0..4).map(|_| host.jobs.submit(grows_to(150)).unwrap()).collect();
    let mut held = 0;
    wait_until("all have ended", || {
        held = held.max(host.jobs.paused());
        large.iter().all(|job| job.wait_timeout(Duration::ZERO).is_some())
    });
    assert!(large.iter().all(succeeds) && held > 0, "{held} held at most");
    let requeued = events.try_iter().filter(|event| matches!(event.what, JobStep::Requeued { .. })).count();
    assert_eq!(requeued, 0);
}
