//! `hw_limits` and `hw_work`.

use std::ffi::c_int;

use super::border::{fail, fill, guarded, read, Sized1};
use crate::error::Error;
use crate::limits::ResourceLimits;

/// `hw_limits`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Limits {
    pub(super) size: usize,
    pub(super) max_memory_bytes: u64,
    pub(super) max_processes: u64,
    pub(super) max_open_files: u64,
    pub(super) max_pressure_percent: u32,
    pub(super) warn_percent: u32,
    pub(super) hard_percent: u32,
    pub(super) resume_percent: u32,
}

// SAFETY: `repr(C)`, a `usize` first, and integers.
unsafe impl Sized1 for Limits {}

impl Limits {
    pub(super) fn build(self) -> Result<ResourceLimits, Error> {
        self.builder()?.build()
    }

    fn builder(self) -> Result<crate::limits::ResourceLimitsBuilder, Error> {
        let mut builder = ResourceLimits::builder();
        if self.max_memory_bytes > 0 {
            builder = builder.max_memory_bytes(self.max_memory_bytes);
        }
        if self.max_processes > 0 {
            builder = builder.max_processes(self.max_processes);
        }
        if self.max_open_files > 0 {
            builder = builder.max_open_files(self.max_open_files);
        }
        if self.max_pressure_percent > 0 {
            builder = builder.max_memory_pressure_percent(percent("pressure", self.max_pressure_percent)?);
        }
        if self.warn_percent > 0 {
            builder = builder.warn_percent(percent("warn", self.warn_percent)?);
        }
        if self.hard_percent > 0 {
            builder = builder.hard_percent(percent("hard", self.hard_percent)?);
        }
        if self.resume_percent > 0 {
            builder = builder.resume_percent(percent("resume", self.resume_percent)?);
        }
        Ok(builder)
    }
}

fn percent(name: &str, percent: u32) -> Result<u8, Error> {
    u8::try_from(percent).map_err(|_| Error::limit(format!("{name} threshold {percent} % must not be above 100 %")))
}

/// See `highwater.h`.
///
/// # Safety
/// As there.
#[no_mangle]
pub(crate) unsafe extern "C" fn hw_limits_detect(limits: *mut Limits) -> c_int {
    guarded(-1, || {
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        let Some(given) = (unsafe { read(limits) }) else { return fail("there are no limits to fill") };
        let detected = given.builder().and_then(|builder| builder.detect()).and_then(|builder| builder.build());
        match detected {
            Ok(detected) => {
                let found = Limits {
                    max_memory_bytes: detected.max_memory_bytes().unwrap_or(0),
                    max_processes: detected.max_processes().unwrap_or(0),
                    max_open_files: detected.max_open_files().unwrap_or(0),
                    ..given
                };
                // SAFETY: as above.
                unsafe { fill(limits, &found) };
                0
            }
            Err(error) => fail(&error.to_string()),
        }
    })
}

/// `hw_work`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Work {
    pub(super) size: usize,
    pub(super) memory_bytes: u64,
    pub(super) processes: u64,
    pub(super) open_files: u64,
}

// SAFETY: `repr(C)`, a `usize` first, and integers.
unsafe impl Sized1 for Work {}

impl Work {
    pub(super) fn to_work(self) -> crate::work::Work {
        let work = crate::work::Work::new().memory_bytes(self.memory_bytes);
        work.processes(self.processes).open_files(self.open_files)
    }
}
