//! The border from this side: the layouts that the header promises, and what comes of NULL, of short structs, of
//! panics.

use std::ffi::{c_void, CStr, CString};
use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::process::Command;

use super::border::{guarded, hw_last_error, hw_last_error_code, Versioned};
use super::limits::hw_limits_detect;
use super::log::{hw_set_log, Callback};
use super::*;
use crate::vocabulary::{Resource, ResourceLimits};

fn last_error() -> String {
    // SAFETY: the text is good until the next failure on this thread.
    unsafe { CStr::from_ptr(hw_last_error()) }.to_str().unwrap().to_owned()
}

/// Compiles what follows the header, and runs nothing.
#[track_caller]
fn holds_in_c(statements: &str) {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("statements.c");
    std::fs::write(&source, format!("#include \"highwater.h\"\n{statements}")).unwrap();
    let include = concat!("-I", env!("CARGO_MANIFEST_DIR"), "/src/capi");
    let compiled = Command::new("cc").args(["-std=c11", "-fsyntax-only", include]).arg(&source).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
}

/// The name of a struct, its size, and where its fields are.
macro_rules! layout {
    ($ours:ident: $($field:ident)+) => {
        ($ours::NAME, size_of::<$ours>(), vec![$((stringify!($field), offset_of!($ours, $field))),+])
    };
}

#[test]
fn every_struct_is_laid_out_as_the_header_says_and_ends_with_a_field() {
    let layouts = [
        layout!(Limits: size max_memory_bytes max_processes max_open_files max_pressure_percent warn_percent hard_percent
            resume_percent),
        layout!(Work: size memory_bytes processes open_files),
        layout!(Snapshot: size memory_bytes processes zombies running_jobs active_jobs threads cgroup_memory_bytes
            cgroup_memory_raw_bytes cgroup_memory_limit_bytes cgroup_pids cgroup_pids_limit open_files open_files_limit
            pressure_some_avg10 pressure_full_avg10 age_ns check_duration_ns lateness_ns),
        layout!(Callbacks: size user running_count active_job_count oldest_running_job pause_job cancel_job
            pressure_cleared dropped),
    ];
    let mut statements = String::new();
    for (name, size, fields) in layouts {
        writeln!(statements, "_Static_assert(sizeof({name}) == {size}, \"{name}\");").unwrap();
        let (last, offset) = fields.last().unwrap();
        writeln!(statements, "_Static_assert({offset} + sizeof((({name} *)0)->{last}) == {size}, \"{name}\");")
            .unwrap();
        for (field, offset) in fields {
            writeln!(statements, "_Static_assert(offsetof({name}, {field}) == {offset}, \"{name}.{field}\");").unwrap();
        }
    }
    holds_in_c(&statements);
}

#[test]
fn every_constant_is_what_the_header_says() {
    // The name of each is that of its log events.
    let resources =
        Resource::ALL.map(|resource| (resource.facts().event_key.to_uppercase(), resource as u64)).into_iter();
    let levels = ::log::Level::iter().map(|level| (format!("LOG_{level}"), level as u64));
    let others = [("NONE", snapshot::NONE), ("JOB_ID_SIZE", manager::JOB_ID_SIZE as u64)];
    let others = others.into_iter().map(|(name, value)| (name.to_owned(), value));
    // Before the first check everything is refused.
    let monitor = ResourceMonitor::new(ResourceLimits::builder().max_processes(10).build().unwrap());
    let refused = |processes| {
        Failure::Refused(monitor.try_admit(crate::vocabulary::Work::new().processes(processes)).unwrap_err())
    };
    let failures = [
        ("FAILED", Failure::Failed(String::new())),
        ("INVALID", Failure::Invalid(String::new())),
        ("REFUSED", refused(9)),
        ("NEVER_FITS", refused(10)),
        ("ENDED", Failure::Ended),
    ];
    let failures = failures.into_iter().map(|(name, failure)| (name.to_owned(), failure.code() as u64));
    let assert = |(name, value)| format!("_Static_assert(HW_{name} == {value}u, \"{name}\");\n");
    holds_in_c(&resources.chain(levels).chain(others).chain(failures).map(assert).collect::<String>());
}

#[test]
fn every_limit_that_a_host_can_set_is_set_from_c() {
    let all = Limits {
        size: size_of::<Limits>(),
        max_memory_bytes: 1,
        max_processes: 1,
        max_open_files: 1,
        max_pressure_percent: 1,
        warn_percent: 1,
        hard_percent: 3,
        resume_percent: 0,
    };
    // To be named here until C has a field for it.
    let only_in_rust: [Resource; 0] = [];
    let limits = all.build().unwrap();
    for resource in Resource::ALL.into_iter().filter(|resource| !only_in_rust.contains(resource)) {
        assert_eq!(limits.limit(resource).is_some(), resource.facts().limit_key.is_some(), "{resource}");
    }
}

/// Prototypes in C, each beside the type of the function as Rust has it, which is checked here. C checks the prototype:
/// one that differs from the header's is an error.
macro_rules! prototypes {
    ($($function:ident: $type:ty = $prototype:literal;)+) => {{
        $(let _: $type = $function;)+
        [$((stringify!($function), $prototype)),+]
    }};
}

#[test]
fn every_function_has_the_type_that_the_header_says() {
    let prototypes = prototypes! {
        hw_last_error: extern "C" fn() -> *const c_char = "const char *hw_last_error(void);";
        hw_last_error_code: extern "C" fn() -> c_int = "int hw_last_error_code(void);";
        hw_set_log: unsafe extern "C" fn(Option<Callback>, *mut c_void, c_int) -> c_int
            = "int hw_set_log(void (*)(void *, int, const char *), void *, int);";
        hw_limits_detect: unsafe extern "C" fn(*mut Limits) -> c_int = "int hw_limits_detect(hw_limits *);";
        hw_monitor_new: unsafe extern "C" fn(*const Limits) -> *mut Monitor
            = "hw_monitor *hw_monitor_new(const hw_limits *);";
        hw_monitor_free: unsafe extern "C" fn(*mut Monitor) = "void hw_monitor_free(hw_monitor *);";
        hw_monitor_start: unsafe extern "C" fn(*mut Monitor, u64) -> c_int
            = "int hw_monitor_start(hw_monitor *, uint64_t);";
        hw_monitor_stop: unsafe extern "C" fn(*mut Monitor) = "void hw_monitor_stop(hw_monitor *);";
        hw_update_limits: unsafe extern "C" fn(*mut Monitor, *const Limits) -> c_int
            = "int hw_update_limits(hw_monitor *, const hw_limits *);";
        hw_is_accepting_work: unsafe extern "C" fn(*const Monitor) -> bool
            = "bool hw_is_accepting_work(const hw_monitor *);";
        hw_verdict: unsafe extern "C" fn(*const Monitor, *mut c_char, usize, *mut bool) -> usize
            = "size_t hw_verdict(const hw_monitor *, char *, size_t, bool *);";
        hw_try_admit: unsafe extern "C" fn(*mut Monitor, *const Work) -> *mut Permit
            = "hw_permit *hw_try_admit(hw_monitor *, const hw_work *);";
        hw_permit_free: unsafe extern "C" fn(*mut Permit) = "void hw_permit_free(hw_permit *);";
        hw_check_now: unsafe extern "C" fn(*mut Monitor, *mut Snapshot) -> c_int
            = "int hw_check_now(hw_monitor *, hw_snapshot *);";
        hw_latest: unsafe extern "C" fn(*const Monitor, *mut Snapshot) -> c_int
            = "int hw_latest(const hw_monitor *, hw_snapshot *);";
        hw_snapshots_new: unsafe extern "C" fn(*mut Monitor) -> *mut Subscription
            = "hw_snapshots *hw_snapshots_new(hw_monitor *);";
        hw_snapshots_wait: unsafe extern "C" fn(*mut Subscription, u64, *mut Snapshot) -> c_int
            = "int hw_snapshots_wait(hw_snapshots *, uint64_t, hw_snapshot *);";
        hw_snapshots_missed: unsafe extern "C" fn(*const Subscription) -> u64
            = "uint64_t hw_snapshots_missed(const hw_snapshots *);";
        hw_snapshots_free: unsafe extern "C" fn(*mut Subscription) = "void hw_snapshots_free(hw_snapshots *);";
        hw_set_callbacks: unsafe extern "C" fn(*mut Monitor, *const Callbacks) -> c_int
            = "int hw_set_callbacks(hw_monitor *, const hw_callbacks *);";
    };
    // `tests/capi` compares the names in the header with what is exported; this is all of them.
    let header = include_str!("highwater.h");
    let declared =
        header.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()) && line.contains("("));
    let declared = declared.filter(|line| line.contains("hw_") && !line.starts_with("typedef")).count();
    assert_eq!(prototypes.len(), declared);
    for (function, prototype) in prototypes {
        // Against an undeclared name the compiler would have nothing to compare.
        holds_in_c(&format!("{prototype}\nvoid *use(void) {{ return (void *){function}; }}\n"));
    }
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
        assert_eq!(last_error(), "there is no monitor: it is NULL");
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
    assert_eq!((hw_last_error_code(), &*last_error()), (2, "warn threshold 300 % must not be above 100 %"));
    std::thread::spawn(|| assert_eq!((hw_last_error_code(), &*last_error()), (0, ""))).join().unwrap();
}

/// A struct that has grown by one field since its first version.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
struct Grown {
    size: usize,
    first: u64,
    second: u64,
}

// SAFETY: `repr(C)`, a `usize` first, integers, and no padding.
unsafe impl Versioned for Grown {
    const NAME: &'static str = "hw_grown";
    const FIRST_SIZE: usize = 16;
}

#[test]
fn what_a_caller_does_not_know_of_a_struct_is_neither_read_nor_written() {
    for (size, second) in [(16, 0), (24, 7)] {
        let theirs = Grown { size, first: 1, second: 7 };
        // SAFETY: the struct is at least as long as it says.
        let read = unsafe { border::read(&theirs) }.unwrap();
        assert_eq!(read, Some(Grown { size, first: 1, second }));
    }
    for (size, second) in [(16, 9), (24, 4)] {
        let mut theirs = Grown { size, first: 9, second: 9 };
        // SAFETY: as above.
        unsafe { border::destination(&mut theirs) }.unwrap().fill(&Grown { size: 24, first: 3, second: 4 });
        assert_eq!(theirs, Grown { size, first: 3, second });
    }
}

#[test]
fn what_we_do_not_know_of_a_struct_has_to_be_zero_and_is_left_alone() {
    let mut later = [size_of::<[u64; 5]>() as u64, 1, 2, 0, 0];
    let theirs = later.as_mut_ptr().cast::<Grown>();
    // SAFETY: the struct is as long as it says.
    assert_eq!(unsafe { border::read(theirs) }.unwrap(), Some(Grown { size: 40, first: 1, second: 2 }));
    // SAFETY: as above.
    unsafe { border::destination(theirs) }.unwrap().fill(&Grown { size: 24, first: 3, second: 4 });
    assert_eq!(later, [40, 3, 4, 0, 0]);
    later[4] = 1;
    // SAFETY: as above.
    let error = unsafe { border::read(later.as_ptr().cast::<Grown>()) }.unwrap_err().to_string();
    assert_eq!(error, "a field of hw_grown is set that this version of the library does not know");
}

#[test]
fn a_size_that_nobody_has_set_is_not_believed() {
    for size in [0, 8, 15, 4097, usize::MAX] {
        let theirs = Grown { size, first: 0, second: 0 };
        // SAFETY: of a struct that says something impossible nothing but that is read.
        let error = unsafe { border::read(&theirs) }.unwrap_err().to_string();
        assert_eq!(error, format!("the size of hw_grown is {size}: it is to be sizeof(hw_grown)"));
    }
    let mut snapshot = [0_u8; size_of::<Snapshot>()];
    // SAFETY: as above; the handle is freed once.
    unsafe {
        let monitor = hw_monitor_new(std::ptr::null());
        assert_eq!(hw_latest(monitor, std::ptr::null_mut()), -1);
        assert_eq!(last_error(), "no check has been taken yet");
        assert_eq!(hw_check_now(monitor, snapshot.as_mut_ptr().cast()), -1);
        assert_eq!(last_error(), "the size of hw_snapshot is 0: it is to be sizeof(hw_snapshot)");
        assert_eq!(hw_latest(monitor, std::ptr::null_mut()), -1, "no check was taken for it");
        hw_monitor_free(monitor);
    }
}

#[test]
fn a_panic_does_not_cross_the_border() {
    assert_eq!(guarded(-1, || panic!("inside")), -1);
    assert_eq!(last_error(), "a panic in the library: inside");
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
