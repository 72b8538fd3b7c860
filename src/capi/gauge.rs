//! `hw_gauge`.

use std::ffi::{c_char, c_int, CStr};

use super::border::{self, Failure};
use super::labels::GAUGE_NAMES;
use super::reason::number_of;
use super::{Monitor, MONITOR};
use crate::monitor;
use crate::vocabulary::GaugeName;

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
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        // Before it is kept: a bad name takes no place.
        GaugeName::check(&name)?;
        let kept = GAUGE_NAMES.label(name.as_bytes()).unwrap_or_default();
        if kept != name {
            return Err(Failure::Invalid(format!("gauge name {name} is one too many for this process")));
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
    border::guarded_atomics((), || {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        if let Some(gauge) = unsafe { gauge.as_ref() } {
            gauge.0.sub(amount);
        }
    });
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_gauge_set(gauge: *const Gauge, value: u64) {
    border::guarded_atomics((), || {
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

#[no_mangle]
pub(super) unsafe extern "C" fn hw_gauge_resource(gauge: *const Gauge) -> c_int {
    border::guarded_atomics(-1, || {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        unsafe { gauge.as_ref() }.map_or(-1, |gauge| number_of(gauge.0.resource()) as c_int)
    })
}
