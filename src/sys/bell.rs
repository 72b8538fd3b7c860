//! A bell: one thread sleeps on it, any thread rings it, and no ring is lost.
//!
//! The check thread sleeps until something is asked of it, and sometimes until the kernel reports on a descriptor too.
//! A condition variable would do for the first, with a mutex that every asker had to take, and readers of the gate wait
//! for no lock. An `eventfd(2)` would do for both, but not where no descriptor is left, which is when this library is
//! needed most.
//!
//! So a bell is a number of rings in one word, which `futex(2)` sleeps on: no descriptor, no lock. A thread that must
//! hear descriptors as well attaches an eventfd ([`PollBell`]), and sleeps in `poll(2)` instead.
//!
//! The cost is one system call per ring, whether or not anybody sleeps, and one descriptor while an eventfd is
//! attached. Rings are counted modulo 2^32: a sleeper that missed exactly that many would sleep on until its timeout.
//! It is assumed that one thread waits; a second would be woken at the futex, but not through the eventfd of the first.
//!
//! Two orders matter. A sleeper counts the rings, then looks for what they announce, then sleeps unless the count has
//! changed: `ring` raises the count with Release after the announcement was written, and `count` reads it with Acquire.
//! And a ring that races with an attachment must not fall between the two ways to sleep: `ring` raises the count and
//! then looks for an eventfd; attaching stores the eventfd and then counts. Each has a SeqCst fence between its two
//! steps, so at least one of them sees the other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{fence, AtomicU32, Ordering};
use std::sync::Arc;
use std::time::Duration;

use super::futex;
use super::poll::{poll, EventFd, Interest, Ready};
use super::ProcessMark;
use crate::sys::fork::ForkCell;

/// A count of rings, and the eventfd of the thread that waits in `poll(2)`, if there is one.
#[derive(Debug)]
pub(crate) struct Bell {
    rings: AtomicU32,
    /// In a cell that is read without waiting, because readers of the gate ring.
    eventfd: ForkCell<Option<Arc<EventFd>>>,
    /// The rings that had been counted by whoever went to sleep last.
    #[cfg(feature = "testing")]
    heard: AtomicU32,
}

/// A bell heard through an eventfd, beside other descriptors. It is detached when dropped.
///
/// Each attachment has an eventfd of its own: a thread that was left behind in the host's code, and wakes late, cannot
/// clear a ring that was meant for its successor.
#[derive(Debug)]
pub(crate) struct PollBell<'a> {
    bell: &'a Bell,
    eventfd: Arc<EventFd>,
    mark: ProcessMark,
}

impl Bell {
    pub(crate) fn new() -> Bell {
        Bell {
            rings: AtomicU32::new(0),
            eventfd: ForkCell::new(None),
            // Not the rings there are: nobody sleeps yet.
            #[cfg(feature = "testing")]
            heard: AtomicU32::new(u32::MAX),
        }
    }

    /// The number of rings so far, modulo 2^32. To be taken before looking for what a ring announces.
    pub(crate) fn count(&self) -> u32 {
        // Acquire: what was written before a ring that is counted here is seen after it.
        self.rings.load(Ordering::Acquire)
    }

    /// Wakes the thread that waits, or keeps it from falling asleep. One system call.
    pub(crate) fn ring(&self) {
        // Release: see `count`.
        self.rings.fetch_add(1, Ordering::Release);
        // SeqCst, with the fence in `set_eventfd`: this ring finds the eventfd, or is counted after it was attached.
        fence(Ordering::SeqCst);
        if let Some(eventfd) = self.eventfd.get() {
            eventfd.signal();
            return;
        }
        futex::wake(&self.rings);
    }

    /// Directs all rings to a new eventfd until the handle is dropped. To be called before rings are counted.
    pub(crate) fn attach_eventfd(&self) -> io::Result<PollBell<'_>> {
        let eventfd = Arc::new(EventFd::new()?);
        self.set_eventfd(Some(Arc::clone(&eventfd)));
        Ok(PollBell { bell: self, eventfd, mark: ProcessMark::here() })
    }

    /// Directs all rings to the futex, whichever eventfd was attached.
    pub(crate) fn detach(&self) {
        self.set_eventfd(None);
    }

    fn set_eventfd(&self, eventfd: Option<Arc<EventFd>>) {
        drop(self.eventfd.set(eventfd));
        // SeqCst: see `ring`.
        fence(Ordering::SeqCst);
    }

    /// Sleeps until it has been rung since `seen` was counted, or for `timeout`, or for no reason at all.
    pub(crate) fn wait(&self, seen: u32, timeout: Duration) {
        #[cfg(feature = "testing")]
        {
            // Release: see `is_heard`.
            self.heard.store(seen, Ordering::Release);
            futex::wake(&self.heard);
        }
        futex::wait(&self.rings, seen, timeout);
    }

    /// Returns `true` if its thread has done what it was rung for, and sleeps or is about to. Of a thread that has ended,
    /// or sleeps in [`PollBell::wait`], it says nothing.
    #[cfg(feature = "testing")]
    pub(crate) fn is_heard(&self) -> bool {
        // Acquire: what the thread did before it went to sleep is seen after this.
        self.heard.load(Ordering::Acquire) == self.count()
    }

    /// Sleeps until [`is_heard`](Self::is_heard) may have changed, or for `timeout`, or for no reason at all.
    #[cfg(feature = "testing")]
    pub(crate) fn wait_until_heard(&self, timeout: Duration) {
        let heard = self.heard.load(Ordering::Acquire);
        if heard != self.count() {
            futex::wait(&self.heard, heard, timeout);
        }
    }
}

impl PollBell<'_> {
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
        let bell = (self.eventfd.as_fd(), Interest::Input);
        poll(std::iter::once(bell).chain(fds), ready, timeout)?;
        if ready.first().is_some_and(|bell| bell.any()) {
            self.eventfd.clear();
        }
        Ok(())
    }
}

impl Drop for PollBell<'_> {
    fn drop(&mut self) {
        // In a forked copy of the thread the bell is the parent's, and so are its locks.
        let is_inherited = self.mark.is_inherited();
        if !is_inherited && self.bell.eventfd.get().is_some_and(|attached| Arc::ptr_eq(&attached, &self.eventfd)) {
            self.bell.detach();
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
    fn a_ring_is_heard_through_the_newest_eventfd_and_without_any() {
        let bell = Bell::new();
        let old = bell.attach_eventfd().unwrap();
        let new = bell.attach_eventfd().unwrap();
        let mut ready = [Ready::default(); 1];
        let mut hears = |poll_bell: &PollBell<'_>, timeout| {
            poll_bell.wait(bell.count(), timeout, std::iter::empty(), &mut ready).unwrap();
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
