//! Children that may not be looked at: a `/proc` with `hidepid`, and a process of this user that may not be dumped.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::mount::{mount, MsFlags};
use nix::sched::{unshare, CloneFlags};
use nix::sys::prctl::set_dumpable;
use nix::sys::wait::{waitid, Id};
use nix::unistd::{setgid, setgroups, setuid, Gid, Uid};

use super::*;

/// In a forked child: becomes nobody, to whom `/proc` shows what may be traced. `false` where that cannot be had.
fn see_only_what_may_be_traced() -> bool {
    let (nobody, options) = (65_534, Some("hidepid=2"));
    let mounted = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>))
        .and_then(|()| mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), options));
    if let Err(error) = mounted {
        println!("skipped: cannot mount proc with hidepid: {error}");
        return false;
    }
    setgroups(&[]).unwrap();
    setgid(Gid::from_raw(nobody)).unwrap();
    setuid(Uid::from_raw(nobody)).unwrap();
    set_dumpable(true).unwrap();
    true
}

fn fork_concealed_child() -> Pid {
    let child = fork_child(|| {
        let _ = set_dumpable(false);
        loop {
            thread::sleep(LONG);
        }
    });
    wait_until("it is concealed", || !Path::new(&format!("/proc/{child}")).exists());
    child
}

fn pid_of(process: Pid) -> u32 {
    process.as_raw().unsigned_abs()
}

/// A backend with a process below it that may not be looked at.
fn backend_of_a_concealed_one() -> (Pid, Pid) {
    let below = shared_counter();
    let backend = fork_child(|| {
        below.store(pid_of(fork_concealed_child()), Ordering::SeqCst);
        loop {
            thread::sleep(LONG);
        }
    });
    wait_until("it has a child", || below.load(Ordering::SeqCst) != 0);
    (backend, Pid::from_raw(below.load(Ordering::SeqCst) as i32))
}

/// A process of root's that has the next process be given a number.
struct Numbers(Pid, UnixDatagram);

impl Numbers {
    fn new() -> Numbers {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let helper = fork_child(|| {
            // It ends by itself should nobody end it, who is another user by then.
            theirs.set_read_timeout(Some(LONG)).unwrap();
            loop {
                let mut number = [0; 4];
                theirs.recv(&mut number).unwrap();
                let Some(last) = u32::from_ne_bytes(number).checked_sub(1) else { return 0 };
                let _ = fs::write("/proc/sys/kernel/ns_last_pid", last.to_string());
                theirs.send(&[0]).unwrap();
            }
        });
        Numbers(helper, ours)
    }

    fn say(&self, number: u32) {
        self.1.send(&number.to_ne_bytes()).unwrap();
    }

    fn end(self) {
        self.say(0);
        waitpid(self.0, None).unwrap();
    }

    /// A child that has the number of one that is gone, and may not be looked at either.
    fn twin(&self, number: Pid) -> Option<Pid> {
        for _ in 0..200 {
            self.say(pid_of(number));
            self.1.recv(&mut [0]).unwrap();
            let child = fork_concealed_child();
            if child == number {
                return Some(child);
            }
            kill(child, Signal::SIGKILL).unwrap();
            waitpid(child, None).unwrap();
        }
        println!("skipped: no number could be had again");
        None
    }
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn a_child_that_may_not_be_looked_at_can_be_watched_and_a_stranger_cannot() {
        in_forked_child(|| {
            let stranger = nix::unistd::getppid();
            if !see_only_what_may_be_traced() {
                return Ok(());
            }
            let group = set_up();
            let child = fork_concealed_child();
            group.watch_child(pid_of(child)).map_err(|error| error.to_string())?;
            ensure(group.exit_status(pid_of(child)).is_none(), "it has not ended")?;
            kill(child, Signal::SIGTERM).unwrap();
            wait_until("its status is taken", || group.exit_status(pid_of(child)).is_some());
            let status = group.unwatch_child(pid_of(child)).unwrap();
            ensure(status.signal() == Some(SIGTERM), &format!("{status}"))?;
            for nobody in [pid_of(stranger), pid_of(child), i32::MAX as u32] {
                let error = group.watch_child(nobody).unwrap_err();
                ensure(error.to_string().ends_with("is not a child of this process"), &error.to_string())?;
            }
            Ok(())
        });
    }

    #[test]
    fn a_signal_reaches_what_may_not_be_looked_at_below_a_backend_and_as_one() {
        in_forked_child(|| {
            if !see_only_what_may_be_traced() {
                return Ok(());
            }
            let group = set_up();
            let (backend, below) = backend_of_a_concealed_one();
            let concealed = fork_concealed_child();
            for (backend, all) in [(backend, vec![backend, below]), (concealed, vec![concealed])] {
                group.track_backend_pid(pid_of(backend)).map_err(|error| error.to_string())?;
                let mut reached = group.signal_backend(pid_of(backend), SIGTERM).unwrap();
                reached.sort_unstable();
                let mut all: Vec<_> = all.into_iter().map(pid_of).collect();
                all.sort_unstable();
                ensure(reached == all, &format!("{reached:?} of {all:?}"))?;
                let status = waitpid(backend, None).unwrap();
                ensure(status == WaitStatus::Signaled(backend, Signal::SIGTERM, false), &format!("{status:?}"))?;
            }
            wait_until("what was below is gone", || {
                group.reap_orphaned_backends().unwrap();
                kill(below, None).is_err()
            });
            Ok(())
        });
    }

    #[test]
    fn an_orphan_that_may_not_be_looked_at_is_ended_and_collected() {
        in_forked_child(|| {
            if !see_only_what_may_be_traced() {
                return Ok(());
            }
            let group = set_up();
            let (backend, below) = backend_of_a_concealed_one();
            let own = fork_concealed_child();
            group.track_backend_pid(pid_of(backend)).unwrap();
            kill(backend, Signal::SIGKILL).unwrap();
            waitpid(backend, None).unwrap();
            let mut told = Vec::new();
            wait_until("the orphan is gone, zombie and all", || {
                told.extend(group.cleanup_orphans().unwrap());
                told.extend(group.reap_orphaned_backends().unwrap());
                kill(below, None).is_err()
            });
            ensure(told == [pid_of(below); 2], &format!("told to end, and collected: {told:?}"))?;
            ensure(kill(own, None).is_ok(), "the host's own child lives")?;
            kill(own, Signal::SIGKILL).unwrap();
            waitpid(own, None).unwrap();
            Ok(())
        });
    }

    #[test]
    fn a_child_with_the_number_of_one_that_was_concealed_as_well_is_left_alone() {
        in_forked_child(|| {
            let numbers = Numbers::new();
            if !see_only_what_may_be_traced() {
                numbers.end();
                return Ok(());
            }
            let group = set_up();
            let child = fork_concealed_child();
            group.track_backend_pid(pid_of(child)).unwrap();
            group.watch_child(pid_of(child)).unwrap();
            // Against what was agreed, the host waits for it itself.
            kill(child, Signal::SIGKILL).unwrap();
            waitpid(child, None).unwrap();
            if let Some(twin) = numbers.twin(child) {
                let reached = group.signal_backend(pid_of(child), SIGKILL).unwrap_or_default();
                ensure(reached.is_empty(), "the twin was signalled")?;
                ensure(group.cleanup_orphans().unwrap().is_empty(), "the twin was taken for an orphan")?;
                let status = waitpid(twin, Some(WaitPidFlag::WNOHANG)).unwrap();
                ensure(status == WaitStatus::StillAlive, &format!("{status:?}"))?;
                kill(twin, Signal::SIGTERM).unwrap();
                let ended = Id::Pid(twin);
                waitid(ended, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
                ensure(group.exit_status(pid_of(child)).is_none(), "the twin's status was taken")?;
                ensure(group.reap_orphaned_backends().unwrap().is_empty(), "the twin was collected")?;
                let status = waitpid(twin, None).unwrap();
                ensure(status == WaitStatus::Signaled(twin, Signal::SIGTERM, false), &format!("{status:?}"))?;
            }
            numbers.end();
            Ok(())
        });
    }

    #[test]
    fn children_that_may_not_be_looked_at_are_ended_with_the_others() {
        in_forked_child(|| {
            if !see_only_what_may_be_traced() {
                return Ok(());
            }
            let group = set_up();
            let shown = fork_child(|| loop {
                thread::sleep(LONG);
            });
            let concealed = fork_concealed_child();
            let report = group.kill_all_children(SIGKILL, 3 * SECOND).unwrap();
            ensure(report.survivors.is_empty() && report.signaled.len() == 2, &format!("{report:?}"))?;
            for child in [shown, concealed] {
                let status = waitpid(child, None).unwrap();
                ensure(status == WaitStatus::Signaled(child, Signal::SIGKILL, false), &format!("{status:?}"))?;
            }
            Ok(())
        });
    }
}
