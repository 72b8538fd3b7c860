//! A shutdown when there is nothing to be had: no descriptor, no process, no privilege, no `/proc`.

use std::os::fd::OwnedFd;
use std::os::unix::fs::chroot;
use std::sync::atomic::AtomicBool;

use nix::sys::resource::{setrlimit, Resource};

use super::*;

/// Takes all descriptors that this process may have, as one that leaks them does.
fn take_all_descriptors() -> Vec<OwnedFd> {
    take_all_of(|| fs::File::open("/dev/null").map(OwnedFd::from))
}

fn take_all_of(open: impl Fn() -> std::io::Result<OwnedFd>) -> Vec<OwnedFd> {
    // So that it does not take long. Those that are open above stay open.
    setrlimit(Resource::RLIMIT_NOFILE, 256, 256).unwrap();
    let taken = std::iter::from_fn(|| open().ok()).collect();
    assert_eq!(open().unwrap_err().raw_os_error(), Some(nix::libc::EMFILE));
    taken
}

/// A helper in whose session of its own somebody is, and a child.
fn family() -> (Child, Child, Vec<u32>) {
    let (Helper { shell, .. }, mut pids) = Helper::start(ONE_IN_A_SESSION_OF_ITS_OWN);
    let child = sleeper();
    pids.extend([shell.id(), child.id()]);
    pids.sort_unstable();
    (shell, child, pids)
}

fn assert_all_are_gone(pids: &[u32]) {
    // One that was signalled, and is no descendant any more, may take a moment.
    wait_until("all have ended", || !pids.iter().any(|pid| is_alive(*pid)));
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn six_descriptors_at_most_are_set_aside() {
        let open = || fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        let group = set_up();
        let (_shell, _child, pids) = family();
        let with_pipes = open();
        assert!(with_pipes <= before + 6 + 2, "{before}, then {with_pipes}");
        for _ in 0..3 {
            group.cleanup_orphans().unwrap();
        }
        assert!(open() <= with_pipes);
        assert!(group.kill_all_children(SIGKILL, LONG).unwrap().survivors.is_empty());
        assert!(open() <= with_pipes && pids.len() == 3);
    }

    #[test]
    fn without_a_descriptor_left_everybody_is_ended() {
        let group = set_up();
        let (_shell, _child, pids) = family();
        let taken = take_all_descriptors();
        let report = group.kill_all_children(SIGKILL, LONG).unwrap();
        drop(taken);
        let mut signaled = report.signaled.clone();
        signaled.sort_unstable();
        assert_eq!((signaled, report.survivors), (pids.clone(), vec![]));
        assert_all_are_gone(&pids);
    }

    #[test]
    fn without_a_descriptor_left_a_dropped_guard_ends_everybody() {
        // One that was never set up: the guard opens what it takes.
        let group = Arc::new(ProcessGroupManager::new());
        let guard = group.kill_on_drop(SIGTERM, LONG);
        let (_shell, _child, pids) = family();
        let taken = take_all_descriptors();
        drop(guard);
        drop(taken);
        assert_all_are_gone(&pids);
    }

    #[test]
    fn with_each_descriptor_snatched_away_everybody_is_ended() {
        let group = set_up();
        let (_shell, _child, pids) = family();
        let is_over = Arc::new(AtomicBool::new(false));
        let taken = take_all_descriptors();
        let snatcher = thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                let mut taken = taken;
                while !is_over.load(Ordering::Relaxed) {
                    let another = taken[0].try_clone();
                    taken.extend(another);
                }
            }
        });
        let report = group.kill_all_children(SIGKILL, LONG);
        is_over.store(true, Ordering::Relaxed);
        snatcher.join().unwrap();
        assert_eq!(report.unwrap().survivors, [0_u32; 0]);
        assert_all_are_gone(&pids);
    }

    #[test]
    fn without_a_descriptor_left_orphans_are_ended_and_statuses_taken() {
        let group = set_up();
        let (helper, pids) = Helper::start(ONE_IN_A_SESSION_OF_ITS_OWN);
        group.track_backend_pid(helper.pid()).unwrap();
        let watched = fork_child(|| 7);
        group.watch_child(watched.as_raw() as u32).unwrap();
        helper.end();
        let _taken = take_all_descriptors();
        wait_until("the orphan is ended and collected", || {
            group.cleanup_orphans().unwrap();
            kill(Pid::from_raw(pids[0] as i32), None).is_err()
        });
        wait_until("the status is taken", || group.exit_status(watched.as_raw() as u32).is_some());
        assert_eq!(group.exit_status(watched.as_raw() as u32).unwrap().code(), Some(7));
    }

    #[test]
    fn with_another_root_and_no_privilege_and_no_process_left_everybody_is_ended() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs to be root, to drop its privileges");
            return;
        }
        let elsewhere = tempfile::tempdir().unwrap();
        in_forked_child(|| {
            let group = set_up();
            let mut child = Command::new("sleep").arg("1000").uid(65_534).gid(65_534).spawn().unwrap();
            chroot(elsewhere.path()).unwrap();
            std::env::set_current_dir("/").unwrap();
            assert!(!std::path::Path::new("/proc").exists());
            nix::unistd::setuid(65_534.into()).unwrap();
            setrlimit(Resource::RLIMIT_NPROC, 0, 0).unwrap();
            let _taken = take_all_of(|| fs::File::open("/").map(OwnedFd::from));
            let report = group.kill_all_children(SIGKILL, LONG).unwrap();
            assert_eq!((report.signaled, report.survivors), (vec![child.id()], vec![]));
            assert_eq!(child.wait().unwrap().signal(), Some(SIGKILL));
            Ok(())
        });
    }
}
