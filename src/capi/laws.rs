//! What holds of the structs and texts that come from C, whatever is in them.
//!
//! A struct is laid out in just as many bytes as it says, so that Miri, or the sanitizer of a night, sees the first that is
//! touched beyond them.

use std::ffi::{c_char, c_int, CStr, CString};
use std::mem::{align_of, size_of};
use std::os::unix::ffi::OsStrExt;
use std::ptr::{null, null_mut};

use super::border::{self, Failure, Versioned};
use super::holders::{hw_holders, Holder};
use super::jobs::{JobOptions, JobsSettings};
use super::labels::{self, LONGEST};
use super::limits::Limits;
use super::permit::{hw_admit, hw_permit_finish, hw_try_admit};
use super::settings::Settings;
use super::work::{self, class_number, Work};
use super::*;
use crate::laws::{number_first, Law};
use crate::vocabulary::{ErrorKind, Resource};

pub(crate) const LAWS: [Law; 9] = [
    ("hw_limits", limits),
    ("hw_settings", settings),
    ("hw_work", work),
    ("hw_jobs_settings", jobs_settings),
    ("hw_job_options", job_options),
    ("hw_holders", rows),
    ("hw_label", label),
    ("hw_text", text),
    ("hw_monitor", monitor),
];

/// The largest size that a struct may say of itself.
const LARGEST: usize = 4096;

/// A byte that nothing writes.
const UNTOUCHED: u8 = 0x55;

/// Lays out a struct, which the bytes begin with the size of, and has it read. What is beyond it is the string that the
/// fields at these places point to, where they are not zero.
fn laid_out<T: Versioned>(bytes: &[u8], strings: &[usize], look: impl FnOnce(*const T, &T, &CStr)) {
    let (head, bytes) = bytes.split_at(bytes.len().min(2));
    let size = head.iter().fold(0, |size, byte| size << 8 | usize::from(*byte));
    let length = if size <= LARGEST { size.max(size_of::<usize>()) } else { size_of::<usize>() };
    let mut memory = vec![0; length].into_boxed_slice();
    let fields = &mut memory[size_of::<usize>()..];
    let (filled, rest) = bytes.split_at(bytes.len().min(fields.len()));
    fields[..filled.len()].copy_from_slice(filled);
    memory[..size_of::<usize>()].copy_from_slice(&size.to_ne_bytes());
    let string = CString::new(rest.split(|byte| *byte == 0).next().unwrap_or_default()).unwrap_or_default();
    for place in strings {
        let Some(field) = memory.get_mut(*place..place + size_of::<usize>()) else { continue };
        if field.iter().any(|byte| *byte != 0) {
            // SAFETY: there is room for a pointer.
            unsafe { field.as_mut_ptr().cast::<*const c_char>().write_unaligned(string.as_ptr()) };
        }
    }
    let is_unknown = memory.get(size_of::<T>()..).is_some_and(|unknown| unknown.iter().any(|byte| *byte != 0));
    let start = memory.as_ptr().cast::<T>();
    // SAFETY: it is as long as it says, where it says something possible.
    let read = unsafe { border::read(start) };
    assert_eq!(read.is_ok(), is_possible::<T>(size) && !is_unknown);
    match read {
        Ok(theirs) => look(start, &theirs.unwrap_or_else(|| panic!("it is there")), &string),
        Err(failure) => refused(&failure),
    }
}

/// Whether a struct of some version may be so long.
fn is_possible<T: Versioned>(size: usize) -> bool {
    (T::FIRST_SIZE..=LARGEST).contains(&size) && size % align_of::<T>() == 0
}

/// What is refused is the caller's fault, and said in a text for C.
fn refused(failure: &Failure) {
    assert!(failure.code() == 2 && !failure.to_string().is_empty(), "{failure:?}");
}

macro_rules! place {
    ($of:expr, $field:ident) => {{
        let whole = $of;
        std::ptr::addr_of!(whole.$field) as usize - std::ptr::addr_of!(whole) as usize
    }};
}

fn limits(bytes: &[u8]) {
    laid_out::<Limits>(bytes, &[place!(Limits::default(), disk_path)], |_, theirs, path| {
        // SAFETY: the path is NULL, or the string.
        match unsafe { theirs.build() } {
            Ok(limits) => {
                assert_eq!(limits.max_memory_bytes().unwrap_or(0), theirs.max_memory_bytes);
                assert_eq!(limits.max_processes().unwrap_or(0), theirs.max_processes);
                let [warn, hard] = [limits.warn_percent(), limits.hard_percent()];
                assert!(0 < warn && warn < hard && hard <= 100 && limits.background_percent() <= warn);
                assert!(limits.resume_percent().map_or(true, |resume| resume < warn));
                let has_path = theirs.min_free_disk_bytes > 0;
                let path = has_path.then_some(path.to_bytes());
                assert_eq!(limits.disk_path().map(|path| path.as_os_str().as_bytes()), path);
            }
            Err(error) => assert!(error.kind() == ErrorKind::InvalidLimit && !error.to_string().is_empty()),
        }
    });
}

fn settings(bytes: &[u8]) {
    let (settings, limits) = (Settings::default(), Limits::default());
    let strings = [place!(settings, proc_root), place!(settings, cgroup_root)];
    laid_out::<Settings>(bytes, &strings, |_, theirs, _| {
        // SAFETY: there is no path.
        let Ok(limits) = (unsafe { limits.build() }) else { panic!("no limits are limits") };
        // No ledger: a pointer to one is not made of bytes.
        let theirs = Settings { ledger: None, ..*theirs };
        // SAFETY: the roots are NULL, or the string.
        match unsafe { theirs.builder(limits) } {
            Ok(builder) => {
                assert!(builder.build().map_or_else(|error| error.kind() == ErrorKind::InvalidSetting, |_| true))
            }
            Err(failure) => refused(&failure),
        }
    });
}

fn work(bytes: &[u8]) {
    let without_gauges = |bytes: &[u8]| {
        // No gauges: pointers to them are not made of bytes.
        let mut bytes = bytes.to_vec();
        let first = place!(Work::default(), gauges) - size_of::<usize>() + 2;
        (first..size_of::<Work>() - size_of::<usize>() + 2).for_each(|place| {
            bytes.get_mut(place).into_iter().for_each(|byte| *byte = 0);
        });
        bytes
    };
    laid_out::<Work>(&without_gauges(bytes), &[place!(Work::default(), label)], |start, theirs, label| {
        // SAFETY: it is as long as it says, and its label is NULL or the string.
        match unsafe { work::declared(start) } {
            Ok(work) => {
                let amounts = [Resource::Memory, Resource::Processes, Resource::OpenFiles, Resource::DiskSpace]
                    .map(|resource| work.of(resource));
                assert_eq!(amounts, [theirs.memory_bytes, theirs.processes, theirs.open_files, theirs.disk_bytes]);
                assert_eq!(class_number(work.class_of()), theirs.work_class);
                assert_eq!(work.label_of().is_some(), theirs.label.is_some() && !label.is_empty());
            }
            Err(failure) => refused(&failure),
        }
    });
}

fn jobs_settings(bytes: &[u8]) {
    let settings = JobsSettings::default();
    laid_out::<JobsSettings>(bytes, &[place!(settings, costs_file)], |_, theirs, _| {
        // SAFETY: there is no path.
        let Ok(limits) = (unsafe { Limits::default().build() }) else { panic!("no limits are limits") };
        // SAFETY: the path is NULL, or the string.
        drop(unsafe { theirs.set(ResourceMonitor::new(limits).jobs()) });
    });
}

fn job_options(bytes: &[u8]) {
    let options = JobOptions::default();
    let strings = [place!(options, kind), place!(options, folder)];
    laid_out::<JobOptions>(bytes, &strings, |_, theirs, string| {
        let arguments = [string.as_ptr().cast_mut(), string.as_ptr().cast_mut(), null_mut()];
        // None at all where the string is empty.
        let first = usize::from(string.is_empty()) * 2;
        let environment = if theirs.environment.is_null() { null() } else { arguments.as_ptr() };
        let options = JobOptions { environment, work: null(), ..*theirs };
        // SAFETY: the strings are NULL or the one that is here, and so is what is in the arrays, which end with a NULL.
        match unsafe { options.job(arguments[first..].as_ptr()) } {
            Ok(job) => drop(job),
            Err(failure) => refused(&failure),
        }
    });
}

/// Rows are filled as far as there is room, and nothing beside.
fn rows(bytes: &[u8]) {
    let [a, b, count, ..] = *bytes else { return };
    let (size, count) = (usize::from(a) << 8 | usize::from(b), usize::from(count % 6));
    let is_possible = is_possible::<Holder>(size);
    let length = if is_possible { size * count } else { size_of::<usize>() };
    let mut memory = vec![UNTOUCHED; length.max(size_of::<usize>())].into_boxed_slice();
    memory[..size_of::<usize>()].copy_from_slice(&size.to_ne_bytes());
    let before = memory.clone();
    let first = memory.as_mut_ptr().cast::<Holder>();
    let holders = [7, 8, 9].map(|held_for| crate::vocabulary::Holder {
        label: Some("import"),
        work: crate::vocabulary::Work::new(),
        held_for: Duration::from_nanos(held_for),
        pid: None,
    });
    // SAFETY: so many rows are there, each as long as the first one says.
    match unsafe { border::rows(first, count) } {
        Ok(rows) => rows.fill(holders.iter().map(Holder::from)),
        Err(failure) => {
            assert!(!is_possible && count > 0);
            refused(&failure);
        }
    }
    if !is_possible || count == 0 {
        assert_eq!(memory, before);
        return;
    }
    let known = size.min(size_of::<Holder>());
    for (index, row) in memory.chunks(size).enumerate() {
        let is_filled = index < holders.len();
        assert!(row[known..].iter().all(|byte| *byte == UNTOUCHED));
        assert_eq!(row[..size_of::<usize>()] == size.to_ne_bytes(), is_filled || index == 0);
        assert_eq!(row[size_of::<usize>()..known].iter().all(|byte| *byte == UNTOUCHED), !is_filled);
    }
}

/// A label has room where the header says so, and is the beginning of what it was.
fn label(bytes: &[u8]) {
    let label = labels::shortened(bytes);
    assert!(label.len() <= LONGEST && label.is_empty() == bytes.is_empty());
    if std::str::from_utf8(bytes).is_ok() {
        assert!(bytes.starts_with(label.as_bytes()));
        assert!(bytes.len() == label.len() || label.len() > LONGEST - 4);
    }
}

/// A text ends with a NUL within its room, between characters, and nothing is written behind.
fn text(bytes: &[u8]) {
    let Some((room, bytes)) = bytes.split_first() else { return };
    let (room, text) = (usize::from(*room), String::from_utf8_lossy(bytes));
    let mut buffer = vec![UNTOUCHED as c_char; room].into_boxed_slice();
    // SAFETY: there is so much room.
    unsafe { border::write_text(&text, buffer.as_mut_ptr(), room) };
    let written: Vec<u8> = buffer.iter().map(|byte| *byte as u8).collect();
    let Some(most) = room.checked_sub(1) else { return };
    let mut length = text.len().min(most);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    assert_eq!(written[..length], text.as_bytes()[..length]);
    assert!(written[length] == 0 && written[length + 1..].iter().all(|byte| *byte == UNTOUCHED));
}

/// No number that comes from C makes a monitor panic, and its answers agree.
fn monitor(bytes: &[u8]) {
    let mut rest = bytes;
    let mut number = || {
        let number;
        (number, rest) = number_first(rest);
        number
    };
    let limits = Limits {
        size: size_of::<Limits>(),
        max_memory_bytes: number(),
        max_processes: number(),
        max_open_files: number(),
        background_percent: number(),
        min_available_memory_bytes: number(),
        ..Limits::default()
    };
    let settings = Settings {
        size: size_of::<Settings>(),
        max_age_ms: number(),
        refresh_after_ms: number(),
        settle_ms: number(),
        inline_check_us: number(),
        overtaking_times: number(),
        overtaking_ms: number(),
        memory_scope: number(),
        ignored: number(),
        cpu_budget: f64::from_bits(number()),
        ..Settings::default()
    };
    let work = Work { size: size_of::<Work>(), memory_bytes: number(), processes: number(), ..Work::default() };
    let (interval_ms, timeout_ms) = (number(), number() % 3);
    let steps = rest.iter().take(12);
    let mut permits = Vec::new();
    // SAFETY: each struct is as long as it says, without pointers; each handle is given back once, the monitor's last.
    unsafe {
        let monitor = hw_monitor_new_with(&limits, &settings);
        assert!(!monitor.is_null() || border::hw_last_error_code() == 2, "{:?}", last_error());
        for step in steps {
            let status: c_int = match step % 8 {
                0 => hw_check_now(monitor, null_mut()),
                1 => hw_monitor_start(monitor, interval_ms),
                2 => hw_update_limits(monitor, &limits),
                3 => {
                    permits.push(hw_try_admit(monitor, &work));
                    0
                }
                4 => {
                    permits.push(hw_admit(monitor, &work, timeout_ms));
                    0
                }
                5 => {
                    hw_permit_finish(permits.pop().unwrap_or(null_mut()));
                    hw_holders(monitor, null_mut(), 0)
                }
                6 => {
                    hw_monitor_stop(monitor);
                    0
                }
                _ => {
                    let (mut text, mut is_accepting) = ([0; 2048], false);
                    let length = hw_verdict(monitor, text.as_mut_ptr(), text.len(), &mut is_accepting);
                    let text = CStr::from_ptr(text.as_ptr()).to_string_lossy();
                    assert!(text.len() == length && is_accepting != text.starts_with("not accepting"), "{text}");
                    assert!(hw_pressure(monitor) >= 0.0);
                    0
                }
            };
            let _ = hw_is_accepting_work(monitor);
            assert!(status >= 0 || !last_error().starts_with("a panic"), "{}", last_error());
        }
        permits.into_iter().for_each(|permit| hw_permit_finish(permit));
        hw_monitor_free(monitor);
    }
}

fn last_error() -> String {
    // SAFETY: a string, good for as long as the thread lives.
    unsafe { CStr::from_ptr(border::hw_last_error()) }.to_string_lossy().into_owned()
}
