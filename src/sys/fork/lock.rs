//! Locks that a forked child can wait for.
//!
//! A lock of its own making is not enough for that. `parking_lot` keeps whoever waits for any of its locks in one table
//! for the whole process, under locks of the table's own: a thread of the parent may hold one of those at the fork, and
//! the child's first wait would last for ever. The standard library's locks wait on a futex in the lock itself. So
//! `parking_lot` serves where nobody waits ([`ForkCell`](crate::sys::fork::ForkCell), the scanner's `try_lock`), and
//! this serves where somebody does.

use std::sync::{Condvar as StdCondvar, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A mutex that a panic under it does not poison: what it guards is consistent after each statement.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(StdMutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(StdMutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The condition variable to go with it.
#[derive(Debug, Default)]
pub(crate) struct Condvar(StdCondvar);

impl Condvar {
    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns also whether the deadline has passed.
    pub(crate) fn wait_until<'a, T>(&self, guard: MutexGuard<'a, T>, deadline: Instant) -> (MutexGuard<'a, T>, bool) {
        let left = deadline.saturating_duration_since(Instant::now());
        let (guard, _) = self.0.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner);
        (guard, Instant::now() >= deadline)
    }
}

/// A value that one thread at a time works on, for longer than others want to wait.
#[derive(Debug)]
pub(crate) struct Desk<T> {
    /// `None` while somebody works on it.
    value: Mutex<Option<T>>,
    returned: Condvar,
}

impl<T> Desk<T> {
    pub(crate) fn new(value: T) -> Desk<T> {
        Desk { value: Mutex::new(Some(value)), returned: Condvar::default() }
    }

    /// Works on the value when it is free; `None` if that took longer than `patience`.
    pub(crate) fn work<R>(&self, patience: Duration, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut taken = Taken { desk: self, value: Some(self.take(patience)?) };
        taken.value.as_mut().map(work)
    }

    fn take(&self, patience: Duration) -> Option<T> {
        let start = Instant::now();
        // Years, where the clock cannot say when.
        let deadline = start.checked_add(patience).unwrap_or(start + Duration::from_secs(u32::MAX.into()));
        let mut value = self.value.lock();
        let mut too_late = false;
        loop {
            if value.is_some() || too_late {
                return value.take();
            }
            (value, too_late) = self.returned.wait_until(value, deadline);
        }
    }
}

/// Puts the value back however the work ends.
struct Taken<'a, T> {
    desk: &'a Desk<T>,
    value: Option<T>,
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        *self.desk.value.lock() = self.value.take();
        self.desk.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(120);

    #[test]
    fn one_at_a_time_works_on_the_value_and_the_impatient_leave() {
        let desk = &Desk::new(1);
        let (entered, working) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                desk.work(LONG, |value| {
                    entered.send(()).unwrap();
                    let _ = released.recv();
                    *value += 1;
                })
            });
            working.recv_timeout(LONG).unwrap();
            assert_eq!(desk.work(Duration::ZERO, |value| *value), None);
            drop(release);
            assert_eq!(desk.work(Duration::MAX, |value| *value), Some(2));
        });
    }

    #[test]
    fn a_panic_at_the_desk_leaves_the_value_there() {
        let desk = Desk::new(1);
        let panicked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| desk.work(LONG, |_| panic!("at work"))));
        assert!(panicked.is_err());
        assert_eq!(desk.work(LONG, |value| *value), Some(1));
    }
}
