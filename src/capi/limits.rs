//! `hw_limits`.

use std::ffi::{c_char, c_int, CStr, OsStr};
use std::fmt;
use std::mem::size_of;
use std::os::unix::ffi::OsStrExt;
use std::ptr::NonNull;

use super::border::{self, Versioned};
use super::reason::{number_of, MOST_RESOURCES};
use crate::vocabulary::{Error, Resource, ResourceLimits, ResourceLimitsBuilder, HARD_PERCENT, WARN_PERCENT};

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
    pub(super) disk_path: Option<NonNull<c_char>>,
    pub(super) min_free_disk_bytes: u64,
    pub(super) min_available_memory_bytes: u64,
    pub(super) max_cpu_pressure_percent: u64,
    pub(super) max_io_pressure_percent: u64,
    pub(super) warn_percent_of: [u8; MOST_RESOURCES],
    pub(super) hard_percent_of: [u8; MOST_RESOURCES],
}

// SAFETY: `repr(C)`, a `usize` first, integers and a pointer that may be null, bytes in whole words last.
unsafe impl Versioned for Limits {
    const NAME: &'static str = "hw_limits";
    const FIRST_SIZE: usize = size_of::<usize>() + 40;
}

impl Limits {
    /// # Safety
    /// The path is NULL or ends with a NUL.
    pub(super) unsafe fn build(self) -> Result<ResourceLimits, Error> {
        // SAFETY: as the caller says.
        unsafe { self.builder() }?.recognize_found().build()
    }

    /// # Safety
    /// As for [`build`](Self::build).
    unsafe fn builder(self) -> Result<ResourceLimitsBuilder, Error> {
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
        let warn = percent("warn threshold", given_or(self.warn_percent, WARN_PERCENT.into()))?;
        let hard = percent("hard threshold", given_or(self.hard_percent, HARD_PERCENT.into()))?;
        builder = builder.warn_percent(warn).hard_percent(hard);
        if self.resume_percent > 0 {
            builder = builder.resume_percent(percent("resume threshold", self.resume_percent)?);
        }
        if self.background_percent > 0 {
            builder = builder.background_percent(percent("background threshold", self.background_percent)?);
        }
        if self.max_cpu_pressure_percent > 0 {
            builder = builder.max_cpu_pressure_percent(percent("CPU pressure limit", self.max_cpu_pressure_percent)?);
        }
        if self.max_io_pressure_percent > 0 {
            builder = builder.max_io_pressure_percent(percent("I/O pressure limit", self.max_io_pressure_percent)?);
        }
        if self.min_available_memory_bytes > 0 {
            builder = builder.min_available_memory_bytes(self.min_available_memory_bytes);
        }
        match (self.disk_path, self.min_free_disk_bytes) {
            (_, 0) => {}
            (None, _) => return Err(Error::limit("min_free_disk_bytes is set, and disk_path is NULL")),
            (Some(path), bytes) => {
                // SAFETY: as the caller says.
                let path = unsafe { CStr::from_ptr(path.as_ptr()) };
                builder = builder.min_free_disk_bytes(OsStr::from_bytes(path.to_bytes()), bytes);
            }
        }
        for (number, apart) in self.warn_percent_of.into_iter().zip(self.hard_percent_of).enumerate() {
            if apart != (0, 0) {
                let (warn, hard) = (given_or(apart.0, warn), given_or(apart.1, hard));
                let resource = Resource::ALL.into_iter().find(|resource| number_of(*resource) == number);
                let unknown = || Error::limit(format!("thresholds of resource {number}, which is not known"));
                builder = builder.threshold(resource.ok_or_else(unknown)?, warn, hard);
            }
        }
        Ok(builder)
    }
}

/// The number of a struct, in which 0 is the default.
fn given_or<T: Default + PartialEq>(given: T, default: T) -> T {
    if given == T::default() {
        default
    } else {
        given
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
        // SAFETY: the caller passes NULL or a string for the path.
        let detected = unsafe { given.builder() }?.detect()?.build()?;
        let found = Limits {
            max_memory_bytes: detected.max_memory_bytes().unwrap_or(0),
            max_processes: detected.max_processes().unwrap_or(0),
            max_open_files: detected.max_open_files().unwrap_or(0),
            min_available_memory_bytes: detected.min_available_memory_bytes().unwrap_or(0),
            ..given
        };
        // SAFETY: as above.
        unsafe { border::destination(limits) }?.fill(&found);
        Ok(0)
    })
}
