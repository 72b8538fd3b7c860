//! What every function of the border needs: panics stay on this side, errors become texts, structs have a size.

use std::cell::RefCell;
use std::ffi::{c_char, c_int, CString};
use std::mem::{size_of, MaybeUninit};
use std::panic::{catch_unwind, AssertUnwindSafe};

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::new(CString::default());
}

/// See `highwater.h`.
#[no_mangle]
pub(crate) extern "C" fn hw_last_error() -> *const c_char {
    // Nothing is left of it when the thread ends.
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

pub(super) fn set_last_error(text: &str) {
    let text: Vec<u8> = text.bytes().filter(|byte| *byte != 0).collect();
    let text = CString::new(text).unwrap_or_default();
    let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = text);
}

/// The return value of a function that has failed.
pub(super) fn fail(text: &str) -> c_int {
    set_last_error(text);
    -1
}

/// Runs the body of a function of the border; whatever panics there is an error.
#[inline(always)]
pub(super) fn guarded<T>(on_panic: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        std::mem::forget(payload);
        set_last_error("a panic in the library");
        on_panic
    })
}

/// # Safety
/// NULL, or a pointer that is good for as long as the reference lives.
pub(super) unsafe fn as_ref<'a, T>(handle: *const T) -> Option<&'a T> {
    // SAFETY: as the caller says.
    unsafe { handle.as_ref() }
}

/// A struct of plain data that begins with its size, for which zeroes are valid.
///
/// # Safety
/// `repr(C)`, a `usize` first, and valid when all of it is zero.
pub(super) unsafe trait Sized1: Copy {}

/// The struct that the caller has filled, as far as it knew it; `None` for NULL. What it did not know is zero.
///
/// # Safety
/// NULL, or a struct that is as long as its first field says.
pub(super) unsafe fn read<T: Sized1>(from: *const T) -> Option<T> {
    if from.is_null() {
        return None;
    }
    let mut whole = MaybeUninit::<T>::zeroed();
    // SAFETY: the first field is a `usize`, and at least that is there.
    let known = unsafe { from.cast::<usize>().read_unaligned() }.min(size_of::<T>());
    // SAFETY: `known` bytes are there, and fit into `whole`, which is elsewhere.
    unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), whole.as_mut_ptr().cast::<u8>(), known) };
    // SAFETY: zeroes are valid, and so is what the caller has filled in.
    Some(unsafe { whole.assume_init() })
}

/// Fills the caller's struct as far as the caller knows it, but for its size.
///
/// # Safety
/// NULL, or a struct that is as long as its first field says.
pub(super) unsafe fn fill<T: Sized1>(to: *mut T, from: &T) {
    if to.is_null() {
        return;
    }
    // SAFETY: the first field is a `usize`, and at least that is there.
    let known = unsafe { to.cast::<usize>().read_unaligned() }.min(size_of::<T>());
    let head = size_of::<usize>();
    if known > head {
        let from = (from as *const T).cast::<u8>();
        // SAFETY: `known` bytes are there in both, which are two; the size itself is left as it is.
        unsafe { std::ptr::copy_nonoverlapping(from.add(head), to.cast::<u8>().add(head), known - head) };
    }
}

/// As much of the text as there is room for, and a NUL.
///
/// # Safety
/// NULL, or a place for `size` bytes.
pub(super) unsafe fn write_text(text: &str, buffer: *mut c_char, size: usize) {
    let Some(room) = size.checked_sub(1) else { return };
    if buffer.is_null() {
        return;
    }
    // Not in the middle of a character.
    let mut length = text.len().min(room);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    // SAFETY: `length` bytes and a NUL are at most `size`, and the text is elsewhere.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast::<c_char>(), buffer, length);
        buffer.add(length).write(0);
    }
}
