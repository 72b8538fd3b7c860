//! `hw_limits`.

use std::ffi::c_int;
use std::fmt;
use std::mem::size_of;

use super::border::{self, Versioned};
use crate::vocabulary::{Error, ResourceLimits};

/// `hw_limits`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Limits {
    pub(super) size: usize,
    pub(super) max_memory_bytes: u64,
    pub(super) max_processes: u64,
    pub(super) max_open_files: u64,
    pub(super) max_pressure_percent: u32,
    pub(super) warn_percent: u32,
    pub(super) hard_percent: u32,
    pub(super) resume_percent: u32,
    pub(super) background_percent: u64,
}

// SAFETY: `repr(C)`, a `usize` first, and integers.
unsafe impl Versioned for Limits {
    const NAME: &'static str = "hw_limits";
    const FIRST_SIZE: usize = size_of::<usize>() + 40;
}

impl Limits {
    pub(super) fn build(self) -> Result<ResourceLimits, Error> {
        self.builder()?.recognize_groups().build()
    }

    fn builder(self) -> Result<crate::vocabulary::ResourceLimitsBuilder, Error> {
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
            builder = builder.max_memory_pressure_percent(percent("memory pressure limit", self.max_pressure_percent)?);
        }
        if self.warn_percent > 0 {
            builder = builder.warn_percent(percent("warn threshold", self.warn_percent)?);
        }
        if self.hard_percent > 0 {
            builder = builder.hard_percent(percent("hard threshold", self.hard_percent)?);
        }
        if self.resume_percent > 0 {
            builder = builder.resume_percent(percent("resume threshold", self.resume_percent)?);
        }
        if self.background_percent > 0 {
            builder = builder.background_percent(percent("background threshold", self.background_percent)?);
        }
        Ok(builder)
    }
}

fn percent(name: &str, percent: impl TryInto<u8> + fmt::Display + Copy) -> Result<u8, Error> {
    percent.try_into().map_err(|_| Error::limit(format!("{name} {percent} % must not be above 100 %")))
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_limits_detect(limits: *mut Limits) -> c_int {
    border::status(|| {
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        let given = unsafe { border::read(limits) }?.ok_or("there are no limits to fill: they are NULL")?;
        let detected = given.builder()?.detect()?.build()?;
        let found = Limits {
            max_memory_bytes: detected.max_memory_bytes().unwrap_or(0),
            max_processes: detected.max_processes().unwrap_or(0),
            max_open_files: detected.max_open_files().unwrap_or(0),
            ..given
        };
        // SAFETY: as above.
        unsafe { border::destination(limits) }?.fill(&found);
        Ok(0)
    })
}
