//! `hw_gauge`.

use std::ffi::{c_char, CStr};

use super::border::{self, Failure};
use super::labels::GAUGE_NAMES;
use super::{Monitor, MONITOR};
use crate::monitor;

/// `hw_gauge`.
#[derive(Debug)]
pub(super) struct Gauge(pub(super) monitor::Gauge);

const _: fn() = || {
    fn for_any_thread<T: Send + Sync>() {}
    for_any_thread::<Gauge>();
};

#[no_mangle]
pub(super) unsafe extern "C" fn hw_gauge_new(monitor: *mut Monitor, name: *const c_char, limit: u64) -> *mut Gauge {
    border::handed_over(|| {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        let monitor = unsafe { border::given(monitor, MONITOR) }?;
        if name.is_null() {
            return Err(Failure::from("there is no name of the gauge: it is NULL"));
        }
        // SAFETY: the caller passes a string.
        let name = unsafe { CStr::from_ptr(name) }.to_bytes();
        let kept = GAUGE_NAMES.label(name).unwrap_or_default();
        // Cut off, replaced, or one name too many for this process.
        if kept.as_bytes() != name {
            let text = format!("gauge name {:?} is too long, no text, or one too many", String::from_utf8_lossy(name));
            return Err(Failure::Invalid(text));
        }
        Ok(Gauge(monitor.0.gauge(kept, limit)?))
    })
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_gauge_free(gauge: *mut Gauge) {
    // SAFETY: a handle is freed once, and was made by `hw_gauge_new`.
    unsafe { border::taken_back(gauge, drop) };
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_gauge_add(gauge: *const Gauge, amount: u64) {
    border::guarded_atomics((), || {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        if let Some(gauge) = unsafe { gauge.as_ref() } {
            gauge.0.add(amount);
        }
    });
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_gauge_sub(gauge: *const Gauge, amount: u64) {
    // It may serve those who wait.
    border::guarded((), || {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        if let Some(gauge) = unsafe { gauge.as_ref() } {
            gauge.0.sub(amount);
        }
    });
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_gauge_set(gauge: *const Gauge, value: u64) {
    border::guarded((), || {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        if let Some(gauge) = unsafe { gauge.as_ref() } {
            gauge.0.set(value);
        }
    });
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_gauge_get(gauge: *const Gauge) -> u64 {
    border::guarded_atomics(0, || {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        unsafe { gauge.as_ref() }.map_or(0, |gauge| gauge.0.get())
    })
}
