//! Files that are missing, malformed, endless or something else.

use super::*;

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
    assert_eq!(cgroups.memory_pressure().unwrap_err().kind(), crate::ErrorKind::Malformed);
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
fn any_number_of_mounts_before_the_one_that_matters_hides_nothing() {
    let mut mounts = String::new();
    for number in 100..20_100 {
        mounts += &format!("{number} 22 0:{number} / /mnt/{number}/{} rw - tmpfs tmpfs rw\n", "long".repeat(10));
    }
    mounts += &format!("99 22 0:9 / /mnt/{} rw - tmpfs tmpfs rw\n", "too-long".repeat(BUFFER / 8));
    let machine = Machine::new("0::/a\n", &(mounts + MOUNTS_V2)).memory_v2("a", "9000", 10);
    assert_eq!(machine.memory().unwrap().limit_bytes, 9000);
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
                let read = [cgroups.memory().err(), cgroups.pids().err(), cgroups.memory_pressure().err()];
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
