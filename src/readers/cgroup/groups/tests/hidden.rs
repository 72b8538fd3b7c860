//! Groups that no mount shows.

use super::*;

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
