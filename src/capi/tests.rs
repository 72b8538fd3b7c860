//! The border from this side: the layouts that the header promises, and what comes of NULL, of short structs, of
//! panics.

use std::ffi::{c_void, CStr, CString};
use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::process::{Command, ExitStatus};
use std::ptr::NonNull;

use super::border::{guarded, hw_last_error, hw_last_error_code, Versioned};
use super::gauge::*;
use super::holders::{hw_holders, hw_waiters, Holder};
use super::jobs::*;
use super::ledger::*;
use super::limits::hw_limits_detect;
use super::log::{hw_set_log, Callback};
use super::permit::*;
use super::reason::{hw_last_refusal, hw_verdict_reason, Reason, Usage};
use super::work::Work;
use super::*;
use crate::jobs::Outcome as Outcomes;
use crate::vocabulary::{self, Class, Resource, ResourceLimits, Verdict};

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
            resume_percent background_percent disk_path min_free_disk_bytes min_available_memory_bytes
            max_cpu_pressure_percent max_io_pressure_percent warn_percent_of hard_percent_of),
        layout!(Settings: size max_age_ms refresh_after_ms settle_ms inline_check_us overtaking_times overtaking_ms
            memory_scope ignored cpu_budget proc_root cgroup_root return_freed_memory ledger),
        layout!(Reason: size accepting could_never_fit resource waited_ns ahead usage),
        layout!(Work: size memory_bytes processes open_files label work_class disk_bytes gauges),
        layout!(WorkUsage: size memory_bytes processes peak_memory_bytes peak_processes),
        layout!(Holder: size memory_bytes processes open_files work_class held_for_ns pid label disk_bytes gauges),
        layout!(Snapshot: size memory_bytes processes zombies running_jobs active_jobs threads cgroup_memory_bytes
            cgroup_memory_raw_bytes cgroup_memory_limit_bytes cgroup_pids cgroup_pids_limit open_files open_files_limit
            pressure_some_avg10 pressure_full_avg10 age_ns check_duration_ns lateness_ns cpu_pressure_percent
            io_pressure_percent machine_available_bytes machine_total_bytes
            disk_free_bytes disk_total_bytes full_resource full_soonest_ns full_at_mean_ns),
        layout!(Callbacks: size user running_count active_job_count oldest_running_job pause_job cancel_job
            pressure_cleared dropped reclaim),
        layout!(JobsSettings: size costs_file grace_ms width sole_parent),
        layout!(JobOptions: size kind folder environment work stdout_fd stderr_fd tries timeout_ms),
        layout!(Outcome: size kind exit_code signal error_number tries peak_memory_bytes peak_processes text),
    ];
    // The rows of a reason have no size of their own.
    macro_rules! row {
        ($($field:ident)+) => { [$((stringify!($field), offset_of!(Usage, $field))),+] };
    }
    let assert = |(field, offset)| format!("_Static_assert(offsetof(hw_usage, {field}) == {offset}, \"{field}\");\n");
    let mut statements: String = row!(measured reserved asked limit floor).map(assert).concat();
    writeln!(statements, "_Static_assert(sizeof(hw_usage) == {}, \"hw_usage\");", size_of::<Usage>()).unwrap();
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
    let resources = Resource::READ
        .map(|resource| (resource.facts().event_key.to_uppercase(), reason::number_of(resource) as u64))
        .into_iter();
    let levels = ::log::Level::iter().map(|level| (format!("LOG_{level}"), level as u64));
    let others = [
        ("NONE", snapshot::NONE),
        ("FOREVER", permit::FOREVER),
        ("JOB_ID_SIZE", manager::JOB_ID_SIZE as u64),
        ("LABEL_SIZE", holders::LABEL_SIZE as u64),
        ("MOST_RESOURCES", reason::MOST_RESOURCES as u64),
        ("GAUGE", reason::FIRST_GAUGE as u64),
        ("MOST_GAUGES", vocabulary::MOST_GAUGES as u64),
        ("OUTCOME_TEXT_SIZE", OUTCOME_TEXT_SIZE as u64),
        ("SCOPE_OWN", 0),
        ("SCOPE_TREE", 1),
    ];
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
    let error = || Arc::new(std::io::Error::from_raw_os_error(libc::ENOENT));
    let outcomes = [
        ("ENDED", jobs::outcome_number(&Outcomes::Ended(ExitStatus::default()))),
        ("NOT_STARTED", jobs::outcome_number(&Outcomes::NotStarted(error()))),
        ("TIMED_OUT", jobs::outcome_number(&Outcomes::TimedOut(Duration::ZERO))),
        ("CANCELLED", jobs::outcome_number(&Outcomes::Cancelled)),
        ("LOST", jobs::outcome_number(&Outcomes::Lost(error()))),
        ("WANTS_TERMINAL", jobs::outcome_number(&Outcomes::WantsTerminal)),
        ("OTHER", jobs::OTHER_OUTCOME),
    ];
    let outcomes = outcomes.into_iter().map(|(name, number)| (format!("OUTCOME_{name}"), number as u64));
    let assert = |(name, value)| format!("_Static_assert(HW_{name} == {value}u, \"{name}\");\n");
    let unsigned: String = resources.chain(levels).chain(others).chain(failures).chain(outcomes).map(assert).collect();
    let classes = [("BACKGROUND", Class::Background), ("NORMAL", Class::Normal), ("CRITICAL", Class::Critical)];
    let classes = classes.map(|(name, class)| {
        let number = work::class_number(class);
        format!("_Static_assert(HW_CLASS_{name} == {number}, \"{name}\");\n")
    });
    holds_in_c(&(unsigned + &classes.concat()));
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
        background_percent: 1,
        disk_path: NonNull::new(b"/data\0".as_ptr().cast_mut().cast()),
        min_free_disk_bytes: 1,
        min_available_memory_bytes: 1,
        max_cpu_pressure_percent: 1,
        max_io_pressure_percent: 1,
        warn_percent_of: [0; reason::MOST_RESOURCES],
        hard_percent_of: [0; reason::MOST_RESOURCES],
    };
    // SAFETY: the path ends with a NUL wherever there is one.
    let build = |limits: Limits| unsafe { limits.build() };
    let refused = |limits: Limits| build(limits).unwrap_err().to_string();
    assert_eq!(build(all).unwrap().background_percent(), 1);
    let too_much = refused(Limits { background_percent: 1 << 40, ..all });
    assert_eq!(too_much, "background threshold 1099511627776 % must not be above 100 %");
    let limits = build(all).unwrap();
    for resource in Resource::ALL {
        assert_eq!(limits.limit(resource).is_some(), resource.facts().limit_key.is_some(), "{resource}");
    }
    assert_eq!(limits.disk_path(), Some(std::path::Path::new("/data")));
    assert_eq!(refused(Limits { disk_path: None, ..all }), "min_free_disk_bytes is set, and disk_path is NULL");
    let no_floor = build(Limits { min_free_disk_bytes: 0, ..all }).unwrap();
    assert_eq!((no_floor.min_free_disk_bytes(), no_floor.disk_path()), (None, None));

    let apart = |number: usize, warn, hard| {
        let mut limits = all;
        (limits.warn_percent_of[number], limits.hard_percent_of[number]) = (warn, hard);
        limits
    };
    let processes = reason::number_of(Resource::Processes);
    // One of the two that is not set is that of all resources: 1 and 3 here.
    for (set, expected) in [((50, 60), (50, 60)), ((0, 60), (1, 60)), ((2, 0), (2, 3))] {
        let thresholds = build(apart(processes, set.0, set.1)).unwrap().thresholds_of(Resource::Processes);
        assert_eq!((thresholds.warn, thresholds.hard), expected);
    }
    let third_gauge = Resource::Gauge(vocabulary::GaugeName::of_place(2));
    let limits = build(apart(reason::FIRST_GAUGE + 2, 50, 60)).unwrap();
    assert_eq!((limits.thresholds_of(third_gauge).warn, limits.thresholds_of(Resource::Processes).warn), (50, 1));
    assert_eq!(refused(apart(processes, 50, 40)), "processes: hard threshold 40 % must be above warn threshold 50 %");
    assert_eq!(
        refused(apart(reason::number_of(Resource::DiskSpace), 50, 60)),
        "disk space has a floor and no thresholds of 50 % and 60 %"
    );
    assert_eq!(refused(apart(20, 50, 60)), "thresholds of resource 20, which is not known");
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
        hw_ledger_create: extern "C" fn() -> *mut SharedLedger = "hw_ledger *hw_ledger_create(void);";
        hw_ledger_open: unsafe extern "C" fn(*const c_char) -> *mut SharedLedger
            = "hw_ledger *hw_ledger_open(const char *);";
        hw_ledger_free: unsafe extern "C" fn(*mut SharedLedger) = "void hw_ledger_free(hw_ledger *);";
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
        hw_monitor_new_with: unsafe extern "C" fn(*const Limits, *const Settings) -> *mut Monitor
            = "hw_monitor *hw_monitor_new_with(const hw_limits *, const hw_settings *);";
        hw_pressure: unsafe extern "C" fn(*const Monitor) -> f64 = "double hw_pressure(const hw_monitor *);";
        hw_verdict_reason: unsafe extern "C" fn(*const Monitor, *mut Reason) -> c_int
            = "int hw_verdict_reason(const hw_monitor *, hw_reason *);";
        hw_last_refusal: unsafe extern "C" fn(*mut Reason) -> c_int = "int hw_last_refusal(hw_reason *);";
        hw_try_admit: unsafe extern "C" fn(*mut Monitor, *const Work) -> *mut Permit
            = "hw_permit *hw_try_admit(hw_monitor *, const hw_work *);";
        hw_admit: unsafe extern "C" fn(*mut Monitor, *const Work, u64) -> *mut Permit
            = "hw_permit *hw_admit(hw_monitor *, const hw_work *, uint64_t);";
        hw_wait_until_accepting: unsafe extern "C" fn(*mut Monitor, u64) -> c_int
            = "int hw_wait_until_accepting(hw_monitor *, uint64_t);";
        hw_permit_finish: unsafe extern "C" fn(*mut Permit) = "void hw_permit_finish(hw_permit *);";
        hw_permit_attach: unsafe extern "C" fn(*mut Permit, libc::pid_t) -> c_int
            = "int hw_permit_attach(hw_permit *, pid_t);";
        hw_permit_usage: unsafe extern "C" fn(*const Permit, *mut WorkUsage) -> c_int
            = "int hw_permit_usage(const hw_permit *, hw_work_usage *);";
        hw_holders: unsafe extern "C" fn(*const Monitor, *mut Holder, usize) -> c_int
            = "int hw_holders(const hw_monitor *, hw_holder *, size_t);";
        hw_gauge_new: unsafe extern "C" fn(*mut Monitor, *const c_char, u64) -> *mut Gauge
            = "hw_gauge *hw_gauge_new(hw_monitor *, const char *, uint64_t);";
        hw_gauge_free: unsafe extern "C" fn(*mut Gauge) = "void hw_gauge_free(hw_gauge *);";
        hw_gauge_add: unsafe extern "C" fn(*const Gauge, u64) = "void hw_gauge_add(const hw_gauge *, uint64_t);";
        hw_gauge_sub: unsafe extern "C" fn(*const Gauge, u64) = "void hw_gauge_sub(const hw_gauge *, uint64_t);";
        hw_gauge_set: unsafe extern "C" fn(*const Gauge, u64) = "void hw_gauge_set(const hw_gauge *, uint64_t);";
        hw_gauge_get: unsafe extern "C" fn(*const Gauge) -> u64 = "uint64_t hw_gauge_get(const hw_gauge *);";
        hw_gauge_resource: unsafe extern "C" fn(*const Gauge) -> c_int = "int hw_gauge_resource(const hw_gauge *);";
        hw_waiters: unsafe extern "C" fn(*const Monitor) -> u64 = "uint64_t hw_waiters(const hw_monitor *);";
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
        hw_jobs_new: unsafe extern "C" fn(*mut Monitor, *const JobsSettings) -> *mut Jobs
            = "hw_jobs *hw_jobs_new(hw_monitor *, const hw_jobs_settings *);";
        hw_jobs_free: unsafe extern "C" fn(*mut Jobs) = "void hw_jobs_free(hw_jobs *);";
        hw_jobs_submit: unsafe extern "C" fn(*mut Jobs, *const *mut c_char, *const JobOptions, *mut u64) -> c_int
            = "int hw_jobs_submit(hw_jobs *, char *const *, const hw_job_options *, uint64_t *);";
        hw_jobs_spawn: unsafe extern "C" fn(*mut Jobs, *const *mut c_char, *const JobOptions, *mut u64) -> c_int
            = "int hw_jobs_spawn(hw_jobs *, char *const *, const hw_job_options *, uint64_t *);";
        hw_jobs_wait: unsafe extern "C" fn(*mut Jobs, u64, u64, *mut Outcome) -> c_int
            = "int hw_jobs_wait(hw_jobs *, uint64_t, uint64_t, hw_outcome *);";
        hw_jobs_cancel: unsafe extern "C" fn(*mut Jobs, u64) -> c_int = "int hw_jobs_cancel(hw_jobs *, uint64_t);";
        hw_jobs_cancel_all: unsafe extern "C" fn(*mut Jobs) -> c_int = "int hw_jobs_cancel_all(hw_jobs *);";
        hw_jobs_running: unsafe extern "C" fn(*const Jobs) -> u64 = "uint64_t hw_jobs_running(const hw_jobs *);";
        hw_jobs_waiting: unsafe extern "C" fn(*const Jobs) -> u64 = "uint64_t hw_jobs_waiting(const hw_jobs *);";
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
        assert!(hw_admit(none, std::ptr::null(), permit::FOREVER).is_null());
        assert_eq!((hw_pressure(none), hw_waiters(none)), (f64::INFINITY, 0));
        assert_eq!(hw_holders(none, std::ptr::null_mut(), 7), 0);
        for failed in [
            hw_wait_until_accepting(none, permit::FOREVER),
            hw_verdict_reason(none, std::ptr::null_mut()),
            hw_permit_attach(std::ptr::null_mut(), 1),
            hw_permit_usage(std::ptr::null(), std::ptr::null_mut()),
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
        hw_permit_finish(std::ptr::null_mut());
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
fn an_array_is_filled_as_far_as_there_is_room_in_rows_as_long_as_the_first() {
    let values = || (1..=3).map(|number| Grown { size: 24, first: number, second: 7 });
    for (row, known) in [(2, 0), (3, 7), (4, 7)] {
        // Rows of an older, this and a later version; of the last one a field that is not known stays as it is.
        let mut theirs = [9; 12];
        theirs[0] = row as u64 * 8;
        // SAFETY: there is room for two rows that are as long as the first one says.
        unsafe { border::rows(theirs.as_mut_ptr().cast::<Grown>(), 2) }.unwrap().fill(values());
        let filled = [1, 2].into_iter().flat_map(|first| [row as u64 * 8, first, known, 9].into_iter().take(row));
        let expected: Vec<_> = filled.chain(std::iter::repeat(9)).take(theirs.len()).collect();
        assert_eq!(theirs[..], expected);
    }
    // SAFETY: there is no row to look at.
    unsafe { border::rows(std::ptr::null_mut::<Grown>(), 2) }.unwrap().fill(values());
    let mut unset = [0_u64; 6];
    // SAFETY: of a row that says something impossible nothing but that is read.
    assert!(unsafe { border::rows(unset.as_mut_ptr().cast::<Grown>(), 2) }.is_err());
}

#[test]
fn structs_of_the_first_version_are_read_and_filled_as_far_as_they_go() {
    // SAFETY: each struct is as long as it says; the handle is freed once.
    unsafe {
        let limits = [48_u64, 0, 10, 0, 0, 0, 0];
        let monitor = hw_monitor_new(limits.as_ptr().cast());
        assert!(!monitor.is_null(), "{}", last_error());
        let mut snapshot = [152_u64; 20];
        assert_eq!(hw_check_now(monitor, snapshot.as_mut_ptr().cast()), 0);
        assert_eq!((snapshot[0], snapshot[19]), (152, 152));
        let permit = hw_admit(monitor, [32_u64, 0, 1, 0].as_ptr().cast(), 0);
        let mut holders = [7_u64; 32];
        holders[0] = 120;
        assert_eq!(hw_holders(monitor, holders.as_mut_ptr().cast(), 2), 1);
        assert_eq!((holders[2], holders[15]), (1, 7));
        hw_permit_finish(permit);
        hw_monitor_free(monitor);
    }
}

#[test]
fn work_of_the_first_version_has_no_label_and_is_of_the_usual_class() {
    let theirs = [32_u64, 1, 2, 3];
    // SAFETY: the struct is as long as it says.
    let work = unsafe { work::declared(theirs.as_ptr().cast()) }.unwrap();
    let expected = crate::vocabulary::Work::new().memory_bytes(1).processes(2).open_files(3);
    assert_eq!(work, expected);
}

#[test]
fn work_has_a_label_and_a_class_that_is_known() {
    let label = CString::new("import").unwrap();
    let pointer = std::ptr::NonNull::new(label.as_ptr().cast_mut());
    let of_class =
        |work_class| Work { size: size_of::<Work>(), processes: 1, label: pointer, work_class, ..Work::default() };
    let expected = crate::vocabulary::Work::new().processes(1).label("import");
    for (number, class) in [(-1, Class::Background), (0, Class::Normal), (1, Class::Critical)] {
        // SAFETY: the struct is as long as it says, and its label is a string.
        assert_eq!(unsafe { work::declared(&of_class(number)) }.unwrap(), expected.class(class));
    }
    for unknown in [-2, 2, i64::MIN] {
        // SAFETY: as above.
        let error = unsafe { work::declared(&of_class(unknown)) }.unwrap_err();
        assert_eq!(error.code(), 2, "{error}");
    }
    // SAFETY: as above.
    assert_eq!(unsafe { work::declared(std::ptr::null()) }.unwrap(), crate::vocabulary::Work::new());
}

#[test]
fn every_setting_of_the_builder_is_made_from_c_and_has_its_default() {
    use std::time::Duration;

    use crate::vocabulary::MemoryScope;

    let limits = || ResourceLimits::builder().build().unwrap();
    // What a monitor was built with, as its `Debug` shows it.
    // SAFETY: every root is NULL.
    let made = |settings: Settings| format!("{:?}", unsafe { settings.builder(limits()) }.unwrap());
    let default = Settings { size: size_of::<Settings>(), ..Settings::default() };
    assert_eq!(made(default), format!("{:?}", ResourceMonitor::builder(limits())));

    let [proc_root, cgroup_root] = ["/proc/self", "/sys"].map(|root| CString::new(root).unwrap());
    let pointer = |text: &CString| std::ptr::NonNull::new(text.as_ptr().cast_mut());
    let all = Settings {
        size: size_of::<Settings>(),
        max_age_ms: 1,
        refresh_after_ms: 2,
        settle_ms: 3,
        inline_check_us: 4,
        overtaking_times: 5,
        overtaking_ms: 6,
        memory_scope: 1,
        ignored: 1 << reason::number_of(Resource::CgroupPids) | 1 << reason::number_of(Resource::MemoryPressure),
        cpu_budget: 0.5,
        proc_root: pointer(&proc_root),
        cgroup_root: pointer(&cgroup_root),
        return_freed_memory: 1,
        ledger: None,
    };
    let millis = Duration::from_millis;
    let expected = ResourceMonitor::builder(limits()).max_age(millis(1)).refresh_after(millis(2)).settle(millis(3));
    let expected = expected.inline_check(Duration::from_micros(4)).overtaking(5, millis(6)).cpu_budget(0.5);
    let expected = expected.memory_scope(MemoryScope::Tree).ignore(Resource::CgroupPids);
    let expected = expected.ignore(Resource::MemoryPressure).proc_root("/proc/self").cgroup_root("/sys");
    let expected = expected.return_freed_memory(true);
    assert_eq!(made(all), format!("{expected:?}"));

    let none = snapshot::NONE;
    let zero = Settings { refresh_after_ms: none, inline_check_us: none, overtaking_times: none, ..default };
    let expected = ResourceMonitor::builder(limits()).refresh_after(Duration::ZERO).inline_check(Duration::ZERO);
    assert_eq!(made(zero), format!("{:?}", expected.overtaking(0, Duration::from_secs(5))));
}

#[cfg(target_pointer_width = "64")]
#[test]
fn settings_from_before_a_field_was_added_are_taken_without_it() {
    // As a program of then has it: 96 bytes, and whatever lies behind them.
    let settings = Settings { size: 96, settle_ms: 3, return_freed_memory: 1, ..Settings::default() };
    assert_eq!(std::mem::offset_of!(Settings, return_freed_memory), 96);
    // SAFETY: both are as long as they say.
    unsafe {
        let monitor = hw_monitor_new_with(std::ptr::null(), &settings);
        assert!(!monitor.is_null(), "{}", last_error());
        hw_monitor_free(monitor);
        let too_short = Settings { size: 95, ..settings };
        assert!(hw_monitor_new_with(std::ptr::null(), &too_short).is_null());
        let taken = border::read(&settings).unwrap().unwrap();
        assert_eq!((taken.settle_ms, taken.return_freed_memory), (3, 0));
    }
}

#[test]
fn a_bad_setting_is_refused_with_its_value() {
    let nowhere = CString::new("/nonexistent").unwrap();
    let default = Settings { size: size_of::<Settings>(), ..Settings::default() };
    let cases = [
        (Settings { cpu_budget: 1.5, ..default }, "CPU budget 1.5 must be above 0 and at most 1"),
        (Settings { cpu_budget: f64::NAN, ..default }, "CPU budget NaN must be above 0 and at most 1"),
        (Settings { max_age_ms: snapshot::NONE, ..default }, "max_age 0 s would never accept work"),
        (Settings { memory_scope: 2, ..default }, "memory_scope 2 is not known"),
        (Settings { ignored: 1 << 40, ..default }, "ignored 0x10000000000 names a resource that is not known"),
        (Settings { ignored: 1, ..default }, "memory cannot be ignored: without it no check succeeds"),
        (
            Settings { proc_root: std::ptr::NonNull::new(nowhere.as_ptr().cast_mut()), ..default },
            "proc_root /nonexistent is not a directory",
        ),
    ];
    for (settings, expected) in cases {
        // SAFETY: the struct is as long as it says, and its root is a string.
        assert!(unsafe { hw_monitor_new_with(std::ptr::null(), &settings) }.is_null());
        assert_eq!((hw_last_error_code(), &*last_error()), (2, expected));
    }
}

#[test]
fn a_refusal_is_kept_as_numbers_for_the_thread_that_was_refused() {
    let limits = Limits { size: size_of::<Limits>(), max_processes: 10, ..Limits::default() };
    let work = |processes| Work { size: size_of::<Work>(), processes, ..Work::default() };
    let last = || {
        let mut reason = Reason::from(&Verdict::new(vocabulary::Reason::Forked));
        // SAFETY: the struct is as long as it says.
        assert_eq!(unsafe { hw_last_refusal(&mut reason) }, 0);
        reason
    };
    // SAFETY: NULL is filled with nothing; the handle is freed once.
    unsafe {
        assert_eq!(hw_last_refusal(std::ptr::null_mut()), -1);
        assert_eq!(last_error(), "nothing was refused on this thread");
        let monitor = hw_monitor_new(&limits);
        assert!(hw_try_admit(monitor, &work(20)).is_null());
        let reason = last();
        assert_eq!((reason.resource, reason.could_never_fit, reason.accepting), (-1, 1, 0));
        assert_eq!(
            reason.usage[super::reason::number_of(Resource::Processes)].measured,
            snapshot::NONE,
            "no check was taken"
        );
        hw_monitor_free(monitor);
    }
    // SAFETY: NULL is filled with nothing.
    std::thread::spawn(|| assert_eq!(unsafe { hw_last_refusal(std::ptr::null_mut()) }, -1)).join().unwrap();
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
