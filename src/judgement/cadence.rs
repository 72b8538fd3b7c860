//! The times of checks, as pure functions: the age to which an answer is good, and the delay to the next check.

use std::time::Duration;

/// The least time between checks that a degraded monitor brings forward for a host that keeps asking.
pub(super) const DEGRADED_DEMAND: Duration = Duration::from_secs(1);

/// The shortest delay that a climbing resource makes the thread choose, however fast it climbs.
const LEAST_CLIMB: Duration = Duration::from_millis(50);

/// The least lateness of a check that is worth a word: less is a matter of the machine's scheduling.
const LEAST_LATENESS: Duration = Duration::from_millis(100);

/// The least time between checks while somebody waits for room. A free room is told at once; this is for what only a
/// check can see.
const WAITED_FOR: Duration = Duration::from_millis(5);

/// The same while all that is waited for is what another process shows, which its own checks tell.
const WAITED_FOR_ELSEWHERE: Duration = Duration::from_millis(50);

/// The time between looks at what another process shows, which cost a microsecond.
pub(crate) const LOOK_ELSEWHERE: Duration = Duration::from_millis(2);

/// The age up to which a reading of memory, which costs microseconds, may refuse work.
pub(super) const REFUSED_BY: Duration = Duration::from_millis(1);

/// The time within which the gate follows memory that is asked for, whatever a reading costs.
const MOST_MEMORY_GAP: Duration = Duration::from_millis(50);

/// The shortest default `max_age`.
const LEAST_MAX_AGE: Duration = Duration::from_secs(2);

/// The least time between checks of which the last took `cpu`, for checking to take at most the share `cpu_budget` of
/// one core.
pub(super) fn gap(cpu: Duration, cpu_budget: f64) -> Duration {
    // Every failure is a number too large: a budget is above zero, a time is not negative.
    Duration::try_from_secs_f64(cpu.as_secs_f64() / cpu_budget).unwrap_or(Duration::MAX)
}

/// The least time between readings of memory alone, of which the last took `cpu`.
///
/// Callers and the kernel wake the thread for them, so nothing else bounds their number. They take at most a two
/// hundredth of one core, unless one takes more than 250 us: the gate is to follow memory every 50 ms all the same.
pub(super) fn memory_gap(cpu: Duration) -> Duration {
    const LEAST: Duration = Duration::from_millis(20);
    cpu.saturating_mul(200).clamp(LEAST, MOST_MEMORY_GAP)
}

/// The time between checks while somebody waits for room, who may wait for hours. It leaves a fifth of the CPU budget,
/// which waking the thread for them takes and no clock of its own shows.
pub(super) fn waited_gap(gap: Duration, is_elsewhere: bool) -> Duration {
    let least = if is_elsewhere { WAITED_FOR_ELSEWHERE } else { WAITED_FOR };
    least.max(gap.saturating_add(gap / 4))
}

/// The least time between readings of memory alone while somebody waits for room: as often as a two hundredth of one
/// core allows, every millisecond at most, and half as often after each of the last ones that has found no change.
pub(super) fn waited_memory_gap(cpu: Duration, unchanged: u32) -> Duration {
    const LEAST: Duration = Duration::from_millis(1);
    // Beyond that it is the longest gap anyhow.
    const MOST_HALVINGS: u32 = 6;
    let gap = cpu.saturating_mul(200).max(LEAST).saturating_mul(1 << unchanged.min(MOST_HALVINGS));
    gap.min(MOST_MEMORY_GAP)
}

/// The cost of a check for the CPU budget, with the readings of memory alone since the check before. It is at most
/// twice the check's own cost, so that no number of such readings keeps checks away.
pub(super) fn cost(check: Duration, memory_alone: Duration) -> Duration {
    check.saturating_add(memory_alone.min(check))
}

/// The age beyond which a check is stale, unless the host set one.
pub(super) fn default_max_age(interval: Duration, gap: Duration) -> Duration {
    interval.max(gap).saturating_mul(3).max(LEAST_MAX_AGE)
}

/// The age beyond which a reader asks for a fresh check.
pub(super) fn refresh_age(refresh_after: Duration, gap: Duration, degraded: bool) -> Duration {
    let floor = if degraded { DEGRADED_DEMAND } else { Duration::ZERO };
    refresh_after.max(gap).max(floor)
}

/// The delay to the thread's next check that nobody asks for: the interval, or half of the time that the fastest
/// climbing resource has left, if that is shorter.
pub(super) fn timer(interval: Duration, time_left: Option<Duration>) -> Duration {
    match time_left {
        Some(time_left) => interval.min(LEAST_CLIMB.max(time_left / 2)),
        None => interval,
    }
}

/// Whether a check that was planned after `delay` began late, which is by half as much again.
pub(super) fn is_late(lateness: Duration, delay: Duration) -> bool {
    lateness >= LEAST_LATENESS.max(delay / 2)
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
    fn memory_alone_is_read_every_20_ms_at_most_and_every_50_ms_however_dear() {
        let us = Duration::from_micros;
        for (cpu, expected) in [(0, 20), (100, 20), (150, 30), (250, 50), (100_000, 50)] {
            assert_eq!(memory_gap(us(cpu)), ms(expected), "{cpu}");
        }
        for (cpu, expected) in [(0, 1000), (5, 1000), (10, 2000), (150, 30_000), (100_000, 50_000)] {
            assert_eq!(waited_memory_gap(us(cpu), 0), us(expected), "{cpu}");
        }
        for (unchanged, expected) in [(1, 2), (4, 16), (5, 32), (6, 50), (u32::MAX, 50)] {
            assert_eq!(waited_memory_gap(us(5), unchanged), ms(expected), "{unchanged}");
        }
        for (gap, expected) in [(0, 5), (4, 5), (8, 10), (100, 125)] {
            assert_eq!(waited_gap(ms(gap), false), ms(expected));
            assert_eq!(waited_gap(ms(gap), true), ms(expected.max(50)));
        }
        for (check, alone, expected) in [(10, 0, 10), (10, 3, 13), (10, 900, 20)] {
            assert_eq!(cost(us(check), us(alone)), us(expected));
        }
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

    #[test]
    fn climbing_halves_the_time_that_is_left() {
        let cases = [
            (15_000, None, 15_000),
            (15_000, Some(60_000), 15_000),
            (15_000, Some(8_000), 4_000),
            (15_000, Some(10), 50),
            (15_000, Some(0), 50),
            (20, Some(0), 20),
        ];
        for (interval, time_left, expected) in cases {
            assert_eq!(timer(ms(interval), time_left.map(ms)), ms(expected));
        }
    }

    #[test]
    fn late_is_half_as_much_again_and_at_least_a_tenth_of_a_second() {
        let cases = [(99, 10, false), (100, 10, true), (100, 200, true), (7_499, 15_000, false), (7_500, 15_000, true)];
        for (lateness, delay, expected) in cases {
            assert_eq!(is_late(ms(lateness), ms(delay)), expected, "{lateness} after {delay}");
        }
    }

    proptest! {
        #[test]
        fn more_time_left_is_never_a_shorter_delay_and_no_delay_is_above_the_interval(
            interval: u64, time_left: u64, more: u64,
        ) {
            let [interval, time_left, more] = [interval, time_left, more].map(Duration::from_nanos);
            let delay = timer(interval, Some(time_left));
            prop_assert!(delay <= interval && delay >= interval.min(LEAST_CLIMB));
            prop_assert!(timer(interval, Some(time_left + more)) >= delay);
        }

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
