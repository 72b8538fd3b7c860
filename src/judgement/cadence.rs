//! How long a check lasts as an answer, and when the next one is due.

use std::time::Duration;

/// While degraded, a host that keeps asking brings a check forward this often and no more.
pub(super) const DEGRADED_DEMAND: Duration = Duration::from_secs(1);

/// The shortest default `max_age`.
const LEAST_MAX_AGE: Duration = Duration::from_secs(2);

/// The least time between checks of which the last took `cpu`, for checking to take at most the share `cpu_budget` of
/// one core.
pub(super) fn gap(cpu: Duration, cpu_budget: f64) -> Duration {
    // Every failure is a number too large: a budget is above zero, a time is not negative.
    Duration::try_from_secs_f64(cpu.as_secs_f64() / cpu_budget).unwrap_or(Duration::MAX)
}

/// The age beyond which a check is stale, unless the host set one.
pub(super) fn default_max_age(interval: Duration, gap: Duration) -> Duration {
    interval.max(gap).saturating_mul(3).max(LEAST_MAX_AGE)
}

/// The age from which a reader asks for a fresh check.
pub(super) fn refresh_age(refresh_after: Duration, gap: Duration, degraded: bool) -> Duration {
    let floor = if degraded { DEGRADED_DEMAND } else { Duration::ZERO };
    refresh_after.max(gap).max(floor)
}

/// The least time from any check to the thread's next, whoever asks for it.
pub(super) fn floor(timer: Duration, gap: Duration, degraded: bool) -> Duration {
    if degraded {
        DEGRADED_DEMAND.min(timer).max(gap)
    } else {
        gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_gap_is_the_cost_of_the_last_check_over_the_budget() {
        assert_eq!(gap(ms(1), 0.01), ms(100));
        assert_eq!(gap(ms(3), 1.0), ms(3));
        assert_eq!(gap(Duration::ZERO, 0.01), Duration::ZERO);
        assert_eq!(gap(Duration::MAX, 0.01), Duration::MAX);
        assert_eq!(gap(ms(1), f64::MIN_POSITIVE), Duration::MAX);
    }

    #[test]
    fn the_default_max_age_is_three_rounds_and_at_least_two_seconds() {
        let cases = [(0, 0, 2000), (100, 50, 2000), (15_000, 50, 45_000), (100, 900, 2700)];
        for (interval, gap, expected) in cases {
            assert_eq!(default_max_age(ms(interval), ms(gap)), ms(expected));
        }
        assert_eq!(default_max_age(Duration::MAX, ms(1)), Duration::MAX);
    }

    #[test]
    fn demand_brings_a_check_forward_to_the_gap_or_to_a_second_while_degraded() {
        let cases = [
            (15_000, 20, false, 20),
            (15_000, 20, true, 1000),
            (15_000, 1200, true, 1200),
            (400, 20, true, 400),
            (400, 500, true, 500),
        ];
        for (timer, gap, degraded, expected) in cases {
            assert_eq!(floor(ms(timer), ms(gap), degraded), ms(expected));
        }
        assert_eq!(refresh_age(ms(100), ms(20), false), ms(100));
        assert_eq!(refresh_age(ms(100), ms(200), false), ms(200));
        assert_eq!(refresh_age(ms(100), ms(200), true), ms(1000));
    }

    proptest! {
        #[test]
        fn no_floor_is_below_the_gap_or_above_both_it_and_the_timer(
            cpu: u64, budget in 1e-12..=1.0f64, timer: u64, degraded: bool,
        ) {
            let (cpu, timer) = (Duration::from_nanos(cpu), Duration::from_nanos(timer));
            let gap = gap(cpu, budget);
            prop_assert!(gap + ms(1) >= cpu.min(Duration::MAX - ms(1)));
            let floor = floor(timer, gap, degraded);
            prop_assert!(floor >= gap && floor <= timer.max(gap));
        }
    }
}
