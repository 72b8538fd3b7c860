//! `hw_ledger`.

use std::ffi::{c_char, CStr, OsStr};
use std::os::unix::ffi::OsStrExt;

use super::border;
use crate::ledger::Ledger;

/// `hw_ledger`.
#[derive(Debug)]
pub(super) struct SharedLedger(pub(super) Ledger);

#[no_mangle]
pub(super) extern "C" fn hw_ledger_create() -> *mut SharedLedger {
    border::handed_over(|| Ok(SharedLedger(Ledger::create()?)))
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_ledger_open(path: *const c_char) -> *mut SharedLedger {
    border::handed_over(|| {
        if path.is_null() {
            return Err("there is no path: it is NULL".into());
        }
        // SAFETY: the caller passes a string.
        let path = OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes());
        Ok(SharedLedger(Ledger::open(path)?))
    })
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_ledger_free(ledger: *mut SharedLedger) {
    // SAFETY: a handle is freed once, and was made by `hw_ledger_create` or `hw_ledger_open`.
    unsafe { border::taken_back(ledger, drop) };
}
