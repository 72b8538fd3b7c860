//! What is still read when the process is confined: a changed root, dropped privileges, a `/proc` that hides others,
//! another pid namespace. Each needs privileges to set up, and says so where it has none.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use common::{ensure, in_forked_child, ms, wait_until, Children};
use highwater::{ResourceLimits, ResourceMonitor};
use nix::mount::{mount, MsFlags};
use nix::sched::{setns, unshare, CloneFlags};
use nix::sys::signal::{kill, Signal};
use nix::time::{clock_gettime, ClockId};
use nix::unistd::{chroot, geteuid, setegid, seteuid, setgroups, Gid, Pid, Uid};
use rusty_fork::rusty_fork_test;
use tempfile::TempDir;

const NOBODY: u32 = 65_534;

fn monitor(proc_root: &Path) -> ResourceMonitor {
    let limits = ResourceLimits::builder().max_processes(100).build().unwrap();
    ResourceMonitor::builder(limits).proc_root(proc_root).build().unwrap()
}

fn sleeper_of(user: u32) -> Child {
    Command::new("sleep").arg("1000").uid(user).gid(user).spawn().unwrap()
}

/// Whether the test can be set up.
fn is_privileged() -> bool {
    let privileged = geteuid().is_root();
    if !privileged {
        println!("skipped: needs to be root");
    }
    privileged
}

/// A mount of `/proc` that this process and its children see and nobody else.
fn own_proc(options: &str) -> Option<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mounted = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>))
        .and_then(|()| mount(Some("proc"), folder.path(), Some("proc"), MsFlags::empty(), Some(options)));
    match mounted {
        Ok(()) => Some(folder),
        Err(error) => {
            println!("skipped: cannot mount proc with {options:?}: {error}");
            None
        }
    }
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn what_was_opened_outlives_a_changed_root() {
        if !is_privileged() {
            return;
        }
        let monitor = monitor(Path::new("/proc"));
        let _children = Children::sleepers(2);
        monitor.check_now();
        let empty = tempfile::tempdir().unwrap();
        chroot(empty.path()).unwrap();
        assert!(fs::metadata("/proc").is_err());
        let snapshot = monitor.check_now();
        assert_eq!(snapshot.child_process_count, Some(2), "{}", monitor.verdict());
        assert!(snapshot.memory_bytes.is_some() && monitor.current_memory_mb().is_some());
    }

    #[test]
    fn with_hidepid_and_no_privileges_the_same_user_is_counted_and_others_cannot_be() {
        if !is_privileged() {
            return;
        }
        for options in ["hidepid=1", "hidepid=2"] {
            let Some(root) = own_proc(options) else { return };
            let _children = Children(vec![sleeper_of(NOBODY), sleeper_of(NOBODY), sleeper_of(0)]);
            let opened_before = monitor(root.path());
            assert_eq!(opened_before.check_now().child_process_count, Some(3), "privileged");
            // The group as well: group 0 sees everything, unless the mount names another.
            setgroups(&[]).unwrap();
            setegid(Gid::from_raw(NOBODY)).unwrap();
            seteuid(Uid::from_raw(NOBODY)).unwrap();
            let opened_after = monitor(root.path());
            // Who has seen the other user's process before may go on counting it: it lives.
            for (monitor, most) in [(&opened_before, 3), (&opened_after, 2)] {
                let snapshot = monitor.check_now();
                let count = snapshot.child_process_count.unwrap();
                assert!((2..=most).contains(&count), "{options}: {}", monitor.verdict());
                assert!(snapshot.memory_bytes.is_some() && monitor.is_accepting_work());
            }
            seteuid(Uid::from_raw(0)).unwrap();
            setegid(Gid::from_raw(0)).unwrap();
        }
    }

    #[test]
    fn in_a_time_namespace_that_begins_after_this_process_its_children_are_counted() {
        if !is_privileged() {
            return;
        }
        // Only a process of one thread may change its clock.
        in_forked_child(|| {
            let new_time = CloneFlags::from_bits_retain(nix::libc::CLONE_NEWTIME);
            let early = monitor(Path::new("/proc"));
            let begun = Instant::now();
            let shell = "read line; sleep 1000 & exec sleep 1000";
            let parent = Command::new("sh").arg("-c").arg(shell).stdin(Stdio::piped()).spawn().unwrap();
            let mut parents = Children(vec![parent]);
            ensure(early.check_now().child_process_count == Some(1), "before the namespace")?;
            // Start times are told to a hundredth of a second.
            wait_until("this process is some ticks old", || begun.elapsed() > ms(50));
            let now = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
            let (seconds, nanos) = (now.tv_sec() + 1, 1_000_000_000 - now.tv_nsec());
            let entered = unshare(new_time).map_err(std::io::Error::from).and_then(|()| {
                fs::write("/proc/self/timens_offsets", format!("boottime -{seconds} {nanos}"))?;
                let clock = fs::File::open("/proc/self/ns/time_for_children")?;
                Ok(setns(clock, new_time)?)
            });
            if let Err(error) = entered {
                println!("skipped: no time namespace: {error}");
                return Ok(());
            }
            let late = monitor(Path::new("/proc"));
            let child = Children::sleepers(1);
            parents.0[0].stdin.take().unwrap().write_all(b"\n").unwrap();
            let children_of_parent = format!("/proc/{0}/task/{0}/children", parents.0[0].id());
            let grandchild = || fs::read_to_string(&children_of_parent).unwrap();
            wait_until("the shell has a child", || !grandchild().is_empty());
            let counts = [&early, &late].map(|monitor| monitor.check_now().child_process_count);
            kill(Pid::from_raw(grandchild().trim().parse().unwrap()), Signal::SIGKILL).unwrap();
            drop((child, parents));
            ensure(counts == [Some(3); 2], &format!("{counts:?}"))
        });
    }

    #[test]
    fn in_a_pid_namespace_own_processes_are_counted_whichever_proc_is_mounted() {
        if !is_privileged() {
            return;
        }
        if let Err(error) = unshare(CloneFlags::CLONE_NEWPID) {
            println!("skipped: no pid namespace: {error}");
            return;
        }
        // The first child in the new namespace is process 1 there, and something else in the `/proc` that is mounted.
        in_forked_child(|| {
            ensure(std::process::id() == 1, "not in a new namespace")?;
            let children = Children::sleepers(3);
            let outer = monitor(Path::new("/proc"));
            let Some(root) = own_proc("hidepid=0") else { return Ok(()) };
            let inner = monitor(root.path());
            for monitor in [&outer, &inner] {
                let snapshot = monitor.check_now();
                ensure(snapshot.child_process_count == Some(3), &format!("{snapshot}: {}", monitor.verdict()))?;
                ensure(snapshot.memory_bytes.is_some(), "memory unread")?;
            }
            drop(children);
            ensure(outer.check_now().child_process_count == Some(0), "counted what has ended")
        });
    }
}
