//! The log lines of an optional resource that cannot be read: one when that begins, one when it is over.

use std::time::Duration;

use super::damping::LINE_EVERY;

/// A change that is worth a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    Unread,
    ReadAgain,
}

/// The last lines of one resource. A resource that comes and goes is logged once in [`LINE_EVERY`].
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// The last line said that the resource cannot be read.
    logged: bool,
    last_line: Option<Duration>,
}

impl Unread {
    /// Takes a successful check, which could read the resource or not.
    pub(super) fn step(&mut self, was_read: bool, now: Duration) -> Option<News> {
        if was_read {
            return std::mem::take(&mut self.logged).then_some(News::ReadAgain);
        }
        let line_due = self.last_line.map_or(true, |at| now.saturating_sub(at) >= LINE_EVERY);
        if self.logged || !line_due {
            return None;
        }
        *self = Unread { logged: true, last_line: Some(now) };
        Some(News::Unread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_said_once_and_what_comes_and_goes_once_a_minute() {
        let mut unread = Unread::default();
        let steps = [
            (0, true, None),
            (1, false, Some(News::Unread)),
            (2, false, None),
            (3, true, Some(News::ReadAgain)),
            (4, false, None),
            (5, true, None),
            (60, false, None),
            (61, false, Some(News::Unread)),
            (200, false, None),
            (201, true, Some(News::ReadAgain)),
        ];
        for (at, was_read, expected) in steps {
            assert_eq!(unread.step(was_read, Duration::from_secs(at)), expected, "at {at}");
        }
    }
}
