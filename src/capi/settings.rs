//! `hw_settings`.

use std::ffi::{c_char, CStr, OsStr};
use std::mem::size_of;
use std::os::unix::ffi::OsStrExt;
use std::ptr::NonNull;
use std::time::Duration;

use super::border::{Failure, Versioned};
use super::ledger::SharedLedger;
use super::reason::number_of;
use super::snapshot::NONE;
use crate::monitor::{ResourceMonitor, ResourceMonitorBuilder};
use crate::vocabulary::{self, MemoryScope, Overtaking, PerResource, Resource, ResourceLimits};

/// `hw_settings`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Settings {
    pub(super) size: usize,
    pub(super) max_age_ms: u64,
    pub(super) refresh_after_ms: u64,
    pub(super) settle_ms: u64,
    pub(super) inline_check_us: u64,
    pub(super) overtaking_times: u64,
    pub(super) overtaking_ms: u64,
    pub(super) memory_scope: u64,
    pub(super) ignored: u64,
    pub(super) cpu_budget: f64,
    pub(super) proc_root: Option<NonNull<c_char>>,
    pub(super) cgroup_root: Option<NonNull<c_char>>,
    pub(super) return_freed_memory: u64,
    pub(super) ledger: Option<NonNull<SharedLedger>>,
}

// SAFETY: `repr(C)`, a `usize` first, numbers, and three pointers that may be null; two fill whole words together, and so
// does the last, by itself or with what pads the end.
unsafe impl Versioned for Settings {
    const NAME: &'static str = "hw_settings";
    const FIRST_SIZE: usize = size_of::<usize>() + 72 + 2 * size_of::<usize>();
}

impl Settings {
    /// The builder with these settings.
    ///
    /// # Safety
    /// Each root is NULL or ends with a NUL, and the ledger is NULL or not freed yet.
    pub(super) unsafe fn builder(self, limits: ResourceLimits) -> Result<ResourceMonitorBuilder, Failure> {
        let mut builder = ResourceMonitor::builder(limits).settings(self.fixed()?);
        if let Some(root) = self.proc_root {
            // SAFETY: as the caller says.
            builder = builder.proc_root(OsStr::from_bytes(unsafe { CStr::from_ptr(root.as_ptr()) }.to_bytes()));
        }
        if let Some(root) = self.cgroup_root {
            // SAFETY: as the caller says.
            builder = builder.cgroup_root(OsStr::from_bytes(unsafe { CStr::from_ptr(root.as_ptr()) }.to_bytes()));
        }
        if let Some(ledger) = self.ledger {
            // SAFETY: as the caller says.
            builder = builder.ledger(unsafe { ledger.as_ref() }.0.clone());
        }
        Ok(builder)
    }

    fn fixed(&self) -> Result<vocabulary::Settings, Failure> {
        let default = vocabulary::Settings::default();
        // Without a `..`: a setting that is new there is asked for here.
        Ok(vocabulary::Settings {
            max_age: given(self.max_age_ms).map(Duration::from_millis),
            refresh_after: given(self.refresh_after_ms).map_or(default.refresh_after, Duration::from_millis),
            inline_check: given(self.inline_check_us).map_or(default.inline_check, Duration::from_micros),
            settle: given(self.settle_ms).map(Duration::from_millis),
            cpu_budget: if self.cpu_budget == 0.0 { default.cpu_budget } else { self.cpu_budget },
            memory_scope: match self.memory_scope {
                0 => MemoryScope::Own,
                1 => MemoryScope::Tree,
                other => return Err(Failure::Invalid(format!("memory_scope {other} is not known"))),
            },
            ignored: self.ignored()?,
            overtaking: Overtaking {
                times: given(self.overtaking_times)
                    .map_or(default.overtaking.times, |times| u32::try_from(times).unwrap_or(u32::MAX)),
                time: given(self.overtaking_ms).map_or(default.overtaking.time, Duration::from_millis),
            },
            held_long: default.held_long,
            return_freed_memory: self.return_freed_memory != 0,
        })
    }

    fn ignored(&self) -> Result<PerResource<bool>, Failure> {
        let unknown = self.ignored.checked_shr(Resource::READ.len() as u32).unwrap_or(0);
        if unknown != 0 {
            return Err(Failure::Invalid(format!("ignored {:#x} names a resource that is not known", self.ignored)));
        }
        Ok(PerResource::from_fn(|resource| self.ignored & (1 << number_of(resource)) != 0))
    }
}

/// The number of a setting: 0 is the default, `HW_NONE` is zero.
pub(super) fn given(number: u64) -> Option<u64> {
    match number {
        0 => None,
        NONE => Some(0),
        number => Some(number),
    }
}
