//! Permits that are attached to real processes: what is measured of them is not reserved any more.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{ensure, in_forked_child, ms, wait_until, Children};
use highwater::{ErrorKind, MemoryScope, Permit, ResourceLimits, ResourceMonitor, Verdict, Work};
use rusty_fork::rusty_fork_test;

const FOREVER: Duration = Duration::MAX;
const MB: u64 = 1 << 20;

fn limits(processes: u64) -> ResourceLimits {
    ResourceLimits::builder().max_processes(processes).max_memory_mb(1 << 20).build().unwrap()
}

/// Checks only when a test says so.
fn unstarted(processes: u64) -> ResourceMonitor {
    let builder = ResourceMonitor::builder(limits(processes));
    let monitor = builder.refresh_after(Duration::from_secs(3600)).max_age(Duration::from_secs(7200)).build().unwrap();
    monitor.check_now();
    monitor
}

fn shell(script: &str) -> Child {
    Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// A shell with two sleepers below it, which ends with its input.
fn family() -> Child {
    shell("sleep 1000 & one=$!; sleep 1000 & two=$!; read line; kill $one $two; wait")
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    child.wait().unwrap();
}

fn reserved(monitor: &ResourceMonitor) -> String {
    let text = monitor.verdict().to_string();
    let processes = text.split("processes ").nth(1).unwrap();
    processes.split(" of ").next().unwrap().to_owned()
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn what_a_check_measures_is_not_reserved_and_what_is_still_to_come_is() {
        let monitor = unstarted(100);
        let permit = monitor.try_admit(Work::new().processes(5)).unwrap();
        let child = family();
        permit.attach(child.id()).unwrap();
        assert_eq!(permit.usage(), None);
        assert_eq!(reserved(&monitor), "0 + 5 reserved");
        wait_until("it has two children", || monitor.check_now().child_process_count == Some(3));
        assert_eq!(reserved(&monitor), "3 + 2 reserved");
        let usage = permit.usage().unwrap();
        assert_eq!((usage.processes, usage.peak_processes), (3, 3));
        assert!(usage.memory_bytes > 0 && usage.peak_memory_bytes >= usage.memory_bytes);
        let holders = monitor.holders();
        assert_eq!(holders.iter().map(|holder| holder.pid).collect::<Vec<_>>(), [Some(child.id())]);
        end(child);
        monitor.check_now();
        assert_eq!(reserved(&monitor), "0", "what has ended reserves nothing");
        assert_eq!(permit.usage().map(|usage| (usage.processes, usage.peak_processes)), Some((0, 3)));
        permit.finish();
        assert_eq!(monitor.holders(), []);
    }

    #[test]
    fn a_finished_one_gives_its_room_back_without_a_check() {
        let monitor = unstarted(10);
        let permit = monitor.try_admit(Work::new().processes(7)).unwrap();
        let child = family();
        permit.attach(child.id()).unwrap();
        wait_until("it has two children", || monitor.check_now().child_process_count == Some(3));
        assert_eq!(reserved(&monitor), "3 + 4 reserved");
        end(child);
        permit.finish();
        assert_eq!(reserved(&monitor), "0");
        monitor.try_admit(Work::new().processes(9)).unwrap().finish();
    }

    #[test]
    fn the_end_of_a_child_is_seen_by_a_refusal_without_a_check() {
        let monitor = unstarted(10);
        let permit = monitor.try_admit(Work::new().processes(7)).unwrap();
        let child = shell("read line");
        permit.attach(child.id()).unwrap();
        assert!(monitor.try_admit(Work::new().processes(3)).is_err());
        let pid = child.id();
        end(child);
        wait_until("what it had reserved is free", || monitor.try_admit(Work::new().processes(9)).is_ok());
        assert_eq!(monitor.holders()[0].pid, Some(pid));
    }

    #[test]
    fn a_child_that_ended_before_any_check_counts_until_it_is_waited_for() {
        let monitor = unstarted(10);
        let permit = monitor.try_admit(Work::new().processes(7)).unwrap();
        let mut child = shell("read line");
        permit.attach(child.id()).unwrap();
        drop(child.stdin.take());
        wait_until("its end is seen", || monitor.try_admit(Work::new().processes(8)).map(Permit::finish).is_ok());
        assert_eq!(reserved(&monitor), "0 + 1 reserved", "it is a zombie");
        child.wait().unwrap();
        wait_until("it is gone", || monitor.try_admit(Work::new().processes(9)).map(Permit::finish).is_ok());
        assert_eq!(reserved(&monitor), "0");
    }

    #[test]
    fn memory_of_a_child_is_not_that_of_this_process_unless_the_scope_is_the_tree() {
        for scope in [MemoryScope::Own, MemoryScope::Tree] {
            let limits = ResourceLimits::builder().max_memory_mb(1 << 20).max_processes(100).build().unwrap();
            let monitor = ResourceMonitor::builder(limits).memory_scope(scope).build().unwrap();
            monitor.check_now();
            let permit = monitor.try_admit(Work::new().processes(1).memory_mb(300)).unwrap();
            let says_reserved = |megabytes: &str| {
                let text = monitor.verdict().to_string();
                text.split(", ").next().unwrap().contains(&format!(" + {megabytes}"))
            };
            assert!(says_reserved("300.0 MB reserved"), "{}", monitor.verdict());
            // It holds 100 MB until its input ends.
            let script = "x=$(head -c 100000000 /dev/zero | tr '\\0' x); read line";
            let child = shell(script);
            permit.attach(child.id()).unwrap();
            assert_eq!(says_reserved("300.0 MB reserved"), scope == MemoryScope::Tree);
            wait_until("its memory is there", || {
                monitor.check_now();
                permit.usage().is_some_and(|usage| usage.memory_bytes > 90 * MB && usage.processes == 1)
            });
            let text = monitor.verdict().to_string();
            let own = text.split(", ").next().unwrap();
            let reserved = own.split(" + ").nth(1).map(|rest| rest.split('.').next().unwrap().parse::<u64>().unwrap());
            match scope {
                MemoryScope::Tree => assert!((100..210).contains(&reserved.unwrap()), "{text}"),
                _ => assert_eq!(reserved, None, "{text}"),
            }
            assert!(permit.usage().unwrap().peak_memory_bytes > 90 * MB);
            end(child);
            permit.finish();
        }
    }

    #[test]
    fn who_is_no_descendant_is_an_error_and_leaves_the_permit_as_it_was() {
        let monitor = unstarted(100);
        let permit = monitor.try_admit(Work::new().processes(5)).unwrap();
        let own = std::process::id();
        let mut gone = shell("exit 0");
        gone.wait().unwrap();
        let children = Children::sleepers(1);
        let thread = std::thread::spawn(|| nix::unistd::gettid().as_raw() as u32).join().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let living = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid().as_raw() as u32).unwrap();
            let _ = released.recv();
        });
        for pid in [1, gone.id(), own, thread, told.recv().unwrap(), u32::MAX, 1 << 31] {
            let error = permit.attach(pid).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Process, "{error}");
            assert!(error.to_string().contains(&pid.to_string()), "{error}");
        }
        assert_eq!(permit.attach(0).unwrap_err().kind(), ErrorKind::InvalidSetting);
        drop(release);
        living.join().unwrap();
        assert_eq!(reserved(&monitor), "0 + 5 reserved");
        let pid = children.0[0].id();
        permit.attach(pid).unwrap();
        assert_eq!(permit.attach(pid).unwrap_err().kind(), ErrorKind::InvalidSetting);
        let another = monitor.try_admit(Work::new().processes(1)).unwrap();
        let error = another.attach(pid).unwrap_err();
        assert_eq!(error.to_string(), format!("process {pid} has a permit attached to it already"));
    }

    #[test]
    fn one_that_has_ended_and_was_not_waited_for_can_be_attached_and_keeps_its_status() {
        let monitor = unstarted(10);
        let permit = monitor.try_admit(Work::new().processes(3)).unwrap();
        let mut child = shell("exit 7");
        drop(child.stdin.take());
        let stat = format!("/proc/{}/stat", child.id());
        wait_until("it has ended", || std::fs::read_to_string(&stat).unwrap().contains(") Z "));
        permit.attach(child.id()).unwrap();
        monitor.check_now();
        assert_eq!(reserved(&monitor), "1", "a zombie counts, and nothing more will come of it");
        drop(permit);
        assert_eq!(child.wait().unwrap().code(), Some(7));
    }

    /// A daemon leaves its parent: with a subreaper it comes to us, and without one it is nobody's.
    #[test]
    fn one_that_daemonizes_counts_where_it_is_and_reserves_nothing() {
        let monitor = unstarted(100);
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let permit = monitor.try_admit(Work::new().processes(6)).unwrap();
        let mut child = shell("(sleep 1000 & sleep 1000 & echo $!) > /dev/null; exit 0");
        permit.attach(child.id()).unwrap();
        child.wait().unwrap();
        wait_until("its children are ours", || monitor.check_now().child_process_count == Some(2));
        assert_eq!(reserved(&monitor), "2");
        assert_eq!(permit.usage().map(|usage| usage.processes), Some(0));
        permit.finish();
        assert_eq!(reserved(&monitor), "2");
        let left = procfs::process::all_processes().unwrap().filter_map(|process| process.ok()?.stat().ok());
        for stat in left.filter(|stat| stat.ppid as u32 == std::process::id()) {
            let pid = nix::unistd::Pid::from_raw(stat.pid);
            nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
            nix::sys::wait::waitpid(pid, None).unwrap();
        }
    }

    /// A grandchild is no child: only a check knows of its end.
    #[test]
    fn a_grandchild_can_be_attached() {
        let monitor = unstarted(100);
        let mut child = Command::new("sh")
            .args(["-c", "sleep 1000 & echo $!; read line; kill $!; wait"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        let grandchild: u32 = line.trim().parse().unwrap();
        let outer = monitor.try_admit(Work::new().processes(1)).unwrap();
        let inner = monitor.try_admit(Work::new().processes(3)).unwrap();
        outer.attach(child.id()).unwrap();
        inner.attach(grandchild).unwrap();
        monitor.check_now();
        assert_eq!(reserved(&monitor), "2 + 2 reserved", "what lies in another counts in itself alone");
        assert_eq!((outer.usage().unwrap().processes, inner.usage().unwrap().processes), (1, 1));
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        child.wait().unwrap();
        monitor.check_now();
        assert_eq!(reserved(&monitor), "0");
    }

    #[test]
    fn a_forked_child_has_no_waiters_and_may_not_attach_and_the_parents_are_served() {
        let monitor = ResourceMonitor::new(limits(10));
        monitor.start(Duration::from_secs(15)).unwrap();
        let holder = monitor.admit(Work::new().processes(7), FOREVER).unwrap();
        let readiness = monitor.readiness();
        let waiter = std::thread::spawn(move || readiness.admit(Work::new().processes(5), FOREVER));
        wait_until("it waits", || monitor.waiters() == 1);
        in_forked_child(|| {
            ensure(monitor.waiters() == 0, "waiters were inherited")?;
            ensure(monitor.holders().is_empty(), "permits were inherited")?;
            let refused: Result<_, Verdict> = monitor.admit(Work::new().processes(1), FOREVER);
            ensure(refused.is_err_and(|verdict| verdict.to_string().contains("forked")), "not refused at once")?;
            ensure(holder.attach(std::process::id()).is_err(), "the parent's permit was attached")?;
            monitor.start(ms(10)).map_err(|error| error.to_string())?;
            let own = monitor.admit(Work::new().processes(9), FOREVER).map_err(|verdict| verdict.to_string())?;
            ensure(monitor.holders().len() == 1, "not listed")?;
            own.finish();
            monitor.wait_until_accepting(FOREVER).map_err(|verdict| verdict.to_string())?;
            monitor.stop();
            Ok(())
        });
        assert_eq!(monitor.waiters(), 1);
        holder.finish();
        waiter.join().unwrap().unwrap().finish();
    }

    #[test]
    fn attached_subtrees_are_measured_without_allocation_of_their_own() {
        let monitor = unstarted(1000);
        let children = Children::sleepers(20);
        let permits: Vec<_> = children
            .0
            .iter()
            .map(|child| {
                let permit = monitor.try_admit(Work::new().processes(2)).unwrap();
                permit.attach(child.id()).unwrap();
                permit
            })
            .collect();
        monitor.check_now();
        assert_eq!(reserved(&monitor), "20 + 20 reserved");
        assert!(permits.iter().all(|permit| permit.usage().is_some_and(|usage| usage.processes == 1)));
        permits.into_iter().for_each(drop);
        monitor.check_now();
        assert_eq!(reserved(&monitor), "20");
    }
}
