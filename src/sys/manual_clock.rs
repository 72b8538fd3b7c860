//! A clock that stands still until it is moved, and that its sleepers tell when to.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::clock::coarse_now;
use super::Latch;

/// No time: whoever sleeps until then is woken by a bell alone.
const NEVER: u64 = u64::MAX;

/// How often a thread that waits for an answer looks whether the clock has passed its deadline.
const LOOK: Duration = Duration::from_millis(1);

/// A clock for tests. It stands still unless somebody moves it, and is never moved back.
#[derive(Debug)]
pub(crate) struct ManualClock {
    /// The time as the standard library says it, when the clock was made.
    base: Instant,
    /// The time as the coarse clock said it, when the clock was made, in nanoseconds.
    start: u64,
    now: AtomicU64,
    /// The number of times that a thread asked for its CPU time.
    cpu: AtomicU64,
    /// The time at which the check thread wants to be woken, or [`NEVER`].
    due: AtomicU64,
}

impl ManualClock {
    pub(crate) fn new() -> ManualClock {
        let start = nanos(coarse_now());
        let base = Instant::now();
        ManualClock { base, start, now: start.into(), cpu: AtomicU64::new(0), due: start.into() }
    }

    pub(crate) fn now(&self) -> Duration {
        Duration::from_nanos(self.now.load(Relaxed))
    }

    /// Moves on to this time; stays where it is if that has passed.
    pub(crate) fn move_to(&self, time: Duration) {
        self.now.fetch_max(nanos(time), Relaxed);
    }

    pub(super) fn instant(&self) -> Instant {
        let moved = Duration::from_nanos(self.now.load(Relaxed) - self.start);
        self.base.checked_add(moved).unwrap_or(self.base)
    }

    /// A nanosecond more with each call: what is done between two costs next to nothing, but not nothing.
    pub(super) fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.cpu.fetch_add(1, Relaxed))
    }

    /// The time at which the check thread wants to be woken; `None` if it hangs.
    pub(crate) fn due(&self) -> Option<Duration> {
        // Relaxed: it is looked at once the thread has been seen asleep, which orders the two.
        Some(self.due.load(Relaxed)).filter(|due| *due != NEVER).map(Duration::from_nanos)
    }

    /// Notes that the check thread is about to sleep for this long; `Duration::MAX` is until it is rung for.
    pub(crate) fn sleeps_for(&self, timeout: Duration) {
        self.due.store(nanos(self.now().saturating_add(timeout)), Relaxed);
    }

    /// The answer of a latch; `None` once this clock has passed the deadline.
    pub(super) fn wait_for(&self, latch: &Latch, deadline: Option<Instant>) -> Option<u32> {
        loop {
            let is_late = deadline.is_some_and(|deadline| self.instant() >= deadline);
            let answer = latch.wait(Some(if is_late { Instant::now() } else { Instant::now() + LOOK }));
            if answer.is_some() || is_late {
                return answer;
            }
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_still_until_it_is_moved_and_never_goes_back() {
        let clock = ManualClock::new();
        let (start, instant) = (clock.now(), clock.instant());
        assert_eq!((clock.now(), clock.instant()), (start, instant));
        clock.move_to(start + Duration::from_secs(60));
        clock.move_to(start);
        assert_eq!(clock.now(), start + Duration::from_secs(60));
        assert_eq!(clock.instant(), instant + Duration::from_secs(60));
    }

    #[test]
    fn a_sleeper_says_when_it_is_to_be_woken() {
        let clock = ManualClock::new();
        clock.sleeps_for(Duration::from_secs(1));
        assert_eq!(clock.due(), Some(clock.now() + Duration::from_secs(1)));
        clock.sleeps_for(Duration::MAX);
        assert_eq!(clock.due(), None);
    }

    #[test]
    fn an_answer_is_waited_for_until_the_clock_passes_the_deadline() {
        let clock = &ManualClock::new();
        let latch = &Latch::default();
        let deadline = Some(clock.instant() + Duration::from_secs(3600));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| clock.wait_for(latch, deadline));
            clock.move_to(clock.now() + Duration::from_secs(3600));
            assert_eq!(waits.join().unwrap(), None);
            latch.set(7);
            assert_eq!(clock.wait_for(latch, deadline), Some(7));
        });
    }
}
