//! The log, which is the host's.

use std::time::{Duration, Instant};

use crate::host::contained;

/// How long the same thing is not said again.
const GAP: Duration = Duration::from_secs(60);

/// What would be said for each job: once a minute at most, with the number of times that it was not.
#[derive(Debug, Default)]
pub(super) struct Damped {
    said: Option<Instant>,
    left_out: u64,
}

impl Damped {
    /// The number of times that were left out since the last time, if it is to be said now. Else this one is left out.
    pub(super) fn say(&mut self, now: Instant) -> Option<u64> {
        if self.said.is_some_and(|said| now - said < GAP) {
            self.left_out += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Writes a line. The logger is code of the host's, which may panic: a line lost is all that comes of it. To be called
/// under no lock.
pub(super) fn call_logger(line: impl FnOnce()) {
    drop(contained(line));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_counted_the_next_time() {
        let (mut damped, now) = (Damped::default(), Instant::now());
        assert_eq!(damped.say(now), Some(0));
        assert_eq!(damped.say(now), None);
        assert_eq!(damped.say(now + GAP / 2), None);
        assert_eq!(damped.say(now + GAP), Some(2));
        assert_eq!(damped.say(now + GAP * 2), Some(0));
    }
}
