//! Admission, at once or after a wait, and `hw_permit`.

use std::ffi::c_int;
use std::mem::size_of;
use std::time::Duration;

use super::border::{self, Failure, Versioned};
use super::work::{self, Work};
use super::{Monitor, MONITOR};
use crate::monitor::Permit;
use crate::vocabulary;

const PERMIT: &str = "permit";

/// `HW_FOREVER`.
pub(super) const FOREVER: u64 = u64::MAX;

/// The time that a caller is ready to wait.
pub(super) fn patience(timeout_ms: u64) -> Duration {
    match timeout_ms {
        FOREVER => Duration::MAX,
        milliseconds => Duration::from_millis(milliseconds),
    }
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_try_admit(monitor: *mut Monitor, work: *const Work) -> *mut Permit {
    border::handed_over(|| {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        let monitor = unsafe { border::given(monitor, MONITOR) }?;
        // SAFETY: the caller passes NULL or a struct that is as long as it says, with a string in it.
        let work = unsafe { work::declared(work) }?;
        Ok(monitor.0.try_admit(work)?)
    })
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_admit(monitor: *mut Monitor, work: *const Work, timeout_ms: u64) -> *mut Permit {
    border::handed_over(|| {
        // SAFETY: the caller passes NULL or a handle that is not freed before this returns.
        let monitor = unsafe { border::given(monitor, MONITOR) }?;
        // SAFETY: the caller passes NULL or a struct that is as long as it says, with a string in it.
        let work = unsafe { work::declared(work) }?;
        Ok(monitor.0.admit(work, patience(timeout_ms))?)
    })
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_wait_until_accepting(monitor: *mut Monitor, timeout_ms: u64) -> c_int {
    border::status(|| {
        // SAFETY: the caller passes NULL or a handle that is not freed before this returns.
        unsafe { border::given(monitor, MONITOR) }?.0.wait_until_accepting(patience(timeout_ms))?;
        Ok(0)
    })
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_permit_free(permit: *mut Permit) {
    // SAFETY: a handle is given back once, and was made by an admission.
    unsafe { border::taken_back(permit, drop) };
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_permit_finish(permit: *mut Permit) {
    // SAFETY: a handle is given back once, and was made by an admission.
    unsafe { border::taken_back(permit, Permit::finish) };
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_permit_attach(permit: *mut Permit, pid: libc::pid_t) -> c_int {
    border::status(|| {
        // SAFETY: the caller passes NULL or a handle that is not given back yet.
        let permit = unsafe { border::given(permit, PERMIT) }?;
        let pid = u32::try_from(pid).map_err(|_| Failure::Invalid(format!("{pid} is no process")))?;
        permit.attach(pid)?;
        Ok(0)
    })
}

/// `hw_work_usage`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct WorkUsage {
    pub(super) size: usize,
    pub(super) memory_bytes: u64,
    pub(super) processes: u64,
    pub(super) peak_memory_bytes: u64,
    pub(super) peak_processes: u64,
}

// SAFETY: `repr(C)`, a `usize` first, and integers.
unsafe impl Versioned for WorkUsage {
    const NAME: &'static str = "hw_work_usage";
    const FIRST_SIZE: usize = size_of::<WorkUsage>();
}

impl From<vocabulary::WorkUsage> for WorkUsage {
    fn from(usage: vocabulary::WorkUsage) -> WorkUsage {
        // Without a `..`: a field that is new there is asked for here.
        let vocabulary::WorkUsage { memory_bytes, processes, peak_memory_bytes, peak_processes } = usage;
        let size = size_of::<WorkUsage>();
        WorkUsage { size, memory_bytes, processes, peak_memory_bytes, peak_processes }
    }
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_permit_usage(permit: *const Permit, usage: *mut WorkUsage) -> c_int {
    border::status(|| {
        // SAFETY: the caller passes NULL or a handle that is not given back yet.
        let permit = unsafe { border::given(permit, PERMIT) }?;
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        let usage = unsafe { border::destination(usage) }?;
        let seen = permit.usage();
        let seen = seen.ok_or_else(|| Failure::Failed("no check has seen the work of this permit".to_owned()))?;
        usage.fill(&WorkUsage::from(seen));
        Ok(0)
    })
}
