//! What is still read when the process is confined: a changed root, dropped privileges, a `/proc` that hides others,
//! another pid namespace. Each needs privileges to set up, and says so where it has none.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use common::{ensure, in_forked_child, ms, wait_until, Children, Forked, ProcTree};
use highwater::{ResourceLimits, ResourceMonitor};
use nix::mount::{mount, umount2, MntFlags, MsFlags};
use nix::sched::{setns, unshare, CloneFlags};
use nix::sys::prctl::set_dumpable;
use nix::sys::signal::{kill, Signal};
use nix::time::{clock_gettime, ClockId};
use nix::unistd::{chroot, fchdir, geteuid, getgroups, setegid, seteuid, setgid, setgroups, setuid, Gid, Pid, Uid};
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

/// The effective user and groups of nobody, until it is dropped. The groups as well: group 0 sees everything, unless
/// the mount names another.
struct Privileges(Vec<Gid>);

impl Privileges {
    fn dropped() -> Privileges {
        let groups = getgroups().unwrap();
        setgroups(&[]).unwrap();
        setegid(Gid::from_raw(NOBODY)).unwrap();
        seteuid(Uid::from_raw(NOBODY)).unwrap();
        Privileges(groups)
    }
}

impl Drop for Privileges {
    fn drop(&mut self) {
        seteuid(Uid::from_raw(0)).unwrap();
        setegid(Gid::from_raw(0)).unwrap();
        setgroups(&self.0).unwrap();
    }
}

/// In a forked child: changes its user for good, and says whether it may be dumped, and so seen by that user.
fn become_nobody(dumpable: bool) {
    setgroups(&[]).unwrap();
    setgid(Gid::from_raw(NOBODY)).unwrap();
    setuid(Uid::from_raw(NOBODY)).unwrap();
    set_dumpable(dumpable).unwrap();
}

/// A child that is not waited for.
fn fork_sleeper(body: impl FnOnce()) {
    std::mem::forget(Forked::run(|| {
        body();
        Ok(())
    }));
}

fn children_of(parent: Pid) -> Vec<Pid> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    children.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

/// A mount of `/proc` that this process and its children see and nobody else. Taken off at the end: a folder with a
/// mount on it cannot be removed.
struct OwnProc(TempDir);

impl OwnProc {
    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for OwnProc {
    fn drop(&mut self) {
        umount2(self.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

/// The root of before, which a process that has changed its own comes back to at the end.
struct FormerRoot(fs::File);

impl FormerRoot {
    fn left_for(path: &Path) -> FormerRoot {
        let former = FormerRoot(fs::File::open("/").unwrap());
        chroot(path).unwrap();
        former
    }
}

impl Drop for FormerRoot {
    fn drop(&mut self) {
        fchdir(&self.0).unwrap();
        chroot(".").unwrap();
    }
}

fn own_proc(options: &str) -> Option<OwnProc> {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mounted = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>))
        .and_then(|()| mount(Some("proc"), folder.path(), Some("proc"), MsFlags::empty(), Some(options)));
    match mounted {
        Ok(()) => Some(OwnProc(folder)),
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
        let _former = FormerRoot::left_for(empty.path());
        assert!(fs::metadata("/proc").is_err());
        let snapshot = monitor.check_now();
        assert_eq!(snapshot.child_process_count, Some(2), "{}", monitor.verdict());
        assert!(snapshot.memory_bytes.is_some() && monitor.current_memory_mb().is_some());
    }

    #[test]
    fn descendants_that_a_mount_conceals_are_counted() {
        if !is_privileged() {
            return;
        }
        for options in ["hidepid=1", "hidepid=2", "hidepid=4", "hidepid=2,subset=pid"] {
            let Some(root) = own_proc(options) else { continue };
            let opened_before = monitor(root.path());
            assert_eq!(opened_before.check_now().child_process_count, Some(0));
            let shown = Forked::run(|| {
                become_nobody(true);
                fork_sleeper(|| set_dumpable(false).unwrap());
                Ok(())
            });
            let concealed = Forked::run(|| {
                become_nobody(false);
                fork_sleeper(|| set_dumpable(true).unwrap());
                Ok(())
            });
            let mut children = Children(vec![sleeper_of(NOBODY), sleeper_of(0)]);
            wait_until("all of them are there", || opened_before.check_now().child_process_count == Some(6));
            let grandchildren: Vec<_> = [&shown, &concealed].map(|parent| children_of(parent.0)).concat();
            // The files of a process that may not be dumped are those of root.
            let owner = |pid: Pid| fs::metadata(format!("/proc/{pid}/stat")).unwrap().uid();
            wait_until("they are as they should be", || {
                [shown.0, concealed.0, grandchildren[0], grandchildren[1]].map(owner) == [NOBODY, 0, 0, NOBODY]
            });
            let privileges = Privileges::dropped();
            let opened_after = monitor(root.path());
            for monitor in [&opened_before, &opened_after] {
                for _ in 0..3 {
                    let snapshot = monitor.check_now();
                    assert_eq!(snapshot.child_process_count, Some(6), "{options}: {}", monitor.verdict());
                    assert!(snapshot.memory_bytes.is_some() && monitor.is_accepting_work());
                }
            }
            drop(privileges);
            // Started and ended while they are concealed.
            children.0.push(sleeper_of(0));
            let privileges = Privileges::dropped();
            let counts = || [&opened_before, &opened_after].map(|monitor| monitor.check_now().child_process_count);
            assert_eq!(counts(), [Some(7); 2], "{options}: a new one");
            drop(privileges);
            children.0[2].kill().unwrap();
            let privileges = Privileges::dropped();
            for monitor in [&opened_before, &opened_after] {
                wait_until("the zombie is seen", || monitor.check_now().zombie_pids == [children.0[2].id()]);
                assert_eq!(monitor.check_now().child_process_count, Some(7), "{options}: a zombie counts");
            }
            drop(privileges);
            for pid in grandchildren {
                kill(pid, Signal::SIGKILL).unwrap();
            }
            drop((shown, concealed, children));
            let privileges = Privileges::dropped();
            assert_eq!(counts(), [Some(0); 2], "{options}: all have ended");
            drop(privileges);
        }
    }

    #[test]
    fn what_a_mount_begins_to_conceal_is_counted_while_it_lives() {
        if !is_privileged() {
            return;
        }
        let Some(root) = own_proc("hidepid=0") else { return };
        let monitor = monitor(root.path());
        let mut children = Children(vec![sleeper_of(0), sleeper_of(0)]);
        assert_eq!(monitor.check_now().child_process_count, Some(2));
        mount(None::<&str>, root.path(), None::<&str>, MsFlags::MS_REMOUNT, Some("hidepid=2")).unwrap();
        let privileges = Privileges::dropped();
        for _ in 0..3 {
            assert_eq!(monitor.check_now().child_process_count, Some(2), "{}", monitor.verdict());
        }
        drop(privileges);
        children.end(1);
        let privileges = Privileges::dropped();
        assert_eq!(monitor.check_now().child_process_count, Some(1), "{}", monitor.verdict());
        drop(privileges);
    }

    #[test]
    fn a_stranger_that_may_not_be_looked_at_fails_nothing_and_a_known_descendant_does() {
        if !is_privileged() {
            return;
        }
        let tree = ProcTree::new(10);
        fs::set_permissions(tree.root(), fs::Permissions::from_mode(0o755)).unwrap();
        tree.process(2, 1).process(200, ProcTree::OWN_PID).process(201, ProcTree::OWN_PID);
        let allow = |pid: u32, mode| {
            fs::set_permissions(tree.root().join(pid.to_string()), fs::Permissions::from_mode(mode)).unwrap();
        };
        let monitor = monitor(tree.root());
        allow(2, 0o000);
        let _privileges = Privileges::dropped();
        for _ in 0..2 {
            let snapshot = monitor.check_now();
            assert_eq!(snapshot.child_process_count, Some(2), "{}", monitor.verdict());
            assert!(monitor.is_accepting_work());
        }
        seteuid(Uid::from_raw(0)).unwrap();
        allow(201, 0o000);
        seteuid(Uid::from_raw(NOBODY)).unwrap();
        for _ in 0..2 {
            assert!(monitor.check_now().probe_failed(), "{}", monitor.verdict());
        }
        let verdict = monitor.verdict().to_string();
        assert!(verdict.contains("201/stat"), "{verdict}");
        seteuid(Uid::from_raw(0)).unwrap();
        tree.remove(201);
        seteuid(Uid::from_raw(NOBODY)).unwrap();
        assert_eq!(monitor.check_now().child_process_count, Some(1), "{}", monitor.verdict());
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
