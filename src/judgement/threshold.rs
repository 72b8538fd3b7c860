//! The comparison of usage with a limit, exact to the byte. It is in integers of 128 bits: floating point rounds above
//! 2^53, and 64 bits overflow when they are multiplied by a percentage.

use crate::vocabulary::{Level, Thresholds};

/// Whether `usage` is at least `percent` of `limit`.
pub(super) fn reaches(usage: u128, limit: u64, percent: u8) -> bool {
    usage.saturating_mul(100) >= u128::from(limit) * u128::from(percent)
}

/// The least usage that reaches `percent` of `limit`.
pub(super) fn least_reaching(limit: u64, percent: u8) -> u64 {
    let product = u128::from(limit) * u128::from(percent);
    u64::try_from((product + 99) / 100).unwrap_or(u64::MAX)
}

/// The level of a resource whose level was `before`, on which only hysteresis depends. Without a limit it is `Normal`.
pub(super) fn step(before: Level, usage: u64, limit: Option<u64>, thresholds: Thresholds) -> Level {
    let Some(limit) = limit else { return Level::Normal };
    let usage = u128::from(usage);
    if reaches(usage, limit, thresholds.hard) {
        Level::Critical
    } else if reaches(usage, limit, thresholds.warn) {
        Level::Warning
    } else {
        match thresholds.resume {
            Some(resume) if before != Level::Normal && reaches(usage, limit, resume) => Level::Warning,
            _ => Level::Normal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use Level::{Critical, Normal, Warning};

    const PLAIN: Thresholds = Thresholds { background: 60, warn: 80, hard: 95, resume: None };
    const HELD: Thresholds = Thresholds { resume: Some(75), ..PLAIN };

    #[test]
    fn levels_change_exactly_at_their_thresholds() {
        let cases = [
            (Normal, 0, Some(100), PLAIN, Normal),
            (Normal, 79, Some(100), PLAIN, Normal),
            (Normal, 7_999, Some(10_000), PLAIN, Normal),
            (Normal, 80, Some(100), PLAIN, Warning),
            (Normal, 94, Some(100), PLAIN, Warning),
            (Normal, 95, Some(100), PLAIN, Critical),
            (Normal, 900, Some(100), PLAIN, Critical),
            (Critical, 79, Some(100), PLAIN, Normal),
            (Normal, 0, Some(1), PLAIN, Normal),
            (Normal, 1, Some(1), PLAIN, Critical),
            (Normal, u64::MAX, Some(u64::MAX), PLAIN, Critical),
            (Normal, u64::MAX, None, PLAIN, Normal),
            (Critical, u64::MAX, None, HELD, Normal),
            // With hysteresis, only what reached the warning threshold before is held above the resume one.
            (Normal, 79, Some(100), HELD, Normal),
            (Warning, 79, Some(100), HELD, Warning),
            (Critical, 79, Some(100), HELD, Warning),
            (Warning, 75, Some(100), HELD, Warning),
            (Warning, 74, Some(100), HELD, Normal),
        ];
        for (before, usage, limit, thresholds, expected) in cases {
            assert_eq!(step(before, usage, limit, thresholds), expected, "{before:?} {usage} of {limit:?}");
        }
    }

    proptest! {
        #[test]
        fn the_warning_threshold_is_exact_to_the_byte(limit in 1..=u64::MAX, warn in 1..=99u8) {
            let least = least_reaching(limit, warn);
            let thresholds = Thresholds { background: 1, warn, hard: 100, resume: None };
            prop_assert_eq!(step(Normal, least - 1, Some(limit), thresholds), Normal);
            prop_assert_ne!(step(Normal, least, Some(limit), thresholds), Normal);
        }

        #[test]
        fn more_usage_is_never_a_lower_level_and_repeating_a_step_changes_nothing(
            usage: u64, more: u64, limit in 1..=u64::MAX, before in 0..3usize, resume in proptest::option::of(1..80u8),
        ) {
            let before = [Normal, Warning, Critical][before];
            let thresholds = Thresholds { resume, ..PLAIN };
            let level = step(before, usage, Some(limit), thresholds);
            prop_assert!(step(before, usage.saturating_add(more), Some(limit), thresholds) >= level);
            prop_assert_eq!(step(level, usage, Some(limit), thresholds), level);
        }
    }
}
