//! A forked child starts from nothing, and takes nothing from its parent.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use common::{ensure, in_forked_child, ms, wait_until, Children, QuietJobs};
use highwater::{Resource, ResourceLimits, ResourceMonitor, SystemProbe, Work};
use nix::unistd::ForkResult;
use parking_lot::{Condvar, Mutex};
use rusty_fork::rusty_fork_test;

/// Sets its flag when dropped.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn limits(processes: u64) -> ResourceLimits {
    ResourceLimits::builder().max_processes(processes).build().unwrap()
}

/// The state of a host that forks when it is asked to pause a job, and returns in the child as well.
struct Forks {
    parent: u32,
    /// Written to by whoever is called in the child.
    heard: Mutex<UnixStream>,
    cancelled: Arc<AtomicBool>,
}

impl Forks {
    fn note(&self, what: &str) {
        if std::process::id() != self.parent {
            std::io::Write::write_all(&mut *self.heard.lock(), what.as_bytes()).unwrap();
        }
    }
}

/// The host itself, which alone holds its state.
fn forks(state: Forks) -> QuietJobs {
    let state = Arc::new(state);
    let [counts, names, pauses] = [(); 3].map(|()| Arc::clone(&state));
    QuietJobs::new()
        .counting(move || {
            counts.note(" running_count");
            1
        })
        .naming(move || (!names.cancelled.load(Ordering::Relaxed)).then(|| "job".to_string()))
        .pausing(move || {
            // SAFETY: glibc lets a forked child allocate, and what else it does is what is tested.
            #[allow(unsafe_code)]
            if let ForkResult::Child = unsafe { nix::unistd::fork() }? {
                pauses.note("forked");
            }
            Err("cancel it".into())
        })
        .cancelling(move || {
            state.note(" cancel_job");
            state.cancelled.store(true, Ordering::Relaxed);
            Ok(())
        })
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn a_child_is_refused_until_it_checks_and_its_parent_is_unmoved() {
        let monitor = ResourceMonitor::new(limits(10));
        let readiness = monitor.readiness();
        monitor.start(Duration::from_secs(15)).unwrap();
        let permit = monitor.try_admit(Work::new().processes(7)).unwrap();
        in_forked_child(|| {
            ensure(!readiness.is_accepting_work(), "open in the child")?;
            ensure(readiness.verdict().to_string().contains("forked"), "the verdict does not say forked")?;
            ensure(readiness.try_admit(Work::new()).is_err(), "admitted unchecked")?;
            ensure(monitor.latest().is_none(), "a snapshot of the parent's")?;
            let snapshot = monitor.check_now();
            ensure(snapshot.child_process_count == Some(0), "miscounted")?;
            ensure(readiness.is_accepting_work(), &readiness.verdict().to_string())?;
            // Nothing of the parent's permit is reserved here, and dropping a copy of it gives nothing back.
            let own = readiness.try_admit(Work::new().processes(9));
            ensure(own.is_ok(), "the parent's reservation was inherited")?;
            // SAFETY: this process leaves by `_exit` and neither uses nor drops the original.
            #[allow(unsafe_code)]
            drop(unsafe { std::ptr::read(&permit) });
            monitor.check_now();
            ensure(readiness.try_admit(Work::new().processes(1)).is_err(), "what this process reserved was given back")?;
            drop(own);
            monitor.start(ms(10)).map_err(|error| error.to_string())?;
            monitor.stop();
            ensure(!readiness.is_accepting_work(), "open after stop")
        });
        monitor.check_now();
        assert!(monitor.try_admit(Work::new().processes(3)).is_err(), "the parent's permit was given back by the child");
        assert!(monitor.is_accepting_work());
        drop(permit);
        monitor.check_now();
        assert!(monitor.try_admit(Work::new().processes(3)).is_ok(), "{}", monitor.verdict());
    }

    #[test]
    fn inherited_snapshots_have_ended() {
        let monitor = ResourceMonitor::new(limits(10));
        let mut snapshots = monitor.snapshots();
        monitor.check_now();
        in_forked_child(|| {
            ensure(snapshots.try_recv().is_err(), "received the parent's snapshot")?;
            ensure(snapshots.next().is_none(), "received the parent's snapshot")?;
            drop(snapshots);
            Ok(())
        });
    }

    #[test]
    fn a_probe_reads_the_child_and_not_its_parent() {
        let probe = SystemProbe::new();
        let _children = Children::sleepers(3);
        assert_eq!(probe.child_count().unwrap(), 3);
        probe.memory_bytes().unwrap();
        let ballast = vec![1_u8; 200 << 20];
        let parent = probe.memory_bytes().unwrap();
        in_forked_child(move || {
            drop(ballast);
            ensure(probe.child_count().unwrap() == 0, "counted the parent's children")?;
            let own = probe.memory_bytes().unwrap();
            ensure(own + (100 << 20) < parent, &format!("{own} is the parent's {parent}"))
        });
    }

    #[test]
    fn start_then_daemonize_works() {
        let monitor = ResourceMonitor::new(limits(10));
        monitor.start(ms(20)).unwrap();
        in_forked_child(|| {
            in_forked_child(|| {
                ensure(!monitor.is_accepting_work(), "open in the grandchild")?;
                monitor.start(ms(20)).map_err(|error| error.to_string())?;
                ensure(monitor.is_accepting_work(), &monitor.verdict().to_string())?;
                let snapshots = monitor.snapshots();
                ensure(snapshots.recv_timeout(common::DEADLINE).is_ok(), "no check thread")?;
                drop(monitor);
                Ok(())
            });
            Ok(())
        });
    }

    #[test]
    fn a_child_does_not_wait_for_a_lock_of_the_manager() {
        let monitor = ResourceMonitor::builder(limits(10)).cpu_budget(1.0).build().unwrap();
        let hold = Arc::new((Mutex::new(false), Condvar::new()));
        let held = Arc::new(AtomicBool::new(false));
        let (hook_hold, hook_held) = (Arc::clone(&hold), Arc::clone(&held));
        monitor.set_manager(
            QuietJobs::new()
                .counting(move || {
                    let mut hold = hook_hold.0.lock();
                    while *hold {
                        hook_held.store(true, Ordering::Relaxed);
                        hook_hold.1.wait(&mut hold);
                    }
                    1
                })
                .shared(),
        );
        monitor.start(ms(5)).unwrap();
        *hold.0.lock() = true;
        wait_until("the action thread is in a hook", || held.load(Ordering::Relaxed));
        let lock = hold.0.lock();
        in_forked_child(|| {
            ensure(monitor.check_now().child_process_count == Some(0), "miscounted")?;
            monitor.start(ms(5)).map_err(|error| error.to_string())?;
            ensure(monitor.is_accepting_work(), &monitor.verdict().to_string())?;
            monitor.stop();
            drop(monitor);
            Ok(())
        });
        drop(lock);
        *hold.0.lock() = false;
        hold.1.notify_all();
    }

    #[test]
    fn a_hook_that_forks_and_returns_in_the_child_is_followed_by_no_other_there() {
        let monitor = ResourceMonitor::new(limits(1));
        let (mut heard, writer) = UnixStream::pair().unwrap();
        let cancelled = Arc::new(AtomicBool::new(false));
        let state =
            Forks { parent: std::process::id(), heard: Mutex::new(writer), cancelled: Arc::clone(&cancelled) };
        let jobs = forks(state).shared();
        monitor.set_manager(jobs.clone());
        let _children = Children::sleepers(1);
        monitor.start(Duration::from_secs(3600)).unwrap();
        wait_until("the parent cancels the job", || cancelled.load(Ordering::Relaxed));
        drop(monitor);
        wait_until("the manager is let go", || Arc::strong_count(&jobs) == 1);
        // Ends when the last writer has: the child, which is then gone.
        drop(jobs);
        let mut calls = String::new();
        std::io::Read::read_to_string(&mut heard, &mut calls).unwrap();
        assert_eq!(calls, "forked");
    }

    #[test]
    fn a_thousand_forks_while_the_monitor_checks_and_limits_are_reloaded() {
        // A trigger for pressure takes the kernel some 20 ms to take back, and there would be a thousand of them.
        let builder = ResourceMonitor::builder(limits(100)).cpu_budget(1.0).ignore(Resource::MemoryPressure);
        let monitor = builder.build().unwrap();
        monitor.start(ms(1)).unwrap();
        let readiness = monitor.readiness();
        let _children = Children::sleepers(2);
        let done = AtomicBool::new(false);
        let forks = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            // However this ends, the other threads do too, and the failure is seen.
            let _done = Raise(&done);
            scope.spawn(|| {
                let mut processes = 100;
                while !done.load(Ordering::Relaxed) {
                    processes = 201 - processes;
                    monitor.update_limits(limits(processes));
                    // Leaves the cores to the forks.
                    std::thread::sleep(Duration::from_micros(100));
                }
            });
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let before = forks.load(Ordering::Relaxed);
                    let count = monitor.check_now().child_process_count.unwrap();
                    let forked_meanwhile = forks.load(Ordering::Relaxed) - before;
                    // The two sleepers, and the forked child of the moment, which has no children. A check is not a
                    // moment: one that is held up meets those that come and go meanwhile.
                    assert!((2..=3 + forked_meanwhile).contains(&count), "{count}, {forked_meanwhile} forked meanwhile");
                    std::thread::sleep(ms(1));
                }
            });
            for _ in 0..1000 {
                forks.fetch_add(1, Ordering::Relaxed);
                in_forked_child(|| {
                    ensure(!readiness.is_accepting_work(), "open in the child")?;
                    ensure(monitor.check_now().child_process_count == Some(0), "miscounted")?;
                    ensure(readiness.is_accepting_work(), &readiness.verdict().to_string())?;
                    monitor.start(ms(1)).map_err(|error| error.to_string())?;
                    // SAFETY: this process leaves by `_exit` and neither uses nor drops the original after this.
                    #[allow(unsafe_code)]
                    drop(unsafe { std::ptr::read(&monitor) });
                    ensure(!readiness.is_accepting_work(), "open without a monitor")?;
                    Ok(())
                });
            }
        });
    }
}
