//! The C interface: `highwater.h`, which lies beside this file and is its documentation, function by function.
//!
//! Every function contains what panics in it, takes NULL for what it is, and trusts its caller for the rest: that a handle is
//! one that it was given and has not freed, and that a struct is as long as its first field says.
#![allow(unsafe_code)]

mod border;
mod limits;
mod manager;
mod snapshot;

use std::ffi::{c_char, c_int};
use std::sync::Arc;
use std::time::Duration;

use self::border::{as_ref, fail, guarded, read, set_last_error};
use self::limits::{Limits, Work};
use self::manager::{Callbacks, Manager};
use self::snapshot::{write, Snapshot};
use crate::error::Error;
use crate::monitor::ResourceMonitor;
use crate::permit::Permit;
use crate::subscription::Snapshots;

/// `hw_monitor`.
#[derive(Debug)]
pub(crate) struct Monitor(ResourceMonitor);

/// `hw_snapshots`.
#[derive(Debug)]
pub(crate) struct Subscription(Snapshots);

/// See `highwater.h`.
///
/// # Safety
/// As there.
#[no_mangle]
pub(crate) unsafe extern "C" fn hw_monitor_new(limits: *const Limits) -> *mut Monitor {
    guarded(std::ptr::null_mut(), || {
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        let limits = unsafe { read(limits) }.unwrap_or_default().build();
        match limits {
            Ok(limits) => Box::into_raw(Box::new(Monitor(ResourceMonitor::new(limits)))),
            Err(error) => {
                set_last_error(&error.to_string());
                std::ptr::null_mut()
            }
        }
    })
}

/// See `highwater.h`.
///
/// # Safety
/// As there.
#[no_mangle]
pub(crate) unsafe extern "C" fn hw_monitor_free(monitor: *mut Monitor) {
    // SAFETY: a handle is freed once, and was made by `hw_monitor_new`.
    unsafe { free(monitor) };
}

/// See `highwater.h`.
///
/// # Safety
/// As there.
#[no_mangle]
pub(crate) unsafe extern "C" fn hw_monitor_start(monitor: *mut Monitor, interval_ms: u64) -> c_int {
    with(monitor, |monitor| monitor.start(Duration::from_millis(interval_ms)))
}

/// See `highwater.h`.
///
/// # Safety
/// As there.
#[no_mangle]
pub(crate) unsafe extern "C" fn hw_monitor_stop(monitor: *mut Monitor) {
    with(monitor, |monitor| {
        monitor.stop();
        Ok(())
    });
}

/// See `highwater.h`.
///
/// # Safety
/// As there.
#[no_mangle]
pub(crate) unsafe extern "C" fn hw_update_limits(monitor: *mut Monitor, limits: *const Limits) -> c_int {
    with(monitor, |monitor| {
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        let limits = unsafe { read(limits) }.unwrap_or_default().build()?;
        monitor.update_limits(limits);
        Ok(())
    })
}

/// See `highwater.h`.
///
/// # Safety
/// As there.
#[no_mangle]
pub(crate) unsafe extern "C" fn hw_is_accepting_work(monitor: *const Monitor) -> bool {
    guarded(false, || {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        unsafe { as_ref(monitor) }.is_some_and(|monitor| monitor.0.is_accepting_work())
    })
}

/// See `highwater.h`.
///
/// # Safety
/// As there.
#[no_mangle]
pub(crate) unsafe extern "C" fn hw_verdict(
    monitor: *const Monitor,
    buffer: *mut c_char,
    size: usize,
    accepting: *mut bool,
) -> usize {
    guarded(0, || {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        let (text, is_accepting) = match unsafe { as_ref(monitor) } {
            Some(monitor) => {
                let verdict = monitor.0.verdict();
                (verdict.to_string(), verdict.is_accepting())
            }
            None => ("not accepting work: there is no monitor".to_owned(), false),
        };
        // SAFETY: the caller passes NULL or a place for one `bool`.
        // What is there may never have been written: no reference to it.
        if !accepting.is_null() {
            // SAFETY: as above.
            unsafe { accepting.write(is_accepting) };
        }
        // SAFETY: the caller passes NULL or a place for `size` bytes.
        unsafe { border::write_text(&text, buffer, size) };
        text.len()
    })
}

/// See `highwater.h`.
///
/// # Safety
/// As there.
#[no_mangle]
pub(crate) unsafe extern "C" fn hw_try_admit(monitor: *mut Monitor, work: *const Work) -> *mut Permit {
    guarded(std::ptr::null_mut(), || {
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        let work = unsafe { read(work) }.unwrap_or_default().to_work();
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        let admitted = match unsafe { as_ref(monitor) } {
            Some(monitor) => monitor.0.try_admit(work).map_err(|verdict| verdict.to_string()),
            None => Err("not accepting work: there is no monitor".to_owned()),
        };
        match admitted {
            Ok(permit) => Box::into_raw(Box::new(permit)),
            Err(reason) => {
                set_last_error(&reason);
                std::ptr::null_mut()
            }
        }
    })
}

/// See `highwater.h`.
///
/// # Safety
/// As there.
#[no_mangle]
pub(crate) unsafe extern "C" fn hw_permit_free(permit: *mut Permit) {
    // SAFETY: a handle is freed once, and was made by `hw_try_admit`.
    unsafe { free(permit) };
}

/// See `highwater.h`.
///
/// # Safety
/// As there.
#[no_mangle]
pub(crate) unsafe extern "C" fn hw_check_now(monitor: *mut Monitor, snapshot: *mut Snapshot) -> c_int {
    with(monitor, |monitor| {
        let taken = monitor.check_now();
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        unsafe { write(&taken, snapshot) };
        Ok(())
    })
}

/// See `highwater.h`.
///
/// # Safety
/// As there.
#[no_mangle]
pub(crate) unsafe extern "C" fn hw_latest(monitor: *const Monitor, snapshot: *mut Snapshot) -> c_int {
    with(monitor, |monitor| {
        let latest = monitor.latest().ok_or_else(|| Error::setting("no check has been taken yet"))?;
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        unsafe { write(&latest, snapshot) };
        Ok(())
    })
}

/// See `highwater.h`.
///
/// # Safety
/// As there.
#[no_mangle]
pub(crate) unsafe extern "C" fn hw_snapshots_new(monitor: *mut Monitor) -> *mut Subscription {
    guarded(std::ptr::null_mut(), || {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        match unsafe { as_ref(monitor) } {
            Some(monitor) => Box::into_raw(Box::new(Subscription(monitor.0.snapshots()))),
            None => {
                set_last_error("there is no monitor");
                std::ptr::null_mut()
            }
        }
    })
}

/// See `highwater.h`.
///
/// # Safety
/// As there.
#[no_mangle]
pub(crate) unsafe extern "C" fn hw_snapshots_wait(
    snapshots: *mut Subscription,
    timeout_ms: u64,
    snapshot: *mut Snapshot,
) -> c_int {
    guarded(-1, || {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        let Some(snapshots) = (unsafe { as_ref(snapshots) }) else { return fail("there are no snapshots") };
        match snapshots.0.recv_timeout(Duration::from_millis(timeout_ms)) {
            Ok(received) => {
                // SAFETY: the caller passes NULL or a struct that is as long as it says.
                unsafe { write(&received, snapshot) };
                1
            }
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => 0,
            Err(crossbeam_channel::RecvTimeoutError::Disconnected) => fail("the monitor is gone"),
        }
    })
}

/// See `highwater.h`.
///
/// # Safety
/// As there.
#[no_mangle]
pub(crate) unsafe extern "C" fn hw_snapshots_missed(snapshots: *const Subscription) -> u64 {
    guarded(0, || {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        unsafe { as_ref(snapshots) }.map_or(0, |snapshots| snapshots.0.missed())
    })
}

/// See `highwater.h`.
///
/// # Safety
/// As there.
#[no_mangle]
pub(crate) unsafe extern "C" fn hw_snapshots_free(snapshots: *mut Subscription) {
    // SAFETY: a handle is freed once, and was made by `hw_snapshots_new`.
    unsafe { free(snapshots) };
}

/// See `highwater.h`.
///
/// # Safety
/// As there.
#[no_mangle]
pub(crate) unsafe extern "C" fn hw_set_callbacks(monitor: *mut Monitor, callbacks: *const Callbacks) -> c_int {
    with(monitor, |monitor| {
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        let callbacks = unsafe { read(callbacks) };
        let callbacks = callbacks.ok_or_else(|| Error::setting("there are no callbacks"))?;
        monitor.set_manager(Arc::new(Manager::new(callbacks)));
        Ok(())
    })
}

/// Does something with a monitor; 0, or -1 with the reason in the last error.
fn with(monitor: *const Monitor, act: impl FnOnce(&ResourceMonitor) -> Result<(), Error>) -> c_int {
    guarded(-1, || {
        // SAFETY: every function that comes here requires NULL or a handle that is not freed yet.
        let Some(monitor) = (unsafe { as_ref(monitor) }) else { return fail("there is no monitor") };
        match act(&monitor.0) {
            Ok(()) => 0,
            Err(error) => fail(&error.to_string()),
        }
    })
}

/// # Safety
/// NULL, or a handle that was made here and is not used again.
unsafe fn free<T>(handle: *mut T) {
    guarded((), || {
        if !handle.is_null() {
            // SAFETY: it was made by `Box::into_raw`, and is not used again.
            drop(unsafe { Box::from_raw(handle) });
        }
    });
}

#[cfg(test)]
mod tests;
