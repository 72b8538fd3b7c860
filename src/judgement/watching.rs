//! Limits on a whole tree of processes, which the one that watches over it shows to the others in its
//! [slot](super::slots), and by which each of them judges.

use std::time::Duration;

use super::atomics::Ordering::SeqCst;
use super::row::{is_below, share, Left};
use super::shares::{amounts, Marks, Seat};
use super::slots::{
    limited, sane, Limits, Pair, Slot, BACKGROUND, CLOSED_BY, COLUMNS, HARD, LIMIT, MEASURED, PID, SEEN, TRUSTED_UNTIL,
    WAITERS, WARN, WATCHES,
};
use crate::vocabulary::{Class, Resource, Watched, WatchedWhy, Work};

/// The state that a watcher shows to the others.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) limits: [ShownLimit; 2],
    /// The resource that closes the gate, whatever is reserved.
    pub(crate) closed_by: Option<Resource>,
    /// `None`: nothing is known that can be trusted.
    pub(crate) trusted_until: Option<Duration>,
}

/// The room below a limit on the whole tree, without what is reserved.
#[derive(Debug)]
pub(crate) struct ShownLimit {
    pub(crate) left: Left,
    pub(crate) limit: u64,
}

impl Seat {
    /// Whether there are others who are judged by what this process shows.
    pub(crate) fn is_watching_others(&self) -> bool {
        self.is_watcher && self.others_slots().any(|slot| !slot.is_blank())
    }

    /// Whether others may be judged by what this process shows at any moment, and nobody is yet.
    pub(crate) fn is_watching_nobody(&self) -> bool {
        self.is_watcher && !self.is_watching_others()
    }

    /// Returns `true` if somebody waits who is judged by what this process shows.
    pub(crate) fn do_others_wait(&self) -> bool {
        self.is_watcher && self.others_slots().any(|slot| slot.word(WAITERS).load(SeqCst) != 0)
    }

    /// Returns `true` if the work is too much for one that watches even with nothing else running.
    pub(crate) fn could_never_fit(&self, work: &Work) -> bool {
        let asked = amounts(work);
        self.watchers().any(|watcher| {
            COLUMNS.into_iter().any(|column| {
                let limits = Limits::of(watcher, column);
                let hard = limits.get(HARD);
                hard != u64::MAX && asked[column] > 0 && asked[column] >= hard.saturating_add(limits.get(MEASURED))
            })
        })
    }

    fn watchers(&self) -> impl Iterator<Item = Slot<'_>> {
        self.others_slots().filter(|slot| slot.word(WATCHES).load(SeqCst) == 1)
    }

    /// All that is reserved, the own included, beyond what the reading of a watcher has seen.
    fn reserved_beyond(&self, watcher: Slot<'_>) -> Pair {
        let seen = COLUMNS.map(|column| Limits::of(watcher, column).get(SEEN));
        COLUMNS.map(|column| {
            let sum = |sum: u64, slot: Slot<'_>| sum.wrapping_add(slot.outstanding(column));
            let outstanding = self.own().into_iter().chain(self.others_slots()).fold(0, sum);
            sane(outstanding.wrapping_sub(seen[column]))
        })
    }

    /// Returns `true` if those who watch have room for the work: `asked` of it is not reserved yet, and `held` is.
    #[inline]
    pub(crate) fn is_admitted_by_watchers(&self, held: Pair, asked: Pair, class: Class) -> bool {
        self.watchers().all(|watcher| {
            // Before the bounds, as for the own.
            let reserved = self.reserved_beyond(watcher);
            COLUMNS.into_iter().all(|column| {
                let (limits, reserved) = (Limits::of(watcher, column), reserved[column]);
                let (before, after) = (reserved.saturating_sub(held[column]), reserved.saturating_add(asked[column]));
                is_below(before, limits.bound(class)) && is_below(after, limits.get(HARD))
            })
        })
    }

    /// Returns `true` unless somebody who watches has closed its gate, whatever is reserved, or has not checked for too long.
    #[inline]
    pub(crate) fn is_trusted(&self, now: Duration) -> bool {
        self.watchers().all(|watcher| {
            watcher.word(CLOSED_BY).load(SeqCst) == 0 && watcher.word(TRUSTED_UNTIL).load(SeqCst) > nanos(now)
        })
    }

    /// The largest share that a watcher's limit has reached of what closes its gate.
    pub(crate) fn pressure(&self, now: Duration) -> f64 {
        if !self.is_trusted(now) {
            return f64::INFINITY;
        }
        let shares = self.watchers().flat_map(|watcher| {
            let reserved = self.reserved_beyond(watcher);
            COLUMNS.map(|column| {
                let limits = Limits::of(watcher, column);
                let (warn, measured) = (limits.get(WARN), limits.get(MEASURED));
                // Without a bound, `u64::MAX` stays.
                share(measured.saturating_add(reserved[column]), warn.saturating_add(measured))
            })
        });
        shares.fold(0.0, f64::max)
    }

    /// The reason why one that watches has no room for the work; `None`: there is none.
    pub(crate) fn why_refused(&self, work: &Work, now: Duration) -> Option<Watched> {
        let asked = amounts(work);
        self.watchers().find_map(|watcher| {
            let why = |why| Some(Watched { pid: u32::try_from(watcher.word(PID).load(SeqCst)).unwrap_or(0), why });
            let closed_by = watcher.word(CLOSED_BY).load(SeqCst);
            if closed_by > 0 {
                let place = usize::try_from(closed_by - 1).unwrap_or(usize::MAX);
                return why(WatchedWhy::Closed(Resource::ALL.get(place).copied()));
            }
            if watcher.word(TRUSTED_UNTIL).load(SeqCst) <= nanos(now) {
                return why(WatchedWhy::Stale);
            }
            let reserved = self.reserved_beyond(watcher);
            COLUMNS.into_iter().find_map(|column| {
                let (limits, reserved) = (Limits::of(watcher, column), reserved[column]);
                let is_closed = !is_below(reserved, limits.bound(work.class_of()));
                if !is_closed && is_below(reserved.saturating_add(asked[column]), limits.get(HARD)) {
                    return None;
                }
                why(WatchedWhy::Full {
                    resource: limited(column),
                    measured: limits.get(MEASURED),
                    reserved,
                    asked: if is_closed { 0 } else { asked[column] },
                    limit: limits.get(LIMIT),
                })
            })
        })
    }

    /// Shows the own limits to the others, if they are on the whole tree.
    pub(crate) fn watch(&self, shown: &Shown, marks: &Marks) {
        let Some(own) = self.own().filter(|_| self.is_watcher) else { return };
        // What is not to be trusted stays as it was, as the room does.
        for column in COLUMNS.into_iter().filter(|_| shown.trusted_until.is_some()) {
            let (limits, bounds) = (Limits::of(own, column), &shown.limits[column]);
            for (word, value) in [
                (HARD, bounds.left.hard),
                (WARN, bounds.left.warn),
                (BACKGROUND, bounds.left.background),
                (MEASURED, bounds.left.usage),
                (LIMIT, bounds.limit),
                // After the bounds.
                (SEEN, marks.all[column]),
            ] {
                limits.set(word, value);
            }
        }
        own.word(CLOSED_BY).store(shown.closed_by.map_or(0, |resource| resource.place() as u64 + 1), SeqCst);
        own.word(TRUSTED_UNTIL).store(shown.trusted_until.map_or(0, nanos), SeqCst);
        own.word(WATCHES).store(1, SeqCst);
    }

    /// Watches no more.
    pub(crate) fn look_away(&self) {
        if let Some(own) = self.own().filter(|_| self.is_watcher) {
            own.word(WATCHES).store(0, SeqCst);
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
