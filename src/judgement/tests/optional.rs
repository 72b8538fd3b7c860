//! Optional resources: absent, unread, and read again.

use std::path::Path;

use super::*;

/// A good check that found this of an optional resource.
fn optional(bench: &mut Bench, resource: Resource, read: ReadOptional<Measured>) -> Report {
    let mut found = found(Some(MB), Some(1));
    *found.get_mut(resource) = read;
    bench.record_found(&found, &[]).unwrap()
}

fn in_group(group: &str, usage: u64, limit: u64) -> ReadOptional<Measured> {
    Ok(Some(Measured { limit: Some(limit), place: Some(Path::new(group).into()), ..Measured::of(usage) }))
}

#[test]
fn an_optional_resource_that_cannot_be_read_closes_nothing_and_is_said_once() {
    let mut bench = Bench::running();
    let unread = || Err(Arc::new(Error::new(ErrorKind::Read, "no permission")));
    let report = optional(&mut bench, Resource::CgroupPids, unread());
    assert!(report.good && bench.is_open());
    assert_eq!(names(&report), ["cgroup pids unread"]);
    assert!(bench.text().ends_with("; cgroup pids not all judged: no permission"), "{}", bench.text());
    assert!(names(&optional(&mut bench, Resource::CgroupPids, unread())).is_empty());
    assert_eq!(names(&optional(&mut bench, Resource::CgroupPids, Ok(None))), ["cgroup pids read again"]);
    // Nor is it at the level that it was last seen at.
    let report = optional(&mut bench, Resource::CgroupPids, in_group("/box", 99, 100));
    assert!(!bench.is_open() && !report.critical.is_empty());
    let report = optional(&mut bench, Resource::CgroupPids, unread());
    assert!(bench.is_open() && report.critical.is_empty() && report.checked().all_normal);
}

#[test]
fn the_kernels_limit_is_judged_like_one_of_the_hosts() {
    let mut bench = Bench::running();
    optional(&mut bench, Resource::CgroupPids, in_group("/box", 79, 100));
    assert!(bench.is_open());
    let report = optional(&mut bench, Resource::CgroupPids, in_group("/box", 80, 100));
    assert!(!bench.is_open());
    assert_eq!(names(&report), ["cgroup pids Warning 0"]);
    assert_eq!(
        bench.text(),
        "not accepting work: cgroup pids 80 of 100 (80.0 %) in /box at or above the warning threshold of 80 %"
    );
    let critical = optional(&mut bench, Resource::CgroupPids, in_group("/box", 95, 100)).critical.remove(0);
    assert_eq!(critical.resource, Resource::CgroupPids);
    assert_eq!(critical.to_string(), "cgroup pids 95 of 100 (95.0 %) in /box at or above the hard threshold of 95 %");
    // A limit of nothing leaves no room, and one that was taken away leaves all.
    optional(&mut bench, Resource::CgroupPids, in_group("/box", 0, 0));
    assert!(!bench.is_open());
    optional(&mut bench, Resource::CgroupPids, Ok(None));
    assert!(bench.is_open());
}

#[test]
fn of_the_hosts_limit_and_the_kernels_the_smaller_one_binds() {
    let mut bench = Bench::running();
    let files = |limit| Ok(Some(Measured { limit: Some(limit), ..Measured::of(50) }));
    for (host, kernel, open) in
        [(None, 100, true), (Some(60), 100, false), (Some(100), 60, false), (Some(70), 64, true)]
    {
        let mut limits = ResourceLimits::builder();
        if let Some(host) = host {
            limits = limits.max_open_files(host);
        }
        bench.limits = limits.build().unwrap();
        optional(&mut bench, Resource::OpenFiles, files(kernel));
        assert_eq!(bench.is_open(), open, "{host:?} {kernel}: {}", bench.text());
    }
}

#[test]
fn work_is_admitted_only_if_it_fits_in_the_group_as_well() {
    let mut bench = Bench::running();
    optional(&mut bench, Resource::CgroupMemory, in_group("/box", 20 * MB, 50 * MB));
    let refused = bench.admit(Work::new().memory_mb(30)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "refused: cgroup memory 20.0 MB + 30.0 MB asked of 50.0 MB (100.0 %) in /box would reach the hard threshold of \
         95 %"
    );
    assert!(!refused.could_never_fit());
    assert!(bench.admit(Work::new().memory_mb(48)).unwrap_err().could_never_fit());
    bench.admit(Work::new().memory_mb(20)).unwrap();
    assert!(!bench.is_open(), "20 measured and 20 reserved of 50");
    let mut bench = Bench::running();
    optional(&mut bench, Resource::OpenFiles, Ok(Some(Measured { limit: Some(100), ..Measured::of(10) })));
    bench.admit(Work::new().open_files(60)).unwrap();
    assert_eq!(bench.admit(Work::new().open_files(30)).unwrap_err().resource(), Some(Resource::OpenFiles));
}

#[test]
fn what_is_not_known_of_an_optional_resource_refuses_nothing() {
    let mut bench = Bench::running();
    bench.limits = ResourceLimits::builder().max_open_files(100).build().unwrap();
    optional(&mut bench, Resource::OpenFiles, Ok(None));
    bench.admit(Work::new().open_files(1000)).unwrap();
}

#[test]
fn a_limit_that_is_gone_is_logged_as_normal_and_critical_again_when_it_returns() {
    let mut bench = Bench::running();
    bench.judgement.settings.settle = Some(Duration::ZERO);
    let critical = || in_group("/box", 99, 100);
    assert_eq!(names(&optional(&mut bench, Resource::CgroupPids, critical())), ["cgroup pids Critical 0"]);
    assert_eq!(names(&optional(&mut bench, Resource::CgroupPids, Ok(None))), ["cgroup pids Normal 0"]);
    bench.now += s(61);
    assert_eq!(names(&optional(&mut bench, Resource::CgroupPids, critical())), ["cgroup pids Critical 0"]);
}

#[test]
fn a_group_that_cannot_be_read_beside_one_that_can_is_said_and_the_other_judged() {
    let mut bench = Bench::running();
    let error = Arc::new(Error::new(ErrorKind::Read, "no permission"));
    let partly = Measured { limit: Some(100), unread: Some(error), ..Measured::of(80) };
    let report = optional(&mut bench, Resource::CgroupPids, Ok(Some(partly)));
    assert_eq!(names(&report), ["cgroup pids unread", "cgroup pids Warning 0"]);
    assert!(
        !bench.is_open() && bench.text().ends_with("; cgroup pids not all judged: no permission"),
        "{}",
        bench.text()
    );
}

#[test]
fn another_group_than_before_has_not_climbed() {
    let mut bench = Bench::running();
    for (group, usage, climbing) in [("/box/a", 10, false), ("/box", 60, false), ("/box", 65, true)] {
        bench.now += s(1);
        let report = optional(&mut bench, Resource::CgroupMemory, in_group(group, usage, 100));
        assert_eq!(report.climbing, climbing, "{group} {usage}");
    }
}

#[test]
fn pressure_closes_the_gate_at_its_own_limit_and_opens_no_other() {
    let mut bench = Bench::running();
    let pressure = |hundredths| Ok(Some(Measured::of(hundredths)));
    optional(&mut bench, Resource::MemoryPressure, pressure(9000));
    assert!(bench.is_open(), "no limit");
    bench.limits = ResourceLimits::builder().max_memory_mb(100).max_memory_pressure_percent(20).build().unwrap();
    optional(&mut bench, Resource::MemoryPressure, pressure(1599));
    assert!(bench.is_open());
    optional(&mut bench, Resource::MemoryPressure, pressure(1600));
    assert_eq!(
        bench.text(),
        "not accepting work: memory pressure 16.00 % of 20.00 % (80.0 %) at or above the warning threshold of 80 %"
    );
    let mut found = found(Some(90 * MB), Some(0));
    *found.get_mut(Resource::MemoryPressure) = pressure(0);
    bench.record_found(&found, &[]).unwrap();
    assert_eq!(bench.verdict().resource(), Some(Resource::Memory));
}

/// A machine of 1,000 MB of which this many are available, and 100 are to stay so.
fn with_floor(available_mb: u64) -> (Bench, ReadOptional<Measured>) {
    let mut bench = Bench::running();
    bench.limits = ResourceLimits::builder().min_available_memory_mb(100).resume_percent(75).build().unwrap();
    let used = Measured { limit: Some(1000 * MB), ..Measured::of((1000 - available_mb) * MB) };
    (bench, Ok(Some(used)))
}

#[test]
fn a_floor_closes_the_gate_and_says_what_is_left_and_whose_floor_it_is() {
    let (mut bench, read) = with_floor(101);
    assert!(names(&optional(&mut bench, Resource::MachineMemory, read)).is_empty());
    assert!(bench
        .text()
        .ends_with("machine memory 101.0 MB left of 1000.0 MB above the floor of 100.0 MB (set by the host)"));
    let (mut bench, read) = with_floor(100);
    let report = optional(&mut bench, Resource::MachineMemory, read);
    assert_eq!(names(&report), ["machine memory Warning 0"]);
    assert_eq!(
        bench.text(),
        "not accepting work: machine memory 100.0 MB left of 1000.0 MB at or below the floor of 100.0 MB (set by the host)"
    );
    let (mut bench, read) = with_floor(50);
    let critical = optional(&mut bench, Resource::MachineMemory, read).critical.remove(0);
    assert_eq!(
        critical.to_string(),
        "machine memory 50.0 MB left of 1000.0 MB at or below half of the floor of 100.0 MB (set by the host)"
    );
    // 25 % are left where others resume at 75 %, and 20 % where they close.
    let (_, read) = with_floor(124);
    optional(&mut bench, Resource::MachineMemory, read);
    assert!(bench
        .text()
        .ends_with("124.0 MB left of 1000.0 MB not yet enough above the floor of 100.0 MB (set by the host)"));
    let (_, read) = with_floor(126);
    optional(&mut bench, Resource::MachineMemory, read);
    assert!(bench.is_open(), "{}", bench.text());
}

#[test]
fn work_may_go_down_to_half_of_the_floor_and_no_further() {
    let (mut bench, read) = with_floor(300);
    optional(&mut bench, Resource::MachineMemory, read);
    let refused = bench.admit(Work::new().memory_mb(250)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "refused: machine memory 300.0 MB left - 250.0 MB asked of 1000.0 MB would leave no more than half of the floor \
         of 100.0 MB (set by the host)"
    );
    assert!(!refused.could_never_fit());
    assert!(bench.admit(Work::new().memory_mb(950)).unwrap_err().could_never_fit());
    bench.admit(Work::new().memory_mb(199)).unwrap();
    assert!(bench.is_open());
    bench.admit(Work::new().memory_mb(1)).unwrap();
    assert_eq!(
        bench.text(),
        "not accepting work: machine memory 300.0 MB left - 200.0 MB reserved of 1000.0 MB at or below the floor of \
         100.0 MB (set by the host)"
    );
    let background = bench.admit(Work::new().class(crate::vocabulary::Class::Background)).unwrap_err();
    assert!(
        background.to_string().contains(", no more than background work leaves above the floor of"),
        "{background}"
    );
    assert!(bench.admit(Work::new().class(crate::vocabulary::Class::Critical)).is_ok());
}

#[test]
fn a_limit_on_what_is_not_told_here_is_said_to_be_judged_by_nobody() {
    let (mut bench, _) = with_floor(0);
    optional(&mut bench, Resource::MachineMemory, Ok(None));
    assert!(bench.is_open());
    let said = "; machine memory not all judged: it is not told here, and has a limit";
    assert!(bench.text().ends_with(said), "{}", bench.text());
    *bench.judgement.settings.ignored.get_mut(Resource::MachineMemory) = true;
    assert!(!bench.text().contains(said));
}

#[test]
fn memory_read_alone_moves_the_gate_for_the_group_and_for_pressure() {
    let mut bench = Bench::running();
    bench.judgement.settings.memory_scope = MemoryScope::Tree;
    optional(&mut bench, Resource::CgroupMemory, in_group("/box", 10, 100));
    assert!(bench.is_open());
    let nothing = || PerResource::from_fn(|_| Ok(None));
    let mut read = nothing();
    *read.get_mut(Resource::CgroupMemory) = in_group("/box", 80, 100);
    bench.judgement.record_memory(&read, bench.now, bench.now, Duration::ZERO, &Released::default(), &bench.limits);
    assert!(!bench.is_open() && bench.verdict().resource() == Some(Resource::CgroupMemory));
    // What is not read alone keeps its value.
    bench.judgement.record_memory(
        &nothing(),
        bench.now,
        bench.now,
        Duration::ZERO,
        &Released::default(),
        &bench.limits,
    );
    assert!(!bench.is_open());
}

/// The group `/box` has 256 MB. Resident memory is more than that, and the usage of the group that was read is 1 MB.
fn in_a_box(group: &str) -> (Bench, Found) {
    let mut bench = Bench::running();
    let origin = Origin::in_group("memory.max of /box", Path::new("/box").into());
    bench.limits = ResourceLimits::builder().or_found(Resource::Memory, 256 * MB, origin).build().unwrap();
    let mut found = found(Some(300 * MB), Some(1));
    *found.get_mut(Resource::CgroupMemory) = in_group(group, MB, 256 * MB);
    (bench, found)
}

#[test]
fn a_limit_found_in_a_group_is_judged_by_the_groups_usage_for_as_long_as_that_is_read() {
    let (mut bench, mut found) = in_a_box("/box");
    let report = bench.record_found(&found, &[]).unwrap();
    assert!(bench.is_open() && report.checked().all_normal && report.critical.is_empty(), "{}", bench.text());
    assert_eq!(
        bench.text(),
        "accepting work: memory 300.0 MB (judged as cgroup memory), processes 1 (no limit), cgroup memory 1.0 MB of \
         256.0 MB (0.3 %) in /box"
    );
    assert_eq!(bench.limits.max_memory_mb(), Some(256));
    // Work is held against the group, once.
    let refused = bench.admit(Work::new().memory_mb(250)).unwrap_err();
    assert_eq!((refused.resource(), refused.could_never_fit()), (Some(Resource::CgroupMemory), true));
    bench.admit(Work::new().memory_mb(200)).unwrap();
    assert!(bench.is_open(), "{}", bench.text());
    bench.admit(Work::new().memory_mb(10)).unwrap();
    assert!(!bench.is_open(), "1 measured and 210 reserved of 256");
    // Where the group is not read, ignored or absent or in error, the limit is that of resident memory.
    let error = Arc::new(Error::new(ErrorKind::Read, "no permission"));
    for unread in [Ok(None), Err(error)] {
        *found.get_mut(Resource::CgroupMemory) = unread;
        let report = bench.record_found(&found, &[]).unwrap();
        assert_eq!(report.critical.first().map(|critical| critical.resource), Some(Resource::Memory));
        assert_eq!(bench.verdict().resource(), Some(Resource::Memory), "{}", bench.text());
    }
}

#[test]
fn a_limit_found_in_a_group_holds_although_the_kernels_is_raised() {
    let (mut bench, mut found) = in_a_box("/box");
    *found.get_mut(Resource::CgroupMemory) = in_group("/box", 250 * MB, 1024 * MB);
    let report = bench.record_found(&found, &[]).unwrap();
    assert_eq!(report.critical.first().map(|critical| critical.resource), Some(Resource::CgroupMemory));
    assert_eq!(bench.verdict().resource(), Some(Resource::CgroupMemory), "{}", bench.text());
}

#[test]
fn the_usage_of_another_group_is_not_held_against_a_limit_found_in_this_one() {
    let (mut bench, mut found) = in_a_box("/");
    *found.get_mut(Resource::CgroupMemory) = in_group("/", 240 * MB, 1024 * MB);
    bench.record_found(&found, &[]).unwrap();
    assert!(bench.is_open(), "{}", bench.text());
}

#[test]
fn a_limit_of_the_hosts_is_judged_by_resident_memory_whatever_the_group_says() {
    let (mut bench, found) = in_a_box("/box");
    let detected = std::mem::replace(&mut bench.limits, ResourceLimits::builder().max_memory_mb(256).build().unwrap());
    bench.record_found(&found, &[]).unwrap();
    assert_eq!(bench.verdict().resource(), Some(Resource::Memory), "{}", bench.text());
    // Limits that change between two checks are judged at once.
    bench.limits = detected;
    assert!(bench.is_open(), "{}", bench.text());
}

#[test]
fn a_limit_on_processes_found_in_a_group_is_judged_by_the_groups_tasks() {
    let mut bench = Bench::running();
    let origin = Origin::in_group("pids.max of /box", Path::new("/box").into());
    bench.limits = ResourceLimits::builder().or_found(Resource::Processes, 30, origin).build().unwrap();
    // Most descendants run in other groups.
    let mut found = found(Some(MB), Some(40));
    *found.get_mut(Resource::CgroupPids) = in_group("/box", 3, 30);
    bench.record_found(&found, &[]).unwrap();
    assert!(bench.is_open(), "{}", bench.text());
    *found.get_mut(Resource::CgroupPids) = in_group("/box", 24, 30);
    bench.record_found(&found, &[]).unwrap();
    assert_eq!(bench.verdict().resource(), Some(Resource::CgroupPids), "{}", bench.text());
}
