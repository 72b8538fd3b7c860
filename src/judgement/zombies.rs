//! Zombies that nobody waits for.
//!
//! One look does not show them: every child is a zombie between its end and its parent's `wait`. Two looks an interval
//! apart do.

use std::time::Duration;

use crate::vocabulary::Identity;

/// The zombies of the last check, and since when each was seen. A zombie is known by its pid and its start time, so
/// that another one under the same pid starts over.
#[derive(Debug, Default)]
pub(super) struct ZombieWatch {
    /// Ascending by pid. The list is kept from check to check, so that it allocates only when there are more zombies
    /// than ever before.
    seen: Vec<Seen>,
    last_line: Option<Duration>,
}

/// A zombie, and what is known of it.
#[derive(Debug)]
struct Seen {
    zombie: Identity,
    since: Duration,
    /// It was seen in checks at least an interval apart.
    stays: bool,
    reported: bool,
}

impl ZombieWatch {
    /// Takes the zombies of a successful check, ascending by pid. Returns all that stay, when one of them has not been
    /// reported yet, at most once per interval.
    pub(super) fn step(&mut self, zombies: &[Identity], now: Duration, interval: Duration) -> Option<Vec<u32>> {
        self.seen.retain_mut(|seen| {
            seen.stays |= now.saturating_sub(seen.since) >= interval;
            zombies.binary_search_by_key(&seen.zombie.pid, |zombie| zombie.pid).map(|i| zombies[i]) == Ok(seen.zombie)
        });
        let known = self.seen.len();
        for zombie in zombies {
            if self.seen[..known].binary_search_by_key(&zombie.pid, |seen| seen.zombie.pid).is_err() {
                self.seen.push(Seen { zombie: *zombie, since: now, stays: false, reported: false });
            }
        }
        if self.seen.len() > known {
            self.seen.sort_unstable_by_key(|seen| seen.zombie.pid);
        }
        let has_new = self.seen.iter().any(|seen| seen.stays && !seen.reported);
        let too_soon = self.last_line.is_some_and(|at| now.saturating_sub(at) < interval);
        if !has_new || too_soon {
            return None;
        }
        self.last_line = Some(now);
        let staying = self.seen.iter_mut().filter(|seen| seen.stays);
        let pids = staying.map(|seen| {
            seen.reported = true;
            seen.zombie.pid
        });
        Some(pids.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn zombie(pid: u32) -> Identity {
        Identity { pid, start_ticks: 1 }
    }

    /// When, the zombies of a check, the line that comes of them.
    type Step<'a> = (u64, &'a [u32], Option<&'a [u32]>);

    fn run(steps: &[Step<'_>]) {
        let mut watch = ZombieWatch::default();
        for (at, pids, expected) in steps {
            let zombies: Vec<_> = pids.iter().map(|pid| zombie(*pid)).collect();
            let line = watch.step(&zombies, Duration::from_secs(*at), INTERVAL);
            assert_eq!(line.as_deref(), *expected, "at {at}");
        }
    }

    #[test]
    fn a_zombie_is_reported_once_when_seen_an_interval_apart() {
        run(&[(0, &[7], None), (9, &[7], None), (10, &[7], Some(&[7])), (20, &[7], None), (900, &[7], None)]);
    }

    #[test]
    fn a_zombie_that_was_waited_for_is_not_reported() {
        run(&[(0, &[7], None), (9, &[7], None), (10, &[], None), (20, &[8], None), (29, &[8], None)]);
    }

    #[test]
    fn a_line_lists_all_that_stay_and_comes_at_most_once_an_interval() {
        run(&[
            (0, &[7], None),
            (5, &[3, 7], None),
            (10, &[3, 7, 9], Some(&[7])),
            (15, &[3, 7, 9], None),
            (20, &[3, 7, 9, 11], Some(&[3, 7, 9])),
            (30, &[7, 11], Some(&[7, 11])),
            (40, &[7], None),
        ]);
    }

    #[test]
    fn another_zombie_under_the_same_pid_starts_over() {
        let mut watch = ZombieWatch::default();
        let at = Duration::from_secs;
        assert_eq!(watch.step(&[Identity { pid: 7, start_ticks: 1 }], at(0), INTERVAL), None);
        assert_eq!(watch.step(&[Identity { pid: 7, start_ticks: 2 }], at(10), INTERVAL), None);
        assert_eq!(watch.step(&[Identity { pid: 7, start_ticks: 2 }], at(20), INTERVAL), Some(vec![7]));
    }

    #[test]
    fn without_an_interval_two_checks_are_needed_all_the_same() {
        let mut watch = ZombieWatch::default();
        assert_eq!(watch.step(&[zombie(7)], Duration::ZERO, Duration::ZERO), None);
        assert_eq!(watch.step(&[zombie(7)], Duration::ZERO, Duration::ZERO), Some(vec![7]));
    }

    #[test]
    fn without_zombies_nothing_is_allocated() {
        let mut watch = ZombieWatch::default();
        assert_eq!(watch.step(&[], Duration::ZERO, INTERVAL), None);
        assert_eq!(watch.seen.capacity(), 0);
    }
}
