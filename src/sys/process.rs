//! Handles of processes, which no reuse of a number can mislead (`pidfd_open(2)`, Linux 5.3), process groups, and the
//! child subreaper.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::ExitStatus;

use super::child;
use super::reserve::is_exhausted;
use super::syscall;

/// The file system of handles, `PID_FS_MAGIC` of `linux/magic.h`.
#[allow(clippy::unnecessary_cast)] // its type differs from machine to machine
const PID_FS_MAGIC: libc::__fsword_t = 0x5049_4446;

/// One process, whatever becomes of its number.
#[derive(Debug)]
pub(crate) struct Handle {
    pid: libc::pid_t,
    /// `None` before Linux 5.3: then its number is all there is.
    fd: Option<OwnedFd>,
}

impl Handle {
    /// The process that has this number now. ESRCH when there is none.
    pub(crate) fn open(pid: u32) -> io::Result<Handle> {
        let Handle { pid, .. } = Handle::by_number(pid)?;
        // SAFETY: no memory is passed.
        match syscall(|| unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }) {
            // SAFETY: the kernel has just made this descriptor, which is close-on-exec, and nobody else knows it.
            Ok(fd) => Ok(Handle { pid, fd: Some(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }) }),
            // EINVAL and ENOENT: the number of a thread.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL | libc::ENOENT)) => {
                Err(no_such_process())
            }
            Err(error) if is_exhausted(error.raw_os_error()) => Err(error),
            // An old kernel, a sandbox that does not know the call, no memory for it.
            Err(_) => Ok(Handle { pid, fd: None }),
        }
    }

    /// The process that has this number whenever it is signalled.
    pub(crate) fn by_number(pid: u32) -> io::Result<Handle> {
        match libc::pid_t::try_from(pid) {
            Ok(pid @ 1..) => Ok(Handle { pid, fd: None }),
            _ => Err(no_such_process()),
        }
    }

    /// Sends a signal to that process and no other.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        match &self.fd {
            Some(fd) => {
                let fd = fd.as_raw_fd();
                // SAFETY: no memory is passed: without a `siginfo_t` the kernel makes one up as for `kill`.
                syscall(|| unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0) }).map(drop)
            }
            // SAFETY: no memory is passed. The number is above zero, and so that of one process.
            None => syscall(|| unsafe { libc::kill(self.pid, signal) }).map(drop),
        }
    }

    /// The descriptor, which becomes readable when the process ends; `None` before Linux 5.3.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// The inode of this handle, which no other process ever has; `None` where handles have none of their own (`pidfs`,
    /// Linux 6.9).
    pub(crate) fn inode(&self) -> Option<u64> {
        let fd = self.fd.as_ref()?.as_raw_fd();
        let mut system = MaybeUninit::<libc::statfs>::zeroed();
        // SAFETY: the kernel writes one `statfs` to `system`.
        syscall(|| unsafe { libc::fstatfs(fd, system.as_mut_ptr()) }).ok()?;
        // SAFETY: a `statfs` is plain integers, for which zeroes are valid too.
        if unsafe { system.assume_init() }.f_type != PID_FS_MAGIC {
            return None;
        }
        let mut status = MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: the kernel writes one `stat` to `status`.
        syscall(|| unsafe { libc::fstat(fd, status.as_mut_ptr()) }).ok()?;
        // SAFETY: a `stat` is plain integers, for which zeroes are valid too.
        let status = unsafe { status.assume_init() };
        // Its width differs from machine to machine.
        #[allow(clippy::unnecessary_cast)]
        Some(status.st_ino as u64)
    }

    /// Returns `true` until the process was waited for.
    pub(crate) fn has_its_number(&self) -> bool {
        match self.signal(0) {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(libc::EPERM),
        }
    }

    /// Takes the status of this process, if it is a child of ours and has ended. ECHILD when it is no child, or its
    /// status has been taken.
    pub(crate) fn take_status(&self) -> io::Result<Option<ExitStatus>> {
        let by_number = || child::take(libc::P_PID, self.pid.unsigned_abs());
        match &self.fd {
            Some(fd) => match child::take(libc::P_PIDFD, fd.as_raw_fd().unsigned_abs()) {
                // Before Linux 5.4 nobody can wait for a handle.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => by_number(),
                taken => taken,
            },
            None => by_number(),
        }
    }
}

pub(crate) fn no_such_process() -> io::Error {
    io::Error::from_raw_os_error(libc::ESRCH)
}

/// The time since boot in the ticks in which start times are told.
pub(crate) fn ticks_since_boot() -> i64 {
    let mut now = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: `now` is valid to write one `timespec` to. The clock is there since Linux 2.6.39, or `now` stays zero.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, now.as_mut_ptr()) };
    // SAFETY: zeroed, or written by the call.
    let now = unsafe { now.assume_init() };
    // SAFETY: no memory is passed.
    let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1);
    // Their widths differ from machine to machine. In a time namespace the time can be below zero.
    #[allow(clippy::unnecessary_cast)]
    let (seconds, nanoseconds, rate) = (now.tv_sec as i64, now.tv_nsec as i64, ticks_per_second as i64);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds).div_euclid((1_000_000_000 / rate).max(1))
}

/// Returns `true` if the number is that of a process, ended or not, and not of a thread beside the first one. That can
/// be asked of processes that `/proc` does not show.
pub(crate) fn exists(pid: u32) -> bool {
    let ask = |pid: libc::pid_t| {
        // SAFETY: no memory is passed, and signal 0 is not sent.
        syscall(|| unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, 0) }).err().and_then(|error| error.raw_os_error())
    };
    match libc::pid_t::try_from(pid).map(ask) {
        Ok(None) => true,
        // A process of somebody else's; or a sandbox that refuses the call, also for a number that is nobody's.
        Ok(Some(libc::EPERM)) => ask(libc::pid_t::MAX) == Some(libc::ESRCH),
        _ => false,
    }
}

/// The process group of this process.
pub(crate) fn own_group() -> u32 {
    // SAFETY: no memory is passed; it cannot fail.
    u32::try_from(unsafe { libc::getpgrp() }).unwrap_or_default()
}

/// The process group of another process, asked without a descriptor; `None` when it is gone.
pub(crate) fn group_of(pid: u32) -> Option<u32> {
    let pid = libc::pid_t::try_from(pid).ok().filter(|&pid| pid > 0)?;
    // SAFETY: no memory is passed.
    u32::try_from(unsafe { libc::getpgid(pid) }).ok()
}

/// The session of another process, or of this one for 0; `None` when it is gone.
pub(crate) fn session_of(pid: u32) -> Option<u32> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    // SAFETY: no memory is passed.
    u32::try_from(unsafe { libc::getsid(pid) }).ok()
}

/// Whether the process group of this process is the one in front of the terminal that is its input.
pub(crate) fn is_in_front() -> bool {
    // SAFETY: no memory is passed; a number that is no terminal's gives -1.
    u32::try_from(unsafe { libc::tcgetpgrp(0) }).is_ok_and(|in_front| in_front == own_group())
}

/// Stops this process. Returns once somebody has continued it: the signal goes to the calling thread.
pub(crate) fn stop_self() -> io::Result<()> {
    // SAFETY: no memory is passed.
    syscall(|| unsafe { libc::raise(libc::SIGSTOP) }).map(drop)
}

/// Sends a signal to every process of a group. ESRCH when nobody is in it, zombies included.
pub(crate) fn signal_group(group: u32, signal: i32) -> io::Result<()> {
    // 1 would be everybody, and 0 our own group.
    let group = libc::pid_t::try_from(group).ok().filter(|&group| group > 1).ok_or_else(no_such_process)?;
    // SAFETY: no memory is passed.
    syscall(|| unsafe { libc::kill(-group, signal) }).map(drop)
}

/// Puts this process into the group; into a new one, whose leader it is, if that is its own number.
pub(crate) fn join_group(group: u32) -> io::Result<()> {
    let group = libc::pid_t::try_from(group).map_err(|_| no_such_process())?;
    // SAFETY: no memory is passed.
    syscall(|| unsafe { libc::setpgid(0, group) }).map(drop)
}

/// Returns `true` if descendants of this process that lose their parent become children of its own
/// (`PR_SET_CHILD_SUBREAPER(2const)`).
pub(crate) fn is_subreaper() -> io::Result<bool> {
    let mut is_subreaper: libc::c_int = 0;
    // SAFETY: the kernel writes one integer to `is_subreaper`.
    syscall(|| unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, std::ptr::addr_of_mut!(is_subreaper)) })?;
    Ok(is_subreaper != 0)
}

pub(crate) fn set_subreaper(on: bool) -> io::Result<()> {
    // SAFETY: no memory is passed.
    syscall(|| unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, libc::c_ulong::from(on), 0, 0, 0) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusty_fork::rusty_fork_test;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    rusty_fork_test! {
        #![rusty_fork(timeout_ms = 600_000)]

        #[test]
        fn a_handle_outlives_its_process_and_then_reaches_nobody() {
            let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
            let handle = Handle::open(child.id()).unwrap();
            assert_eq!(handle.take_status().unwrap(), None);
            handle.signal(libc::SIGKILL).unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
            assert_eq!(handle.signal(libc::SIGKILL).unwrap_err().raw_os_error(), Some(libc::ESRCH));
            assert!(Handle::open(child.id()).is_err());
            assert_eq!(handle.take_status().unwrap_err().raw_os_error(), Some(libc::ECHILD));
        }

        #[test]
        fn a_process_exists_until_it_was_waited_for_and_a_thread_is_none() {
            let mut child = Command::new("true").spawn().unwrap();
            while crate::sys::child::find(child.id()) == crate::sys::child::Child::Alive {
                std::thread::yield_now();
            }
            assert!(exists(child.id()) && exists(std::process::id()) && exists(1));
            child.wait().unwrap();
            let thread = std::thread::spawn(|| exists(nix::unistd::gettid().as_raw() as u32));
            assert!(!exists(child.id()) && !thread.join().unwrap());
            assert!(!exists(u32::MAX) && !exists(i32::MAX as u32));
        }

        #[test]
        fn numbers_that_mean_many_processes_reach_none() {
            for pid in [0, u32::MAX, 1 << 31] {
                assert!(Handle::open(pid).and_then(|handle| handle.signal(0)).is_err(), "{pid}");
            }
        }

        #[test]
        fn the_subreaper_is_what_it_was_set_to() {
            for on in [true, false] {
                set_subreaper(on).unwrap();
                assert_eq!(is_subreaper().unwrap(), on);
            }
        }
    }
}
