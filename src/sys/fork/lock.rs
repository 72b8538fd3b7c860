//! Locks that a forked child can wait for.
//!
//! A lock created in the child is not enough: `parking_lot` parks all waiters of the process in one table, and that
//! table's locks may have been held by a thread of the parent at the fork. The child's first wait, for any lock, would
//! then never end. The standard library's locks wait on a futex inside the lock itself, so a new lock is new
//! altogether. `parking_lot` serves only where nobody waits ([`ForkCell`](super::ForkCell), the scanner's `try_lock`).
//!
//! The price is poisoning, which is undone here, and a `wait_until` that takes a duration and reads the clock for it.

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

/// The condition variable for a [`Mutex`].
#[derive(Debug, Default)]
pub(crate) struct Condvar(StdCondvar);

impl Condvar {
    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until notified, until the deadline, or for no reason; the `bool` is `true` once the deadline has passed.
    pub(crate) fn wait_until<'a, T>(&self, guard: MutexGuard<'a, T>, deadline: Instant) -> (MutexGuard<'a, T>, bool) {
        let left = deadline.saturating_duration_since(Instant::now());
        let (guard, _) = self.0.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner);
        (guard, Instant::now() >= deadline)
    }
}

/// A mutex whose waiters give up after a time of their own.
///
/// For a value that is used for milliseconds at a time (a check reads files), by threads of which some must not wait as
/// long. The standard library's mutex has no wait with a timeout. So the mutex inside is held for an instant only, to
/// lend the value out or to take it back; the value itself is moved twice per use.
#[derive(Debug)]
pub(crate) struct PatientMutex<T> {
    /// `None` while it is lent out.
    value: Mutex<Option<T>>,
    returned: Condvar,
}

impl<T> PatientMutex<T> {
    pub(crate) fn new(value: T) -> PatientMutex<T> {
        PatientMutex { value: Mutex::new(Some(value)), returned: Condvar::default() }
    }

    /// Runs `body` with the value once nobody else has it; `None`, and `body` is not run, if that took longer than
    /// `patience`.
    pub(crate) fn with<R>(&self, patience: Duration, body: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut loan = Loan { lender: self, value: Some(self.take(patience)?) };
        loan.value.as_mut().map(body)
    }

    /// As [`with`](Self::with), but does not wait at all.
    pub(crate) fn try_with<R>(&self, body: impl FnOnce(&mut T) -> R) -> Option<R> {
        let value = self.value.lock().take()?;
        let mut loan = Loan { lender: self, value: Some(value) };
        loan.value.as_mut().map(body)
    }

    fn take(&self, patience: Duration) -> Option<T> {
        let start = Instant::now();
        // A hundred years stand for a time that the clock cannot name.
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

/// A value that is lent out, and given back when this is dropped, be it by a panic.
struct Loan<'a, T> {
    lender: &'a PatientMutex<T>,
    /// `Some` until the drop.
    value: Option<T>,
}

impl<T> Drop for Loan<'_, T> {
    fn drop(&mut self) {
        *self.lender.value.lock() = self.value.take();
        self.lender.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(120);

    #[test]
    fn one_at_a_time_has_the_value_and_the_impatient_leave() {
        let mutex = &PatientMutex::new(1);
        let (entered, inside) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                mutex.with(LONG, |value| {
                    entered.send(()).unwrap();
                    let _ = released.recv();
                    *value += 1;
                })
            });
            inside.recv_timeout(LONG).unwrap();
            assert_eq!(mutex.with(Duration::ZERO, |value| *value), None);
            assert_eq!(mutex.try_with(|value| *value), None);
            drop(release);
            assert_eq!(mutex.with(Duration::MAX, |value| *value), Some(2));
            assert_eq!(mutex.try_with(|value| *value), Some(2));
        });
    }

    #[test]
    fn a_panic_leaves_the_value_there() {
        let mutex = PatientMutex::new(1);
        let panicked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| mutex.with(LONG, |_| panic!("with the value"))));
        assert!(panicked.is_err());
        assert_eq!(mutex.with(LONG, |value| *value), Some(1));
    }
}
