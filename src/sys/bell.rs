//! A doorbell: one thread sleeps on it, any thread rings it, without a lock on either side.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The longest single sleep; a longer one is a matter of asking again.
const LONGEST: Duration = Duration::from_secs(3600);

/// Counts its rings in a futex word (`futex(2)`).
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rings: AtomicU32,
}

impl Bell {
    pub(crate) fn new() -> Bell {
        Bell::default()
    }

    /// How often it was rung, modulo 2^32. Take it before looking for what a ring announces, then wait for the next.
    pub(crate) fn count(&self) -> u32 {
        // Acquire: what was written before a ring that is counted here is seen after it.
        self.rings.load(Ordering::Acquire)
    }

    /// Wakes everybody who waits. One system call.
    pub(crate) fn ring(&self) {
        // Release: see `count`.
        self.rings.fetch_add(1, Ordering::Release);
        // SAFETY: FUTEX_WAKE uses the address only as a name; nothing is read or written through it.
        unsafe {
            libc::syscall(libc::SYS_futex, self.rings.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, i32::MAX)
        };
    }

    /// Sleeps until it has been rung since `seen` was counted, or for `timeout`, or for no reason at all.
    pub(crate) fn wait(&self, seen: u32, timeout: Duration) {
        let timeout = timeout.min(LONGEST);
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos() as libc::c_long,
        };
        // SAFETY: the word and the timeout are valid and aligned for the whole call; the kernel only reads them, the word
        // atomically. Every way for it to return (woken, changed before it slept, timed out, interrupted) is allowed here.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.rings.as_ptr(),
                libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                seen,
                &timeout as *const libc::timespec,
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_ring_since_the_count_ends_the_wait() {
        let bell = Bell::new();
        let seen = bell.count();
        std::thread::scope(|scope| {
            scope.spawn(|| bell.ring());
            let deadline = Instant::now() + Duration::from_secs(10);
            while bell.count() == seen {
                bell.wait(seen, Duration::MAX);
                assert!(Instant::now() < deadline);
            }
        });
        // Rung before the wait began: no sleep at all, or this would take an hour.
        bell.wait(seen, Duration::MAX);
    }

    #[test]
    fn a_wait_without_a_ring_times_out() {
        let bell = Bell::new();
        bell.wait(bell.count(), Duration::from_millis(1));
    }
}
