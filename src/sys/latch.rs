//! An answer that one thread sleeps for and another gives, once.
//!
//! A condition variable would do, with a mutex beside it that the one who answers must take while the other may hold it,
//! and a system call for each answer. This is one word, which `futex(2)` sleeps on, and no call where the answer comes
//! before anybody sleeps.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::futex;

const UNSET: u32 = 0;
/// No answer yet, and somebody sleeps for it.
const SLEEPING: u32 = u32::MAX;

/// An answer to come, which one thread sleeps for. It is neither 0 nor `u32::MAX`.
#[derive(Debug, Default)]
pub(crate) struct Latch(AtomicU32);

impl Latch {
    /// Gives the answer, and wakes the thread that sleeps for it.
    pub(crate) fn set(&self, answer: u32) {
        // Release: what was done before the answer is seen after it. The exchange tells whether anybody sleeps: a
        // sleeper has said so in this word before.
        if self.0.swap(answer, Ordering::Release) == SLEEPING {
            futex::wake(&self.0);
        }
    }

    /// Sleeps for the answer, at most until the deadline; without one, for as long as it takes.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Option<u32> {
        loop {
            // Relaxed on success: nothing was written for anybody. Acquire on failure: see `set`.
            let before = self.0.compare_exchange(UNSET, SLEEPING, Ordering::Relaxed, Ordering::Acquire);
            match before {
                Ok(_) | Err(SLEEPING) => {}
                Err(answer) => return Some(answer),
            }
            let timeout = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            if timeout.is_zero() {
                return None;
            }
            futex::wait(&self.0, SLEEPING, timeout);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::UnsafeCell;

    /// Memory without an order of its own, for Miri and ThreadSanitizer to see that of the latch.
    #[derive(Default)]
    struct Plain(UnsafeCell<u32>);

    // SAFETY: its users below are ordered by the latch.
    unsafe impl Sync for Plain {}

    #[test]
    fn an_answer_is_there_whenever_it_is_asked_for() {
        let latch = Latch::default();
        assert_eq!(latch.wait(Some(Instant::now())), None);
        latch.set(7);
        assert_eq!((latch.wait(Some(Instant::now())), latch.wait(None)), (Some(7), Some(7)));
    }

    #[test]
    fn a_sleeper_is_woken_by_the_answer() {
        for _ in 0..if cfg!(miri) { 20 } else { 1000 } {
            let latch = &Latch::default();
            let told = &Plain::default();
            std::thread::scope(|scope| {
                // SAFETY: read after the answer.
                let sleeper = scope.spawn(|| (latch.wait(None), unsafe { *told.0.get() }));
                // SAFETY: written before the answer.
                unsafe { *told.0.get() = 3 };
                latch.set(2);
                assert_eq!(sleeper.join().unwrap(), (Some(2), 3));
            });
        }
    }

    #[test]
    fn a_sleep_ends_at_its_deadline() {
        let deadline = Instant::now() + Duration::from_millis(20);
        assert_eq!(Latch::default().wait(Some(deadline)), None);
        assert!(Instant::now() >= deadline);
    }
}
