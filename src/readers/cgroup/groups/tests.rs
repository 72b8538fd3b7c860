//! Control groups as kernels and container engines lay them out. The texts are in the kernels' own words; names are
//! shortened.

use super::*;
use std::path::Path;

use crate::readers::fixture::{Machine, STAT_V1};

const MIB: u64 = 1 << 20;

const MOUNTS_V2: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";

/// As Linux 6.18 shows it with hybrid hierarchies, in part.
const MOUNTS_HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

const PRESSURE: &str = "\
some avg10=1.50 avg60=0.40 avg300=0.08 total=1234567
full avg10=0.25 avg60=0.05 avg300=0.01 total=234567
";

/// Readings of a machine that is laid out.
impl Machine {
    fn cgroups(&self) -> Cgroups {
        Cgroups::new(self.roots())
    }

    fn memory(&self) -> Option<CgroupMemory> {
        read(&mut self.cgroups())
    }

    fn tasks(&self) -> Option<CgroupPids> {
        let mut cgroups = self.cgroups();
        cgroups.refresh().unwrap();
        cgroups.pids().unwrap().0
    }
}

fn read(cgroups: &mut Cgroups) -> Option<CgroupMemory> {
    cgroups.refresh().unwrap();
    cgroups.memory().unwrap().0
}

/// The usage that STAT_V2 makes of that much: 26 MiB of page cache and some slab can be given back.
fn judged_v2(current: u64) -> u64 {
    current - 26 * MIB - 827_392
}

#[test]
fn a_systemd_service_is_judged_by_its_own_limit() {
    let machine = Machine::new("0::/system.slice/worker.service\n", MOUNTS_V2)
        .memory_v2("system.slice/worker.service", "536870912", 200 * MIB)
        .memory_v2("system.slice", "max", 900 * MIB)
        .pids("cgroup/system.slice/worker.service", "4915", 7)
        .pids("cgroup/system.slice", "max", 300)
        .with("cgroup/system.slice/worker.service/cgroup.events", "populated 1\nfrozen 0\n")
        .with("cgroup/system.slice/worker.service/memory.pressure", PRESSURE);
    let memory = machine.memory().unwrap();
    assert_eq!(machine.name(&memory.path), "system.slice/worker.service");
    assert_eq!((memory.usage_bytes, memory.raw_bytes), (judged_v2(200 * MIB), 200 * MIB));
    assert_eq!(memory.limit_bytes, 512 * MIB);
    let pids = machine.tasks().unwrap();
    assert_eq!((machine.name(&pids.path).as_str(), pids.count, pids.limit), ("system.slice/worker.service", 7, 4915));
    let mut cgroups = machine.cgroups();
    cgroups.refresh().unwrap();
    let pressure = cgroups.pressure().unwrap().unwrap();
    assert_eq!((pressure.some_avg10, pressure.full_avg10), (1.5, 0.25));
}

#[test]
fn of_nested_limits_the_one_with_the_least_room_decides() {
    let machine = |inner: u64, outer: u64| {
        Machine::new("0::/a/b/c\n", MOUNTS_V2)
            .memory_v2("a/b/c", "536870912", inner * MIB)
            .memory_v2("a/b", "max", 600 * MIB)
            .memory_v2("a", "1073741824", outer * MIB)
    };
    for (inner, outer, group, limit) in [(100, 300, "a/b/c", 512), (100, 700, "a", 1024), (500, 900, "a/b/c", 512)] {
        let machine = machine(inner, outer);
        let memory = machine.memory().unwrap();
        assert_eq!((machine.name(&memory.path).as_str(), memory.limit_bytes), (group, limit * MIB), "{inner} {outer}");
    }
}

#[test]
fn version_1_and_hybrid_are_judged_by_the_hierarchy_that_has_the_controller() {
    let own = "9:name=systemd:/\n8:pids:/box\n4:memory:/box/in\n1:cpu:/\n0::/user.slice\n";
    let machine = Machine::new(own, MOUNTS_HYBRID)
        .memory_v1("cgroup/memory/box/in", "9223372036854771712", 300 * MIB)
        .memory_v1("cgroup/memory/box", "1073741824", 400 * MIB)
        .memory_v1("cgroup/memory", "9223372036854771712", 900 * MIB)
        .pids("cgroup/pids/box", "100", 42)
        .memory_v2("unified/user.slice", "1", 1)
        .with("cgroup/unified/user.slice/cgroup.events", "populated 1\nfrozen 0\n")
        .with("cgroup/unified/user.slice/memory.pressure", PRESSURE);
    let memory = machine.memory().unwrap();
    assert_eq!(machine.name(&memory.path), "memory/box");
    assert_eq!((memory.limit_bytes, memory.raw_bytes), (1024 * MIB, 400 * MIB));
    assert_eq!(memory.usage_bytes, 400 * MIB - 89_612_288 - 62_308_352);
    let pids = machine.tasks().unwrap();
    assert_eq!((pids.count, pids.limit), (42, 100));
    let mut cgroups = machine.cgroups();
    cgroups.refresh().unwrap();
    assert_eq!(cgroups.pressure().unwrap().unwrap().some_avg10, 1.5, "pressure is always of version 2");
}

#[test]
fn docker_on_version_1_with_and_without_a_cgroup_namespace() {
    let host = (
        "11:memory:/docker/4f6c\n10:pids:/docker/4f6c\n0::/system.slice/containerd.service\n",
        "396 394 0:32 /docker/4f6c /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:9 - cgroup cgroup rw,memory\n",
    );
    let private = (
        "11:memory:/\n10:pids:/\n0::/\n",
        "396 394 0:32 / /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime - cgroup cgroup rw,memory\n",
    );
    for (own, mounts) in [host, private] {
        let machine = Machine::new(own, mounts).memory_v1("cgroup/memory", "536870912", 200 * MIB);
        let memory = machine.memory().unwrap();
        assert_eq!((machine.name(&memory.path).as_str(), memory.limit_bytes), ("memory", 512 * MIB));
        assert_eq!(machine.tasks(), None, "the controller's hierarchy is not mounted");
    }
}

#[test]
fn docker_on_version_2_with_and_without_a_cgroup_namespace() {
    let mounts = "486 477 0:30 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw\n";
    let private = Machine::new("0::/\n", mounts).memory_v2("", "536870912", 200 * MIB);
    let memory = private.memory().unwrap();
    assert_eq!((private.name(&memory.path).as_str(), memory.limit_bytes), ("", 512 * MIB));

    let group = "system.slice/docker-4f6c.scope";
    let host = Machine::new(&format!("0::/{group}\n"), mounts).memory_v2(group, "536870912", 200 * MIB);
    let memory = host.memory().unwrap();
    assert_eq!((host.name(&memory.path).as_str(), memory.limit_bytes), (group, 512 * MIB));
}

#[test]
fn a_burstable_pod_is_judged_by_its_own_limit_or_the_pods() {
    let pod = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podb2c1.slice";
    let container = format!("{pod}/cri-containerd-77aa.scope");
    let machine = Machine::new(&format!("0::/{container}\n"), MOUNTS_V2)
        .memory_v2(&container, "max", 100 * MIB)
        .memory_v2(pod, "314572800", 250 * MIB)
        .memory_v2("kubepods.slice/kubepods-burstable.slice", "max", 5000 * MIB)
        .memory_v2("kubepods.slice", "16106127360", 6000 * MIB);
    let memory = machine.memory().unwrap();
    assert_eq!((machine.name(&memory.path).as_str(), memory.limit_bytes), (pod, 300 * MIB));

    let own = "5:memory:/kubepods/burstable/pod9a18/d28e\n";
    let mounts = "396 394 0:21 /kubepods/burstable/pod9a18/d28e /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    let machine = Machine::new(own, mounts).memory_v1("cgroup/memory", "314572800", 250 * MIB);
    assert_eq!(machine.memory().unwrap().limit_bytes, 300 * MIB);
}

#[test]
fn no_limit_anywhere_is_absent_and_costs_no_other_file() {
    let unlimited = Machine::new("0::/a\n", MOUNTS_V2).with("cgroup/a/memory.max", "max\n");
    assert_eq!(unlimited.memory(), None);
    let sentinel = Machine::new("4:memory:/a\n", MOUNTS_HYBRID)
        .with("cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n")
        .with("cgroup/memory/memory.limit_in_bytes", "9223372036854775807\n");
    assert_eq!(sentinel.memory(), None);
    // The controller is not switched on, there are no groups, nothing is mounted.
    assert_eq!(Machine::new("0::/a\n", MOUNTS_V2).memory(), None);
    assert_eq!(Machine::new("", MOUNTS_V2).memory(), None);
    assert_eq!(Machine::new("0::/a\n", "").memory(), None);
    let without_groups = Machine::new("", "");
    without_groups.remove("proc/self");
    assert_eq!((without_groups.memory(), without_groups.tasks()), (None, None));
    assert!(without_groups.cgroups().pressure().unwrap().is_none());
}

#[test]
fn a_limit_of_zero_is_a_limit() {
    let machine = Machine::new("0::/a\n", MOUNTS_V2).memory_v2("a", "0", 0).pids("cgroup/a", "0", 1);
    let memory = machine.memory().unwrap();
    assert_eq!((memory.limit_bytes, memory.raw_bytes), (0, 0));
    assert_eq!(machine.tasks().unwrap().limit, 0);
}

#[test]
fn what_cannot_be_understood_is_an_error_with_its_path() {
    for (file, text) in [
        ("memory.max", "lots\n"),
        ("memory.max", ""),
        ("memory.max", "\u{0}\u{fffd}"),
        ("memory.current", "-1\n"),
        ("memory.current", "12"),
        ("memory.current", &"9".repeat(100_000)),
    ] {
        let machine =
            Machine::new("0::/a\n", MOUNTS_V2).memory_v2("a", "1000", 1).with(&format!("cgroup/a/{file}"), text);
        let mut cgroups = machine.cgroups();
        cgroups.refresh().unwrap();
        let error = cgroups.memory().unwrap_err();
        assert_eq!(error.path(), Some(&*machine.path().join("cgroup/a").join(file)), "{error}");
    }
    let machine = Machine::new("0::/a\n", MOUNTS_V2)
        .with("cgroup/a/cgroup.events", "populated 1\nfrozen 0\n")
        .with("cgroup/a/memory.pressure", "some\n");
    let mut cgroups = machine.cgroups();
    cgroups.refresh().unwrap();
    assert_eq!(cgroups.pressure().unwrap_err().kind(), crate::ErrorKind::Malformed);
}

#[test]
fn a_usage_that_is_missing_is_an_error_each_time_and_a_missing_stat_takes_nothing_off() {
    let machine = Machine::new("0::/a\n", MOUNTS_V2).with("cgroup/a/memory.max", "1000\n");
    let mut cgroups = machine.cgroups();
    for _ in 0..3 {
        cgroups.refresh().unwrap();
        let error = cgroups.memory().unwrap_err();
        assert!(error.path().unwrap().ends_with("a/memory.current"), "{error}");
    }
    machine.write("cgroup/a/memory.current", "700\n");
    assert_eq!(read(&mut cgroups).unwrap().usage_bytes, 700);
}

#[test]
fn one_level_that_cannot_be_understood_does_not_hide_another() {
    let machine = Machine::new("0::/a/b\n", MOUNTS_V2).memory_v2("a/b", "1000", 1).memory_v2("a", "garbage", 1);
    let mut cgroups = machine.cgroups();
    cgroups.refresh().unwrap();
    let (judged, unread) = cgroups.memory().unwrap();
    assert_eq!(judged.unwrap().limit_bytes, 1000);
    assert!(unread.unwrap().path().unwrap().ends_with("a/memory.max"));
}

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
fn a_handful_of_files_is_kept_open_however_deep_the_groups() {
    let depth = 30;
    let path = vec!["g"; depth].join("/");
    let mut machine = Machine::new(&format!("0::/{path}\n"), MOUNTS_V2);
    for levels in 1..=depth {
        machine = machine.memory_v2(&vec!["g"; levels].join("/"), "1073741824", levels as u64 * MIB);
    }
    let mut cgroups = machine.cgroups();
    let all = |cgroups: &mut Cgroups| read(cgroups).unwrap().raw_bytes;
    assert_eq!(all(&mut cgroups), depth as u64 * MIB);
    assert_eq!((all(&mut cgroups), cgroups.workspace.allowance.0), (depth as u64 * MIB, 0));
    let opened = cgroups
        .memory
        .groups
        .iter_mut()
        .flat_map(|level| [Some(&level.limit), Some(&level.usage), level.stat.as_ref()]);
    assert_eq!(opened.flatten().filter(|file| file.is_kept()).count(), KEPT_FILES);
}

/// Has the next reading be one of so much later.
fn later(cgroups: &mut Cgroups, seconds: u64) -> Option<CgroupMemory> {
    cgroups.refresh().unwrap();
    cgroups.workspace.now += Duration::from_secs(seconds);
    cgroups.memory().unwrap().0
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

#[test]
fn any_number_of_mounts_before_the_one_that_matters_hides_nothing() {
    let mut mounts = String::new();
    for number in 100..20_100 {
        mounts += &format!("{number} 22 0:{number} / /mnt/{number}/{} rw - tmpfs tmpfs rw\n", "long".repeat(10));
    }
    mounts += &format!("99 22 0:9 / /mnt/{} rw - tmpfs tmpfs rw\n", "too-long".repeat(BUFFER / 8));
    let machine = Machine::new("0::/a\n", &(mounts + MOUNTS_V2)).memory_v2("a", "9000", 10);
    assert_eq!(machine.memory().unwrap().limit_bytes, 9000);
}

#[test]
fn a_limit_of_groups_that_cannot_be_seen_is_told_by_the_highest_that_can() {
    let mounts = "396 394 0:32 /pod/box /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    let unlimited = "9223372036854771712";
    let machine = Machine::new("4:memory:/pod/box\n", mounts).memory_v1("cgroup/memory", unlimited, 400 * MIB);
    let mut cgroups = machine.cgroups();
    assert_eq!(read(&mut cgroups), None);
    let stat = |limit: u64| STAT_V1.replace(&format!("memory_limit {unlimited}"), &format!("memory_limit {limit}"));
    machine.write("cgroup/memory/memory.stat", &stat(512 * MIB));
    assert_eq!(later(&mut cgroups, 2).unwrap().limit_bytes, 512 * MIB);
    machine.write("cgroup/memory/memory.limit_in_bytes", "268435456\n");
    assert_eq!(read(&mut cgroups).unwrap().limit_bytes, 256 * MIB, "the own one is less");
}

#[test]
fn memory_and_swap_have_a_limit_together_in_version_1() {
    let stat = STAT_V1.replace("hierarchical_memsw_limit 9223372036854771712", "hierarchical_memsw_limit 629145600");
    let swapped = |mib: u64| format!("{stat}total_swap {}\n", mib * MIB);
    let machine = Machine::new("4:memory:/box\n", MOUNTS_HYBRID).memory_v1("cgroup/memory/box", "536870912", 400 * MIB);
    let machine = machine.with("cgroup/memory/box/memory.stat", &swapped(10));
    let judged = 400 * MIB - 89_612_288 - 62_308_352;
    let memory = machine.memory().unwrap();
    assert_eq!((memory.usage_bytes, memory.limit_bytes), (judged, 512 * MIB), "the limit on memory is nearer");
    let memory = machine.with("cgroup/memory/box/memory.stat", &swapped(300)).memory().unwrap();
    assert_eq!((memory.usage_bytes, memory.limit_bytes), (judged + 300 * MIB, 600 * MIB));
}

#[test]
fn a_limit_of_version_1_does_not_bind_below_a_group_that_keeps_it_to_itself() {
    let machine = |hierarchy: &str| {
        Machine::new("4:memory:/a/b\n", MOUNTS_HYBRID)
            .memory_v1("cgroup/memory/a/b", "536870912", 100 * MIB)
            .memory_v1("cgroup/memory/a", "268435456", 240 * MIB)
            .with("cgroup/memory/a/b/memory.use_hierarchy", "0\n")
            .with("cgroup/memory/a/memory.use_hierarchy", hierarchy)
    };
    let limit = |hierarchy: &str| machine(hierarchy).memory().unwrap().limit_bytes / MIB;
    assert_eq!((limit("0\n"), limit("1\n")), (512, 256));
}

/// What is said of groups that no mount shows, of memory and of tasks.
fn said(machine: &Machine) -> [Option<String>; 2] {
    let mut cgroups = machine.cgroups();
    cgroups.refresh().unwrap();
    let unread = [cgroups.memory().unwrap().1, cgroups.pids().unwrap().1];
    let told: Vec<String> = unread.iter().flatten().map(ToString::to_string).collect();
    let in_limits: Vec<String> = machine.cgroups().least_limits().unread.iter().map(ToString::to_string).collect();
    assert_eq!(told, in_limits);
    unread.map(|error| Some(error?.to_string()))
}

#[test]
fn a_group_that_no_mount_shows_is_named() {
    let named = |machine: &Machine, group: &str| {
        let mounts = machine.path().join("proc/self/mountinfo");
        ["memory", "pids"].map(|controller| {
            Some(format!("no mount in {} shows control group {group} of {controller}", mounts.display()))
        })
    };
    for own in ["0::/a\n", "4:memory:/a\n5:pids:/a\n0::/\n"] {
        let machine = Machine::new(own, "");
        assert_eq!(said(&machine), named(&machine, "/a"), "{own}");
        // Mounted where it shows another one.
        let machine = Machine::new(own, &MOUNTS_V2.replace("0:26 / ", "0:26 /b "));
        assert_eq!(said(&machine), named(&machine, "/a"), "{own}");
    }
    let machine = Machine::new("0::/a\n", MOUNTS_V2).memory_v2("a", "max", 1).pids("cgroup/a", "max", 1);
    assert_eq!(said(&machine), [None, None]);
    // Hidden while the host runs, and shown again.
    let mut cgroups = machine.cgroups();
    let mut is_named = || {
        cgroups.look_again_at = Some(Duration::ZERO);
        cgroups.refresh().unwrap();
        cgroups.memory().unwrap().1.is_some()
    };
    assert!(!is_named());
    machine.write("proc/self/mountinfo", "");
    assert!(is_named());
    machine.write("proc/self/mountinfo", MOUNTS_V2);
    assert!(!is_named());
}

#[test]
fn a_group_between_two_that_are_seen_is_named_where_its_limit_is_not_told() {
    let own = "4:memory:/a/b/c\n5:pids:/a/b/c\n";
    let mounts = MOUNTS_HYBRID.to_owned()
        + "60 31 0:32 /a/b/c /sys/fs/cgroup/own rw - cgroup cgroup rw,memory\n"
        + "61 31 0:36 /a/b/c /sys/fs/cgroup/own rw - cgroup cgroup rw,pids\n";
    let machine =
        Machine::new(own, &mounts).with("cgroup/memory/a/x", "").with("cgroup/pids/a/x", "").with("cgroup/own/x", "");
    let [memory, pids] = said(&machine);
    assert_eq!(memory, None, "the own group tells it");
    assert!(pids.as_deref().is_some_and(|said| said.ends_with(" shows control group /a/b of pids")), "{pids:?}");
}

#[test]
fn nothing_is_said_of_a_group_that_can_have_no_limit() {
    let root = Machine::new("4:memory:/\n5:pids:/\n0::/\n", "");
    assert_eq!(said(&root), [None, None], "before cgroup namespaces");
    for (namespace, is_said) in [("cgroup:[4026531835]", false), ("cgroup:[4026532205]", true)] {
        let machine = Machine::new("0::/\n", "").with("proc/self/ns/pid", "");
        std::os::unix::fs::symlink(namespace, machine.path().join("proc/self/ns/cgroup")).unwrap();
        assert_eq!(said(&machine).map(|said| said.is_some()), [is_said; 2], "{namespace}");
    }
    let switched_off = Machine::new("0::/a\n", "").with("proc/cgroups", "memory\t0\t9\t0\npids\t0\t9\t1\n");
    assert_eq!(said(&switched_off).map(|said| said.is_some()), [false, true]);
    assert_eq!(said(&Machine::new("", "")), [None, None], "no control groups");
    assert_eq!(said(&Machine::new("9:name=systemd:/a\n8:cpu:/a\n", "")), [None, None], "no such controller");
}

/// Each file that is read, and what may stand in its place. Whatever that is, the readings end soon, with an error or a
/// fact.
#[test]
fn whatever_stands_in_the_place_of_a_file_is_an_error_or_a_fact() {
    let own = "8:pids:/a\n4:memory:/a\n0::/a\n";
    let files = [
        "proc/self/cgroup",
        "proc/self/mountinfo",
        "proc/meminfo",
        "proc/zoneinfo",
        "proc/pressure/memory",
        "cgroup/memory/a/memory.limit_in_bytes",
        "cgroup/memory/a/memory.usage_in_bytes",
        "cgroup/memory/a/memory.stat",
        "cgroup/memory/a/memory.kmem.usage_in_bytes",
        "cgroup/memory/memory.use_hierarchy",
        "cgroup/pids/a/pids.max",
        "cgroup/pids/a/pids.current",
        "cgroup/unified/a/memory.pressure",
        "cgroup/unified/a/cgroup.events",
    ];
    let link = |to: &'static str| move |path: &Path| std::os::unix::fs::symlink(to, path).unwrap();
    type Place<'a> = (&'a str, &'a dyn Fn(&Path));
    let places: [Place<'_>; 13] = [
        ("nothing", &|_| ()),
        ("an empty file", &|path| std::fs::write(path, "").unwrap()),
        ("binary", &|path| std::fs::write(path, [0, 255, 10, 32, 200]).unwrap()),
        ("words", &|path| std::fs::write(path, "words - words\n\n: :: - -\n").unwrap()),
        ("a long line", &|path| std::fs::write(path, "9".repeat(1 << 20)).unwrap()),
        ("a file that does not end", &|path| {
            std::fs::File::create(path).unwrap().set_len(1 << 42).unwrap();
        }),
        ("a FIFO", &|path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
        ("a socket", &|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap())),
        ("a folder", &|path| std::fs::create_dir(path).unwrap()),
        ("an endless device", &link("/dev/zero")),
        ("an empty device", &link("/dev/null")),
        ("a terminal", &link("/dev/tty")),
        ("a circle", &link("circle")),
    ];
    for file in files {
        for (what, place) in &places {
            let machine = Machine::new(own, MOUNTS_HYBRID)
                .memory_v1("cgroup/memory/a", "536870912", 500 * MIB)
                .pids("cgroup/pids/a", "100", 42)
                .with("cgroup/unified/a/cgroup.events", "populated 1\n")
                .with("cgroup/unified/a/memory.pressure", PRESSURE)
                .with("proc/pressure/memory", PRESSURE);
            let path = machine.path().join(file);
            let _ = std::fs::remove_file(&path);
            place(&path);
            if *what == "a circle" {
                std::fs::rename(&path, path.with_file_name("circle")).unwrap();
                link("circle")(&path);
            }
            let start = std::time::Instant::now();
            let mut cgroups = machine.cgroups();
            for _ in 0..2 {
                let refreshed = cgroups.refresh();
                let read = [cgroups.memory().err(), cgroups.pids().err(), cgroups.pressure().err()];
                for error in read.into_iter().flatten() {
                    assert!(error.path().is_some(), "{file} as {what}: {error}");
                }
                if let Err(error) = refreshed {
                    assert!(error.to_string().contains(file), "{file} as {what}: {error}");
                }
            }
            let _ = machine.cgroups().least_limits();
            assert!(start.elapsed() < Duration::from_secs(60), "{file} as {what}");
        }
    }
}
