//! The header, compared by the C compiler: the layouts, constants and functions that it declares are those that are here.

use std::ffi::c_void;
use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::process::{Command, ExitStatus};

use super::border::{hw_last_error, hw_last_error_code, Versioned};
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
use crate::vocabulary::{self, Class, Resource, ResourceLimits};

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
