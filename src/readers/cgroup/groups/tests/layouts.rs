//! The layouts of kernels, service managers and container engines: which group decides.

use super::*;

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
    let pressure = cgroups.memory_pressure().unwrap().unwrap();
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
fn a_group_holds_what_a_group_below_does_though_its_own_sums_lag_behind() {
    let stat = |rss: u64, file: u64| {
        format!("total_cache {}\ntotal_rss {}\ntotal_inactive_file {}\n", file * MIB, rss * MIB, file * MIB)
    };
    let machine = Machine::new("4:memory:/box/in\n", MOUNTS_HYBRID)
        .memory_v1("cgroup/memory/box/in", "9223372036854771712", 255 * MIB)
        .memory_v1("cgroup/memory/box", "268435456", 255 * MIB)
        .with("cgroup/memory/box/in/memory.stat", &stat(213, 42));
    for (rss, file, judged) in [(127, 126, 213), (213, 42, 213), (230, 25, 230)] {
        machine.write("cgroup/memory/box/memory.stat", &stat(rss, file));
        assert_eq!(machine.memory().unwrap().usage_bytes, judged * MIB, "{rss}");
    }
    let machine = Machine::new("0::/a/b/c\n", MOUNTS_V2)
        .memory_v2("a/b/c", "max", 200 * MIB)
        .memory_v2("a", "268435456", 255 * MIB)
        .with("cgroup/a/b/c/memory.stat", &format!("anon {}\n", 200 * MIB))
        .with("cgroup/a/memory.stat", &format!("anon {}\nfile {1}\ninactive_file {1}\n", 5 * MIB, 250 * MIB));
    assert_eq!(machine.memory().unwrap().usage_bytes, 200 * MIB);
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
    assert_eq!(cgroups.memory_pressure().unwrap().unwrap().some_avg10, 1.5, "pressure is always of version 2");
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
    assert!(without_groups.cgroups().memory_pressure().unwrap().is_none());
}

#[test]
fn a_limit_of_zero_is_a_limit() {
    let machine = Machine::new("0::/a\n", MOUNTS_V2).memory_v2("a", "0", 0).pids("cgroup/a", "0", 1);
    let memory = machine.memory().unwrap();
    assert_eq!((memory.limit_bytes, memory.raw_bytes), (0, 0));
    assert_eq!(machine.tasks().unwrap().limit, 0);
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
