//! The atomics of what runs without a lock: the standard library's, or, in the model that explores interleavings, those
//! of its scheduler.

#[cfg(all(test, shuttle))]
pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
#[cfg(not(all(test, shuttle)))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
