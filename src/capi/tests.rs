//! The border from this side: NULL, short structs, unknown numbers, panics.

use std::ffi::{CStr, CString};
use std::mem::size_of;
use std::ptr::NonNull;

use super::border::{guarded, hw_last_error, hw_last_error_code, Versioned};
use super::holders::{hw_holders, hw_waiters};
use super::limits::hw_limits_detect;
use super::permit::*;
use super::reason::{hw_last_refusal, hw_verdict_reason, Reason};
use super::work::Work;
use super::*;
use crate::vocabulary::{self, Class, Resource, ResourceLimits, Verdict};

fn last_error() -> String {
    // SAFETY: the text is good until the next failure on this thread.
    unsafe { CStr::from_ptr(hw_last_error()) }.to_str().unwrap().to_owned()
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
fn a_size_that_ends_within_a_field_is_none_that_a_struct_can_have() {
    for (size, is_possible) in [(32, true), (34, false), (39, false), (40, true)] {
        // Two of the bytes of the label, which are no pointer.
        let theirs = [size, 1, 1, 1, u64::from_ne_bytes([0xac; 8]) * u64::from(!is_possible)];
        // SAFETY: the struct is at least as long as it says.
        let read = unsafe { border::read(theirs.as_ptr().cast::<Work>()) };
        assert_eq!(read.is_ok(), is_possible, "{size}");
    }
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
