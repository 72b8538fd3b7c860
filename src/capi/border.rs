//! The border between C and Rust: panics stay on this side, errors become texts, structs have a size.

use std::cell::{Cell, RefCell};
use std::ffi::{c_char, c_int, CString};
use std::fmt;
use std::mem::{align_of, size_of, MaybeUninit};

use super::reason::note_refusal;
use crate::host::contained;
use crate::sys::{cancel, errno};
use crate::vocabulary::{Error, ErrorKind, Verdict};

/// The failure of a function, told by `hw_last_error`.
#[derive(Debug)]
pub(super) enum Failure {
    Failed(String),
    Invalid(String),
    Refused(Verdict),
    Ended,
}

impl Failure {
    /// `HW_FAILED` and so on.
    pub(super) fn code(&self) -> c_int {
        match self {
            Failure::Failed(_) => 1,
            Failure::Invalid(_) => 2,
            Failure::Refused(verdict) if verdict.could_never_fit() => 4,
            Failure::Refused(_) => 3,
            Failure::Ended => 5,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Failed(text) | Failure::Invalid(text) => f.write_str(text),
            Failure::Refused(verdict) => verdict.fmt(f),
            Failure::Ended => f.write_str("no more snapshots: the monitor was freed, or this process was forked"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error.kind() {
            ErrorKind::InvalidLimit | ErrorKind::InvalidSetting => Failure::Invalid(error.to_string()),
            _ => Failure::Failed(error.to_string()),
        }
    }
}

impl From<Verdict> for Failure {
    fn from(verdict: Verdict) -> Failure {
        Failure::Refused(verdict)
    }
}

/// A fault of an argument.
impl From<&str> for Failure {
    fn from(text: &str) -> Failure {
        Failure::Invalid(text.to_owned())
    }
}

/// Bytes for the text of the last error, and its NUL.
const TEXT: usize = 1024;

thread_local! {
    static LAST_CODE: Cell<c_int> = const { Cell::new(0) };
    /// In one place for as long as the thread lives, so that a pointer to it is good for as long.
    static LAST_TEXT: RefCell<[c_char; TEXT]> = const { RefCell::new([0; TEXT]) };
}

#[no_mangle]
pub(super) extern "C" fn hw_last_error() -> *const c_char {
    // Not through a reference, which would end when the text is next written.
    LAST_TEXT.try_with(|text| text.as_ptr().cast::<c_char>().cast_const()).unwrap_or(b"\0".as_ptr().cast())
}

#[no_mangle]
pub(super) extern "C" fn hw_last_error_code() -> c_int {
    LAST_CODE.try_with(Cell::get).unwrap_or(0)
}

fn set_last_error(failure: &Failure) {
    if let Failure::Refused(verdict) = failure {
        note_refusal(verdict);
    }
    let text = failure.to_string().replace('\0', "");
    let _ = LAST_CODE.try_with(|last| last.set(failure.code()));
    let _ = LAST_TEXT.try_with(|last| {
        let mut place = last.borrow_mut();
        // SAFETY: it has room for as many bytes.
        unsafe { write_text(&text, place.as_mut_ptr(), TEXT) };
    });
}

/// The text as C takes it, without a NUL that would end it early.
pub(super) fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

/// Runs the body of a function: whatever panics there is an error, the calling thread is not cancelled in it, and its
/// `errno` stays.
pub(super) fn guarded<T>(on_panic: T, body: impl FnOnce() -> T) -> T {
    errno::kept(|| cancel::held_back(|| guarded_atomics(on_panic, body)))
}

/// As [`guarded`], for a body that makes no system call, or sees to that itself: the guards cost as much as the gate.
#[inline(always)]
pub(super) fn guarded_atomics<T>(on_panic: T, body: impl FnOnce() -> T) -> T {
    contained(body).unwrap_or_else(|message| {
        set_last_error(&Failure::Failed(format!("a panic in the library: {message}")));
        on_panic
    })
}

/// The body of a function that returns an `int`: -1 and a last error when it fails.
pub(super) fn status(body: impl FnOnce() -> Result<c_int, Failure>) -> c_int {
    guarded(-1, || {
        body().unwrap_or_else(|failure| {
            set_last_error(&failure);
            -1
        })
    })
}

/// The body of a function that hands something over: NULL and a last error when it fails.
pub(super) fn handed_over<T>(body: impl FnOnce() -> Result<T, Failure>) -> *mut T {
    guarded(std::ptr::null_mut(), || match body() {
        Ok(made) => Box::into_raw(Box::new(made)),
        Err(failure) => {
            set_last_error(&failure);
            std::ptr::null_mut()
        }
    })
}

/// Takes a handle back, and passes what is behind it to `end`.
///
/// # Safety
/// NULL, or a pointer of [`handed_over`] that is not used again.
pub(super) unsafe fn taken_back<T>(handle: *mut T, end: impl FnOnce(T)) {
    guarded((), || {
        if !handle.is_null() {
            // SAFETY: it is from `Box::into_raw`, and is not used again.
            let made = unsafe { Box::from_raw(handle) };
            end(*made);
        }
    });
}

/// # Safety
/// NULL, or a pointer that is good for as long as the reference lives.
pub(super) unsafe fn given<'a, T>(handle: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: as the caller says.
    unsafe { handle.as_ref() }.ok_or_else(|| Failure::Invalid(format!("there is no {what}: it is NULL")))
}

/// A struct of plain data that begins with its size and grows at its end.
///
/// # Safety
/// `repr(C)`, a `usize` first, valid when all of it is zero, and no padding at its end: a later version's field must
/// not lie in bytes that an older caller never wrote.
pub(super) unsafe trait Versioned: Copy {
    /// The name in the header.
    const NAME: &'static str;
    /// The size of the first version. It becomes a plain number when a field is added.
    const FIRST_SIZE: usize;
}

/// A size beyond that of any version: a struct that says so had its size never set.
const LARGEST: usize = 4096;

/// The size that a struct says of itself, for as much of it as both sides know.
///
/// # Safety
/// A struct that begins with a `usize`.
unsafe fn size<T: Versioned>(of: *const T) -> Result<usize, Failure> {
    // SAFETY: as the caller says.
    let size = unsafe { of.cast::<usize>().read_unaligned() };
    // One that is no multiple of that would end within a field, and half a pointer would be taken for one.
    if (T::FIRST_SIZE..=LARGEST).contains(&size) && size % align_of::<T>() == 0 {
        return Ok(size);
    }
    Err(Failure::Invalid(format!("the size of {} is {size}: it is to be sizeof({})", T::NAME, T::NAME)))
}

/// The struct that the caller has filled; `None` for NULL. Fields that the caller does not know are zero. Fields that
/// only the caller knows have to be zero as well.
///
/// # Safety
/// NULL, or a struct that is as long as its first field says.
pub(super) unsafe fn read<T: Versioned>(from: *const T) -> Result<Option<T>, Failure> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: it is not NULL.
    let size = unsafe { size(from) }?;
    // SAFETY: `size` bytes are there.
    let theirs = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), size) };
    let (known, unknown) = theirs.split_at(size.min(size_of::<T>()));
    if unknown.iter().any(|byte| *byte != 0) {
        let text = format!("a field of {} is set that this version of the library does not know", T::NAME);
        return Err(Failure::Invalid(text));
    }
    let mut whole = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` fits into `whole`, which is elsewhere.
    unsafe { std::ptr::copy_nonoverlapping(known.as_ptr(), whole.as_mut_ptr().cast::<u8>(), known.len()) };
    // SAFETY: zeroes are valid, and so is what the caller has filled in.
    Ok(Some(unsafe { whole.assume_init() }))
}

/// A struct of the caller's that is to be filled.
pub(super) struct Destination<T> {
    to: *mut T,
    /// How much of it both sides know.
    known: usize,
}

/// The place of a struct that is to be filled. It is judged before anything is done for it; NULL is filled with
/// nothing.
///
/// # Safety
/// NULL, or a struct that is as long as its first field says, for as long as the destination lives.
pub(super) unsafe fn destination<T: Versioned>(to: *mut T) -> Result<Destination<T>, Failure> {
    let known = if to.is_null() {
        0
    } else {
        // SAFETY: it is not NULL.
        unsafe { size(to) }?.min(size_of::<T>())
    };
    Ok(Destination { to, known })
}

impl<T: Versioned> Destination<T> {
    /// Fills in the fields that both sides know, but for the size.
    pub(super) fn fill(self, from: &T) {
        let head = size_of::<usize>();
        let Some(length) = self.known.checked_sub(head) else { return };
        // SAFETY: the size comes first in both.
        let (from, to) = unsafe { ((from as *const T).cast::<u8>().add(head), self.to.cast::<u8>().add(head)) };
        // SAFETY: `known` bytes are there in both, which are two.
        unsafe { std::ptr::copy_nonoverlapping(from, to, length) };
    }
}

/// An array of the caller's that is to be filled. Its rows are as long as the first one says.
pub(super) struct Rows<T> {
    first: *mut T,
    length: usize,
    /// The distance from one row to the next.
    stride: usize,
}

/// The place of an array that is to be filled, judged before anything is done for it. NULL is filled with nothing, and
/// so is one without room.
///
/// # Safety
/// NULL, or a place for `length` structs as long as the first field of the first one says, for as long as the rows live.
pub(super) unsafe fn rows<T: Versioned>(first: *mut T, length: usize) -> Result<Rows<T>, Failure> {
    if first.is_null() || length == 0 {
        return Ok(Rows { first, length: 0, stride: 0 });
    }
    // SAFETY: it is not NULL, and the first row is there.
    let stride = unsafe { size(first) }?;
    Ok(Rows { first, length, stride })
}

impl<T: Versioned> Rows<T> {
    /// Fills in as many rows as there are, each with the size that the first one has.
    pub(super) fn fill(self, values: impl Iterator<Item = T>) {
        for (index, value) in values.take(self.length).enumerate() {
            // SAFETY: `length` rows are there, and the index is below that.
            let row = unsafe { self.first.cast::<u8>().add(index * self.stride) };
            // SAFETY: each row begins with its size.
            unsafe { row.cast::<usize>().write_unaligned(self.stride) };
            Destination { to: row.cast::<T>(), known: self.stride.min(size_of::<T>()) }.fill(&value);
        }
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
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast::<c_char>(), buffer, length) };
    // SAFETY: as above.
    unsafe { buffer.add(length).write(0) };
}
