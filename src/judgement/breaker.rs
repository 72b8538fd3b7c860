//! Failed checks in a row, and the backoff that follows from them.

use std::time::Duration;

/// The number of failed checks in a row from which a monitor is degraded.
pub(super) const DEGRADED_AT: u32 = 5;

/// The longest delay that the backoff makes, unless the interval itself is longer.
const LONGEST: Duration = Duration::from_secs(300);

/// The most doublings of the interval. They bring any interval of a microsecond or more to the longest delay, and fit
/// into 32 bits.
const MOST_DOUBLINGS: u32 = 30;

/// The number of checks that have failed since the last good one.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
}

impl Breaker {
    /// Counts a failed check. Returns the number in a row, this one included.
    pub(super) fn fail(&mut self) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.failures
    }

    /// Takes a good check, which clears the count. Returns the number of failures that it ends.
    pub(super) fn succeed(&mut self) -> u32 {
        std::mem::take(&mut self.failures)
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn is_degraded(&self) -> bool {
        self.failures >= DEGRADED_AT
    }

    /// The delay to the next check that nobody asked for: the interval, doubled with every failure after the one that
    /// degraded the monitor.
    pub(super) fn delay(&self, interval: Duration) -> Duration {
        match self.failures.checked_sub(DEGRADED_AT) {
            Some(k) => interval.saturating_mul(1 << k.min(MOST_DOUBLINGS)).min(LONGEST).max(interval),
            None => interval,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn failed(failures: u32) -> Breaker {
        Breaker { failures }
    }

    #[test]
    fn five_failures_in_a_row_are_degraded_and_one_good_check_clears_them() {
        let mut breaker = Breaker::default();
        for n in 1..=5 {
            assert!(!breaker.is_degraded());
            assert_eq!(breaker.fail(), n);
        }
        assert!(breaker.is_degraded());
        assert_eq!(breaker.succeed(), 5);
        assert_eq!((breaker.is_degraded(), breaker.failures()), (false, 0));
        assert_eq!(breaker.succeed(), 0);
    }

    #[test]
    fn the_delay_doubles_while_degraded_up_to_five_minutes() {
        let cases = [
            (0, 15, 15),
            (4, 15, 15),
            (5, 15, 15),
            (6, 15, 30),
            (7, 15, 60),
            (9, 15, 240),
            (10, 15, 300),
            (u32::MAX, 15, 300),
            (u32::MAX, 600, 600),
            (6, u64::MAX, u64::MAX),
        ];
        for (failures, interval, expected) in cases {
            let delay = failed(failures).delay(Duration::from_secs(interval));
            assert_eq!(delay, Duration::from_secs(expected), "{failures} failures");
        }
    }

    #[test]
    fn years_of_failures_overflow_nothing() {
        let mut breaker = failed(u32::MAX - 1);
        assert_eq!((breaker.fail(), breaker.fail()), (u32::MAX, u32::MAX));
        assert_eq!(breaker.delay(Duration::MAX), Duration::MAX);
    }

    proptest! {
        #[test]
        fn a_delay_is_never_below_the_interval_nor_above_five_minutes_or_the_interval(failures: u32, nanos: u64) {
            let interval = Duration::from_nanos(nanos);
            let delay = failed(failures).delay(interval);
            prop_assert!(delay >= interval && delay <= interval.max(LONGEST));
            prop_assert!(failed(failures.saturating_add(1)).delay(interval) >= delay);
        }
    }
}
