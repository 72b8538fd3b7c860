//! `hw_work`.

use std::ffi::{c_char, CStr};
use std::mem::size_of;
use std::ptr::NonNull;

use super::border::{self, Failure, Versioned};
use super::gauge::Gauge;
use super::labels::LABELS;
use crate::vocabulary::{Class, MOST_GAUGES};

/// `hw_work`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Work {
    pub(super) size: usize,
    pub(super) memory_bytes: u64,
    pub(super) processes: u64,
    pub(super) open_files: u64,
    pub(super) label: Option<NonNull<c_char>>,
    pub(super) work_class: i64,
    pub(super) disk_bytes: u64,
    pub(super) gauges: [GaugeAmount; MOST_GAUGES],
}

/// `hw_gauge_amount`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct GaugeAmount {
    pub(super) gauge: Option<NonNull<Gauge>>,
    pub(super) amount: u64,
}

// SAFETY: `repr(C)`, a `usize` first, integers and pointers that may be null, an integer last.
unsafe impl Versioned for Work {
    const NAME: &'static str = "hw_work";
    const FIRST_SIZE: usize = size_of::<usize>() + 24;
}

/// `HW_CLASS_NORMAL` and so on.
pub(super) fn class_number(class: Class) -> i64 {
    match class {
        Class::Background => -1,
        Class::Normal => 0,
        Class::Critical => 1,
    }
}

/// The work that the caller declares; NULL is work that adds nothing.
///
/// # Safety
/// NULL, or a struct that is as long as its first field says, with a label that is NULL or ends with a NUL, and gauges
/// that are NULL or not freed yet.
pub(super) unsafe fn declared(work: *const Work) -> Result<crate::vocabulary::Work, Failure> {
    // SAFETY: as the caller says.
    let work = unsafe { border::read(work) }?.unwrap_or_default();
    let classes = [Class::Background, Class::Normal, Class::Critical];
    let class = classes.into_iter().find(|class| class_number(*class) == work.work_class);
    let class = class.ok_or("the work_class of hw_work is none of HW_CLASS_BACKGROUND to HW_CLASS_CRITICAL")?;
    let declared = crate::vocabulary::Work::new().memory_bytes(work.memory_bytes).processes(work.processes);
    let declared = declared.open_files(work.open_files).disk_bytes(work.disk_bytes).class(class);
    let declared = work.gauges.iter().fold(declared, |declared, GaugeAmount { gauge, .. }| match gauge {
        Some(handle) => {
            let named_so = work.gauges.iter().filter(|named| named.gauge == *gauge);
            let amount = named_so.fold(0_u64, |sum, named| sum.saturating_add(named.amount));
            // SAFETY: as the caller says.
            declared.gauge(&unsafe { handle.as_ref() }.0, amount)
        }
        None => declared,
    });
    let Some(label) = work.label else { return Ok(declared) };
    // SAFETY: as the caller says.
    let label = unsafe { CStr::from_ptr(label.as_ptr()) };
    Ok(match LABELS.label(label.to_bytes()) {
        Some(label) => declared.label(label),
        None => declared,
    })
}
