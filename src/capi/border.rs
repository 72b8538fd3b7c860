//! What every function of the border needs: panics stay on this side, errors become texts, structs have a size.

use std::cell::RefCell;
use std::ffi::{c_char, c_int, CString};
use std::mem::{size_of, MaybeUninit};

use crate::host::{contained, BoxError};

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::new(CString::default());
}

#[no_mangle]
pub(super) extern "C" fn hw_last_error() -> *const c_char {
    // Nothing is left of it when the thread ends.
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(b"\0".as_ptr().cast())
}

fn set_last_error(text: &str) {
    let text = c_text(text);
    let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = text);
}

/// The text without what would end it early.
pub(super) fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

/// Runs the body of a function; whatever panics there is an error.
#[inline(always)]
pub(super) fn guarded<T>(on_panic: T, body: impl FnOnce() -> T) -> T {
    contained(body).unwrap_or_else(|message| {
        set_last_error(&format!("a panic in the library: {message}"));
        on_panic
    })
}

/// The body of a function that returns an `int`: -1 and a last error when it fails.
pub(super) fn status(body: impl FnOnce() -> Result<c_int, BoxError>) -> c_int {
    guarded(-1, || {
        body().unwrap_or_else(|error| {
            set_last_error(&error.to_string());
            -1
        })
    })
}

/// The body of a function that hands something over: NULL and a last error when it fails.
pub(super) fn handed_over<T>(body: impl FnOnce() -> Result<T, BoxError>) -> *mut T {
    guarded(std::ptr::null_mut(), || match body() {
        Ok(made) => Box::into_raw(Box::new(made)),
        Err(error) => {
            set_last_error(&error.to_string());
            std::ptr::null_mut()
        }
    })
}

/// # Safety
/// NULL, or a pointer of [`handed_over`] that is not used again.
pub(super) unsafe fn taken_back<T>(handle: *mut T) {
    guarded((), || {
        if !handle.is_null() {
            // SAFETY: it is from `Box::into_raw`, and is not used again.
            drop(unsafe { Box::from_raw(handle) });
        }
    });
}

/// # Safety
/// NULL, or a pointer that is good for as long as the reference lives.
pub(super) unsafe fn given<'a, T>(handle: *const T, what: &str) -> Result<&'a T, BoxError> {
    // SAFETY: as the caller says.
    unsafe { handle.as_ref() }.ok_or_else(|| format!("there is no {what}: it is NULL").into())
}

/// A struct of plain data that begins with its size and grows at its end.
///
/// # Safety
/// `repr(C)`, a `usize` first, valid when all of it is zero, and nothing but fields at its end: what a later version
/// adds there must not be in bytes that an older caller never wrote.
pub(super) unsafe trait Versioned: Copy {
    /// The name in the header.
    const NAME: &'static str;
    /// The size that the first version had: to be written down as a number by whoever adds a field.
    const FIRST_SIZE: usize;
}

/// More than any version will have, so that a size that nobody set is not believed.
const LARGEST: usize = 4096;

/// What of a struct both sides know.
///
/// # Safety
/// A struct that begins with a `usize`.
unsafe fn size<T: Versioned>(of: *const T) -> Result<usize, BoxError> {
    // SAFETY: as the caller says.
    let size = unsafe { of.cast::<usize>().read_unaligned() };
    if (T::FIRST_SIZE..=LARGEST).contains(&size) {
        return Ok(size);
    }
    Err(format!("the size of {} is {size}: it is to be sizeof({})", T::NAME, T::NAME).into())
}

/// The struct that the caller has filled, as far as it knew it; `None` for NULL. What it did not know is zero. What it
/// knows and we do not has to be zero as well.
///
/// # Safety
/// NULL, or a struct that is as long as its first field says.
pub(super) unsafe fn read<T: Versioned>(from: *const T) -> Result<Option<T>, BoxError> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: it is not NULL.
    let size = unsafe { size(from) }?;
    // SAFETY: `size` bytes are there.
    let theirs = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), size) };
    let (known, unknown) = theirs.split_at(size.min(size_of::<T>()));
    if unknown.iter().any(|byte| *byte != 0) {
        return Err(format!("a field of {} is set that this version of the library does not know", T::NAME).into());
    }
    let mut whole = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` fits into `whole`, which is elsewhere.
    unsafe { std::ptr::copy_nonoverlapping(known.as_ptr(), whole.as_mut_ptr().cast::<u8>(), known.len()) };
    // SAFETY: zeroes are valid, and so is what the caller has filled in.
    Ok(Some(unsafe { whole.assume_init() }))
}

/// Fills the caller's struct as far as both know it, but for its size. NULL is filled with nothing.
///
/// # Safety
/// NULL, or a struct that is as long as its first field says.
pub(super) unsafe fn fill<T: Versioned>(to: *mut T, from: &T) -> Result<(), BoxError> {
    if to.is_null() {
        return Ok(());
    }
    // SAFETY: it is not NULL.
    let known = unsafe { size(to) }?.min(size_of::<T>());
    let head = size_of::<usize>();
    // SAFETY: the size comes first in both.
    let (from, to) = unsafe { ((from as *const T).cast::<u8>().add(head), to.cast::<u8>().add(head)) };
    // SAFETY: `known` bytes are there in both, which are two.
    unsafe { std::ptr::copy_nonoverlapping(from, to, known - head) };
    Ok(())
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
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast::<c_char>(), buffer, length) };
    // SAFETY: as above.
    unsafe { buffer.add(length).write(0) };
}
