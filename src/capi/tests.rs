//! The border from this side: the layouts that the header promises, and what comes of NULL, of short structs, of panics.

use std::ffi::{CStr, CString};
use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::process::Command;

use super::border::guarded;
use super::border::hw_last_error;
use super::limits::hw_limits_detect;
use super::*;
use crate::resource::Resource;

fn last_error() -> String {
    // SAFETY: the text is good until the next failure on this thread.
    unsafe { CStr::from_ptr(hw_last_error()) }.to_str().unwrap().to_owned()
}

/// The size of a struct, and the offset of its last field: with no other field moved, no two in between have changed places
/// without a type saying so.
macro_rules! layout {
    ($ours:ty, $theirs:literal, $($field:ident),+) => {
        ($theirs, size_of::<$ours>(), vec![$((stringify!($field), offset_of!($ours, $field))),+])
    };
}

#[test]
fn every_struct_is_laid_out_as_the_header_says() {
    let layouts = [
        layout!(
            Limits,
            "hw_limits",
            size,
            max_memory_bytes,
            max_processes,
            max_open_files,
            max_pressure_percent,
            warn_percent,
            hard_percent,
            resume_percent
        ),
        layout!(Work, "hw_work", size, memory_bytes, processes, open_files),
        layout!(
            Snapshot,
            "hw_snapshot",
            size,
            memory_bytes,
            processes,
            zombies,
            running_jobs,
            active_jobs,
            threads,
            cgroup_memory_bytes,
            cgroup_memory_raw_bytes,
            cgroup_memory_limit_bytes,
            cgroup_pids,
            cgroup_pids_limit,
            open_files,
            open_files_limit,
            pressure_some_avg10,
            pressure_full_avg10,
            age_ns,
            check_duration_ns,
            lateness_ns
        ),
    ];
    let mut program = "#include \"highwater.h\"\n".to_owned();
    for (name, size, fields) in layouts {
        writeln!(program, "_Static_assert(sizeof({name}) == {size}, \"{name}\");").unwrap();
        for (field, offset) in fields {
            writeln!(program, "_Static_assert(offsetof({name}, {field}) == {offset}, \"{name}.{field}\");").unwrap();
        }
    }
    writeln!(program, "_Static_assert(sizeof(hw_callbacks) == {}, \"hw_callbacks\");", size_of::<Callbacks>()).unwrap();
    for (name, value) in [("HW_MEMORY", Resource::Memory), ("HW_MEMORY_PRESSURE", Resource::MemoryPressure)] {
        writeln!(program, "_Static_assert({name} == {}, \"{name}\");", value as i32).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("layout.c");
    std::fs::write(&source, program).unwrap();
    let include = concat!("-I", env!("CARGO_MANIFEST_DIR"), "/src/capi");
    let compiled = Command::new("cc").args(["-std=c11", "-fsyntax-only", include]).arg(&source).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
}

#[test]
fn null_is_a_monitor_that_accepts_nothing() {
    let none = std::ptr::null_mut();
    // SAFETY: NULL is allowed everywhere.
    unsafe {
        assert!(!hw_is_accepting_work(none));
        let mut accepting = true;
        let mut text = [1; 20];
        assert_eq!(hw_verdict(none, text.as_mut_ptr(), text.len(), &mut accepting), 39);
        assert_eq!((CStr::from_ptr(text.as_ptr()), accepting), (c"not accepting work:", false));
        assert_eq!(hw_verdict(none, std::ptr::null_mut(), 0, std::ptr::null_mut()), 39);
        assert!(hw_try_admit(none, std::ptr::null()).is_null());
        for failed in [
            hw_monitor_start(none, 1),
            hw_update_limits(none, std::ptr::null()),
            hw_check_now(none, std::ptr::null_mut()),
            hw_latest(none, std::ptr::null_mut()),
            hw_snapshots_wait(std::ptr::null_mut(), 0, std::ptr::null_mut()),
            hw_set_callbacks(none, std::ptr::null()),
            hw_limits_detect(std::ptr::null_mut()),
        ] {
            assert_eq!(failed, -1);
        }
        assert!(hw_snapshots_new(none).is_null());
        assert_eq!(hw_snapshots_missed(std::ptr::null()), 0);
        hw_monitor_stop(none);
        hw_monitor_free(none);
        hw_permit_free(std::ptr::null_mut());
        hw_snapshots_free(std::ptr::null_mut());
    }
}

#[test]
fn a_bad_value_is_named_in_the_last_error_of_this_thread() {
    let limits = Limits { size: size_of::<Limits>(), warn_percent: 300, ..Limits::default() };
    // SAFETY: the struct is as long as it says.
    assert!(unsafe { hw_monitor_new(&limits) }.is_null());
    assert_eq!(last_error(), "warn threshold 300 % must not be above 100 %");
    std::thread::spawn(|| assert_eq!(last_error(), "")).join().unwrap();
}

#[test]
fn what_a_caller_does_not_know_of_a_struct_is_neither_read_nor_written() {
    let short =
        Limits { size: offset_of!(Limits, max_processes), max_memory_bytes: 1, max_processes: 7, ..Limits::default() };
    // SAFETY: the struct is longer than it says.
    let read = unsafe { read(&short) }.unwrap();
    assert_eq!((read.max_memory_bytes, read.max_processes), (1, 0));
    // SAFETY: a snapshot is plain data.
    let mut snapshot: Snapshot = unsafe { std::mem::zeroed() };
    snapshot.size = offset_of!(Snapshot, zombies);
    snapshot.zombies = 99;
    // SAFETY: both structs are as long as they say, and the handle is freed once.
    unsafe {
        let monitor = hw_monitor_new(std::ptr::null());
        assert_eq!(hw_latest(monitor, &mut snapshot), -1);
        assert_eq!(last_error(), "no check has been taken yet");
        assert_eq!(hw_check_now(monitor, &mut snapshot), 0);
        hw_monitor_free(monitor);
    }
    assert!(snapshot.memory_bytes > 0 && snapshot.memory_bytes != u64::MAX);
    assert_eq!((snapshot.zombies, snapshot.size), (99, offset_of!(Snapshot, zombies)));
}

#[test]
fn a_panic_does_not_cross_the_border() {
    assert_eq!(guarded(-1, || panic!("inside")), -1);
    assert_eq!(last_error(), "a panic in the library");
}

#[test]
fn a_text_is_cut_off_between_characters() {
    for (size, expected) in [(1, ""), (2, "a"), (3, "a"), (4, "aé"), (9, "aéz")] {
        let mut buffer = [1; 9];
        // SAFETY: the buffer has at least `size` bytes.
        unsafe { border::write_text("aéz", buffer.as_mut_ptr(), size) };
        // SAFETY: it ends in a NUL.
        let text = unsafe { CStr::from_ptr(buffer.as_ptr()) };
        assert_eq!(text, CString::new(expected).unwrap().as_c_str(), "{size}");
    }
}
