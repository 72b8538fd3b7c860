//! Limits that somebody else has set, for real: control groups of the tests' own, `RLIMIT_NOFILE`, and the kernel's
//! word on memory that stalls. Each test says what it skips where the machine lacks the means.
//!
//! Control groups, rlimits, descriptors and the environment belong to the whole process, so every test has one of its
//! own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::groups::{limit_memory, limit_pids, Groups};
use common::{ms, wait_until, Children};
use highwater::{Resource, ResourceLimits, ResourceMonitor, Work};
use nix::sys::mman::{madvise, mmap, mmap_anonymous, MapFlags, MmapAdvise, ProtFlags};
use nix::sys::resource::{setrlimit, Resource as Rlimit};
use rusty_fork::rusty_fork_test;

const MIB: u64 = 1 << 20;

fn no_limits() -> ResourceLimits {
    ResourceLimits::builder().build().unwrap()
}

fn unlimited() -> ResourceMonitor {
    ResourceMonitor::new(no_limits())
}

fn closed_by(monitor: &ResourceMonitor, resource: Resource) -> bool {
    !monitor.is_accepting_work() && monitor.verdict().resource() == Some(resource)
}

/// Takes memory until the gate closes, at 100 MB a second.
fn take_memory_while_accepting(monitor: &ResourceMonitor) -> Vec<Vec<u8>> {
    let mut held = Vec::new();
    while monitor.is_accepting_work() {
        held.push(vec![1_u8; MIB as usize]);
        thread::sleep(ms(10));
    }
    held
}

/// A file of 200 MB on a disk, none of it in the page cache.
fn cold_file() -> Option<tempfile::NamedTempFile> {
    cold_file_of(200)
}

fn cold_file_of(megabytes: u64) -> Option<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let block = vec![7_u8; MIB as usize];
    for _ in 0..megabytes {
        file.write_all(&block).unwrap();
    }
    file.as_file().sync_all().unwrap();
    let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    nix::fcntl::posix_fadvise(&file, 0, 0, advice).unwrap();
    let kind = nix::sys::statfs::statfs(file.path()).unwrap().filesystem_type();
    if kind == nix::sys::statfs::TMPFS_MAGIC {
        println!("skipped: the target folder is in memory");
        return None;
    }
    Some(file)
}

fn read_through(path: &Path) {
    let mut block = vec![0; MIB as usize];
    let mut file = File::open(path).unwrap();
    while file.read(&mut block).unwrap() > 0 {}
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn a_memory_limit_of_a_group_above_closes_the_gate_before_the_kernel_kills() {
        let Some(groups) = Groups::new("memory") else { return };
        limit_memory(&groups.outer, 96 * MIB);
        limit_memory(&groups.inner, 1024 * MIB);
        groups.enter();
        let monitor = unlimited();
        monitor.start(Duration::from_secs(15)).unwrap();
        assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
        let held = take_memory_while_accepting(&monitor);
        assert!(closed_by(&monitor, Resource::CgroupMemory), "{}", monitor.verdict());
        assert!(held.len() > 30, "closed too early: {}", monitor.verdict());
        let memory = monitor.check_now().cgroup_memory.unwrap();
        assert_eq!((&*memory.path, memory.limit_bytes), (&*groups.outer, 96 * MIB));
        drop(held);
        wait_until("the gate opens again", || monitor.is_accepting_work());
        drop(monitor);
    }

    #[test]
    fn a_pids_limit_of_a_group_above_closes_the_gate_before_fork_fails() {
        let Some(groups) = Groups::new("pids") else { return };
        limit_pids(&groups.outer, "40");
        limit_pids(&groups.inner, "100");
        groups.enter();
        let monitor = unlimited();
        monitor.start(Duration::from_secs(15)).unwrap();
        let mut children = Children::default();
        let mut permits = Vec::new();
        let refusal = loop {
            match monitor.try_admit(Work::new().processes(1)) {
                // Held on purpose: what was started counts twice where a check has seen it, and so never too little.
                Ok(permit) => permits.push(permit),
                Err(refusal) => break refusal,
            }
            children.spawn(1);
            if permits.len() == 5 {
                permits.clear();
                monitor.check_now();
            }
        };
        assert_eq!(refusal.resource(), Some(Resource::CgroupPids), "{refusal}");
        assert!((20..40).contains(&children.0.len()), "{} children: {refusal}", children.0.len());
        let pids = monitor.check_now().cgroup_pids.unwrap();
        assert_eq!((&*pids.path, pids.limit), (&*groups.outer, 40));
        assert!(pids.count > children.0.len() as u64, "threads count as well");
        drop(children);
        drop(permits);
        wait_until("the gate opens again", || monitor.is_accepting_work());
    }

    #[test]
    fn memory_is_judged_by_the_group_of_the_process_whichever_thread_asks() {
        let Some(groups) = Groups::new("memory") else { return };
        limit_memory(&groups.inner, 256 * MIB);
        groups.enter();
        let monitor = unlimited();
        let limit = || monitor.check_now().cgroup_memory.map(|memory| memory.limit_bytes);
        let from_first = limit();
        // What this thread takes is charged to the inner group all the same.
        let from_another = thread::scope(|scope| {
            let another = scope.spawn(|| {
                let thread = nix::unistd::gettid().to_string();
                fs::write(groups.outer.join("tasks"), thread).unwrap();
                (limit(), ResourceLimits::detect().unwrap().max_memory_mb())
            });
            another.join().unwrap()
        });
        assert_eq!((from_first, from_another), (Some(256 * MIB), (Some(256 * MIB), Some(256))));
    }

    #[test]
    fn limits_that_change_and_groups_that_are_changed_are_followed() {
        let Some(groups) = Groups::new("pids") else { return };
        groups.enter();
        let monitor = unlimited();
        let count = |monitor: &ResourceMonitor| monitor.check_now().cgroup_pids.map(|pids| pids.limit);
        assert_eq!(count(&monitor), None);
        limit_pids(&groups.inner, "1");
        assert_eq!(count(&monitor), Some(1));
        assert!(closed_by(&monitor, Resource::CgroupPids));
        limit_pids(&groups.outer, "100");
        assert_eq!(count(&monitor), Some(1));
        groups.enter_outer();
        assert_eq!(count(&monitor), Some(100));
        fs::remove_dir(&groups.inner).unwrap();
        assert_eq!(count(&monitor), Some(100));
        limit_pids(&groups.outer, "max");
        assert_eq!(count(&monitor), None);
        assert!(monitor.is_accepting_work());
    }

    #[test]
    fn a_lowered_limit_on_descriptors_closes_the_gate_before_they_run_out() {
        let monitor = unlimited();
        monitor.start(Duration::from_secs(15)).unwrap();
        setrlimit(Rlimit::RLIMIT_NOFILE, 100, 100).unwrap();
        wait_until("the new limit is known", || {
            monitor.is_accepting_work();
            monitor.latest().unwrap().open_files.unwrap().limit == Some(100)
        });
        assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
        let mut files = Vec::new();
        while monitor.is_accepting_work() {
            files.push(File::open("/dev/null").expect("descriptors ran out"));
            thread::sleep(ms(10));
        }
        assert!(closed_by(&monitor, Resource::OpenFiles), "{}", monitor.verdict());
        assert!(files.len() > 30, "closed too early: {}", monitor.verdict());
        // With none left at all, own memory and the descriptors are still read.
        while let Ok(file) = File::open("/dev/null") {
            files.push(file);
        }
        let snapshot = monitor.check_now();
        assert!(!monitor.is_accepting_work() && snapshot.memory_bytes.is_some(), "{}", monitor.verdict());
        // Another check may be giving one back.
        assert!(snapshot.open_files.unwrap().count >= 95);
        drop(files);
        wait_until("the gate opens again", || monitor.is_accepting_work());
    }

    #[test]
    fn the_page_cache_of_a_big_file_does_not_close_the_gate() {
        let Some(groups) = Groups::new("memory") else { return };
        let Some(file) = cold_file() else { return };
        limit_memory(&groups.outer, 96 * MIB);
        groups.enter();
        read_through(file.path());
        let monitor = unlimited();
        let memory = monitor.check_now().cgroup_memory.unwrap();
        assert!(memory.raw_bytes > memory.limit_bytes * 8 / 10, "the cache is not full: {memory:?}");
        assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
        drop(monitor);
    }

    #[test]
    fn memory_that_was_given_up_and_taken_back_is_not_taken_for_page_cache() {
        let Some(groups) = Groups::new("memory") else { return };
        limit_memory(&groups.outer, 256 * MIB);
        groups.enter();
        let length = 216 * MIB as usize;
        let (protection, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
        // SAFETY: a new mapping at no fixed address, which nobody else knows of; it is left to the end of the process.
        #[allow(unsafe_code)]
        let block = unsafe {
            let start = mmap_anonymous(None, length.try_into().unwrap(), protection, flags).unwrap();
            std::slice::from_raw_parts_mut(start.as_ptr().cast::<u8>(), length)
        };
        block.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        // SAFETY: the advice is about the mapping above; what it loses has no meaning.
        #[allow(unsafe_code)]
        unsafe {
            madvise(std::ptr::NonNull::from(&mut block[0]).cast(), length, MmapAdvise::MADV_FREE).unwrap();
        }
        block.iter_mut().step_by(4096).for_each(|byte| *byte = 2);
        let stat = fs::read_to_string(groups.outer.join("memory.stat")).unwrap();
        println!("{}", stat.lines().find(|line| line.starts_with("total_inactive_file")).unwrap());
        let monitor = unlimited();
        let memory = monitor.check_now().cgroup_memory.unwrap();
        assert!(memory.usage_bytes >= length as u64, "{memory:?}");
        assert!(closed_by(&monitor, Resource::CgroupMemory), "{}", monitor.verdict());
        drop(monitor);
    }

    #[test]
    fn the_kernels_word_on_stalling_memory_wakes_a_monitor_that_nobody_asks() {
        if !can_be_armed() {
            return;
        }
        let Some(groups) = Groups::new("memory") else { return };
        let Some(file) = cold_file() else { return };
        limit_memory(&groups.outer, 32 * MIB);
        // One that is not to be woken, beside one that is: memory may stall for others on the machine as well.
        let deaf = ResourceMonitor::builder(no_limits()).ignore(Resource::MemoryPressure).ignore(Resource::CgroupMemory);
        let (monitor, deaf) = (unlimited(), deaf.build().unwrap());
        let (snapshots, of_the_deaf) = (monitor.snapshots(), deaf.snapshots());
        for monitor in [&monitor, &deaf] {
            monitor.start(Duration::from_secs(3600)).unwrap();
        }
        for snapshots in [&snapshots, &of_the_deaf] {
            assert!(snapshots.try_recv().is_ok(), "the first check, which is that of the start");
        }
        let thrashing = Thrashing::new(&groups.inner, file.path());
        wait_until("the kernel wakes the thread", || {
            snapshots.try_recv().is_ok_and(|snapshot| {
                println!("{snapshot}");
                true
            })
        });
        drop(thrashing);
        assert!(of_the_deaf.try_recv().is_err(), "woken by something else");
        drop(monitor);
    }

    #[test]
    fn who_is_told_that_memory_is_short_looks_at_once_and_at_memory_alone() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::env::set_var("MEMORY_PRESSURE_WATCH", &pipe);
        // Nobody's question wakes the thread, and no check is allowed for an hour.
        let own = ResourceMonitor::new(no_limits()).current_memory_mb().unwrap() as u64;
        let limits = ResourceLimits::builder().max_memory_mb(2 * own + 100).build().unwrap();
        let hour = Duration::from_secs(3600);
        let monitor = ResourceMonitor::builder(limits).refresh_after(hour).cpu_budget(1e-9).build().unwrap();
        monitor.start(hour).unwrap();
        assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
        let held = vec![1_u8; ((2 * own + 100) * MIB) as usize];
        assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
        let mut tell = File::options().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&pipe).unwrap();
        tell.write_all(b"!").unwrap();
        wait_until("the gate closes", || closed_by(&monitor, Resource::Memory));
        drop(held);
        tell.write_all(b"!").unwrap();
        wait_until("the gate opens", || monitor.is_accepting_work());
    }

    #[test]
    fn words_without_end_keep_no_check_away() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::env::set_var("MEMORY_PRESSURE_WATCH", &pipe);
        let monitor = unlimited();
        monitor.start(Duration::from_secs(1)).unwrap();
        let snapshots = monitor.snapshots();
        let mut tell = File::options().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&pipe).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let _ = tell.write_all(b"!");
                    thread::sleep(Duration::from_micros(500));
                }
            });
            // It used to be none in eight seconds.
            wait_until("ten checks", || snapshots.receiver().len() >= 10);
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_limit_on_descriptors_below_what_is_waited_for_makes_no_busy_loop() {
        let monitor = unlimited();
        monitor.start(Duration::from_secs(3600)).unwrap();
        setrlimit(Rlimit::RLIMIT_NOFILE, 1, 100).unwrap();
        let cpu = || nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
        monitor.is_accepting_work();
        let before = Duration::from(cpu());
        thread::sleep(ms(500));
        let used = Duration::from(cpu()).saturating_sub(before);
        setrlimit(Rlimit::RLIMIT_NOFILE, 100, 100).unwrap();
        assert!(used < ms(250), "{used:?} of CPU time in half a second");
        // It hears what it is told all the same.
        let snapshots = monitor.snapshots();
        wait_until("it is woken", || {
            monitor.is_accepting_work();
            snapshots.try_recv().is_ok()
        });
    }

    #[test]
    fn with_nothing_to_be_armed_the_timer_goes_on_and_one_line_says_so() {
        let log = common::LogCapture::install();
        std::env::set_var("MEMORY_PRESSURE_WATCH", "/nonexistent/pressure");
        let monitor = unlimited();
        let snapshots = monitor.snapshots();
        for _ in 0..2 {
            monitor.start(ms(5)).unwrap();
            wait_until("three checks", || snapshots.receiver().len() > 3);
            while snapshots.try_recv().is_ok() {}
        }
        monitor.stop();
        let lines = log.named("monitor.pressure_not_watched");
        assert_eq!(lines.len(), 1, "{:?}", log.events());
        assert_eq!(lines[0].level, log::Level::Info);
        assert!(lines[0].keys["error"].contains("/nonexistent/pressure"), "{lines:?}");
    }

    #[test]
    fn levels_and_unreadable_groups_are_logged_in_the_same_form() {
        let Some(groups) = Groups::new("pids") else { return };
        let log = common::LogCapture::install();
        limit_pids(&groups.inner, "1");
        groups.enter();
        let monitor = ResourceMonitor::builder(no_limits()).settle(Duration::ZERO).build().unwrap();
        monitor.check_now();
        limit_pids(&groups.inner, "max");
        limit_pids(&groups.outer, "1000");
        monitor.check_now();
        let critical = &log.named("monitor.cgroup_pids_critical")[0];
        assert_eq!((critical.numbers["limit"], critical.level), (1.0, log::Level::Error));
        assert_eq!(critical.keys["cgroup"], groups.inner.display().to_string());
        let normal = &log.named("monitor.cgroup_pids_normal")[0];
        assert_eq!((normal.numbers["limit"], normal.level), (1000.0, log::Level::Info));

        let tree = common::ProcTree::new(10);
        for (path, text) in [
            ("self/cgroup", "0::/a\n"),
            ("self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("cgroup/a/pids.max", "many\n"),
        ] {
            let path = tree.root().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let (proc_root, cgroup_root) = (tree.root(), tree.root().join("cgroup"));
        let builder = ResourceMonitor::builder(no_limits()).proc_root(proc_root).cgroup_root(&cgroup_root);
        let monitor = builder.build().unwrap();
        for _ in 0..2 {
            monitor.check_now();
        }
        assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
        let unread = log.named("monitor.cgroup_pids_unread");
        assert_eq!((unread.len(), unread[0].level), (1, log::Level::Warn), "{unread:?}");
        assert!(unread[0].keys["error"].contains("a/pids.max"), "{unread:?}");
        assert!(monitor.verdict().to_string().contains("; cgroup pids not all judged: "), "{}", monitor.verdict());
        fs::write(cgroup_root.join("a/pids.max"), "max\n").unwrap();
        monitor.check_now();
        assert_eq!(log.named("monitor.cgroup_pids_read_again").len(), 1);
    }

    #[test]
    fn what_is_ignored_is_not_read_and_closes_nothing() {
        let Some(groups) = Groups::new("pids") else { return };
        limit_pids(&groups.inner, "1");
        groups.enter();
        let optional = [
            Resource::CgroupMemory,
            Resource::CgroupPids,
            Resource::OpenFiles,
            Resource::MemoryPressure,
            Resource::CpuPressure,
            Resource::IoPressure,
            Resource::MachineMemory,
            Resource::DiskSpace,
        ];
        let builder = ResourceMonitor::builder(no_limits());
        let monitor = optional.into_iter().fold(builder, |builder, resource| builder.ignore(resource)).build().unwrap();
        let snapshot = monitor.check_now();
        assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
        assert!(snapshot.cgroup_pids.is_none() && snapshot.open_files.is_none() && snapshot.memory_pressure.is_none());
    }

    #[test]
    fn a_handful_of_descriptors_is_kept_with_everything_on() {
        let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
        let _memory = Groups::new("memory").inspect(|groups| {
            limit_memory(&groups.inner, 1024 * MIB);
            limit_memory(&groups.outer, 1024 * MIB);
            groups.enter();
        });
        let _pids = Groups::new("pids").inspect(|groups| {
            limit_pids(&groups.inner, "100");
            limit_pids(&groups.outer, "100");
            groups.enter();
        });
        let before = descriptors();
        let monitor = unlimited();
        monitor.start(ms(5)).unwrap();
        let snapshots = monitor.snapshots();
        wait_until("ten checks", || snapshots.receiver().len() > 10);
        let kept = descriptors() - before;
        assert!(kept <= 16, "{kept} descriptors");
        monitor.stop();
        drop(monitor);
    }

    #[test]
    fn detected_limits_name_the_groups_that_they_come_from() {
        let (Some(memory), Some(pids)) = (Groups::new("memory"), Groups::new("pids")) else { return };
        limit_memory(&memory.outer, 256 * MIB);
        limit_pids(&pids.inner, "30");
        memory.enter();
        pids.enter();
        let limits = ResourceLimits::detect().unwrap();
        assert_eq!((limits.max_memory_mb(), limits.max_processes()), (Some(256), Some(30)));
        let text = limits.to_string();
        for file in [memory.outer.join("memory.limit_in_bytes"), pids.inner.join("pids.max")] {
            assert!(text.contains(&format!("({})", file.display())), "{text}");
        }
        println!("{text}");
    }

    #[test]
    fn a_mapped_file_does_not_close_the_gate_against_a_limit_that_was_found_in_a_group() {
        let Some(groups) = Groups::new("memory") else { return };
        let Some(file) = cold_file_of(230) else { return };
        limit_memory(&groups.outer, 256 * MIB);
        groups.enter();
        let length = 230 * MIB as usize;
        // SAFETY: a new mapping at no fixed address, of a file that nobody writes to any more; it is left to the end of
        // the process.
        #[allow(unsafe_code)]
        let mapped = unsafe {
            let flags = MapFlags::MAP_SHARED;
            let start = mmap(None, length.try_into().unwrap(), ProtFlags::PROT_READ, flags, &file, 0).unwrap();
            std::slice::from_raw_parts(start.as_ptr().cast::<u8>(), length)
        };
        let read = mapped.iter().step_by(4096).filter(|byte| **byte == 7).count();
        assert_eq!(read, length / 4096);

        let limits = ResourceLimits::detect().unwrap();
        assert_eq!(limits.max_memory_mb(), Some(256));
        let monitor = ResourceMonitor::new(limits.clone());
        monitor.start(Duration::from_secs(15)).unwrap();
        let resident = monitor.check_now().memory_bytes.unwrap();
        assert!(resident > 256 * MIB * 8 / 10, "the file is not resident: {resident}");
        assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
        println!("{}", monitor.verdict());
        drop(monitor.try_admit(Work::new().memory_mb(100)).unwrap());
        assert!(monitor.try_admit(Work::new().memory_mb(250)).unwrap_err().could_never_fit());
        assert_eq!((monitor.max_memory_mb(), monitor.limits()), (Some(256), limits.clone()));

        // Where the group is not read, and where the host has set the limit, it is one on resident memory.
        let of_host = ResourceLimits::builder().max_memory_mb(256).build().unwrap();
        let blind = ResourceMonitor::builder(limits.clone()).ignore(Resource::CgroupMemory).build().unwrap();
        for monitor in [blind, ResourceMonitor::new(of_host.clone())] {
            monitor.check_now();
            assert!(closed_by(&monitor, Resource::Memory), "{}", monitor.verdict());
        }
        monitor.update_limits(of_host);
        assert!(closed_by(&monitor, Resource::Memory), "{}", monitor.verdict());
        monitor.update_limits(limits);
        assert!(monitor.is_accepting_work(), "{}", monitor.verdict());

        // Anonymous memory, though, is charged and stays.
        let held = take_memory_while_accepting(&monitor);
        assert!(closed_by(&monitor, Resource::CgroupMemory), "{}", monitor.verdict());
        println!("{} MB held: {}", held.len(), monitor.verdict());
        drop((held, monitor));
    }

    #[test]
    fn the_job_runner_without_limits_stays_within_those_of_its_group() {
        let Some(groups) = Groups::new("pids") else { return };
        limit_pids(&groups.outer, "30");
        let runner = common::build_example("job_runner");
        let script = format!("echo $$ > {}/cgroup.procs; exec {}", groups.inner.display(), runner.path().display());
        let mut runner = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        runner.stdin.take().unwrap().write_all("sleep 0.1\n".repeat(40).as_bytes()).unwrap();
        let output = runner.wait_with_output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && text.contains("40 done, 0 failed"), "{text}");
    }
}

/// Processes in a group that read a file larger than the group's memory, over and over. None of them forks: a fork that
/// waits for memory keeps every other fork on the machine waiting, while anybody moves a process between groups.
struct Thrashing(Vec<Child>);

impl Thrashing {
    fn new(group: &Path, file: &Path) -> Thrashing {
        let files = format!("{} ", file.display()).repeat(500);
        let script = format!("echo $$ > {}/cgroup.procs; exec cat {files} > /dev/null", group.display());
        let start = || Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
        Thrashing((0..3).map(|_| start()).collect())
    }
}

impl Drop for Thrashing {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// Whether this user may arm the machine's memory pressure.
fn can_be_armed() -> bool {
    let armed = File::options()
        .read(true)
        .write(true)
        .open("/proc/pressure/memory")
        .and_then(|mut file| file.write_all(b"some 100000 2000000\0"));
    if let Err(error) = &armed {
        println!("skipped: memory pressure cannot be armed: {error}");
    }
    armed.is_ok()
}
