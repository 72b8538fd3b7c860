//! Cancellation of threads (`pthreads(7)`), which unwinds through whoever it meets.
//!
//! A C host may cancel a thread that is in one of our functions, and most system calls are points at which that takes
//! effect. The unwinding then meets a frame that contains panics, and the process aborts. Making every call that can be
//! such a point by hand would not do, because the standard library makes them too. So cancellation is held back while
//! one of our functions runs: it takes effect before or after it. That costs two calls of the C library, which enter no
//! kernel. A callback of the host's has the state that its caller had.

use std::cell::Cell;
use std::ffi::c_int;

/// `PTHREAD_CANCEL_DISABLE`, which is the same in glibc and in musl.
const DISABLE: c_int = 1;

extern "C" {
    // Neither a cancellation point nor able to fail with these states.
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

thread_local! {
    /// The state of the caller of our function that is running on this thread.
    static CALLERS: Cell<Option<c_int>> = const { Cell::new(None) };
}

/// Runs our own code for a caller that may be cancelled.
pub(crate) fn held_back<R>(code: impl FnOnce() -> R) -> R {
    let callers = set_state(DISABLE);
    let _restore = Restore { outer: CALLERS.with(|cell| cell.replace(Some(callers))), callers };
    code()
}

/// Runs a callback of the host's under the state of whoever called our function on this thread, if anybody did.
pub(crate) fn as_the_caller<R>(callback: impl FnOnce() -> R) -> R {
    let Some(callers) = CALLERS.with(Cell::get) else { return callback() };
    set_state(callers);
    let result = callback();
    set_state(DISABLE);
    result
}

/// Gives a thread its state back, however our code ends.
struct Restore {
    outer: Option<c_int>,
    callers: c_int,
}

impl Drop for Restore {
    fn drop(&mut self) {
        CALLERS.with(|cell| cell.set(self.outer));
        set_state(self.callers);
    }
}

/// Returns the state that the thread had.
fn set_state(state: c_int) -> c_int {
    let mut old = 0;
    // SAFETY: `old` is valid to write one integer to.
    unsafe { pthread_setcancelstate(state, &mut old) };
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> c_int {
        let state = set_state(DISABLE);
        set_state(state);
        state
    }

    #[test]
    fn cancellation_is_held_back_but_for_callbacks_and_given_back_after_a_panic() {
        let enabled = state();
        assert_ne!(enabled, DISABLE);
        held_back(|| {
            assert_eq!(state(), DISABLE);
            assert_eq!(as_the_caller(state), enabled);
            // A callback that calls one of our functions, which calls another.
            as_the_caller(|| held_back(|| assert_eq!((state(), as_the_caller(state)), (DISABLE, enabled))));
            assert_eq!(state(), DISABLE);
        });
        assert_eq!(state(), enabled);
        assert!(std::panic::catch_unwind(|| held_back(|| panic!("in our code"))).is_err());
        assert_eq!((state(), as_the_caller(state)), (enabled, enabled));
    }

    #[test]
    fn a_caller_that_cannot_be_cancelled_stays_so_in_its_callbacks() {
        let enabled = set_state(DISABLE);
        held_back(|| assert_eq!(as_the_caller(state), DISABLE));
        assert_eq!(set_state(enabled), DISABLE);
    }
}
