//! Who holds the room: `hw_holders`.

use std::ffi::{c_char, c_int};
use std::mem::size_of;

use super::border::{self, Versioned};
use super::labels::LONGEST;
use super::work::class_number;
use super::Monitor;
use crate::vocabulary::{self, GaugeName, Resource, MOST_GAUGES};

/// `HW_LABEL_SIZE`.
pub(super) const LABEL_SIZE: usize = LONGEST + 1;

/// `hw_holder`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Holder {
    pub(super) size: usize,
    pub(super) memory_bytes: u64,
    pub(super) processes: u64,
    pub(super) open_files: u64,
    pub(super) work_class: i64,
    pub(super) held_for_ns: u64,
    pub(super) pid: i64,
    pub(super) label: [c_char; LABEL_SIZE],
    pub(super) disk_bytes: u64,
    pub(super) gauges: [u64; MOST_GAUGES],
}

// SAFETY: `repr(C)`, a `usize` first, characters that fill eight words, and integers.
unsafe impl Versioned for Holder {
    const NAME: &'static str = "hw_holder";
    const FIRST_SIZE: usize = size_of::<usize>() + 48 + LABEL_SIZE;
}

impl From<&vocabulary::Holder> for Holder {
    fn from(holder: &vocabulary::Holder) -> Holder {
        // Without a `..`: a field that is new there is asked for here.
        let vocabulary::Holder { label: text, work, held_for, pid } = *holder;
        let mut label = [0; LABEL_SIZE];
        // SAFETY: it has room for as many bytes.
        unsafe { border::write_text(text.unwrap_or_default(), label.as_mut_ptr(), LABEL_SIZE) };
        Holder {
            size: size_of::<Holder>(),
            memory_bytes: work.of(Resource::Memory),
            processes: work.of(Resource::Processes),
            open_files: work.of(Resource::OpenFiles),
            work_class: class_number(work.class_of()),
            held_for_ns: u64::try_from(held_for.as_nanos()).unwrap_or(u64::MAX),
            pid: pid.map_or(0, i64::from),
            label,
            disk_bytes: work.of(Resource::DiskSpace),
            gauges: std::array::from_fn(|place| work.of(Resource::Gauge(GaugeName::of_place(place as u8)))),
        }
    }
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_holders(monitor: *const Monitor, holders: *mut Holder, room: usize) -> c_int {
    border::status(|| {
        // SAFETY: the caller passes a place for `room` structs as long as the first one says, or NULL, or no room.
        let rows = unsafe { border::rows(holders, room) }?;
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        let all = unsafe { monitor.as_ref() }.map_or_else(Vec::new, |monitor| monitor.0.holders());
        rows.fill(all.iter().map(Holder::from));
        Ok(c_int::try_from(all.len()).unwrap_or(c_int::MAX))
    })
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_waiters(monitor: *const Monitor) -> u64 {
    border::guarded_atomics(0, || {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        unsafe { monitor.as_ref() }.map_or(0, |monitor| monitor.0.waiters() as u64)
    })
}
