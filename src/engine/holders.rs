//! The permits that live: what each is for, since when, and the process that does its work.
//!
//! One list under one lock would make all threads that ask for permits meet at it. There are several, each thread keeps
//! to one, and a permit knows its place: two short locks that nobody else waits for, and no allocation once a list has
//! grown to its usual length.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::judgement::AttachedId;
use crate::sys::fork::Mutex;
use crate::vocabulary::{Holder, Work};

/// The number of lists: more than the threads that run at once in a small container.
const LISTS: usize = 8;

thread_local! {
    /// The list that this thread keeps to.
    static LIST: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The permits that live.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    lists: [Mutex<List>; LISTS],
    next: AtomicUsize,
}

/// The place at which a permit is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    list: usize,
    index: usize,
}

/// A permit that lives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) work: Work,
    pub(super) since: Duration,
    pub(super) attached: Option<(AttachedId, u32)>,
    /// The process whose permit it is a part of.
    process: Option<u32>,
    /// Set once it was logged that this permit has been held for long, or where that is known.
    is_logged: bool,
}

#[derive(Debug, Default)]
struct List {
    places: Vec<Option<Held>>,
    free: Vec<usize>,
}

impl Holders {
    pub(super) fn add(&self, work: Work, now: Duration) -> Place {
        let list = LIST.with(|list| {
            let chosen = list.get().unwrap_or_else(|| self.next.fetch_add(1, Relaxed) % LISTS);
            list.set(Some(chosen));
            chosen
        });
        let held = Some(Held { work, since: now, attached: None, process: None, is_logged: false });
        let mut places = self.lists[list].lock();
        let index = match places.free.pop() {
            Some(index) => {
                places.places[index] = held;
                index
            }
            None => {
                places.places.push(held);
                // Room for its return, so that giving back never allocates.
                let length = places.places.len();
                places.free.reserve(length);
                length - 1
            }
        };
        Place { list, index }
    }

    pub(super) fn remove(&self, Place { list, index }: Place) {
        let mut list = self.lists[list].lock();
        if list.places.get_mut(index).and_then(Option::take).is_some() {
            list.free.push(index);
        }
    }

    pub(super) fn set_attached(&self, Place { list, index }: Place, id: AttachedId, pid: u32) {
        if let Some(Some(held)) = self.lists[list].lock().places.get_mut(index) {
            held.attached = Some((id, pid));
        }
    }

    /// Notes the process whose permit this one is a part of.
    pub(super) fn set_process(&self, Place { list, index }: Place, pid: u32) {
        if let Some(Some(held)) = self.lists[list].lock().places.get_mut(index) {
            held.process = Some(pid);
        }
    }

    /// Notes that a permit is held for long on purpose.
    pub(super) fn set_known(&self, Place { list, index }: Place) {
        if let Some(Some(held)) = self.lists[list].lock().places.get_mut(index) {
            held.is_logged = true;
        }
    }

    /// Every permit, the one held longest first.
    pub(super) fn all(&self) -> Vec<Held> {
        let mut all = Vec::new();
        for list in &self.lists {
            all.extend(list.lock().places.iter().copied().flatten());
        }
        all.sort_by_key(|held| held.since);
        all
    }

    /// The permits that have been held for at least `long` without being attached, each once.
    pub(super) fn held_long(&self, now: Duration, long: Duration) -> Vec<Held> {
        // Nothing is allocated where there are none.
        let mut found = Vec::new();
        for list in &self.lists {
            for held in list.lock().places.iter_mut().flatten() {
                let is_long = now.saturating_sub(held.since) >= long;
                if is_long && held.attached.is_none() && !held.is_logged && !held.work.is_free() {
                    held.is_logged = true;
                    found.push(*held);
                }
            }
        }
        found
    }
}

impl Held {
    pub(super) fn holder(&self, now: Duration) -> Holder {
        Holder {
            label: self.work.label_of(),
            work: self.work,
            held_for: now.saturating_sub(self.since),
            pid: self.attached.map(|(_, pid)| pid).or(self.process),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_one_held_longest_is_first_and_places_are_used_again() {
        let holders = Holders::default();
        let old = holders.add(Work::new().processes(1), SECOND);
        let young = holders.add(Work::new().processes(2), 3 * SECOND);
        let add_elsewhere = || holders.add(Work::new(), 2 * SECOND);
        let elsewhere = std::thread::scope(|scope| scope.spawn(add_elsewhere).join().unwrap());
        assert_eq!(holders.all().iter().map(|held| held.since.as_secs()).collect::<Vec<_>>(), [1, 2, 3]);
        holders.remove(old);
        holders.remove(old);
        assert_eq!(holders.add(Work::new(), 4 * SECOND), old);
        for place in [old, young, elsewhere] {
            holders.remove(place);
        }
        assert!(holders.all().is_empty());
    }

    #[test]
    fn one_that_is_held_for_long_is_told_once_unless_its_work_is_known_or_nothing() {
        let holders = Holders::default();
        holders.add(Work::new(), Duration::ZERO);
        holders.add(Work::new().processes(1).label("slow"), SECOND);
        let known = holders.add(Work::new().processes(1), SECOND);
        holders.set_known(known);
        assert!(holders.held_long(10 * SECOND, 10 * SECOND).is_empty());
        let told = holders.held_long(11 * SECOND, 10 * SECOND);
        assert_eq!(told.iter().map(|held| held.work.label_of()).collect::<Vec<_>>(), [Some("slow")]);
        assert!(holders.held_long(12 * SECOND, 10 * SECOND).is_empty());
    }
}
