//! The thresholds of one resource as amounts, exact to the byte. They are worked out in integers of 128 bits: floating
//! point rounds above 2^53, and 64 bits overflow when they are multiplied by a percentage.

use crate::vocabulary::{Class, Level, Thresholds};

/// The least usage that reaches each threshold of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) background: u64,
    pub(super) warn: u64,
    pub(super) hard: u64,
    /// A resource that reached `warn` is normal again below it; `warn` itself without hysteresis.
    pub(super) resume: u64,
}

impl Bounds {
    /// Percentages of a limit.
    pub(super) fn of_limit(limit: u64, thresholds: Thresholds) -> Bounds {
        let Thresholds { background, warn, hard, resume } = thresholds;
        let [background, warn, hard, resume] =
            [background, warn, hard, resume.unwrap_or(warn)].map(|percent| least_reaching(limit, percent));
        Bounds { background, warn, hard, resume }
    }

    /// The amount of a resource that is to be left free: it is the warning threshold, and half of it the hard one. The
    /// others lie as far from the warning threshold as they do of a limit, in proportion to what is left there.
    pub(super) fn of_floor(capacity: u64, floor: u64, thresholds: Thresholds) -> Bounds {
        let Thresholds { background, warn, resume, .. } = thresholds;
        let left_at = |percent: u8| {
            let left = u128::from(floor) * u128::from(100 - percent.min(100)) / u128::from(100 - warn.min(99));
            u64::try_from(left).unwrap_or(u64::MAX)
        };
        let used = |left: u64| capacity.saturating_sub(left);
        Bounds {
            background: used(left_at(background)),
            warn: used(floor),
            hard: used(floor / 2),
            resume: used(resume.map_or(floor, left_at)),
        }
    }

    /// The bound from which work of this class is refused, whatever it asks for.
    pub(super) fn of_class(&self, class: Class) -> u64 {
        match class {
            Class::Background => self.background,
            Class::Normal => self.warn,
            Class::Critical => self.hard,
        }
    }

    /// The level of a usage that comes after the level `before`, on which only hysteresis depends.
    pub(super) fn level(&self, before: Level, usage: u64) -> Level {
        if usage >= self.hard {
            Level::Critical
        } else if usage >= self.warn || (before != Level::Normal && usage >= self.resume) {
            Level::Warning
        } else {
            Level::Normal
        }
    }
}

/// The least usage that reaches `percent` of `limit`.
fn least_reaching(limit: u64, percent: u8) -> u64 {
    let product = u128::from(limit) * u128::from(percent);
    u64::try_from((product + 99) / 100).unwrap_or(u64::MAX)
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
            (Normal, 0, 100, PLAIN, Normal),
            (Normal, 79, 100, PLAIN, Normal),
            (Normal, 7_999, 10_000, PLAIN, Normal),
            (Normal, 80, 100, PLAIN, Warning),
            (Normal, 94, 100, PLAIN, Warning),
            (Normal, 95, 100, PLAIN, Critical),
            (Normal, 900, 100, PLAIN, Critical),
            (Critical, 79, 100, PLAIN, Normal),
            (Normal, 0, 1, PLAIN, Normal),
            (Normal, 1, 1, PLAIN, Critical),
            (Normal, u64::MAX, u64::MAX, PLAIN, Critical),
            // With hysteresis, only what reached the warning threshold before is held above the resume one.
            (Normal, 79, 100, HELD, Normal),
            (Warning, 79, 100, HELD, Warning),
            (Critical, 79, 100, HELD, Warning),
            (Warning, 75, 100, HELD, Warning),
            (Warning, 74, 100, HELD, Normal),
        ];
        for (before, usage, limit, thresholds, expected) in cases {
            let level = Bounds::of_limit(limit, thresholds).level(before, usage);
            assert_eq!(level, expected, "{before:?} {usage} of {limit}");
        }
    }

    #[test]
    fn a_floor_is_the_warning_threshold_and_half_of_it_the_hard_one() {
        let bounds = Bounds::of_floor(1000, 100, HELD);
        assert_eq!(bounds, Bounds { background: 800, warn: 900, hard: 950, resume: 875 });
        assert_eq!(Bounds::of_floor(1000, 100, PLAIN).resume, 900);
        assert_eq!(bounds.level(Normal, 899), Normal, "101 are free");
        assert_eq!(bounds.level(Normal, 900), Warning);
        assert_eq!(bounds.level(Warning, 875), Warning);
        assert_eq!(bounds.level(Warning, 874), Normal);
        assert_eq!(bounds.level(Normal, 950), Critical);
    }

    #[test]
    fn a_floor_above_what_there_is_leaves_no_room_and_overflows_nothing() {
        assert_eq!(Bounds::of_floor(100, 100, PLAIN).level(Normal, 0), Warning);
        assert_eq!(Bounds::of_floor(100, u64::MAX, HELD).level(Normal, 0), Critical);
        let strict = Thresholds { background: 1, warn: 99, hard: 100, resume: Some(1) };
        assert_eq!(Bounds::of_floor(u64::MAX, u64::MAX, strict).background, 0);
        assert_eq!(Bounds::of_floor(1000, 1, PLAIN), Bounds { background: 998, warn: 999, hard: 1000, resume: 999 });
    }

    proptest! {
        #[test]
        fn the_warning_threshold_is_exact_to_the_byte(limit in 1..=u64::MAX, warn in 1..=99u8) {
            let least = least_reaching(limit, warn);
            let thresholds = Thresholds { background: 1, warn, hard: 100, resume: None };
            let bounds = Bounds::of_limit(limit, thresholds);
            prop_assert!(u128::from(least) * 100 >= u128::from(limit) * u128::from(warn));
            prop_assert!(u128::from(least - 1) * 100 < u128::from(limit) * u128::from(warn));
            prop_assert_eq!(bounds.level(Normal, least - 1), Normal);
            prop_assert_ne!(bounds.level(Normal, least), Normal);
        }

        #[test]
        fn more_usage_is_never_a_lower_level_and_repeating_a_step_changes_nothing(
            usage: u64, more: u64, limit in 1..=u64::MAX, before in 0..3usize, resume in proptest::option::of(1..80u8),
        ) {
            let before = [Normal, Warning, Critical][before];
            let thresholds = Thresholds { resume, ..PLAIN };
            let bounds = Bounds::of_limit(limit, thresholds);
            let level = bounds.level(before, usage);
            prop_assert!(bounds.level(before, usage.saturating_add(more)) >= level);
            prop_assert_eq!(bounds.level(level, usage), level);
        }
    }
}
