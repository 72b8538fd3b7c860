//! Whose turn it is to be refused: calls of the process are counted while a trial is armed, and one of them fails, or all
//! from one on.
//!
//! This is asked in the place of calls that a forked child makes before `exec`, and of the allocator: it takes no lock,
//! allocates nothing, and makes no call.

use std::cell::Cell;
use std::ffi::c_int;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};

/// The calls that are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The call of this number, from 1 on.
    One(usize),
    /// That one, and all after it.
    From(usize),
}

impl Refused {
    pub fn first(self) -> usize {
        match self {
            Refused::One(number) | Refused::From(number) => number,
        }
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    SystemCall,
    Allocation,
}

static ARMED: AtomicBool = AtomicBool::new(false);
static IS_OF_MEMORY: AtomicBool = AtomicBool::new(false);
static FIRST: AtomicUsize = AtomicUsize::new(usize::MAX);
static LAST: AtomicUsize = AtomicUsize::new(0);
/// The place of the error of the first call that is refused, among those that fit it.
static ERROR: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);
/// The name of the call that was refused first.
static NAME: AtomicPtr<&'static str> = AtomicPtr::new(null_mut());

thread_local! {
    /// Whether this thread is none of those that are tried.
    static IS_SPARED: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread is refused nothing.
pub fn spare_this_thread() {
    IS_SPARED.with(|is_spared| is_spared.set(true));
}

/// Begins to count anew.
pub fn set(kind: Kind, refused: Refused, error: usize) {
    let (first, last) = match refused {
        Refused::One(number) => (number, number),
        Refused::From(number) => (number, usize::MAX),
    };
    IS_OF_MEMORY.store(kind == Kind::Allocation, SeqCst);
    FIRST.store(first, SeqCst);
    LAST.store(last, SeqCst);
    ERROR.store(error, SeqCst);
    CALLS.store(0, SeqCst);
    NAME.store(null_mut(), SeqCst);
}

/// Runs what is tried. Calls that others make meanwhile count too.
pub fn armed<R>(tried: impl FnOnce() -> R) -> R {
    struct Disarmed;
    impl Drop for Disarmed {
        fn drop(&mut self) {
            ARMED.store(false, SeqCst);
        }
    }
    ARMED.store(true, SeqCst);
    let _disarmed = Disarmed;
    tried()
}

/// The number of calls since they are counted.
pub fn calls() -> usize {
    CALLS.load(SeqCst)
}

/// The name of the call that was refused first.
pub fn name() -> &'static str {
    let name = NAME.load(SeqCst);
    if name.is_null() {
        return "nothing";
    }
    // SAFETY: not null, and so put there by `is_refused`, from a reference that lives for ever.
    #[allow(unsafe_code)]
    unsafe {
        *name
    }
}

/// Whether this call is one of those that are refused.
pub fn is_refused(kind: Kind, name: &'static &'static str) -> bool {
    let is_counted = ARMED.load(SeqCst) && IS_OF_MEMORY.load(SeqCst) == (kind == Kind::Allocation);
    if !is_counted || IS_SPARED.try_with(Cell::get).unwrap_or(true) {
        return false;
    }
    let number = CALLS.fetch_add(1, SeqCst) + 1;
    let first = FIRST.load(SeqCst);
    if number == first {
        let name: *const &'static str = name;
        NAME.store(name.cast_mut(), SeqCst);
    }
    (first..=LAST.load(SeqCst)).contains(&number)
}

/// The error that this call is refused with: one of those that fit it, another one for each number. A call for which
/// there is none does not count.
pub fn error(name: &'static &'static str, fitting: &[c_int]) -> Option<c_int> {
    let place = ERROR.load(SeqCst) + FIRST.load(SeqCst);
    let error = *fitting.get(place % fitting.len().max(1))?;
    is_refused(Kind::SystemCall, name).then_some(error)
}
