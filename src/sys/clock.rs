//! The clocks of the monitor.

use std::time::Duration;

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
pub(crate) fn thread_cpu_time() -> Duration {
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
