//! The room in a file system, for real: one of 64 MB that is filled by admitted work, one that has no inode left, one that is
//! made read-only, and one whose server never answers.
//!
//! Mounts belong to a namespace of each test's own. Each says what it skips where the machine lacks the means.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::{ms, wait_until};
use highwater::{Resource, ResourceLimits, ResourceMonitor, Work};
use nix::mount::{mount, umount2, MntFlags, MsFlags};
use nix::sched::{unshare, CloneFlags};
use rusty_fork::rusty_fork_test;

const MIB: usize = 1 << 20;

/// Runs `body` with a folder in which something was mounted, in a mount namespace of its own.
fn with_mount(kind: &str, options: &str, body: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let private = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>))
        .and_then(|()| mount(Some(kind), folder.path(), Some(kind), MsFlags::MS_NOSUID, Some(options)));
    match private {
        Ok(()) => body(folder.path()),
        Err(error) => return println!("skipped: no {kind} can be mounted: {error}"),
    }
    let _ = umount2(folder.path(), MntFlags::MNT_DETACH);
}

fn keeping(path: &Path, mb: u64) -> ResourceMonitor {
    let monitor = ResourceMonitor::new(ResourceLimits::builder().min_free_disk_mb(path, mb).build().unwrap());
    monitor.start(ms(500)).unwrap();
    monitor
}

fn is_closed_for_disk(monitor: &ResourceMonitor) -> bool {
    !monitor.is_accepting_work() && monitor.verdict().resource() == Some(Resource::DiskSpace)
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn work_that_declares_what_it_writes_fills_a_file_system_and_never_runs_out_of_room() {
        with_mount("tmpfs", "size=64m", |folder| {
            let monitor = keeping(folder, 8);
            let written = AtomicUsize::new(0);
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        while let Ok(permit) = monitor.admit(Work::new().disk_mb(10), ms(500)) {
                            let number = written.fetch_add(1, Ordering::Relaxed);
                            let mut file = File::create(folder.join(number.to_string())).unwrap();
                            for _ in 0..10 {
                                file.write_all(&vec![7; MIB]).expect("there is room for all that was admitted");
                            }
                            drop(permit);
                        }
                    });
                }
            });
            assert!(written.into_inner() * 10 * 100 > 64 * 70, "it is used by more than 70 %");
            let refused = monitor.try_admit(Work::new().disk_mb(10)).unwrap_err();
            let text = refused.to_string();
            let place = format!(" in {} would leave no more than half of the floor of 8.0 MB", folder.display());
            assert!(text.contains(&place) && !refused.could_never_fit(), "{text}");
            assert!(monitor.try_admit(Work::new().disk_mb(61)).unwrap_err().could_never_fit());
            fs::remove_file(folder.join("0")).unwrap();
            wait_until("there is room again", || monitor.try_admit(Work::new().disk_mb(10)).is_ok());
        });
    }

    #[test]
    fn without_an_inode_or_read_only_there_is_no_room_however_much_is_free() {
        with_mount("tmpfs", "size=64m,nr_inodes=10", |folder| {
            let monitor = keeping(folder, 8);
            wait_until("it is open", || monitor.is_accepting_work());
            let made = (0..).take_while(|number| File::create(folder.join(number.to_string())).is_ok()).count();
            wait_until("no inode is left", || is_closed_for_disk(&monitor));
            assert!(made > 0 && monitor.latest().unwrap().disk_space.unwrap().free_bytes == 0);
            fs::remove_file(folder.join("0")).unwrap();
            wait_until("one is left", || monitor.is_accepting_work());
            let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(None::<&str>, folder, None::<&str>, read_only, None::<&str>).unwrap();
            wait_until("it is read-only", || is_closed_for_disk(&monitor));
        });
    }

    #[test]
    fn after_an_unmount_it_is_the_file_system_below_and_a_path_that_is_gone_is_said() {
        with_mount("tmpfs", "size=64m", |folder| {
            let inner = folder.join("inner");
            fs::create_dir(&inner).unwrap();
            mount(Some("tmpfs"), &inner, Some("tmpfs"), MsFlags::empty(), Some("size=4m")).unwrap();
            let monitor = keeping(&inner, 8);
            wait_until("the inner one is smaller than the floor", || is_closed_for_disk(&monitor));
            umount2(&inner, MntFlags::MNT_DETACH).unwrap();
            wait_until("the outer one has room", || monitor.is_accepting_work());
            fs::remove_dir(&inner).unwrap();
            let said = format!("; disk space not all judged: could not read {}", inner.display());
            wait_until("it is said to be gone", || monitor.verdict().to_string().contains(&said));
            assert!(monitor.is_accepting_work());
        });
    }

    #[test]
    fn a_server_that_never_answers_delays_no_check_and_is_said() {
        let Ok(server) = OpenOptions::new().read(true).write(true).open("/dev/fuse") else {
            return println!("skipped: there is no FUSE");
        };
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        with_mount("fuse", &options, |folder| {
            // Without a thread of its own for it, not even the first check would ever end.
            let monitor = keeping(folder, 8);
            let first = monitor.latest().unwrap().timestamp;
            let has_next = || monitor.is_accepting_work() && monitor.latest().unwrap().timestamp > first;
            wait_until("there are checks, and the gate is open", has_next);
            let text = monitor.verdict().to_string();
            let said = format!("; disk space not all judged: the file system of {} has not answered", folder.display());
            assert!(text.contains(&said), "{text}");
            // Another one can be watched meanwhile.
            monitor.update_limits(ResourceLimits::builder().min_free_disk_mb("/proc", 8).build().unwrap());
            wait_until("another answers", || is_closed_for_disk(&monitor));
            monitor.update_limits(ResourceLimits::builder().min_free_disk_mb(folder, 8).build().unwrap());
            drop(server);
            wait_until("it is gone", || monitor.verdict().to_string().contains("could not read "));
        });
    }
}
