//! A word that threads sleep on: `futex(2)`, private to the process. No descriptor, no lock.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// The longest single sleep. A sleep may end for no reason, so callers that want more sleep again.
const LONGEST: Duration = Duration::from_secs(3600);

/// Sleeps while the word is `expected`, until it is woken, for `timeout`, or for no reason at all.
pub(super) fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
    let timeout = timeout.min(LONGEST);
    let timeout =
        libc::timespec { tv_sec: timeout.as_secs() as libc::time_t, tv_nsec: timeout.subsec_nanos() as libc::c_long };
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word and the timeout are valid and aligned for the whole call; the kernel only reads them, the word
    // atomically. Every way for it to return (woken, changed before it slept, timed out, interrupted) is allowed here.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), operation, expected, &timeout as *const libc::timespec);
    }
}

/// Wakes every thread that sleeps on the word. One system call, whether or not any does.
pub(super) fn wake(word: &AtomicU32) {
    // SAFETY: FUTEX_WAKE uses the address only as a name; nothing is read or written through it.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, i32::MAX) };
}
