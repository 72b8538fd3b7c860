//! The C interface: `highwater.h`, which lies beside this file and is its documentation, function by function.
//!
//! Every function contains what panics in it, takes NULL for what it is, and trusts its caller for the rest: that a
//! handle is one that it was given and has not freed, and that a struct is as long as its first field says.
#![allow(unsafe_code)]

mod border;
mod gauge;
mod holders;
mod jobs;
mod labels;
#[cfg(any(test, fuzzing))]
mod laws;
mod ledger;
mod limits;
mod log;
mod manager;
mod permit;
mod reason;
mod settings;
mod snapshot;
mod work;

use std::ffi::{c_char, c_int};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;

use self::border::Failure;
use self::limits::Limits;
use self::manager::{Callbacks, Manager};
use self::settings::Settings;
use self::snapshot::Snapshot;
use crate::host::Snapshots;
use crate::monitor::Permit;
use crate::monitor::ResourceMonitor;

/// `hw_monitor`.
struct Monitor(ResourceMonitor);

/// `hw_snapshots`.
struct Subscription(Snapshots);

const MONITOR: &str = "monitor";

/// The header says that any thread may use a handle.
const _: fn() = || {
    fn for_any_thread<T: Send + Sync>() {}
    for_any_thread::<Monitor>();
    for_any_thread::<ledger::SharedLedger>();
    for_any_thread::<Permit>();
    for_any_thread::<Subscription>();
};

#[no_mangle]
unsafe extern "C" fn hw_monitor_new(limits: *const Limits) -> *mut Monitor {
    border::handed_over(|| {
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        let limits = unsafe { border::read(limits) }?.unwrap_or_default();
        // SAFETY: the caller passes NULL or a string for the path.
        Ok(Monitor(ResourceMonitor::new(unsafe { limits.build() }?)))
    })
}

#[no_mangle]
unsafe extern "C" fn hw_monitor_new_with(limits: *const Limits, settings: *const Settings) -> *mut Monitor {
    border::handed_over(|| {
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        let limits = unsafe { border::read(limits) }?.unwrap_or_default();
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        let settings = unsafe { border::read(settings) }?.unwrap_or_default();
        // SAFETY: the caller passes NULL or a string for the path.
        let limits = unsafe { limits.build() }?;
        // SAFETY: the caller passes NULL or a string for each root, and NULL or a ledger that is not freed yet.
        let builder = unsafe { settings.builder(limits) }?;
        Ok(Monitor(builder.build()?))
    })
}

#[no_mangle]
unsafe extern "C" fn hw_monitor_free(monitor: *mut Monitor) {
    // SAFETY: a handle is freed once, and was made by `hw_monitor_new` or `hw_monitor_new_with`.
    unsafe { border::taken_back(monitor, drop) };
}

#[no_mangle]
unsafe extern "C" fn hw_monitor_start(monitor: *mut Monitor, interval_ms: u64) -> c_int {
    border::status(|| {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        unsafe { border::given(monitor, MONITOR) }?.0.start(Duration::from_millis(interval_ms))?;
        Ok(0)
    })
}

#[no_mangle]
unsafe extern "C" fn hw_monitor_stop(monitor: *mut Monitor) {
    border::guarded((), || {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        if let Some(monitor) = unsafe { monitor.as_ref() } {
            monitor.0.stop();
        }
    });
}

#[no_mangle]
unsafe extern "C" fn hw_update_limits(monitor: *mut Monitor, limits: *const Limits) -> c_int {
    border::status(|| {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        let monitor = unsafe { border::given(monitor, MONITOR) }?;
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        let limits = unsafe { border::read(limits) }?.ok_or("there are no limits: they are NULL")?;
        // SAFETY: the caller passes NULL or a string for the path.
        monitor.0.update_limits(unsafe { limits.build() }?);
        Ok(0)
    })
}

#[no_mangle]
unsafe extern "C" fn hw_is_accepting_work(monitor: *const Monitor) -> bool {
    border::guarded_atomics(false, || {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        unsafe { monitor.as_ref() }.is_some_and(|monitor| monitor.0.is_accepting_work())
    })
}

#[no_mangle]
unsafe extern "C" fn hw_verdict(
    monitor: *const Monitor,
    buffer: *mut c_char,
    size: usize,
    accepting: *mut bool,
) -> usize {
    let answer = |text: &str, is_accepting| {
        // What is there may never have been written: no reference to it.
        if !accepting.is_null() {
            // SAFETY: the caller passes NULL or a place for one `bool`.
            unsafe { accepting.write(is_accepting) };
        }
        // SAFETY: the caller passes NULL or a place for `size` bytes.
        unsafe { border::write_text(text, buffer, size) };
        text.len()
    };
    // It stands if anything panics.
    answer("", false);
    border::guarded(0, || {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        match unsafe { monitor.as_ref() } {
            Some(monitor) => {
                let verdict = monitor.0.verdict();
                answer(&verdict.to_string(), verdict.is_accepting())
            }
            None => answer("not accepting work: there is no monitor", false),
        }
    })
}

#[no_mangle]
unsafe extern "C" fn hw_pressure(monitor: *const Monitor) -> f64 {
    border::guarded_atomics(f64::INFINITY, || {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        unsafe { monitor.as_ref() }.map_or(f64::INFINITY, |monitor| monitor.0.readiness().pressure())
    })
}

#[no_mangle]
unsafe extern "C" fn hw_check_now(monitor: *mut Monitor, snapshot: *mut Snapshot) -> c_int {
    border::status(|| {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        let monitor = unsafe { border::given(monitor, MONITOR) }?;
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        let snapshot = unsafe { border::destination(snapshot) }?;
        snapshot.fill(&Snapshot::from(&monitor.0.check_now()));
        Ok(0)
    })
}

#[no_mangle]
unsafe extern "C" fn hw_latest(monitor: *const Monitor, snapshot: *mut Snapshot) -> c_int {
    border::status(|| {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        let monitor = unsafe { border::given(monitor, MONITOR) }?;
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        let snapshot = unsafe { border::destination(snapshot) }?;
        let latest = monitor.0.latest();
        let latest = latest.ok_or_else(|| Failure::Failed("no check has been taken yet".to_owned()))?;
        snapshot.fill(&Snapshot::from(&latest));
        Ok(0)
    })
}

#[no_mangle]
unsafe extern "C" fn hw_snapshots_new(monitor: *mut Monitor) -> *mut Subscription {
    border::handed_over(|| {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        Ok(Subscription(unsafe { border::given(monitor, MONITOR) }?.0.snapshots()))
    })
}

#[no_mangle]
unsafe extern "C" fn hw_snapshots_wait(
    snapshots: *mut Subscription,
    timeout_ms: u64,
    snapshot: *mut Snapshot,
) -> c_int {
    border::status(|| {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        let snapshots = unsafe { border::given(snapshots, "subscription") }?;
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        let snapshot = unsafe { border::destination(snapshot) }?;
        match snapshots.0.recv_timeout(Duration::from_millis(timeout_ms)) {
            Ok(received) => {
                snapshot.fill(&Snapshot::from(&received));
                Ok(1)
            }
            Err(RecvTimeoutError::Timeout) => Ok(0),
            Err(RecvTimeoutError::Disconnected) => Err(Failure::Ended),
        }
    })
}

#[no_mangle]
unsafe extern "C" fn hw_snapshots_missed(snapshots: *const Subscription) -> u64 {
    border::guarded(0, || {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        unsafe { snapshots.as_ref() }.map_or(0, |snapshots| snapshots.0.missed())
    })
}

#[no_mangle]
unsafe extern "C" fn hw_snapshots_free(snapshots: *mut Subscription) {
    // SAFETY: a handle is freed once, and was made by `hw_snapshots_new`.
    unsafe { border::taken_back(snapshots, drop) };
}

#[no_mangle]
unsafe extern "C" fn hw_set_callbacks(monitor: *mut Monitor, callbacks: *const Callbacks) -> c_int {
    border::status(|| {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        let monitor = unsafe { border::given(monitor, MONITOR) }?;
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        match unsafe { border::read(callbacks) }? {
            Some(callbacks) => monitor.0.set_manager(Arc::new(Manager::new(callbacks))),
            None => monitor.0.clear_manager(),
        }
        Ok(0)
    })
}

#[cfg(any(test, fuzzing))]
pub(crate) use self::laws::LAWS;

#[cfg(test)]
mod header_tests;
#[cfg(test)]
mod tests;
