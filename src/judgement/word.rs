//! The trust in the last check, for readers of the gate, in a few atomics: no lock, no allocation, no waiting.
//!
//! Every access but one is Relaxed. Each word is a whole message: a reader follows no pointer and reads no other memory on
//! the strength of what it finds, so there is nothing for an ordering to make visible. Two words seen from two
//! different publications do no harm either, because no answer is made of two: trust is `trusted_until` alone, and
//! `refresh_at` decides only who wakes the thread. Time does the rest: what is trusted is not any more from
//! `trusted_until` on. The exception is `fresh_until`, which whoever is granted work looks at again after reserving it:
//! a gate that was closed before that must be seen closed, and so it is SeqCst, like the room.

use std::time::Duration;

use super::atomics::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

/// No time: nobody to wake, already asked, never succeeded.
const NEVER: u64 = u64::MAX;

/// The state that a check, or a change of limits or reservations, leaves for readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Publication {
    /// The last moment at which the last check is trusted; `None` when nothing can be.
    pub(crate) trusted_until: Option<Duration>,
    /// The last moment at which work is granted by the last check; `None` when nothing can be trusted.
    pub(crate) fresh_until: Option<Duration>,
    /// After this moment a reader asks for a fresh check; `None` when nobody is there to take one.
    pub(crate) refresh_at: Option<Duration>,
    pub(crate) degraded: bool,
    pub(crate) last_success: Option<Duration>,
}

/// The state of the gate as its readers see it. Written under the lock of the judgement, read without any.
#[derive(Debug)]
pub(crate) struct ReadinessWord {
    /// First nanosecond at which nothing is trusted; 0 is now.
    trusted_until: AtomicU64,
    /// First nanosecond at which no work is granted; 0 is now.
    fresh_until: AtomicU64,
    /// First nanosecond at which a reader asks for a check, or [`NEVER`].
    refresh_at: AtomicU64,
    /// Nanosecond of the last successful check, or [`NEVER`].
    last_success: AtomicU64,
    degraded: AtomicBool,
}

impl Default for ReadinessWord {
    fn default() -> Self {
        ReadinessWord::new()
    }
}

impl ReadinessWord {
    /// Nothing is trusted, and there is nobody to wake.
    pub(crate) fn new() -> ReadinessWord {
        ReadinessWord {
            trusted_until: AtomicU64::new(0),
            fresh_until: AtomicU64::new(0),
            refresh_at: AtomicU64::new(NEVER),
            last_success: AtomicU64::new(NEVER),
            degraded: AtomicBool::new(false),
        }
    }

    /// Returns `true` if the last check is trusted at `now`.
    #[inline]
    pub(crate) fn is_trusted(&self, now: Duration) -> bool {
        // Relaxed: the answer is in this one word.
        nanos(now) < self.trusted_until.load(Relaxed)
    }

    /// Returns `true` if work may be granted at `now` by the last check.
    #[inline]
    pub(crate) fn is_fresh(&self, now: Duration) -> bool {
        // SeqCst: see the module.
        nanos(now) < self.fresh_until.load(SeqCst)
    }

    /// Whether this caller is the one that must wake the thread: true at most once per
    /// [`publish_check`](Self::publish_check).
    #[inline]
    pub(crate) fn take_demand(&self, now: Duration) -> bool {
        // Relaxed: a stale value costs a caller its turn, or sends it to the exchange, which decides on the latest.
        let refresh_at = self.refresh_at.load(Relaxed);
        nanos(now) >= refresh_at && refresh_at != NEVER && self.claim(refresh_at)
    }

    #[cold]
    fn claim(&self, refresh_at: u64) -> bool {
        // Relaxed: exchanges of one word have one order, which is all that "exactly one" needs. That the woken thread
        // sees the claim is the business of the bell, which is rung after it.
        self.refresh_at.compare_exchange(refresh_at, NEVER, Relaxed, Relaxed).is_ok()
    }

    /// Whether somebody took the demand of the last publication. Means nothing before a check was published by a
    /// running monitor: then there was nobody to ask.
    pub(crate) fn is_demanded(&self) -> bool {
        // Relaxed: the thread looks after the bell has been rung, and the bell orders the two.
        self.refresh_at.load(Relaxed) == NEVER
    }

    /// Whether the last publication was degraded.
    pub(crate) fn is_degraded(&self) -> bool {
        // Relaxed: the answer is in this one word.
        self.degraded.load(Relaxed)
    }

    /// When the last successful check was taken.
    pub(crate) fn last_success(&self) -> Option<Duration> {
        // Relaxed: the answer is in this one word.
        match self.last_success.load(Relaxed) {
            NEVER => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Shows a new check, a start or a stop; a demand can be made of it again. Callers take turns.
    pub(crate) fn publish_check(&self, publication: &Publication) {
        self.publish_rejudged(publication);
        let refresh_at = publication.refresh_at.map_or(NEVER, |at| nanos(at).saturating_add(1).min(NEVER - 1));
        // Relaxed: as in `publish_rejudged`.
        self.refresh_at.store(refresh_at, Relaxed);
    }

    /// Shows the same check judged anew, under other limits or reservations. A demand that was made of that check
    /// stands. Callers take turns.
    pub(crate) fn publish_rejudged(&self, publication: &Publication) {
        // Relaxed, all but one: the words are independent, and what order there is between publications comes from
        // the lock that the callers hold.
        let first_after = |until: Option<Duration>| until.map_or(0, |until| nanos(until).saturating_add(1));
        self.trusted_until.store(first_after(publication.trusted_until), Relaxed);
        // SeqCst: see the module.
        self.fresh_until.store(first_after(publication.fresh_until), SeqCst);
        self.degraded.store(publication.degraded, Relaxed);
        let last_success = publication.last_success.map_or(NEVER, |at| nanos(at).min(NEVER - 1));
        self.last_success.store(last_success, Relaxed);
    }
}

/// Nanoseconds in 64 bits, which last for 584 years of uptime; what is longer is as good as that.
#[inline]
fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(time.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: Duration = Duration::from_nanos(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn trusted(until: Duration, refresh_at: Duration) -> Publication {
        Publication { trusted_until: Some(until), refresh_at: Some(refresh_at), ..Publication::default() }
    }

    #[test]
    fn a_new_word_trusts_nothing_and_wakes_nobody() {
        let word = ReadinessWord::new();
        for now in [Duration::ZERO, SECOND, Duration::MAX] {
            assert!(!word.is_trusted(now) && !word.take_demand(now));
        }
        assert_eq!((word.is_degraded(), word.last_success()), (false, None));
    }

    #[test]
    fn trust_ends_by_itself_just_after_its_time() {
        let word = ReadinessWord::new();
        word.publish_check(&trusted(SECOND, SECOND));
        let cases = [(Duration::ZERO, true), (SECOND - NS, true), (SECOND, true), (SECOND + NS, false)];
        for (now, expected) in cases {
            assert_eq!(word.is_trusted(now), expected, "{now:?}");
        }
        word.publish_check(&trusted(Duration::ZERO, SECOND));
        assert!(word.is_trusted(Duration::ZERO) && !word.is_trusted(NS));
        word.publish_check(&Publication::default());
        assert!(!word.is_trusted(Duration::ZERO));
    }

    #[test]
    fn demand_is_taken_once_per_publication_and_an_amendment_keeps_it() {
        let word = ReadinessWord::new();
        let publication = trusted(2 * SECOND, SECOND);
        word.publish_check(&publication);
        assert!(!word.take_demand(SECOND) && !word.is_demanded());
        assert!(word.take_demand(SECOND + NS) && word.is_demanded());
        assert!(!word.take_demand(2 * SECOND));
        word.publish_rejudged(&publication);
        assert!(word.is_demanded() && !word.take_demand(2 * SECOND));
        word.publish_check(&publication);
        assert!(!word.is_demanded() && word.take_demand(2 * SECOND));
    }

    #[test]
    fn of_many_callers_one_takes_the_demand() {
        let word = ReadinessWord::new();
        for _ in 0..if cfg!(miri) { 10 } else { 100 } {
            word.publish_check(&trusted(SECOND, SECOND));
            let ask = || usize::from(word.take_demand(2 * SECOND));
            let taken: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(taken, 1);
        }
    }

    #[test]
    fn times_without_end_are_no_demand_and_do_not_overflow() {
        let word = ReadinessWord::new();
        word.publish_check(&Publication { last_success: Some(Duration::MAX), ..trusted(Duration::MAX, Duration::MAX) });
        let century = Duration::from_secs(100 * 365 * 86_400);
        assert!(word.is_trusted(century) && !word.take_demand(century) && !word.is_demanded());
        assert!(word.last_success().is_some());
    }
}
