//! Groups, limits and mounts that come, go and move while the host runs.

use super::*;

#[test]
fn limits_are_read_each_time() {
    let machine = Machine::new("0::/a\n", MOUNTS_V2).memory_v2("a", "9000", 10);
    let mut cgroups = machine.cgroups();
    assert_eq!(read(&mut cgroups).unwrap().limit_bytes, 9000);
    machine.write("cgroup/a/memory.max", "7000\n");
    assert_eq!(read(&mut cgroups).unwrap().limit_bytes, 7000);
    assert_eq!(cgroups.lookups, 1);
}

#[test]
fn a_group_that_is_left_or_vanishes_is_looked_up_again() {
    let machine = Machine::new("0::/a\n", MOUNTS_V2).memory_v2("a", "9000", 10).memory_v2("b", "7000", 10);
    let mut cgroups = machine.cgroups();
    assert_eq!(read(&mut cgroups).unwrap().limit_bytes, 9000);
    machine.write("proc/self/cgroup", "0::/b\n");
    assert_eq!(read(&mut cgroups).unwrap().limit_bytes, 7000);
    assert_eq!(cgroups.lookups, 2);

    // Files that were not kept open are seen to be gone.
    cgroups.workspace.allowance = Allowance(0);
    cgroups.look_up(Occasion::Moved).unwrap();
    cgroups.workspace.allowance = Allowance(0);
    assert!(read(&mut cgroups).is_some());
    machine.remove("cgroup/b");
    for _ in 0..2 {
        cgroups.refresh().unwrap();
        let error = cgroups.memory().unwrap_err();
        assert!(error.path().unwrap().ends_with("b/memory.max"), "out of sight is not without a limit: {error}");
    }
    let _machine = machine.memory_v2("b", "5000", 10);
    assert_eq!(read(&mut cgroups).unwrap().limit_bytes, 5000);
}

#[test]
fn a_controller_that_is_switched_on_while_the_host_runs_is_seen_by_time_and_not_by_readings() {
    let machine = Machine::new("0::/a\n", MOUNTS_V2).with("cgroup/a/cgroup.procs", "");
    let mut cgroups = machine.cgroups();
    assert_eq!(read(&mut cgroups), None);
    let machine = machine.memory_v2("a", "9000", 10);
    assert_eq!(read(&mut cgroups), None, "not looked for at each reading");
    assert_eq!(later(&mut cgroups, 2).unwrap().limit_bytes, 9000);

    // And off again: then there is no limit, for the group is still there.
    std::fs::remove_file(machine.path().join("cgroup/a/memory.max")).unwrap();
    cgroups.look_up(Occasion::Moved).unwrap();
    assert_eq!(read(&mut cgroups), None);
}

#[test]
fn a_limit_that_goes_with_its_controller_is_gone_and_no_error() {
    let machine = Machine::new("0::/a\n", MOUNTS_V2).memory_v2("a", "9000", 10);
    let mut cgroups = machine.cgroups();
    cgroups.refresh().unwrap();
    // Files that are not kept are seen to be gone, as kept ones of the kernel are.
    cgroups.workspace.allowance = Allowance(0);
    assert!(read(&mut cgroups).is_some());
    for file in ["memory.max", "memory.current", "memory.stat"] {
        std::fs::remove_file(machine.path().join("cgroup/a").join(file)).unwrap();
    }
    assert_eq!(read(&mut cgroups), None);
}

#[test]
fn a_hierarchy_that_is_mounted_later_is_found_where_the_kernel_does_not_tell() {
    let machine = Machine::new("0::/a\n", "").memory_v2("a", "9000", 10);
    let mut cgroups = machine.cgroups();
    assert_eq!(read(&mut cgroups), None);
    machine.write("proc/self/mountinfo", MOUNTS_V2);
    cgroups.look_again_at = cgroups.look_again_at.map(|then| then - LOOK_AGAIN);
    assert_eq!(read(&mut cgroups).unwrap().limit_bytes, 9000);
}
