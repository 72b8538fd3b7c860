//! The ends of our own children (`waitid(2)`): looked at without taking the status, which the host's `wait` still gets,
//! or taken from one child alone.
//!
//! To take, only ends are asked for, which is not enough: a tracer is told of the stops of its children whatever it asks
//! for. So nothing is taken before it was looked at, and a stop is never taken: it belongs to a tracer, or to a shell. It
//! may be looked at all the same, which changes nothing for them ([`stopped_by`]).

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::syscall;

/// The relation of a process to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Child {
    Alive,
    /// Ended, and nobody has waited for it.
    Ended,
    /// No child of ours.
    Unknown,
}

/// The answer of the kernel to a question for ends.
#[derive(Debug, Clone, Copy)]
enum News {
    None,
    End(ExitStatus),
    /// A stop by this signal; `None` if it is one of those that only a tracer is told of.
    Stop(Option<i32>),
    Continuation,
}

/// What has happened last to a child of ours that was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Stopped,
    Continued,
}

/// Returns `true` if any child may have ended that nobody has waited for. One system call, however many children there
/// are.
pub(crate) fn any_has_ended() -> bool {
    // On an error assume yes: each child is then looked at by itself. A stop may hide the end of another child.
    !matches!(look(libc::P_ALL, 0), Ok(News::None))
}

/// The relation of the process of this number to us.
pub(crate) fn find(pid: u32) -> Child {
    match look(libc::P_PID, pid) {
        Ok(News::End(_)) => Child::Ended,
        Ok(News::None | News::Stop(_) | News::Continuation) => Child::Alive,
        Err(_) => Child::Unknown,
    }
}

/// The signal that a child of ours is stopped by, unless it is stopped by a tracer, or somebody has taken the news. A stop
/// that is looked at stays to be told to whoever waits for stops (`WUNTRACED`).
pub(crate) fn stopped_by(pid: u32) -> Option<i32> {
    let pid = libc::pid_t::try_from(pid).ok().filter(|&pid| pid > 0)?;
    match wait(libc::P_PID, pid.unsigned_abs(), libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL) {
        Ok(News::Stop(by)) => by,
        _ => None,
    }
}

/// What has happened last to a child of ours, as long as nobody has taken the news: that it was continued stays, too, until it
/// is stopped again.
pub(crate) fn last_turn(pid: u32) -> Option<Turn> {
    let pid = libc::pid_t::try_from(pid).ok().filter(|&pid| pid > 0)?;
    let turns = libc::WSTOPPED | libc::WCONTINUED;
    match wait(libc::P_PID, pid.unsigned_abs(), turns | libc::WNOHANG | libc::WNOWAIT | libc::__WALL) {
        Ok(News::Stop(Some(_))) => Some(Turn::Stopped),
        Ok(News::Continuation) => Some(Turn::Continued),
        _ => None,
    }
}

/// Returns `true` if this is a child of ours, and no stranger that a thread of this process traces, which can be waited
/// for as well. Asked without a descriptor: `setpgid(2)` says ESRCH of all that are not children, and the group that is
/// asked for here has a number that no group can have, so that of children it says something else and changes nothing.
pub(crate) fn is_own(pid: u32) -> bool {
    let Ok(pid @ 1..) = libc::pid_t::try_from(pid) else { return false };
    // SAFETY: no memory is passed.
    let refused = syscall(|| unsafe { libc::setpgid(pid, libc::pid_t::MAX) });
    matches!(refused.map_err(|error| error.raw_os_error()), Err(Some(libc::EPERM | libc::EACCES)))
}

/// Takes the status of one child (a number with `P_PID`, a descriptor with `P_PIDFD`), if it has ended. ECHILD when it
/// is no child, or its status has been taken.
pub(super) fn take(kind: libc::idtype_t, id: libc::id_t) -> io::Result<Option<ExitStatus>> {
    if kind == libc::P_PID && !matches!(libc::pid_t::try_from(id), Ok(1..)) {
        // 0 would mean any child of the process group.
        return Err(io::Error::from_raw_os_error(libc::ECHILD));
    }
    match look(kind, id)? {
        News::End(_) => {}
        News::None | News::Stop(_) | News::Continuation => return Ok(None),
    }
    match wait(kind, id, libc::WEXITED | libc::WNOHANG | libc::__WALL)? {
        News::End(status) => Ok(Some(status)),
        News::None | News::Stop(_) | News::Continuation => Ok(None),
    }
}

fn look(kind: libc::idtype_t, id: libc::id_t) -> io::Result<News> {
    // __WALL: children that do not end with SIGCHLD are children too.
    wait(kind, id, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL)
}

fn wait(kind: libc::idtype_t, id: libc::id_t, options: libc::c_int) -> io::Result<News> {
    let mut found = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `found` is valid to write one `siginfo_t` to.
    syscall(|| unsafe { libc::waitid(kind, id, found.as_mut_ptr(), options) })?;
    // SAFETY: a `siginfo_t` is plain integers and pointers, for which zeroes are valid too.
    let found = unsafe { found.assume_init() };
    // SAFETY: zeroed, or written by the call; the field is the pid of the child found, and 0 when there was none.
    if unsafe { found.si_pid() } == 0 {
        return Ok(News::None);
    }
    // SAFETY: the call has written it: this is a report of a child, which has a status.
    let status = unsafe { found.si_status() };
    Ok(match found.si_code {
        libc::CLD_EXITED => News::End(ExitStatus::from_raw((status & 0xff) << 8)),
        libc::CLD_KILLED => News::End(ExitStatus::from_raw(status & 0x7f)),
        libc::CLD_DUMPED => News::End(ExitStatus::from_raw((status & 0x7f) | 0x80)),
        libc::CLD_STOPPED => News::Stop(Some(status)),
        libc::CLD_CONTINUED => News::Continuation,
        _ => News::Stop(None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusty_fork::rusty_fork_test;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    rusty_fork_test! {
        #![rusty_fork(timeout_ms = 600_000)]

        #[test]
        fn a_child_is_alive_then_ended_and_its_status_is_left_for_its_owner() {
            assert_eq!(find(std::process::id()), Child::Unknown);
            assert!(!is_own(1) && !is_own(0) && !is_own(u32::MAX));
            let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
            assert!(find(child.id()) == Child::Alive && !any_has_ended());
            assert!(is_own(child.id()));
            drop(child.stdin.take());
            while find(child.id()) == Child::Alive {
                std::thread::yield_now();
            }
            assert!(find(child.id()) == Child::Ended && any_has_ended());
            assert!(child.wait().unwrap().success());
            assert_eq!(find(child.id()), Child::Unknown);
        }

        #[allow(clippy::zombie_processes)] // `take` waits for them
        #[test]
        fn a_status_is_taken_as_waitpid_tells_it() {
            for (script, code, signal) in [("exit 7", Some(7), None), ("exit 255", Some(255), None), ("kill -9 $$", None, Some(9))] {
                let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
                while find(child.id()) == Child::Alive {
                    std::thread::yield_now();
                }
                let status = take(libc::P_PID, child.id()).unwrap().unwrap();
                assert_eq!((status.code(), status.signal()), (code, signal), "{script}");
                assert_eq!(take(libc::P_PID, child.id()).unwrap_err().raw_os_error(), Some(libc::ECHILD));
            }
        }

        #[test]
        fn a_stop_is_seen_and_left_for_others_until_the_child_goes_on() {
            use nix::sys::signal::{kill, Signal};
            use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
            // In a group of its own: nobody is stopped by SIGTTIN in one that has no parent in its session.
            let mut child = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
            let pid = nix::unistd::Pid::from_raw(child.id() as i32);
            assert_eq!((stopped_by(child.id()), last_turn(child.id())), (None, None));
            for signal in [Signal::SIGTTIN, Signal::SIGSTOP] {
                kill(pid, signal).unwrap();
                while stopped_by(child.id()).is_none() {
                    std::thread::yield_now();
                }
                assert_eq!((stopped_by(child.id()), last_turn(child.id())), (Some(signal as i32), Some(Turn::Stopped)));
                assert!(find(child.id()) == Child::Alive && take(libc::P_PID, child.id()).unwrap().is_none());
                assert_eq!(waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap(), WaitStatus::Stopped(pid, signal));
                assert_eq!((stopped_by(child.id()), last_turn(child.id())), (None, None), "somebody has taken the news");
                kill(pid, Signal::SIGCONT).unwrap();
                assert_eq!(last_turn(child.id()), Some(Turn::Continued));
                assert!(find(child.id()) == Child::Alive && take(libc::P_PID, child.id()).unwrap().is_none());
                assert_eq!(waitpid(pid, Some(WaitPidFlag::WCONTINUED)).unwrap(), WaitStatus::Continued(pid));
                assert_eq!((stopped_by(child.id()), last_turn(child.id())), (None, None));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(stopped_by(child.id()), None);
            assert!([0, 1, u32::MAX].into_iter().all(|pid| stopped_by(pid).is_none() && last_turn(pid).is_none()));
        }

        #[test]
        fn numbers_that_mean_many_children_mean_none() {
            let mut child = Command::new("true").spawn().unwrap();
            while find(child.id()) == Child::Alive {
                std::thread::yield_now();
            }
            for pid in [0, u32::MAX, 1 << 31] {
                assert!(take(libc::P_PID, pid).is_err(), "{pid}");
            }
            assert!(child.wait().unwrap().success());
        }
    }
}
