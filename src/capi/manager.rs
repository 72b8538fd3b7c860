//! `hw_callbacks`, as the manager of a monitor.

use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::mem::size_of;

use super::border::Versioned;
use super::reason;
use crate::host::{BoxError, JobManager};
use crate::sys::cancel::as_the_caller;
use crate::vocabulary::Resource;

/// `HW_JOB_ID_SIZE`.
pub(super) const JOB_ID_SIZE: usize = 256;

/// `hw_callbacks`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Callbacks {
    pub(super) size: usize,
    pub(super) user: *mut c_void,
    pub(super) running_count: Option<unsafe extern "C" fn(*mut c_void) -> u64>,
    pub(super) active_job_count: Option<unsafe extern "C" fn(*mut c_void) -> u64>,
    pub(super) oldest_running_job: Option<unsafe extern "C" fn(*mut c_void, *mut c_char, usize) -> c_int>,
    pub(super) pause_job: Option<unsafe extern "C" fn(*mut c_void, *const c_char, c_int) -> c_int>,
    pub(super) cancel_job: Option<unsafe extern "C" fn(*mut c_void, *const c_char, c_int) -> c_int>,
    pub(super) pressure_cleared: Option<unsafe extern "C" fn(*mut c_void)>,
    pub(super) dropped: Option<unsafe extern "C" fn(*mut c_void)>,
    pub(super) reclaim: Option<unsafe extern "C" fn(*mut c_void, c_int) -> c_int>,
}

// SAFETY: `repr(C)`, a `usize` first, and pointers that may be null.
unsafe impl Versioned for Callbacks {
    const NAME: &'static str = "hw_callbacks";
    const FIRST_SIZE: usize = 9 * size_of::<usize>();
}

/// The host's jobs behind the callbacks.
#[derive(Debug)]
pub(super) struct Manager(Callbacks);

// SAFETY: the header tells the host that its callbacks are called from other threads, and `user` is theirs alone.
unsafe impl Send for Manager {}
// SAFETY: as above; the counts are called beside the others, as the header says.
unsafe impl Sync for Manager {}

impl Manager {
    pub(super) fn new(callbacks: Callbacks) -> Manager {
        Manager(callbacks)
    }

    fn count(&self, count: Option<unsafe extern "C" fn(*mut c_void) -> u64>) -> usize {
        // SAFETY: the host has said that this may be called so.
        let count = count.map_or(0, |count| as_the_caller(|| unsafe { count(self.0.user) }));
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    fn move_job(
        &self,
        action: Option<unsafe extern "C" fn(*mut c_void, *const c_char, c_int) -> c_int>,
        job_id: &str,
        critical: Resource,
    ) -> Result<(), BoxError> {
        let action = action.ok_or("the host has no callback for it")?;
        let job_id = CString::new(job_id)?;
        // SAFETY: the host has said that this may be called so; the name outlives the call.
        match as_the_caller(|| unsafe { action(self.0.user, job_id.as_ptr(), reason::number_of(critical) as c_int) }) {
            0 => Ok(()),
            refusal => Err(format!("the host's callback returned {refusal}").into()),
        }
    }
}

impl JobManager for Manager {
    fn running_count(&self) -> usize {
        self.count(self.0.running_count)
    }

    fn active_job_count(&self) -> usize {
        self.count(self.0.active_job_count)
    }

    fn oldest_running_job(&self) -> Option<String> {
        let oldest_running_job = self.0.oldest_running_job?;
        let mut name = [0_u8; JOB_ID_SIZE];
        // SAFETY: the host has said that this may be called so, and writes at most as many bytes as it is told.
        let found = as_the_caller(|| unsafe { oldest_running_job(self.0.user, name.as_mut_ptr().cast(), name.len()) });
        if found != 0 {
            return None;
        }
        let name = CStr::from_bytes_until_nul(&name).ok()?.to_str().ok()?;
        Some(name.to_owned()).filter(|name| !name.is_empty())
    }

    fn pause_job(&self, job_id: &str, critical: Resource) -> Result<(), BoxError> {
        self.move_job(self.0.pause_job, job_id, critical)
    }

    fn cancel_job(&self, job_id: &str, critical: Resource) -> Result<(), BoxError> {
        self.move_job(self.0.cancel_job, job_id, critical)
    }

    fn reclaim(&self, critical: Resource) -> bool {
        let Some(reclaim) = self.0.reclaim else { return false };
        // SAFETY: the host has said that this may be called so.
        as_the_caller(|| unsafe { reclaim(self.0.user, reason::number_of(critical) as c_int) }) != 0
    }

    fn pressure_cleared(&self) {
        if let Some(pressure_cleared) = self.0.pressure_cleared {
            // SAFETY: the host has said that this may be called so.
            as_the_caller(|| unsafe { pressure_cleared(self.0.user) });
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(dropped) = self.0.dropped {
            // SAFETY: the host has said that this may be called so, and it is the last call.
            as_the_caller(|| unsafe { dropped(self.0.user) });
        }
    }
}
