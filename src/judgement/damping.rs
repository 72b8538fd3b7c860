//! The changes of a level that are worth a line in the log.
//!
//! A host that works at its threshold changes levels all day, and a line for each would fill its log. So a fall counts
//! only once it has held, and lines of one level keep their distance. A line comes later for that, and counts the
//! changes left out since the one before.

use std::time::Duration;

use crate::vocabulary::Level;

/// The least time between two lines of one resource and level. A first critical line does not wait for it.
pub(super) const LINE_EVERY: Duration = Duration::from_secs(60);

/// The last lines of one resource, and its changes since.
#[derive(Debug, Default)]
pub(super) struct Damping {
    /// The measured level, except that a fall to normal counts only once it has held.
    effective: Level,
    normal_since: Option<Duration>,
    /// The level of the last line; normal at first, without a line.
    announced: Level,
    /// The time of the last line of each level.
    warning_line: Option<Duration>,
    critical_line: Option<Duration>,
    normal_line: Option<Duration>,
    /// A critical line was written since the last normal one.
    critical_logged: bool,
    /// Transitions since the last line.
    changes: u64,
}

impl Damping {
    /// Takes the level that a successful check measured. Returns how many transitions were left out when that level is
    /// to be logged.
    pub(super) fn step(&mut self, measured: Level, now: Duration, settle: Duration) -> Option<u64> {
        self.settle_level(measured, now, settle);
        // A fall that has not held yet is neither news nor a reason to print the level that it left.
        if self.effective == self.announced || self.effective != measured {
            return None;
        }
        let first_critical = measured == Level::Critical && !self.critical_logged;
        let line = match measured {
            Level::Normal => &mut self.normal_line,
            Level::Warning => &mut self.warning_line,
            Level::Critical => &mut self.critical_line,
        };
        let due = line.map_or(true, |at| now.saturating_sub(at) >= LINE_EVERY);
        if !due && !first_critical {
            return None;
        }
        *line = Some(now);
        self.announced = measured;
        match measured {
            Level::Normal => self.critical_logged = false,
            Level::Critical => self.critical_logged = true,
            Level::Warning => {}
        }
        // The transition that is being printed is not left out.
        Some(std::mem::take(&mut self.changes).saturating_sub(1))
    }

    /// Takes a measured level as the effective one, a fall to normal only once it has held for `settle`.
    fn settle_level(&mut self, measured: Level, now: Duration, settle: Duration) {
        if measured != Level::Normal {
            self.normal_since = None;
        } else if self.effective != Level::Normal {
            let since = *self.normal_since.get_or_insert(now);
            if now.saturating_sub(since) < settle {
                return;
            }
        }
        if measured != self.effective {
            self.effective = measured;
            self.normal_since = None;
            self.changes = self.changes.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use Level::{Critical, Normal, Warning};

    const SETTLE: Duration = Duration::from_secs(10);

    fn run(steps: &[(u64, Level, Option<u64>)]) {
        let mut damping = Damping::default();
        for (at, level, expected) in steps {
            assert_eq!(damping.step(*level, Duration::from_secs(*at), SETTLE), *expected, "at {at}");
        }
    }

    #[test]
    fn a_level_is_logged_when_entered_and_normal_once_it_has_held() {
        run(&[
            (0, Normal, None),
            (1, Warning, Some(0)),
            (2, Warning, None),
            (3, Critical, Some(0)),
            (4, Normal, None),
            (13, Normal, None),
            (14, Normal, Some(0)),
            (99, Normal, None),
        ]);
    }

    #[test]
    fn falling_back_before_normal_has_held_is_no_new_entry() {
        run(&[
            (0, Warning, Some(0)),
            (70, Normal, None),
            (79, Warning, None),
            (80, Normal, None),
            (89, Normal, None),
            (90, Normal, Some(0)),
        ]);
    }

    #[test]
    fn a_second_line_of_a_level_waits_a_minute_and_says_what_it_leaves_out() {
        run(&[
            (0, Warning, Some(0)),
            (1, Normal, None),
            (11, Normal, Some(0)),
            (12, Warning, None),
            (20, Normal, None),
            (30, Normal, None),
            (31, Warning, None),
            (59, Warning, None),
            // Three transitions since the line at 11, of which the last is the one printed.
            (60, Warning, Some(2)),
        ]);
    }

    #[test]
    fn a_deferred_line_is_dropped_when_it_is_no_longer_true() {
        run(&[
            (0, Warning, Some(0)),
            (1, Normal, None),
            (11, Normal, Some(0)),
            (12, Warning, None),
            (59, Normal, None),
            (61, Normal, None),
            (69, Normal, None),
            (75, Critical, Some(2)),
        ]);
    }

    #[test]
    fn the_first_critical_since_a_normal_line_is_never_held_back() {
        run(&[
            (0, Critical, Some(0)),
            (1, Warning, Some(0)),
            (2, Critical, None),
            (3, Normal, None),
            (13, Normal, Some(1)),
            (14, Critical, Some(0)),
            (15, Warning, None),
            (16, Critical, None),
            (73, Warning, Some(2)),
            (74, Critical, Some(0)),
        ]);
    }

    #[test]
    fn without_a_settle_time_normal_is_logged_at_once() {
        let mut damping = Damping::default();
        assert_eq!(damping.step(Warning, Duration::ZERO, Duration::ZERO), Some(0));
        assert_eq!(damping.step(Normal, Duration::ZERO, Duration::ZERO), Some(0));
    }

    proptest! {
        #[test]
        fn ten_minutes_of_any_levels_write_few_lines(levels in proptest::collection::vec(0..3usize, 600)) {
            let mut damping = Damping::default();
            let mut lines = [0; 3];
            for (second, level) in levels.iter().enumerate() {
                let measured = [Normal, Warning, Critical][*level];
                if damping.step(measured, Duration::from_secs(second as u64), Duration::from_secs(1)).is_some() {
                    lines[*level] += 1;
                }
            }
            // Ten each, and for every normal line, and the start, one more critical one.
            prop_assert!(lines[0] <= 10 && lines[1] <= 10 && lines[2] <= 21, "{:?}", lines);
        }
    }
}
