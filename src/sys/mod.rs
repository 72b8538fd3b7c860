//! The system: every `unsafe` block and every libc call of the crate but those of the C interface, behind safe
//! signatures.
//!
//! - [`fork`]: the rules of fork; values that belong to one process; locks that a forked child can wait for.
//! - [`bell`]: a sleep that any thread can end. [`latch`]: a sleep for one answer. [`poll`]: a sleep that a few
//!   descriptors end. [`epoll`]: one that any number does.
//! - [`file`]: directories and files that are kept open, read without an offset. [`mount`]: the mount below a path.
//!   [`file_system`]: the room in one.
//! - [`process`]: handles of processes, their groups, the subreaper. [`child`]: the ends of our own children.
//! - [`clock`]: the three clocks of the kernel, and that of a monitor, which a test may move. [`rlimit`]: limits of this process. [`signal`]: masks of signals.
//! - [`thread`]: threads of ours in a host's process.
//! - [`allocator`]: the memory that the C library's allocator keeps.
//! - [`pipe`]: pipes whose writer is told that they were read.
//! - [`shared_memory`]: words that processes share, and locks that end with their holder.
//! - [`reserve`]: descriptors set aside for a shutdown. [`socket`]: a connection without a wait.
#![allow(unsafe_code)]

use std::io;

pub(crate) mod allocator;
pub(crate) mod bell;
#[cfg(feature = "capi")]
pub(crate) mod cancel;
pub(crate) mod child;
pub(crate) mod clock;
pub(crate) mod epoll;
pub(crate) mod errno;
pub(crate) mod file;
pub(crate) mod file_kind;
pub(crate) mod file_system;
pub(crate) mod fork;
mod futex;
pub(crate) mod latch;
#[cfg(feature = "testing")]
pub(crate) mod manual_clock;
pub(crate) mod mount;
pub(crate) mod pipe;
pub(crate) mod poll;
pub(crate) mod privilege;
pub(crate) mod process;
pub(crate) mod reserve;
pub(crate) mod rlimit;
pub(crate) mod shared_memory;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod thread;

pub(crate) use self::allocator::Allocator;
pub(crate) use self::bell::Bell;
pub(crate) use self::clock::{coarse_now, fine_now, Clock};
pub(crate) use self::fork::{PerProcess, ProcessMark};
pub(crate) use self::latch::Latch;
pub(crate) use self::signal::SignalMask;

#[cfg(any(test, fuzzing))]
pub(crate) const LAWS: [crate::laws::Law; 2] = [("lines", file::law_of_lines), ("entries", file::law_of_entries)];

/// The result of a system call, which is -1 when it failed. The call is made again while a signal interrupts it.
fn syscall<T: From<i8> + PartialEq>(mut call: impl FnMut() -> T) -> io::Result<T> {
    loop {
        match interruptible(&mut call) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The result of a system call that is made once: for calls whose time to wait would begin anew.
fn interruptible<T: From<i8> + PartialEq>(call: impl FnOnce() -> T) -> io::Result<T> {
    let result = call();
    if result == T::from(-1) {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Runs our own code on a thread of the host's, in a call that the host expects to be a matter of nanoseconds: `errno`
/// stays, and the thread is not cancelled meanwhile.
pub(crate) fn unnoticed<R>(code: impl FnOnce() -> R) -> R {
    #[cfg(feature = "capi")]
    return errno::kept(|| cancel::held_back(code));
    #[cfg(not(feature = "capi"))]
    errno::kept(code)
}

/// A result that counts bytes, which a successful call never makes negative.
fn count(result: impl TryInto<usize>) -> usize {
    result.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(errno: libc::c_int) -> libc::c_int {
        // SAFETY: the address is that of this thread's own number, which lives as long as the thread.
        unsafe { *libc::__errno_location() = errno };
        -1
    }

    #[test]
    fn a_failed_call_is_its_error_and_an_interrupted_one_is_made_again() {
        assert_eq!(syscall(|| fail(libc::ENOENT)).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        let mut calls = 0;
        let result = syscall(|| {
            calls += 1;
            if calls < 3 {
                fail(libc::EINTR)
            } else {
                calls
            }
        });
        assert_eq!(result.unwrap(), 3);
        assert_eq!(interruptible(|| fail(libc::EINTR)).unwrap_err().kind(), io::ErrorKind::Interrupted);
    }
}
