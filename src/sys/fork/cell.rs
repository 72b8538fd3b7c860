//! A replaceable value that a forked child can always read.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{RwLock, RwLockWriteGuard};

use super::Mutex;

/// A replaceable value in two slots. Writers fill the idle slot, then switch: the slot that readers use is never
/// write-locked, not even in a child forked at that moment.
///
/// It is for what a forked child takes over from its parent (limits, the manager), and for what is read where no lock
/// may be waited for. A plain `RwLock` will not do: a writer of the parent may have held it at the fork, and nobody in
/// the child will release it. Nor will an `AtomicPtr` to the value: a reader must know that it is not freed under it,
/// which takes a lock again, or a crate for it.
///
/// A reader takes a shared lock without waiting, and tries again when a writer has switched in between. So a steady
/// stream of writers can delay readers; here writers are rare. A read costs two atomic operations on memory that
/// readers share, so it is not for what is read on every core at every call. Writers wait for each other, and for
/// readers of the idle slot, which were there before the switch. In a forked child a write may never end, since a
/// thread of the parent may have read or written at the fork: a child reads its parent's cell, and writes to one of its
/// own.
#[derive(Debug)]
pub(crate) struct ForkCell<T> {
    slots: [RwLock<Option<T>>; 2],
    current: AtomicUsize,
    writer: Mutex<()>,
}

impl<T: Clone> ForkCell<T> {
    pub(crate) fn new(value: T) -> ForkCell<T> {
        ForkCell {
            slots: [RwLock::new(Some(value)), RwLock::new(None)],
            current: AtomicUsize::new(0),
            writer: Mutex::new(()),
        }
    }

    pub(crate) fn get(&self) -> T {
        self.with(T::clone)
    }

    /// Shows the value to `look`, which must not wait for anything: a writer may be waiting for this slot.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        let mut look = Some(look);
        loop {
            // Acquire: the slot was filled before it became current.
            let current = self.current.load(Ordering::Acquire);
            // Recursive: a waiting writer must not keep readers out, least of all one that waits in the parent for
            // ever.
            let slot = self.slots[current & 1].try_read_recursive();
            match slot.as_ref().and_then(|slot| slot.as_ref()).and_then(|value| Some(look.take()?(value))) {
                Some(seen) => return seen,
                // A writer has switched since `current` was read.
                None => std::thread::yield_now(),
            }
        }
    }

    /// Replaces the value and returns the old one, for the caller to drop when it holds no lock.
    pub(crate) fn set(&self, value: T) -> Option<T> {
        self.replace(|_| value)
    }

    /// As `set`, with a value made from the old one, which no other writer replaces in between.
    pub(crate) fn replace(&self, make: impl FnOnce(&T) -> T) -> Option<T> {
        let _writer = self.writer.lock();
        let value = self.with(make);
        // Relaxed: only writers change it, and this one is alone.
        let old = self.current.load(Ordering::Relaxed) & 1;
        let stale = self.write(1 - old).replace(value);
        debug_assert!(stale.is_none(), "the slot was emptied when it ceased to be current");
        // Release: see `get`. The slot's lock has been released by now.
        self.current.store(1 - old, Ordering::Release);
        let replaced = self.write(old).take();
        replaced
    }

    /// Locks the idle slot, which readers leave within nanoseconds. Tried until it works rather than waited for: see
    /// [`lock`](super::lock) for waiters of such locks.
    fn write(&self, slot: usize) -> RwLockWriteGuard<'_, Option<T>> {
        loop {
            match self.slots[slot].try_write() {
                Some(guard) => return guard,
                None => std::thread::yield_now(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::sync::Arc;

    #[test]
    fn setting_hands_back_the_old_value_and_keeps_no_copy() {
        let first = Arc::new(1);
        let cell = ForkCell::new(Arc::clone(&first));
        let old = cell.set(Arc::new(2));
        assert_eq!((old.as_deref(), *cell.get()), (Some(&1), 2));
        drop(old);
        assert_eq!(Arc::strong_count(&first), 1);
    }

    #[test]
    fn readers_see_whole_values_while_writers_replace_them() {
        let cell = ForkCell::new((0_u64, 0_u64));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let (left, right) = cell.get();
                        assert_eq!(left, right);
                    }
                });
            }
            for number in 1..if cfg!(miri) { 100 } else { 20_000 } {
                cell.set((number, number));
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn the_current_slot_is_readable_while_a_writer_is_stuck() {
        let cell = ForkCell::new(5);
        // As a forked child may find it: the writers' lock and the other slot held for ever.
        let _writer = cell.writer.lock();
        let _other = cell.slots[1].write();
        assert_eq!(cell.get(), 5);
    }
}
