//! Looking at our own children without taking their status (`waitid(2)` with `WNOWAIT`): the host's `wait` still gets
//! it.

use std::io;
use std::mem::MaybeUninit;

/// What a child of ours is found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Child {
    Alive,
    /// Ended, and nobody has waited for it.
    Ended,
    /// No child of ours.
    Unknown,
}

/// Whether any child has ended that nobody has waited for. One system call, however many children there are.
pub(crate) fn any_has_ended() -> bool {
    // On an error assume yes: each child is then looked at by itself.
    !matches!(look(libc::P_ALL, 0), Child::Alive)
}

/// What the process of this number is to us.
pub(crate) fn find(pid: u32) -> Child {
    look(libc::P_PID, pid)
}

fn look(kind: libc::idtype_t, id: libc::id_t) -> Child {
    let mut found = MaybeUninit::<libc::siginfo_t>::zeroed();
    // __WALL: children that do not end with SIGCHLD are children too.
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    loop {
        // SAFETY: `found` is valid to write one `siginfo_t` to. WNOWAIT leaves the child as it is.
        match unsafe { libc::waitid(kind, id, found.as_mut_ptr(), options) } {
            0 => break,
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return Child::Unknown,
        }
    }
    // SAFETY: zeroed, or written by the call; the field is the pid of the child found, and 0 when none has ended.
    match unsafe { found.assume_init().si_pid() } {
        0 => Child::Alive,
        _ => Child::Ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusty_fork::rusty_fork_test;
    use std::process::Command;

    rusty_fork_test! {
        #![rusty_fork(timeout_ms = 600_000)]

        #[test]
        fn a_child_is_alive_then_ended_and_its_status_is_left_for_its_owner() {
            assert_eq!(find(std::process::id()), Child::Unknown);
            let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
            assert!(find(child.id()) == Child::Alive && !any_has_ended());
            drop(child.stdin.take());
            while find(child.id()) == Child::Alive {
                std::thread::yield_now();
            }
            assert!(find(child.id()) == Child::Ended && any_has_ended());
            assert!(child.wait().unwrap().success());
            assert_eq!(find(child.id()), Child::Unknown);
        }
    }
}
