//! A doorbell: one thread sleeps on it, any thread rings it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{fence, AtomicU32, Ordering};
use std::sync::Arc;
use std::time::Duration;

use super::poll::{poll, EventFd, Interest, Ready};
use crate::sys::fork::ForkCell;
use crate::sys::generation;

/// The longest single sleep; a longer one is a matter of asking again.
const LONGEST: Duration = Duration::from_secs(3600);

/// Counts its rings in a futex word (`futex(2)`); whoever has descriptors to wait for as well is rung through a wire.
#[derive(Debug)]
pub(crate) struct Bell {
    rings: AtomicU32,
    wire: ForkCell<Option<Arc<EventFd>>>,
}

/// A bell's way to one thread that waits for descriptors. Each such thread has its own, so that none takes what was
/// meant for another.
#[derive(Debug)]
pub(crate) struct Wire<'a> {
    bell: &'a Bell,
    event: Arc<EventFd>,
    generation: u64,
}

impl Bell {
    pub(crate) fn new() -> Bell {
        Bell { rings: AtomicU32::new(0), wire: ForkCell::new(None) }
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
        // With the fence in `lay`: either this ring finds the wire, or whoever lays it counts this ring.
        fence(Ordering::SeqCst);
        if let Some(wire) = self.wire.get() {
            wire.signal();
            return;
        }
        // SAFETY: FUTEX_WAKE uses the address only as a name; nothing is read or written through it.
        unsafe {
            libc::syscall(libc::SYS_futex, self.rings.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, i32::MAX)
        };
    }

    /// From now on rings go to the calling thread, wherever it waits, until it drops the wire. To be laid before rings
    /// are counted.
    pub(crate) fn lay_wire(&self) -> io::Result<Wire<'_>> {
        let event = Arc::new(EventFd::new()?);
        self.lay(Some(Arc::clone(&event)));
        Ok(Wire { bell: self, event, generation: generation() })
    }

    /// From now on rings go to whoever waits at the bell itself, whose wire ever it had.
    pub(crate) fn cut_wire(&self) {
        self.lay(None);
    }

    fn lay(&self, wire: Option<Arc<EventFd>>) {
        drop(self.wire.set(wire));
        fence(Ordering::SeqCst);
    }

    /// Sleeps until it has been rung since `seen` was counted, or for `timeout`, or for no reason at all.
    pub(crate) fn wait(&self, seen: u32, timeout: Duration) {
        let timeout = timeout.min(LONGEST);
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos() as libc::c_long,
        };
        // SAFETY: the word and the timeout are valid and aligned for the whole call; the kernel only reads them, the
        // word atomically. Every way for it to return (woken, changed before it slept, timed out, interrupted) is
        // allowed here.
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

impl Wire<'_> {
    /// Sleeps until the bell has been rung since `seen` was counted, or one of the descriptors is ready, or for
    /// `timeout`, or for no reason at all. `ready` has one place more than there are descriptors; the first is the
    /// bell's.
    ///
    /// It fails as [`poll`] does, and then has not waited.
    pub(crate) fn wait<'a>(
        &'a self,
        seen: u32,
        timeout: Duration,
        fds: impl Iterator<Item = (BorrowedFd<'a>, Interest)>,
        ready: &mut [Ready],
    ) -> io::Result<()> {
        let timeout = if self.bell.count() == seen { timeout } else { Duration::ZERO };
        let bell = (self.event.as_fd(), Interest::Input);
        poll(std::iter::once(bell).chain(fds), ready, timeout)?;
        if ready.first().is_some_and(|bell| bell.any()) {
            self.event.clear();
        }
        Ok(())
    }
}

impl Drop for Wire<'_> {
    fn drop(&mut self) {
        // In a forked copy of the thread the bell is the parent's, and so are its locks.
        if self.generation == generation() && self.bell.wire.get().is_some_and(|wire| Arc::ptr_eq(&wire, &self.event)) {
            self.bell.cut_wire();
        }
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
            let deadline = Instant::now() + Duration::from_secs(120);
            while bell.count() == seen {
                bell.wait(seen, Duration::MAX);
                assert!(Instant::now() < deadline);
            }
        });
        // Rung before the wait began: no sleep at all, or this would take an hour.
        bell.wait(seen, Duration::MAX);
    }

    #[test]
    fn a_ring_is_heard_through_the_newest_wire_and_without_any() {
        let bell = Bell::new();
        let old = bell.lay_wire().unwrap();
        let new = bell.lay_wire().unwrap();
        let mut ready = [Ready::default(); 1];
        let mut hears = |wire: &Wire<'_>, timeout| {
            wire.wait(bell.count(), timeout, std::iter::empty(), &mut ready).unwrap();
            ready[0].any()
        };
        bell.ring();
        assert!(!hears(&old, Duration::ZERO) && hears(&new, Duration::MAX) && !hears(&new, Duration::ZERO));
        // Rung before the wait began: no sleep at all, or this would take an hour.
        let seen = bell.count();
        drop(old);
        bell.ring();
        new.wait(seen, Duration::MAX, std::iter::empty(), &mut [Ready::default(); 1]).unwrap();
        drop(new);
        let seen = bell.count();
        bell.ring();
        bell.wait(seen, Duration::MAX);
    }

    #[test]
    fn a_wait_without_a_ring_times_out() {
        let bell = Bell::new();
        bell.wait(bell.count(), Duration::from_millis(1));
    }
}
