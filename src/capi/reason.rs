//! A verdict as numbers: `hw_reason`.

use std::cell::Cell;
use std::ffi::c_int;
use std::mem::size_of;

use super::border::{self, Failure, Versioned};
use super::snapshot::NONE;
use super::{Monitor, MONITOR};
use crate::vocabulary::{Resource, Verdict, MOST_GAUGES};

/// `HW_MOST_RESOURCES`: the rows of a reason, more than there are resources, so that a struct of today has room for
/// those of later versions. A row itself cannot grow.
pub(super) const MOST_RESOURCES: usize = 32;

/// `HW_GAUGE`: the number of the first gauge. Those that are read have the numbers below, also in later versions.
pub(super) const FIRST_GAUGE: usize = MOST_RESOURCES - MOST_GAUGES;

const _: () = assert!(Resource::READ.len() <= FIRST_GAUGE);

/// The number of a resource in C.
pub(super) fn number_of(resource: Resource) -> usize {
    match resource {
        Resource::Gauge(gauge) => FIRST_GAUGE + gauge.place(),
        read => read.place(),
    }
}

/// `hw_usage`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Usage {
    pub(super) measured: u64,
    pub(super) reserved: u64,
    pub(super) asked: u64,
    pub(super) limit: u64,
    pub(super) floor: u64,
}

/// `hw_reason`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Reason {
    pub(super) size: usize,
    pub(super) accepting: u32,
    pub(super) could_never_fit: u32,
    pub(super) resource: i64,
    pub(super) waited_ns: u64,
    pub(super) ahead: u64,
    pub(super) usage: [Usage; MOST_RESOURCES],
}

// SAFETY: `repr(C)`, a `usize` first, and integers, the last ones of 64 bits.
unsafe impl Versioned for Reason {
    const NAME: &'static str = "hw_reason";
    const FIRST_SIZE: usize = size_of::<Reason>();
}

impl From<&Verdict> for Reason {
    fn from(verdict: &Verdict) -> Reason {
        let unread = Usage { measured: NONE, reserved: 0, asked: 0, limit: NONE, floor: NONE };
        let mut usage = [unread; MOST_RESOURCES];
        for resource in Resource::ALL {
            if let Some(found) = verdict.usages().get(resource) {
                usage[number_of(resource)] = Usage {
                    measured: found.measured,
                    reserved: found.reserved,
                    asked: found.asked,
                    limit: found.limit.unwrap_or(NONE),
                    floor: found.floor.as_ref().map_or(NONE, |floor| floor.amount),
                };
            }
        }
        let (waited, ahead) = verdict.waited().unwrap_or_default();
        Reason {
            size: size_of::<Reason>(),
            accepting: verdict.is_accepting().into(),
            could_never_fit: verdict.could_never_fit().into(),
            resource: verdict.resource().map_or(-1, |resource| number_of(resource) as i64),
            waited_ns: u64::try_from(waited.as_nanos()).unwrap_or(NONE),
            ahead: ahead as u64,
            usage,
        }
    }
}

thread_local! {
    /// Plain numbers, so that the end of a thread has nothing to free.
    static LAST_REFUSAL: Cell<Option<Reason>> = const { Cell::new(None) };
}

/// Keeps the reason of a refusal for `hw_last_refusal` on this thread.
pub(super) fn note_refusal(verdict: &Verdict) {
    let _ = LAST_REFUSAL.try_with(|last| last.set(Some(Reason::from(verdict))));
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_last_refusal(reason: *mut Reason) -> c_int {
    border::status(|| {
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        let reason = unsafe { border::destination(reason) }?;
        let last = LAST_REFUSAL.try_with(Cell::get).ok().flatten();
        reason.fill(&last.ok_or_else(|| Failure::Failed("nothing was refused on this thread".to_owned()))?);
        Ok(0)
    })
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_verdict_reason(monitor: *const Monitor, reason: *mut Reason) -> c_int {
    border::status(|| {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        let monitor = unsafe { border::given(monitor, MONITOR) }?;
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        unsafe { border::destination(reason) }?.fill(&Reason::from(&monitor.0.verdict()));
        Ok(0)
    })
}
