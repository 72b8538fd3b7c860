//! Jobs where the system itself has too little for them: tasks, memory, room for an environment, descriptors, a terminal. All of these are process-wide, so each
//! test has a process of its own.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::groups::{limit_memory, limit_pids, Groups};

use common::{wait_until, Children, LogCapture};
use highwater::{HeldBack, Job, JobHandle, JobStep, Jobs, MemoryScope, Outcome, ResourceLimits, ResourceMonitor, Work};
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use nix::unistd::chown;
use rusty_fork::rusty_fork_test;

const LONG: Duration = Duration::from_secs(120);

/// Jobs as many as the system bears, under a monitor that has nothing against them.
fn jobs() -> (ResourceMonitor, Jobs) {
    jobs_checked_every(Duration::from_millis(200))
}

fn jobs_checked_every(interval: Duration) -> (ResourceMonitor, Jobs) {
    let limits = ResourceLimits::builder().max_processes(1000).build().unwrap();
    let monitor = ResourceMonitor::builder(limits).memory_scope(MemoryScope::Tree);
    let monitor = monitor.refresh_after(interval).max_age(interval * 10).build().unwrap();
    let jobs = monitor.jobs().width(usize::MAX).grace(Duration::from_secs(1)).build().unwrap();
    monitor.start(interval).unwrap();
    (monitor, jobs)
}

fn sh(script: &str) -> Job {
    let mut sh = Command::new("sh");
    sh.args(["-c", script]);
    Job::new(sh)
}

/// Waits for all of them, and returns each text of what has held them back meanwhile.
fn reasons_until_all_succeed(jobs: &Jobs, handles: &[JobHandle]) -> Vec<HeldBack> {
    let mut reasons = Vec::new();
    wait_until("all jobs have ended", || {
        reasons.extend(jobs.held_back());
        handles.iter().all(|handle| handle.wait_timeout(Duration::ZERO).is_some())
    });
    let failed: Vec<_> = handles.iter().map(JobHandle::wait).filter(|outcome| !outcome.is_success()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    reasons
}

fn is_want_of(reason: &HeldBack, errno: i32) -> bool {
    matches!(reason, HeldBack::NotStarted(error) if error.raw_os_error() == Some(errno))
}

/// Runs an ignored test of this file as a user who may have 60 tasks and has 45 already, behind these commands.
fn as_limited_user(first_user: u32, behind: &[&str], test: &str) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only the first user can be another one, for whom such a limit holds");
        return;
    }
    // A number for each process of this test, or they would count each other's.
    let user = first_user + std::process::id();
    // The folder of the build need not be one that everybody can enter.
    let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let program = folder.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    chown(folder.path(), Some(user.into()), Some(user.into())).unwrap();
    let others = (0..45).map(|_| Command::new("sleep").arg("1000").uid(user).gid(user).spawn().unwrap());
    let _others = Children(others.collect());
    let limited = ["prlimit", "--nproc=60", "setpriv", "--clear-groups"];
    let command: Vec<&str> = behind.iter().chain(&limited).copied().collect();
    let mut runner = Command::new(command[0]);
    runner.args(&command[1..]).arg(format!("--reuid={user}")).arg(&program).current_dir(&folder);
    // One thread, so that all that this user has is known.
    runner.args(["--exact", "--ignored", "--nocapture", "--test-threads=1", test]);
    let output = runner.env("TMPDIR", folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Sixty jobs of such a user, each of which runs once.
fn sixty_jobs() -> Vec<HeldBack> {
    let (_monitor, jobs) = jobs();
    let jobs_of = |number| sh(&format!("echo {number} >> done; exec sleep 0.1"));
    let handles: Vec<_> = (1..=60).map(|number| jobs.submit(jobs_of(number)).unwrap()).collect();
    let reasons = reasons_until_all_succeed(&jobs, &handles);
    let text = fs::read_to_string("done").unwrap();
    let mut done: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    done.sort_unstable();
    assert_eq!(done, Vec::from_iter(1..=60));
    reasons
}

#[test]
fn jobs_wait_for_what_other_programs_of_the_user_leave_of_his_limit() {
    as_limited_user(100_000, &[], "host_of_a_user_whose_tasks_are_seen");
}

#[test]
#[ignore = "jobs_wait_for_what_other_programs_of_the_user_leave_of_his_limit runs it, as another user"]
fn host_of_a_user_whose_tasks_are_seen() {
    let reasons = sixty_jobs();
    let is_foreseen = |reason: &HeldBack| matches!(reason, HeldBack::Tasks(shortage) if shortage.used >= 45);
    assert!(reasons.iter().any(is_foreseen), "{reasons:?}");
    assert!(!reasons.iter().any(|reason| is_want_of(reason, libc::EAGAIN)), "{reasons:?}");
}

#[test]
fn a_job_that_cannot_be_started_for_want_of_a_task_is_started_later() {
    // Those outside of its namespace are not seen, but count.
    let behind = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    as_limited_user(200_000, &behind, "host_of_a_user_whose_tasks_are_hidden");
}

#[test]
#[ignore = "a_job_that_cannot_be_started_for_want_of_a_task_is_started_later runs it, as another user"]
fn host_of_a_user_whose_tasks_are_hidden() {
    let reasons = sixty_jobs();
    assert!(reasons.iter().any(|reason| is_want_of(reason, libc::EAGAIN)), "{reasons:?}");
}

#[test]
fn jobs_wait_while_the_limit_of_their_user_is_lowered_and_run_when_it_is_raised_again() {
    as_limited_user(300_000, &[], "host_of_a_user_whose_limit_changes");
}

#[test]
#[ignore = "jobs_wait_while_the_limit_of_their_user_is_lowered_and_run_when_it_is_raised_again runs it, as another user"]
fn host_of_a_user_whose_limit_changes() {
    let (_monitor, jobs) = jobs();
    let job = |number| sh(&format!("echo {number} >> done; exec sleep 0.05"));
    let handles: Vec<_> = (1..=40).map(|number| jobs.submit(job(number)).unwrap()).collect();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
    for limit in [46, 40, 10] {
        wait_until("another one has ended", || jobs.running() > 0 || jobs.waiting() == 0);
        // Others have as many, and this process has its threads.
        setrlimit(Resource::RLIMIT_NPROC, limit, hard).unwrap();
        let is_refused = |reason| matches!(reason, HeldBack::Tasks(shortage) if shortage.limit == limit);
        wait_until("the others wait", || jobs.running() == 0 && jobs.held_back().is_some_and(is_refused));
        assert!(jobs.waiting() > 0, "all ran before the limit was lowered");
        setrlimit(Resource::RLIMIT_NPROC, soft, hard).unwrap();
    }
    reasons_until_all_succeed(&jobs, &handles);
    assert_eq!(fs::read_to_string("done").unwrap().lines().count(), 40);
}

/// A job of the test below.
#[test]
#[ignore = "a job of threads_of_jobs_count_where_a_group_limits_them, which runs it"]
fn sixteen_threads() {
    thread::scope(|scope| (0..16).for_each(|_| drop(scope.spawn(|| thread::sleep(Duration::from_millis(300))))));
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn threads_of_jobs_count_where_a_group_limits_them() {
        let Some(groups) = Groups::new("pids") else { return };
        limit_pids(&groups.outer, "60");
        groups.enter();
        let (_monitor, jobs) = jobs();
        let job = || {
            let mut job = Command::new(std::env::current_exe().unwrap());
            job.args(["--exact", "--ignored", "sixteen_threads"]).stdout(std::process::Stdio::null());
            Job::new(job).kind("threads")
        };
        let handles: Vec<_> = (0..12).map(|_| jobs.submit(job()).unwrap()).collect();
        let reasons = reasons_until_all_succeed(&jobs, &handles);
        assert!(reasons.iter().any(|reason| matches!(reason, HeldBack::Tasks(_))), "{reasons:?}");
        let costs = jobs.costs().to_string();
        assert!(costs.contains("1 process and 1") && costs.contains(" tasks"), "{costs}");
    }

    #[test]
    fn a_job_of_more_tasks_than_its_group_may_have_is_refused_and_the_others_run() {
        let Some(groups) = Groups::new("pids") else { return };
        limit_pids(&groups.outer, "60");
        groups.enter();
        let (_monitor, jobs) = jobs();
        let large = jobs.submit(sh("exit 0").work(Work::new().processes(60))).unwrap();
        match large.wait_timeout(LONG) {
            Some(Outcome::NeverFits(HeldBack::Tasks(shortage))) => {
                assert_eq!((shortage.asked, shortage.limit), (60, 60));
                assert!(Path::new(&*shortage.whose).join("pids.max").exists(), "{shortage}");
            }
            outcome => panic!("{outcome:?}"),
        }
        assert!(jobs.spawn(sh("exit 0")).unwrap().wait_timeout(LONG).unwrap().is_success());
    }

    /// The stack on which a program is started is mapped (`posix_spawn(3)`): where no more may be, that fails with `ENOMEM`, as
    /// where the machine has no memory for another process.
    #[test]
    fn a_job_that_cannot_be_started_for_want_of_memory_is_started_later_also_if_none_runs() {
        let (_monitor, jobs) = jobs();
        // On a thread, whose allocator has mapped what it will use.
        let host = thread::spawn(move || {
            let job = jobs.spawn(sh("exec sleep 0.5").kind("first")).unwrap();
            let (soft, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
            let pages: u64 = fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap();
            setrlimit(Resource::RLIMIT_AS, pages * 4096, hard).unwrap();
            let waits = jobs.submit(sh("exit 0").kind("second")).unwrap();
            let is_refused = || jobs.held_back().is_some_and(|reason| is_want_of(&reason, libc::ENOMEM));
            wait_until("it is refused", is_refused);
            // Its end is told all the same, and the other one has nobody to wait for.
            assert!(job.wait_timeout(LONG).unwrap().is_success());
            wait_until("it waits", || jobs.running() == 0 && jobs.waiting() == 1 && is_refused());
            setrlimit(Resource::RLIMIT_AS, soft, hard).unwrap();
            assert!(waits.wait_timeout(LONG).unwrap().is_success());
            assert_eq!(waits.tries(), 1);
        });
        host.join().unwrap();
    }

    #[test]
    fn an_environment_that_is_too_large_is_the_reason_of_each_job_that_has_it_and_the_others_run() {
        let (_monitor, jobs) = jobs();
        // More than may be passed, whatever the limit on stacks (execve(2)).
        for number in 0..80 {
            std::env::set_var(format!("LARGE_{number}"), "x".repeat(100 << 10));
        }
        for _ in 0..3 {
            match jobs.spawn(sh("exit 0")).unwrap().wait_timeout(LONG) {
                Some(Outcome::NotStarted(error)) => assert_eq!(error.raw_os_error(), Some(libc::E2BIG)),
                outcome => panic!("{outcome:?}"),
            }
            let mut other = Command::new("sh");
            other.args(["-c", "exit 0"]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
            assert!(jobs.spawn(Job::new(other)).unwrap().wait_timeout(LONG).unwrap().is_success());
        }
    }

    /// What a job leaves behind is known by a mark in its environment, which the standard library sorts.
    #[test]
    fn what_a_job_of_a_large_environment_leaves_behind_is_ended_with_it() {
        let (_monitor, jobs) = jobs();
        let folder = tempfile::tempdir().unwrap();
        let pid = || fs::read_to_string(folder.path().join("pid")).unwrap_or_default();
        for round in 1..=5 {
            // Which changes nothing of its environment, as a shell does, and is not there for long.
            let mut leaves = Command::new("perl");
            leaves.args(["-MPOSIX=setsid", "-e"]).arg(
                "if (fork) { select(undef, undef, undef, 0.001) until -s 'pid'; exit }
                 setsid; open(PID, '>', 'pid.new'); print PID $$; close PID; rename 'pid.new', 'pid'; sleep 1000",
            );
            for number in 0..15 {
                leaves.env(format!("A_LARGE_{number}"), "x".repeat(100 << 10));
            }
            leaves.current_dir(&folder);
            let job = jobs.spawn(Job::new(leaves)).unwrap();
            assert!(job.wait_timeout(LONG).unwrap().is_success());
            let is_left = Path::new("/proc").join(pid()).exists();
            assert!(!is_left, "{} of round {round}", pid());
            fs::remove_file(folder.path().join("pid")).unwrap();
        }
    }

    #[test]
    fn a_job_waits_for_a_descriptor_while_others_run_and_is_told_when_none_do() {
        // Without a descriptor no check succeeds either, so none is taken meanwhile.
        let (_monitor, jobs) = jobs_checked_every(Duration::from_secs(3600));
        let folder = tempfile::tempdir().unwrap();
        let go = folder.path().join("go");
        assert!(jobs.spawn(sh("exit 0")).unwrap().wait_timeout(LONG).unwrap().is_success());
        let first = jobs.spawn(sh(&format!("until [ -e {} ]; do sleep 0.02; done", go.display()))).unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();

        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
        let second = jobs.submit(sh("exit 0")).unwrap();
        wait_until("it is held back", || jobs.held_back().is_some_and(|reason| is_want_of(&reason, libc::EMFILE)));
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert!(second.wait_timeout(LONG).unwrap().is_success());
        fs::write(go, "").unwrap();
        assert!(first.wait_timeout(LONG).unwrap().is_success());

        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
        match jobs.submit(sh("exit 0")).unwrap().wait_timeout(LONG) {
            Some(Outcome::NotStarted(error)) => assert_eq!(error.raw_os_error(), Some(libc::EMFILE)),
            outcome => panic!("{outcome:?}"),
        }
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert!(jobs.spawn(sh("exit 0")).unwrap().wait_timeout(LONG).unwrap().is_success());
    }

    #[test]
    fn what_a_job_has_left_is_ended_with_it_although_no_descriptor_is_left() {
        // As above. Nor is one taken to learn what a job costs, once that is known.
        let (_monitor, jobs) = jobs_checked_every(Duration::from_secs(3600));
        assert!(jobs.spawn(sh("exit 0")).unwrap().wait_timeout(LONG).unwrap().is_success());
        let folder = tempfile::tempdir().unwrap();
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 256, hard).unwrap();
        for is_limited in [false, true] {
            // Without the mark of its job, in a session of its own: known by having been seen below it.
            let script = "sh -c '
                env -i setsid sh -c \"trap : TERM; echo \\$\\$ > pid; while :; do sleep 0.05; done\" &
                until [ -e orphaned ]; do sleep 0.02; done' &
                until [ -e end ]; do sleep 0.02; done";
            let mut command = Command::new("sh");
            command.args(["-c", script]).current_dir(&folder);
            for file in ["pid", "orphaned", "end"] {
                let _ = fs::remove_file(folder.path().join(file));
            }
            let job = jobs.spawn(Job::new(command)).unwrap();
            let pid = || fs::read_to_string(folder.path().join("pid")).unwrap_or_default().trim().to_owned();
            wait_until("it runs", || !pid().is_empty());
            let stat = Path::new("/proc").join(pid()).join("stat");
            // Time for it to be seen, and then to be adopted.
            thread::sleep(Duration::from_millis(500));
            fs::write(folder.path().join("orphaned"), "").unwrap();
            let own = format!(" {} ", std::process::id());
            wait_until("it is an orphan", || fs::read_to_string(&stat).unwrap().contains(&own));
            thread::sleep(Duration::from_millis(500));

            let mut filled = Vec::new();
            if is_limited {
                setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
            } else {
                while let Ok(file) = File::open("/") {
                    filled.push(file);
                }
            }
            // A file that is made without a descriptor.
            std::os::unix::fs::symlink("/", folder.path().join("end")).unwrap();
            let outcome = job.wait_timeout(LONG);
            let is_left = stat.exists();
            setrlimit(Resource::RLIMIT_NOFILE, 256, hard).unwrap();
            drop(filled);
            assert!(outcome.unwrap().is_success());
            assert!(!is_left, "limited: {is_limited}");
        }
    }

    /// The kernel says how many processes it has killed in a group, and not whose they were.
    #[test]
    fn jobs_that_the_kernel_kills_for_memory_are_run_again_and_so_are_those_that_fail_for_it() {
        let Some(groups) = Groups::new("memory") else { return };
        // In version 1 a kill counts in the group of what was killed, and in none above.
        limit_memory(&groups.inner, 96 << 20);
        groups.enter();
        // Checked so rarely that the kernel is first.
        let (_monitor, jobs) = jobs_checked_every(Duration::from_secs(60));
        let events = jobs.events();
        let ends_with = |script: &str| {
            let job = jobs.submit(sh(script)).unwrap();
            let outcome = job.wait_timeout(LONG).unwrap();
            (outcome.status().unwrap_or_else(|| panic!("{outcome}")).code(), job.tries())
        };
        // Until the kind is known, checks are taken often.
        for _ in 0..3 {
            assert_eq!(ends_with("exit 4"), (Some(4), 1));
        }
        let folder = tempfile::tempdir().unwrap();
        let fill = "dd if=/dev/zero of=/dev/null bs=200M count=1";
        for (name, killed) in [("itself", format!("exec {fill}")), ("a part", format!("{fill} || exit 3"))] {
            let tried = folder.path().join(name);
            let script = format!("[ -e '{0}' ] && exit 0; touch '{0}'; {killed}", tried.display());
            assert_eq!(ends_with(&script), (Some(0), 2), "{name}");
            // No kill is left to explain this one by.
            assert_eq!(ends_with("exit 4"), (Some(4), 1), "after {name}");
        }
        let requeued = events.try_iter().filter_map(|event| match event.what {
            JobStep::Requeued { tries } => Some(tries.critical),
            _ => None,
        });
        assert_eq!(requeued.collect::<Vec<_>>(), [None, None], "by the kernel");
        let last = jobs.submit(sh(&format!("exec {fill}")).tries(1)).unwrap().wait_timeout(LONG).unwrap();
        assert!(matches!(&last, Outcome::KilledForMemory(tries) if tries.tries == 1), "{last}");
        assert!(last.status().is_none() && last.to_string().starts_with("killed for memory"), "{last}");
    }

    #[test]
    fn a_file_of_costs_that_cannot_be_understood_is_said_with_its_path() {
        let log = LogCapture::install();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("costs");
        fs::write(&file, "# highwater costs of a version that is to come\n").unwrap();
        let monitor = ResourceMonitor::new(ResourceLimits::builder().build().unwrap());
        let jobs = monitor.jobs().costs_file(&file).build().unwrap();
        assert_eq!(jobs.costs().to_string(), "");
        let said = log.named("jobs.costs_unreadable");
        assert!(said.len() == 1 && said[0].keys["path"] == file.display().to_string(), "{said:?}");
        assert!(said[0].keys["error"].starts_with("it does not begin with"), "{said:?}");
    }

    #[test]
    fn a_job_that_wants_the_terminal_is_ended_and_the_others_run() {
        let terminal = nix::pty::openpty(None, None).unwrap();
        let name = nix::unistd::ttyname(&terminal.slave).unwrap();
        // Without one, and then the first that is opened is it.
        nix::unistd::setsid().unwrap();
        let _own = File::options().read(true).write(true).open(name).unwrap();
        let (_monitor, jobs) = jobs();
        for script in [
            "read line < /dev/tty",
            "stty -echo < /dev/tty",
            "(read line < /dev/tty; exit 1) & wait; exit 1",
            // Deaf to a request to end, and of a parent that is gone.
            "trap '' TERM; read line < /dev/tty",
            "(sh -c 'read line < /dev/tty' &); sleep 1000",
            // In a group whose leader is not stopped, and is a child of ours; and not even that.
            "exec timeout 1000 cat /dev/tty",
            "timeout 1000 cat /dev/tty; exit 1",
        ] {
            let job = jobs.submit(sh(script).kind(script)).unwrap();
            match job.wait_timeout(LONG) {
                Some(Outcome::WantsTerminal) => {}
                outcome => panic!("{script}: {outcome:?}"),
            }
        }
        // To write there is nobody's business.
        assert!(jobs.spawn(sh("echo > /dev/tty")).unwrap().wait_timeout(LONG).unwrap().is_success());
        // Its end would hang this process up.
        std::mem::forget(terminal);
    }
}
