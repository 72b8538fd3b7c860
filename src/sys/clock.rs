//! The clocks: the kernel's, and that of a monitor, which a test may move.

#[cfg(feature = "testing")]
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "testing")]
use super::manual_clock::ManualClock;
use super::Latch;

/// The clock of one monitor: the kernel's, unless a test moves it. Without the feature `testing` it is nothing, and to
/// ask it costs what it costs to ask the kernel's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock {
    #[cfg(feature = "testing")]
    manual: Option<Arc<ManualClock>>,
}

#[cfg(not(feature = "testing"))]
const _: () = assert!(std::mem::size_of::<Clock>() == 0);

#[cfg(feature = "testing")]
impl Clock {
    /// A clock that a test moves.
    pub(crate) fn of_test(manual: Arc<ManualClock>) -> Clock {
        Clock { manual: Some(manual) }
    }

    /// The clock that a test moves, if this is one.
    pub(crate) fn manual(&self) -> Option<&ManualClock> {
        self.manual.as_deref()
    }
}

impl Clock {
    /// As [`coarse_now`].
    #[inline]
    pub(crate) fn coarse_now(&self) -> Duration {
        #[cfg(feature = "testing")]
        if let Some(manual) = &self.manual {
            return manual.now();
        }
        coarse_now()
    }

    /// As [`fine_now`].
    pub(crate) fn fine_now(&self) -> Duration {
        #[cfg(feature = "testing")]
        if let Some(manual) = &self.manual {
            return manual.now();
        }
        fine_now()
    }

    /// As [`thread_cpu_time`].
    pub(crate) fn thread_cpu_time(&self) -> Duration {
        #[cfg(feature = "testing")]
        if let Some(manual) = &self.manual {
            return manual.cpu_time();
        }
        thread_cpu_time()
    }

    /// The time as the standard library says it.
    pub(crate) fn instant(&self) -> Instant {
        #[cfg(feature = "testing")]
        if let Some(manual) = &self.manual {
            return manual.instant();
        }
        Instant::now()
    }

    /// Whether a test moves it.
    pub(crate) fn is_manual(&self) -> bool {
        #[cfg(feature = "testing")]
        return self.manual.is_some();
        #[cfg(not(feature = "testing"))]
        false
    }

    /// The answer of a latch; `None` once the deadline has passed.
    pub(crate) fn wait_for(&self, latch: &Latch, deadline: Option<Instant>) -> Option<u32> {
        #[cfg(feature = "testing")]
        if let Some(manual) = &self.manual {
            return manual.wait_for(latch, deadline);
        }
        latch.wait(deadline)
    }

    /// The longest time for the check thread to sleep that wants to be woken after `timeout`: whoever moves the clock
    /// rings for it.
    pub(crate) fn sleep(&self, timeout: Duration) -> Duration {
        #[cfg(feature = "testing")]
        if let Some(manual) = &self.manual {
            manual.sleeps_for(timeout);
            return Duration::MAX;
        }
        timeout
    }

    /// The longest time to wait for somebody else's check. Of one that hangs a moved clock does not say when it has
    /// hung for too long.
    pub(crate) fn patience(&self, patience: Duration) -> Duration {
        #[cfg(feature = "testing")]
        if self.manual.as_ref().is_some_and(|manual| manual.due().is_none()) {
            return Duration::ZERO;
        }
        patience
    }
}

/// Time since some fixed point of the past, in steps of 1 to 10 ms: `CLOCK_MONOTONIC_COARSE` (`clock_gettime(2)`),
/// which the vDSO answers without a system call. Both ends of a comparison must come from here.
#[inline]
pub(crate) fn coarse_now() -> Duration {
    read(libc::CLOCK_MONOTONIC_COARSE)
}

/// The same time to the nanosecond, `CLOCK_MONOTONIC`, which is up to a step ahead of the coarse clock. A deadline that
/// counts from here, and is compared with the coarse clock, is never too early.
pub(crate) fn fine_now() -> Duration {
    read(libc::CLOCK_MONOTONIC)
}

/// The CPU time that the calling thread has used: `CLOCK_THREAD_CPUTIME_ID`, a system call.
fn thread_cpu_time() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

#[inline]
fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to, for the whole call. All three clocks exist since Linux 2.6.32, so
    // it cannot fail; if it did, `time` would still be the zero it was made with.
    unsafe { libc::clock_gettime(clock, &mut time) };
    // The kernel never returns a negative time or a billion nanoseconds.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn the_fine_clock_is_ahead_of_the_coarse_one_by_less_than_a_step() {
        let (before, fine, after) = (coarse_now(), fine_now(), coarse_now());
        assert!(before <= fine && fine < after + Duration::from_millis(10), "{before:?} {fine:?} {after:?}");
    }

    #[test]
    fn the_coarse_clock_never_goes_back_and_goes_on() {
        let start = coarse_now();
        let deadline = Instant::now() + Duration::from_secs(120);
        while coarse_now() == start {
            assert!(Instant::now() < deadline);
        }
        assert!(coarse_now() > start);
    }

    #[test]
    fn a_busy_thread_uses_cpu_time() {
        let start = thread_cpu_time();
        let deadline = Instant::now() + Duration::from_secs(120);
        while thread_cpu_time() < start + Duration::from_millis(2) {
            assert!(Instant::now() < deadline);
        }
    }
}
