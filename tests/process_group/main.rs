//! `ProcessGroupManager` with real processes: what it ends, what it collects, and above all what it leaves alone.
//!
//! Descendants, the subreaper and the process group belong to the whole process, so every test has one of its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
mod concealed;
mod exhausted;
mod reused_numbers;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{ensure, in_forked_child, ms, sleeper, wait_until, Children};
use highwater::{ErrorKind, ProcessGroup, ProcessGroupManager, ResourceLimits, ResourceMonitor};
use nix::libc::{SIGKILL, SIGTERM};
use nix::sys::mman::{mmap_anonymous, MapFlags, ProtFlags};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::{fork, getpgrp, getpid, ForkResult, Pid};
use rusty_fork::rusty_fork_test;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(120);

fn set_up() -> Arc<ProcessGroupManager> {
    let group = Arc::new(ProcessGroupManager::new().with_grace(SECOND));
    group.setup().unwrap();
    group
}

/// A shell that runs `script`, says `ready`, and ends when it is told to (see `end`).
struct Helper {
    shell: Child,
    says: BufReader<std::process::ChildStdout>,
}

impl Helper {
    /// The script may say things, one a line, which are the answer.
    fn start(script: &str) -> (Helper, Vec<u32>) {
        let script = format!("{script}; echo ready; read -r _");
        let mut shell =
            Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut says = BufReader::new(shell.stdout.take().unwrap());
        let mut said = Vec::new();
        loop {
            let mut line = String::new();
            says.read_line(&mut line).unwrap();
            match line.trim() {
                "ready" => return (Helper { shell, says }, said),
                number => said.push(number.parse().unwrap()),
            }
        }
    }

    fn pid(&self) -> u32 {
        self.shell.id()
    }

    /// Ends it, and what it has started is orphaned.
    fn end(mut self) {
        drop(self.says);
        self.shell.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(self.shell.wait().unwrap().success());
    }
}

/// The state and the parent, if there is such a process.
fn state(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn is_alive(pid: u32) -> bool {
    state(pid).is_some_and(|(state, _)| state != 'Z')
}

/// Orphans a background process of a tracked helper, which is in a session of its own.
const ONE_IN_A_SESSION_OF_ITS_OWN: &str = "setsid sleep 1000 >/dev/null & echo $!";

fn clean_up_until_gone(group: &ProcessGroupManager, pid: u32) {
    wait_until("the orphan is gone, zombie and all", || {
        group.cleanup_orphans().unwrap();
        group.reap_orphaned_backends().unwrap();
        state(pid).is_none()
    });
}

/// Forks a process that has this number, and sleeps; `None` where the machine does not let numbers be chosen.
fn sleeper_with_pid(pid: u32) -> Option<Pid> {
    for _ in 0..100 {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).ok()?;
        // SAFETY: the child calls nothing but `pause`, which is allowed after fork.
        #[allow(unsafe_code)]
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => loop {
                nix::unistd::pause();
            },
            ForkResult::Parent { child } if child.as_raw() as u32 == pid => return Some(child),
            ForkResult::Parent { child } => {
                kill(child, Signal::SIGKILL).unwrap();
                waitpid(child, None).unwrap();
            }
        }
    }
    None
}

/// A forked child that ends with the code of `life`, which must do with what is allowed after fork.
fn fork_child(life: impl FnOnce() -> i32) -> Pid {
    // SAFETY: this process has no thread that matters to the child, which allocates nothing and leaves by `_exit`.
    #[allow(unsafe_code)]
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let code = life();
            // SAFETY: it is allowed after fork.
            unsafe { nix::libc::_exit(code) }
        }
        ForkResult::Parent { child } => child,
    }
}

/// A child that ends at once, and of whose end its parent hears no signal.
fn fork_silent_child(code: i32) -> Pid {
    // SAFETY: a fork as that of the C library, but for the signal; the child does nothing but `_exit`.
    #[allow(unsafe_code)]
    match unsafe { nix::libc::syscall(nix::libc::SYS_clone, 0, 0, 0, 0, 0) } {
        // SAFETY: it is allowed after fork.
        #[allow(unsafe_code)]
        0 => unsafe { nix::libc::_exit(code) },
        child => Pid::from_raw(child as i32),
    }
}

fn is_stopped(process: Pid) -> bool {
    state(process.as_raw() as u32).is_some_and(|(state, _)| matches!(state, 'T' | 't'))
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn setup_leads_a_group_and_can_be_undone() {
        let before = getpgrp();
        let group = ProcessGroupManager::new();
        assert_eq!(getpgrp(), before, "nothing is changed before");
        for _ in 0..2 {
            group.setup().unwrap();
            assert_eq!(getpgrp(), getpid());
        }
        assert!(nix::sys::prctl::get_child_subreaper().unwrap());
        for _ in 0..2 {
            group.restore().unwrap();
            assert_eq!(getpgrp(), before);
        }
        assert!(!nix::sys::prctl::get_child_subreaper().unwrap());

        let neither = ProcessGroupManager::new().with_own_group(false).with_subreaper(false);
        neither.setup().unwrap();
        assert!(getpgrp() == before && !nix::sys::prctl::get_child_subreaper().unwrap());
    }

    #[test]
    fn what_a_backend_leaves_behind_is_counted_then_ended_and_collected() {
        let group = set_up();
        let monitor = ResourceMonitor::new(ResourceLimits::builder().build().unwrap());
        let (helper, pids) = Helper::start(ONE_IN_A_SESSION_OF_ITS_OWN);
        group.track_backend_pid(helper.pid()).unwrap();
        group.look().unwrap();
        assert_eq!(group.backend_pids(helper.pid()).unwrap(), pids);
        helper.end();
        wait_until("it is handed to us", || state(pids[0]).unwrap().1 == std::process::id());
        assert_eq!(monitor.check_now().child_process_count, Some(1));
        assert_eq!(group.cleanup_orphans().unwrap(), pids);
        clean_up_until_gone(&group, pids[0]);
        assert_eq!(monitor.check_now().child_process_count, Some(0));
    }

    #[test]
    fn a_monitor_does_all_of_it_by_itself() {
        let group = set_up();
        let monitor = ResourceMonitor::new(ResourceLimits::builder().build().unwrap());
        monitor.set_process_group(group.clone());
        monitor.start(ms(50)).unwrap();
        let (helper, pids) = Helper::start(ONE_IN_A_SESSION_OF_ITS_OWN);
        group.track_backend_pid(helper.pid()).unwrap();
        let snapshots = monitor.snapshots();
        wait_until("a few checks", || snapshots.receiver().len() > 5);
        helper.end();
        wait_until("the orphan is gone, zombie and all", || state(pids[0]).is_none());
    }

    #[test]
    fn one_that_does_not_listen_is_killed_after_the_grace() {
        let group = set_up();
        let (helper, pids) = Helper::start("sh -c \"trap '' TERM; while :; do sleep 1000; done\" >/dev/null & echo $!");
        group.track_backend_pid(helper.pid()).unwrap();
        wait_until("it is deaf", || {
            group.look().unwrap();
            group.backend_pids(helper.pid()).unwrap().len() >= 2
        });
        helper.end();
        wait_until("it is told", || group.cleanup_orphans().unwrap().contains(&pids[0]));
        assert!(group.cleanup_orphans().unwrap().is_empty() && is_alive(pids[0]), "within its grace");
        clean_up_until_gone(&group, pids[0]);
        // What it has left behind in turn.
        assert!(group.kill_all_children(SIGKILL, LONG).unwrap().survivors.is_empty());
    }

    #[test]
    fn a_stopped_orphan_is_ended_too() {
        let group = set_up();
        let (helper, pids) = Helper::start("sleep 1000 >/dev/null & echo $!");
        group.track_backend_pid(helper.pid()).unwrap();
        assert_eq!(group.signal_backend(helper.pid(), nix::libc::SIGSTOP).unwrap().len(), 2);
        wait_until("it stands still", || state(pids[0]).unwrap().0 == 'T');
        kill(Pid::from_raw(helper.pid() as i32), Signal::SIGCONT).unwrap();
        helper.end();
        clean_up_until_gone(&group, pids[0]);
    }

    #[test]
    fn daemons_children_and_strangers_are_left_alone() {
        let group = set_up();
        let own = std::process::id();
        // The host's own child; what a helper that was never tracked leaves behind; a backend that lives, and its
        // child.
        let mut child = sleeper();
        let (untracked, daemon) = Helper::start(ONE_IN_A_SESSION_OF_ITS_OWN);
        let (alive, below) = Helper::start("sleep 1000 >/dev/null & echo $!");
        group.track_backend_pid(alive.pid()).unwrap();
        // And what one leaves behind that was let go.
        let (disowned, left) = Helper::start(ONE_IN_A_SESSION_OF_ITS_OWN);
        group.track_backend_pid(disowned.pid()).unwrap();
        group.look().unwrap();
        assert!(group.untrack_backend_pid(disowned.pid()) && !group.untrack_backend_pid(disowned.pid()));
        untracked.end();
        disowned.end();
        wait_until("both are handed to us", || [daemon[0], left[0]].iter().all(|pid| state(*pid).unwrap().1 == own));
        // Its status is the host's, whenever it asks.
        kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
        wait_until("the child has ended", || state(child.id()).unwrap().0 == 'Z');
        for _ in 0..5 {
            assert!(group.cleanup_orphans().unwrap().is_empty());
            assert!(group.reap_orphaned_backends().unwrap().is_empty());
            thread::sleep(ms(2));
        }
        for pid in [daemon[0], left[0], below[0], alive.pid()] {
            assert!(is_alive(pid), "{pid}");
        }
        assert_eq!(child.wait().unwrap().signal(), Some(SIGKILL));
        assert!(group.kill_all_children(SIGKILL, LONG).unwrap().survivors.is_empty());
    }

    #[test]
    fn a_reused_number_is_a_stranger() {
        let group = set_up();
        let (helper, pids) = Helper::start(ONE_IN_A_SESSION_OF_ITS_OWN);
        let backend = helper.pid();
        group.track_backend_pid(backend).unwrap();
        group.look().unwrap();
        kill(Pid::from_raw(pids[0] as i32), Signal::SIGKILL).unwrap();
        helper.end();
        wait_until("it is collected", || {
            group.reap_orphaned_backends().unwrap();
            state(pids[0]).is_none()
        });
        // Start times are told apart from one clock tick, 10 ms, to the next. Where numbers are not chosen they do not
        // come round that fast.
        thread::sleep(ms(30));
        // A group of the same number comes with it.
        let reused: Vec<_> = [pids[0], backend].into_iter().filter_map(sleeper_with_pid).collect();
        if reused.is_empty() {
            println!("skipped: process ids cannot be chosen");
            return;
        }
        for _ in 0..5 {
            assert!(group.cleanup_orphans().unwrap().is_empty());
            assert!(group.reap_orphaned_backends().unwrap().is_empty());
            assert_eq!(group.signal_backend(backend, SIGKILL).unwrap_err().kind(), ErrorKind::Process);
            thread::sleep(ms(2));
        }
        for process in reused {
            assert_eq!(waitpid(process, Some(WaitPidFlag::WNOHANG)).unwrap(), WaitStatus::StillAlive);
            kill(process, Signal::SIGKILL).unwrap();
            waitpid(process, None).unwrap();
        }
    }

    #[test]
    fn numbers_and_signals_that_mean_something_else_are_refused_by_name() {
        let group = ProcessGroupManager::new();
        let own = std::process::id();
        for (pid, expected) in [
            (0, "process id 0 means every process of a group".to_owned()),
            (1, "process id 1 is init".to_owned()),
            (own, format!("process id {own} is this process")),
            (u32::MAX, "process id 4294967295 is negative, and means a group".to_owned()),
        ] {
            for error in [
                group.track_backend_pid(pid).unwrap_err(),
                group.watch_child(pid).unwrap_err(),
                group.signal_backend(pid, SIGTERM).unwrap_err(),
            ] {
                assert_eq!((error.kind(), error.to_string()), (ErrorKind::InvalidSetting, expected.clone()));
            }
        }
        let child = Children::sleepers(1);
        let pid = child.0[0].id();
        for signal in [0, -1, 65] {
            assert_eq!(group.kill_all_children(signal, SECOND).unwrap_err().kind(), ErrorKind::InvalidSetting);
            assert_eq!(group.signal_backend(pid, signal).unwrap_err().kind(), ErrorKind::InvalidSetting);
        }
        let unknown = 4_000_000;
        assert_eq!(
            group.track_backend_pid(unknown).unwrap_err().to_string(),
            "process 4000000 does not descend from this process"
        );
        assert_eq!(group.backend_pids(pid).unwrap_err().to_string(), format!("process {pid} is not tracked"));
        assert_eq!(
            group.watch_child(unknown).unwrap_err().to_string(),
            "process 4000000 is not a child of this process"
        );
        assert!(is_alive(pid));
    }

    #[allow(clippy::zombie_processes)] // which are what this test is about
    #[test]
    fn exactly_the_watched_child_is_collected_and_its_status_kept() {
        let group = set_up();
        let exits = |code: &str| Command::new("sh").args(["-c", &format!("exit {code}")]).spawn().unwrap();
        let (watched, mut unwatched) = (exits("7"), exits("9"));
        group.watch_child(watched.id()).unwrap();
        wait_until("both have ended", || [watched.id(), unwatched.id()].iter().all(|pid| !is_alive(*pid)));
        assert_eq!(group.reap_orphaned_backends().unwrap(), [watched.id()]);
        for _ in 0..2 {
            assert_eq!(group.exit_status(watched.id()).unwrap().code(), Some(7));
        }
        assert_eq!(group.exit_status(unwatched.id()), None);
        assert_eq!(unwatched.wait().unwrap().code(), Some(9));
        assert_eq!(group.unwatch_child(watched.id()).unwrap().code(), Some(7));
        assert_eq!(group.exit_status(watched.id()), None);
        // One whose status the host has taken after all is lost, and nobody else's is taken in its place.
        let mut taken = exits("5");
        group.watch_child(taken.id()).unwrap();
        assert_eq!(taken.wait().unwrap().code(), Some(5));
        assert_eq!(group.exit_status(taken.id()), None);
        // And without the housekeeping.
        let asked = exits("3");
        group.watch_child(asked.id()).unwrap();
        wait_until("its status is known", || group.exit_status(asked.id()).is_some());
    }

    #[test]
    fn stops_of_a_child_are_left_to_the_host_and_only_its_end_is_taken() {
        let group = set_up();
        let traced = fork_child(|| {
            nix::sys::ptrace::traceme().unwrap();
            nix::sys::signal::raise(Signal::SIGSTOP).unwrap();
            7
        });
        let plain = fork_child(|| {
            nix::sys::signal::raise(Signal::SIGSTOP).unwrap();
            8
        });
        // One that ends without a word to its parent, which only a wait for all kinds of children finds.
        let silent = fork_silent_child(9);
        for child in [traced, plain, silent] {
            group.watch_child(child.as_raw() as u32).unwrap();
        }
        wait_until("both stand still", || [traced, plain].iter().all(|child| is_stopped(*child)));
        wait_until("the third has ended", || group.exit_status(silent.as_raw() as u32).is_some());
        assert_eq!(group.exit_status(silent.as_raw() as u32).unwrap().code(), Some(9));
        for _ in 0..5 {
            assert!(group.reap_orphaned_backends().unwrap().is_empty());
            assert_eq!(group.exit_status(traced.as_raw() as u32), None);
            assert_eq!(group.exit_status(plain.as_raw() as u32), None);
        }
        // Each report is still there, for the host.
        let report = |child, flags| waitpid(child, Some(flags)).unwrap();
        assert_eq!(report(traced, WaitPidFlag::WNOHANG), WaitStatus::Stopped(traced, Signal::SIGSTOP));
        assert_eq!(report(plain, WaitPidFlag::WUNTRACED), WaitStatus::Stopped(plain, Signal::SIGSTOP));
        kill(plain, Signal::SIGCONT).unwrap();
        // The tracer hears of the end while the child still is, too.
        nix::sys::ptrace::setoptions(traced, nix::sys::ptrace::Options::PTRACE_O_TRACEEXIT).unwrap();
        nix::sys::ptrace::cont(traced, None).unwrap();
        wait_until("it stops at its exit", || is_stopped(traced));
        assert!(group.exit_status(traced.as_raw() as u32).is_none());
        assert!(matches!(report(traced, WaitPidFlag::WNOHANG), WaitStatus::PtraceEvent(..)));
        nix::sys::ptrace::cont(traced, None).unwrap();
        for (child, code) in [(traced, 7), (plain, 8)] {
            let pid = child.as_raw() as u32;
            wait_until("its status is known", || group.exit_status(pid).is_some());
            assert_eq!(group.exit_status(pid).unwrap().code(), Some(code));
        }
    }

    #[test]
    fn a_stranger_that_the_host_traces_is_no_child_of_its() {
        let group = set_up();
        // Below a helper, and so nobody that this process may wait for.
        let (helper, pids) = Helper::start("sleep 1000 >/dev/null & echo $!");
        let stranger = Pid::from_raw(pids[0] as i32);
        // A tracer is told of the start of a program as well.
        let program = || fs::read_to_string(format!("/proc/{stranger}/comm")).unwrap();
        wait_until("it sleeps", || program() == "sleep\n");
        nix::sys::ptrace::attach(stranger).unwrap();
        wait_until("it stands still", || is_stopped(stranger));
        assert_eq!(group.watch_child(pids[0]).unwrap_err().kind(), ErrorKind::Process);
        assert_eq!(waitpid(stranger, None).unwrap(), WaitStatus::Stopped(stranger, Signal::SIGSTOP));
        nix::sys::ptrace::detach(stranger, None).unwrap();
        let mut helper = helper;
        assert!(group.kill_all_children(SIGKILL, LONG).unwrap().survivors.is_empty());
        helper.shell.wait().unwrap();
    }

    #[test]
    fn everybody_is_ended_wherever_they_hide() {
        let group = set_up();
        let (_helper, hidden) = Helper::start("setsid sh -c 'sleep 1000 & echo $$ $! | tr \" \" \"\\n\"; exec sleep 1000' & sleep 0.2");
        let mut child = sleeper();
        let report = group.kill_all_children(SIGTERM, LONG).unwrap();
        assert!(report.survivors.is_empty() && report.denied.is_empty(), "{report:?}");
        let signaled: BTreeSet<_> = report.signaled.iter().copied().collect();
        assert!(hidden.iter().chain([&child.id()]).all(|pid| signaled.contains(pid)), "{hidden:?} {report:?}");
        assert_eq!(child.wait().unwrap().signal(), Some(SIGTERM));
        assert_eq!(group.kill_all_children(SIGKILL, SECOND).unwrap().signaled, [0_u32; 0]);
    }

    #[test]
    fn a_pipeline_that_a_shell_has_put_into_our_group_is_left_alone() {
        // As a shell does: this process leads the group of a pipeline, in which another one is that does not descend
        // from it.
        nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0)).unwrap();
        let other = Command::new("sh").args(["-c", "sleep 1000 >/dev/null 2>&1 & echo $!"]).output().unwrap();
        let other: u32 = String::from_utf8(other.stdout).unwrap().trim().parse().unwrap();
        wait_until("it is init's", || state(other).unwrap().1 != std::process::id());
        let group = set_up();
        assert_eq!(getpgrp(), getpid());
        let mut child = sleeper();
        let report = group.kill_all_children(SIGKILL, LONG).unwrap();
        assert_eq!(report.signaled, [child.id()]);
        child.wait().unwrap();
        assert!(is_alive(other));
        kill(Pid::from_raw(other as i32), Signal::SIGKILL).unwrap();
    }

    #[test]
    fn who_does_not_end_is_reported_and_ends_by_sigkill() {
        let group = set_up();
        let mut deaf = Command::new("sh")
            .args(["-c", "trap '' TERM; echo; while :; do sleep 0.05; done"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        BufReader::new(deaf.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        let report = group.kill_all_children(SIGTERM, ms(100)).unwrap();
        assert!(report.survivors.contains(&deaf.id()), "{report:?}");
        assert!(group.kill_all_children(SIGKILL, LONG).unwrap().survivors.is_empty());
        assert_eq!(deaf.wait().unwrap().signal(), Some(SIGKILL));
    }

    #[test]
    fn a_fork_bomb_of_200_is_ended_and_the_host_gets_every_status_of_its_own() {
        let group = set_up();
        let forks = shared_counter();
        let mut own = Children::sleepers(3);
        // SAFETY: the child calls fork, nanosleep and nothing else, which are allowed after fork.
        #[allow(unsafe_code)]
        let bomb = match unsafe { fork() }.unwrap() {
            ForkResult::Child => explode(forks),
            ForkResult::Parent { child } => child,
        };
        wait_until("it has gone off", || forks.load(Ordering::Relaxed) > 20);
        let report = group.kill_all_children(SIGKILL, LONG).unwrap();
        assert!(report.survivors.is_empty(), "{report:?}");
        println!("{} forks, {} signalled", forks.load(Ordering::Relaxed), report.signaled.len());
        for child in &mut own.0 {
            assert_eq!(child.wait().unwrap().signal(), Some(SIGKILL));
        }
        own.0.clear();
        assert_eq!(waitpid(bomb, None).unwrap(), WaitStatus::Signaled(bomb, Signal::SIGKILL, false));
        let monitor = ResourceMonitor::new(ResourceLimits::builder().build().unwrap());
        let snapshot = monitor.check_now();
        // Whoever was born, orphaned and killed between two looks may be the host's, for all that can be known.
        assert_eq!(snapshot.child_process_count, Some(snapshot.zombie_pids.len()), "{snapshot}");
        println!("{} zombies left to the host", snapshot.zombie_pids.len());
    }

    #[test]
    fn an_interrupted_shutdown_ends_the_children() {
        let group = set_up();
        let mut children = Children::sleepers(2);
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _guard = group.kill_on_drop(SIGTERM, LONG);
            panic!("interrupted");
        }));
        assert!(unwound.is_err());
        for child in &mut children.0 {
            assert_eq!(child.wait().unwrap().signal(), Some(SIGTERM));
        }
        children.0.clear();
        children.spawn(1);
        group.kill_on_drop(SIGTERM, LONG).disarm();
        // Nor does a guard that a forked child has inherited.
        let guard = group.kill_on_drop(SIGTERM, LONG);
        in_forked_child(|| {
            // SAFETY: this process leaves by `_exit` and neither uses nor drops the original after this.
            #[allow(unsafe_code)]
            drop(unsafe { std::ptr::read(&guard) });
            ensure(group.kill_all_children(SIGKILL, ms(0)).unwrap().signaled.is_empty(), "somebody was signalled")
        });
        guard.disarm();
        assert!(is_alive(children.0[0].id()));
    }

    #[test]
    fn what_it_does_is_logged_with_typed_keys() {
        let log = common::LogCapture::install();
        let group = set_up();
        group.setup().unwrap();
        assert_eq!(log.named("pgroup.setup_complete").len(), 1);
        assert_eq!(log.named("pgroup.setup_complete")[0].numbers["pgid"], f64::from(std::process::id()));
        let (helper, pids) = Helper::start("sleep 1000 >/dev/null & echo $!");
        group.track_backend_pid(helper.pid()).unwrap();
        group.look().unwrap();
        helper.end();
        clean_up_until_gone(&group, pids[0]);
        let ended = &log.named("pgroup.orphan_cleanup")[0];
        assert_eq!((ended.numbers["count"], ended.keys["pids"].clone()), (1.0, format!("{pids:?}")));
        assert_eq!(log.named("pgroup.reaped_zombie")[0].numbers["pid"], f64::from(pids[0]));
        let mut child = sleeper();
        group.kill_all_children(SIGKILL, LONG).unwrap();
        child.wait().unwrap();
        let signaled = &log.named("pgroup.signaled_children")[0];
        assert_eq!((signaled.numbers["signal"], signaled.numbers["count"], signaled.numbers["survivors"]), (9.0, 1.0, 0.0));
        ProcessGroupManager::new().setup().unwrap();
        assert_eq!(log.named("pgroup.already_leader").len(), 1);
    }

    #[test]
    fn one_that_may_not_be_signalled_stops_nothing() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs to be root, to have children of another user");
            return;
        }
        let group = set_up();
        let log = common::LogCapture::install();
        let mut root = sleeper();
        let mut nobody = Command::new("sleep").arg("1000").uid(65_534).gid(65_534).spawn().unwrap();
        // From now on this process may signal its own user's processes, and root's no more.
        nix::unistd::setresuid(65_534.into(), 65_534.into(), 0.into()).unwrap();
        let report = group.kill_all_children(SIGKILL, ms(50)).unwrap();
        nix::unistd::setresuid(0.into(), 0.into(), 0.into()).unwrap();
        assert_eq!((&report.signaled[..], &report.denied[..]), (&[nobody.id()][..], &[root.id()][..]));
        assert_eq!(report.survivors, [root.id()]);
        assert_eq!(log.named("pgroup.permission_denied")[0].numbers["pid"], f64::from(root.id()));
        assert_eq!(nobody.wait().unwrap().signal(), Some(SIGKILL));
        root.kill().unwrap();
        root.wait().unwrap();
    }
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 1_800_000)]

    #[test]
    fn rounds_of_spawn_orphan_and_clean_up_leave_nothing_behind() {
        let rounds: usize = std::env::var("HIGHWATER_ROUNDS").map_or(300, |rounds| rounds.parse().unwrap());
        let group = set_up();
        let monitor = ResourceMonitor::new(ResourceLimits::builder().build().unwrap());
        let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
        let mut after_warm_up = None;
        for round in 0..rounds {
            let (helper, pids) = Helper::start("sleep 1000 >/dev/null & echo $!");
            group.track_backend_pid(helper.pid()).unwrap();
            group.look().unwrap();
            helper.end();
            clean_up_until_gone(&group, pids[0]);
            let snapshot = monitor.check_now();
            assert_eq!((snapshot.child_process_count, snapshot.zombie_pids.len()), (Some(0), 0), "round {round}");
            if round == rounds / 10 {
                after_warm_up = Some((descriptors(), snapshot.memory_bytes.unwrap()));
            }
        }
        let (descriptors_then, memory_then) = after_warm_up.unwrap();
        let memory = monitor.check_now().memory_bytes.unwrap();
        assert_eq!(descriptors(), descriptors_then);
        assert!(memory < memory_then + (1 << 20), "{memory_then} bytes, then {memory}");
        println!("{rounds} rounds: {memory_then} bytes, then {memory}");
    }
}

/// A counter in memory that forked children share.
fn shared_counter() -> &'static AtomicU32 {
    let (protection, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
    // SAFETY: a new mapping at no fixed address, zeroed, aligned, and there for good.
    #[allow(unsafe_code)]
    unsafe {
        mmap_anonymous(None, 4096.try_into().unwrap(), protection, flags).unwrap().cast::<AtomicU32>().as_ref()
    }
}

/// Forks, and its children fork, until there were 200 forks in all; then all of them sleep.
fn explode(forks: &AtomicU32) -> ! {
    while forks.fetch_add(1, Ordering::Relaxed) < 200 {
        // SAFETY: parent and child go on with this loop, in which nothing is allocated.
        #[allow(unsafe_code)]
        let _ = unsafe { fork() };
        thread::sleep(ms(2));
    }
    loop {
        nix::unistd::pause();
    }
}
