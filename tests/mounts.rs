//! Control groups of version 1 wherever they may be mounted: covered, hidden, in part, in a folder that may not be
//! entered, later than the start. The mounts are real, in a mount namespace of each test's own.
//!
//! Groups and namespaces belong to the whole process, so every test has a process of its own. Each says what it skips
//! where the machine lacks the means.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::groups::{limit_memory, Groups};
use common::{in_forked_child, wait_within, without_first_thread};
use highwater::{ResourceLimits, ResourceMonitor};
use nix::mount::{mount, umount2, MntFlags, MsFlags};
use nix::sched::{unshare, CloneFlags};
use rusty_fork::rusty_fork_test;

const MIB: u64 = 1 << 20;

/// Where the memory controller is mounted by custom.
const CUSTOMARY: &str = "/sys/fs/cgroup/memory";

/// As soon as a change must be seen.
const SOON: Duration = Duration::from_secs(5);

/// Runs `body` in a child with mounts of its own, in a group with a limit, with a folder for mounts. They go with it.
fn in_namespace(body: impl FnOnce(&Groups, &Path)) {
    let Some(groups) = Groups::new("memory") else { return };
    limit_memory(&groups.outer, 256 * MIB);
    groups.enter();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    in_forked_child(|| {
        let private = unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>));
        match private {
            Ok(()) => body(&groups, folder.path()),
            Err(error) => println!("skipped: no mount namespace can be made: {error}"),
        }
        // The child has a copy of the guard, and the group is not its to remove.
        Ok(())
    });
    drop(groups);
}

fn made(folder: &Path, name: &str) -> PathBuf {
    let folder = folder.join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn unmount(at: impl AsRef<Path>) {
    umount2(at.as_ref(), MntFlags::MNT_DETACH).unwrap();
}

fn mount_memory(at: &Path) {
    mount(Some("cgroup"), at, Some("cgroup"), MsFlags::empty(), Some("memory")).unwrap();
}

fn bind(from: &Path, to: &Path) {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

fn cover(folder: &Path) {
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}

fn monitor() -> ResourceMonitor {
    ResourceMonitor::new(ResourceLimits::builder().build().unwrap())
}

fn limit(monitor: &ResourceMonitor) -> Option<u64> {
    monitor.check_now().cgroup_memory.map(|memory| memory.limit_bytes / MIB)
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn a_mount_that_is_covered_is_passed_over() {
        in_namespace(|_, folder| {
            let all = made(folder, "all");
            mount_memory(&all);
            cover(Path::new("/sys/fs/cgroup"));
            let memory = monitor().check_now().cgroup_memory.unwrap();
            assert!(memory.path.starts_with(&all) && memory.limit_bytes == 256 * MIB, "{memory:?}");
            assert_eq!(ResourceLimits::detect().unwrap().max_memory_mb(), Some(256));
        });
    }

    #[test]
    fn a_hierarchy_that_is_covered_while_the_host_runs_is_not_forgotten() {
        in_namespace(|groups, _| {
            let monitor = monitor();
            assert_eq!(limit(&monitor), Some(256));
            cover(Path::new("/sys/fs/cgroup"));
            for _ in 0..3 {
                assert_eq!(limit(&monitor), Some(256), "{}", monitor.verdict());
            }
            unmount("/sys/fs/cgroup");
            limit_memory(&groups.outer, 300 * MIB);
            assert_eq!(limit(&monitor), Some(300));
        });
    }

    #[test]
    fn a_group_that_something_is_mounted_over_is_seen_through_another_mount() {
        in_namespace(|groups, folder| {
            mount_memory(&made(folder, "all"));
            cover(&groups.outer);
            assert_eq!(limit(&monitor()), Some(256));
        });
    }

    #[test]
    fn a_mount_in_a_folder_that_may_not_be_entered_is_no_reason() {
        in_namespace(|groups, folder| {
            bind(&groups.outer, &made(folder, "own"));
            unmount(CUSTOMARY);
            mount_memory(&made(folder, "closed/all"));
            fs::set_permissions(folder.join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
            let nobody = 65534.into();
            nix::unistd::setresuid(nobody, nobody, nobody).unwrap();
            assert_eq!(limit(&monitor()), Some(256));
            assert_eq!(ResourceLimits::detect().unwrap().max_memory_mb(), Some(256));
        });
    }

    #[test]
    fn a_limit_of_a_group_between_two_that_can_be_seen_is_a_limit() {
        in_namespace(|groups, folder| {
            bind(&groups.inner, &made(folder, "own"));
            cover(&groups.outer);
            assert_eq!(limit(&monitor()), Some(256));
            assert_eq!(ResourceLimits::detect().unwrap().max_memory_mb(), Some(256));
        });
        in_namespace(|_, folder| {
            // The names of the groups above the own one are those of nobody here.
            unshare(CloneFlags::CLONE_NEWCGROUP).unwrap();
            mount_memory(&made(folder, "own"));
            assert_eq!(limit(&monitor()), Some(256));
            assert_eq!(ResourceLimits::detect().unwrap().max_memory_mb(), Some(256));
        });
    }

    #[test]
    fn a_limit_of_a_group_above_that_cannot_be_seen_is_a_limit() {
        in_namespace(|groups, folder| {
            let own = made(folder, "own");
            bind(&groups.inner, &own);
            unmount(CUSTOMARY);
            let monitor = monitor();
            let memory = monitor.check_now().cgroup_memory.unwrap();
            assert_eq!((&*memory.path, memory.limit_bytes), (&*own, 256 * MIB));
            let limits = ResourceLimits::detect().unwrap();
            let origin = format!("(hierarchical_memory_limit of {}/memory.stat)", own.display());
            assert!(limits.max_memory_mb() == Some(256) && limits.to_string().contains(&origin), "{limits}");
            // Set later, and seen soon.
            mount_memory(Path::new(CUSTOMARY));
            limit_memory(&groups.outer, 200 * MIB);
            unmount(CUSTOMARY);
            wait_within(SOON, "the new limit is known", || limit(&monitor) == Some(200));
        });
    }

    #[test]
    fn a_group_that_no_mount_shows_is_said_in_the_verdict_the_log_and_the_limits() {
        let hide: [fn(&Path); 4] = [
            |_| unmount(CUSTOMARY),
            |_| cover(Path::new("/sys/fs/cgroup")),
            |_| unshare(CloneFlags::CLONE_NEWCGROUP).unwrap(),
            |folder| {
                mount(Some("proc"), &made(folder, "proc"), Some("proc"), MsFlags::empty(), None::<&str>).unwrap();
                nix::unistd::chroot(folder).unwrap();
            },
        ];
        for hide in hide {
            in_namespace(|_, folder| {
                let log = common::LogCapture::install();
                hide(folder);
                let monitor = monitor();
                assert_eq!(limit(&monitor), None);
                let unread = log.named("monitor.cgroup_memory_unread");
                let said = [
                    monitor.verdict().to_string(),
                    ResourceLimits::detect().unwrap().to_string(),
                    unread.first().map_or(String::new(), |line| line.keys["error"].clone()),
                ];
                for said in said {
                    let (_, group) = said.split_once("no mount in /proc/self/mountinfo shows control group /").expect(&said);
                    assert!(group.contains(" of memory"), "{said}");
                }
                assert!(unread.len() == 1 && monitor.is_accepting_work(), "{unread:?}");
            });
        }
    }

    #[test]
    fn nothing_is_said_of_the_highest_group_which_has_no_limits() {
        in_namespace(|groups, _| {
            let all = groups.outer.ancestors().find(|group| *group == Path::new(CUSTOMARY)).unwrap();
            fs::write(all.join("cgroup.procs"), std::process::id().to_string()).unwrap();
            unmount(CUSTOMARY);
            let monitor = monitor();
            monitor.check_now();
            assert!(!monitor.verdict().to_string().contains("of memory"), "{}", monitor.verdict());
        });
    }

    #[test]
    fn a_hierarchy_that_is_mounted_after_the_start_is_seen_by_the_next_check() {
        in_namespace(|_, folder| {
            unmount(CUSTOMARY);
            let monitor = monitor();
            assert_eq!(limit(&monitor), None);
            let all = made(folder, "all");
            mount_memory(&all);
            assert_eq!(limit(&monitor), Some(256));
            unmount(&all);
            mount_memory(Path::new(CUSTOMARY));
            let memory = monitor.check_now().cgroup_memory.unwrap();
            assert!(memory.path.starts_with(CUSTOMARY) && memory.limit_bytes == 256 * MIB, "{memory:?}");
        });
    }

    #[test]
    fn thousands_of_mounts_before_the_one_that_matters_hide_nothing() {
        in_namespace(|_, folder| {
            let many = made(folder, "many");
            cover(&many);
            unmount(CUSTOMARY);
            for number in 0..9000 {
                let folder = made(&many, &format!("{number}-{}", "long".repeat(30)));
                bind(&folder, &folder);
            }
            mount_memory(Path::new(CUSTOMARY));
            assert!(fs::read("/proc/self/mountinfo").unwrap().len() > 1 << 20);
            assert_eq!(limit(&monitor()), Some(256));
        });
    }

    #[test]
    fn the_own_group_is_read_through_a_thread_that_lives() {
        let Some(groups) = Groups::new("memory") else { return };
        limit_memory(&groups.outer, 256 * MIB);
        groups.enter();
        in_forked_child(|| {
            // Kept from the first thread, which then ends.
            let monitor = monitor();
            let before = limit(&monitor);
            without_first_thread(move || {
                let found = [before, limit(&monitor), limit(&self::monitor())];
                if found == [Some(256); 3] { Ok(()) } else { Err(format!("{found:?}")) }
            })
        });
    }
}
