//! What the host is asked to do, and that its slowness, panics and re-entrance hurt nobody.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Weak};
use std::time::{Duration, Instant};

use common::{ms, wait_until, ProcTree, QuietJobs, PAGE};
use highwater::{BoxError, JobManager, ProcessGroup, Resource, ResourceLimits, ResourceMonitor};
use parking_lot::{Condvar, Mutex};

type Hook = Box<dyn FnMut() + Send>;

/// An error that cannot even be printed.
#[derive(Debug)]
struct Unprintable;

impl std::fmt::Display for Unprintable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("printing panics")
    }
}

impl std::error::Error for Unprintable {}

/// Records what it is asked, and does what the test says.
#[derive(Default)]
struct Jobs {
    calls: Mutex<Vec<String>>,
    job: Mutex<Option<String>>,
    refuses_pause: AtomicBool,
    panics: AtomicBool,
    refusal_panics: AtomicBool,
    prune_fails: AtomicBool,
    on_count: Mutex<Option<Hook>>,
    on_pause: Mutex<Option<Hook>>,
    prunes: AtomicUsize,
}

impl Jobs {
    fn with_job(job: &str) -> Arc<Jobs> {
        let jobs = Jobs::default();
        *jobs.job.lock() = Some(job.to_string());
        Arc::new(jobs)
    }

    fn called(&self, what: &str) -> usize {
        self.calls.lock().iter().filter(|call| *call == what).count()
    }

    fn record(&self, call: String) {
        self.calls.lock().push(call);
    }
}

impl JobManager for Jobs {
    fn running_count(&self) -> usize {
        let hook = self.on_count.lock().take();
        if let Some(mut hook) = hook {
            hook();
        }
        3
    }

    fn active_job_count(&self) -> usize {
        7
    }

    fn oldest_running_job(&self) -> Option<String> {
        self.record("oldest".to_string());
        self.job.lock().clone()
    }

    fn pause_job(&self, job_id: &str, critical: Resource) -> Result<(), BoxError> {
        self.record(format!("pause {job_id} {critical}"));
        let hook = self.on_pause.lock().take();
        if let Some(mut hook) = hook {
            hook();
        }
        assert!(!self.panics.load(Ordering::Relaxed), "pausing panics");
        if self.refusal_panics.load(Ordering::Relaxed) {
            return Err(Box::new(Unprintable));
        }
        if self.refuses_pause.load(Ordering::Relaxed) {
            return Err("stopping frees nothing".into());
        }
        Ok(())
    }

    fn cancel_job(&self, job_id: &str, critical: Resource) -> Result<(), BoxError> {
        self.record(format!("cancel {job_id} {critical}"));
        assert!(!self.panics.load(Ordering::Relaxed), "cancelling panics");
        Ok(())
    }

    fn pressure_cleared(&self) {
        self.record("cleared".to_string());
    }

    fn prune_stale(&self) -> Result<(), BoxError> {
        self.prunes.fetch_add(1, Ordering::Relaxed);
        if self.prune_fails.load(Ordering::Relaxed) {
            return Err("nothing to prune with".into());
        }
        Ok(())
    }
}

fn limits() -> ResourceLimits {
    ResourceLimits::builder().max_memory_bytes(1000 * PAGE).max_processes(10).build().unwrap()
}

fn monitor(tree: &ProcTree) -> ResourceMonitor {
    ResourceMonitor::builder(limits()).proc_root(tree.root()).settle(ms(40)).cpu_budget(1.0).build().unwrap()
}

#[test]
fn a_critical_resource_pauses_the_oldest_job_then_cancels_the_same_one() {
    let tree = ProcTree::new(960);
    let monitor = monitor(&tree);
    let jobs = Jobs::with_job("a");
    monitor.set_manager(jobs.clone());
    monitor.start(ms(5)).unwrap();
    wait_until("the job is cancelled", || jobs.called("cancel a memory") >= 1);
    assert_eq!(jobs.called("pause a memory"), 1);
    tree.set_resident_pages(10);
    wait_until("the host is told", || jobs.called("cleared") == 1);
    let snapshots = monitor.snapshots();
    for _ in 0..5 {
        snapshots.recv_timeout(common::DEADLINE).unwrap();
    }
    assert_eq!(jobs.called("cleared"), 1, "told once");
    let snapshot = monitor.latest().unwrap();
    assert_eq!((snapshot.running_jobs, snapshot.active_sheets), (3, 7));
}

#[test]
fn a_pause_that_is_refused_or_panics_becomes_a_cancel() {
    let ways: [fn(&Jobs) -> &AtomicBool; 3] =
        [|jobs| &jobs.refuses_pause, |jobs| &jobs.panics, |jobs| &jobs.refusal_panics];
    for way in ways {
        let tree = ProcTree::new(1000);
        let monitor = monitor(&tree);
        let jobs = Jobs::with_job("b");
        way(&jobs).store(true, Ordering::Relaxed);
        monitor.set_manager(jobs.clone());
        monitor.start(Duration::from_secs(3600)).unwrap();
        wait_until("the job is cancelled", || jobs.called("cancel b memory") == 1);
        assert_eq!(jobs.called("pause b memory"), 1);
    }
}

#[test]
fn the_host_gives_back_what_it_can_spare_before_a_job_is_shed() {
    let tree = Arc::new(ProcTree::new(990));
    let monitor = monitor(&tree);
    let (asked, paused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (asks, pauses, freed) = (Arc::clone(&asked), Arc::clone(&paused), Arc::clone(&tree));
    let jobs = QuietJobs::new().naming(|| Some("o".to_string()));
    let jobs = jobs.reclaiming(move || {
        asks.fetch_add(1, Ordering::SeqCst);
        freed.set_resident_pages(500);
        true
    });
    let jobs = jobs.pausing(move || {
        pauses.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    monitor.set_manager(jobs.shared());
    monitor.start(ms(5)).unwrap();
    wait_until("the gate opens", || monitor.is_accepting_work());
    assert_eq!((asked.load(Ordering::SeqCst), paused.load(Ordering::SeqCst)), (1, 0));
}

#[test]
fn a_host_that_gives_back_nothing_or_panics_is_asked_once_and_its_job_is_shed_at_once() {
    for panics in [false, true] {
        let tree = ProcTree::new(990);
        let builder = ResourceMonitor::builder(limits()).proc_root(tree.root()).settle(Duration::from_secs(3600));
        let monitor = builder.build().unwrap();
        let (asked, paused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (asks, pauses) = (Arc::clone(&asked), Arc::clone(&paused));
        let jobs = QuietJobs::new().naming(|| Some("p".to_string()));
        let jobs = jobs.reclaiming(move || {
            asks.fetch_add(1, Ordering::SeqCst);
            assert!(!panics, "reclaiming panics");
            false
        });
        let jobs = jobs.pausing(move || {
            pauses.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        monitor.set_manager(jobs.shared());
        monitor.start(Duration::from_secs(3600)).unwrap();
        wait_until("the job is paused", || paused.load(Ordering::SeqCst) == 1);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn a_shed_before_a_restart_is_cleared_after_it() {
    let tree = ProcTree::new(1000);
    let monitor = monitor(&tree);
    let jobs = Jobs::with_job("k");
    monitor.set_manager(jobs.clone());
    monitor.start(ms(5)).unwrap();
    wait_until("the job is paused", || jobs.called("pause k memory") == 1);
    monitor.stop();
    tree.set_resident_pages(1);
    monitor.start(ms(5)).unwrap();
    wait_until("the host is told", || jobs.called("cleared") == 1);
}

#[test]
fn a_stop_during_the_first_check_of_a_start_leaves_the_next_start_whole() {
    let tree = ProcTree::new(1000);
    let monitor = Arc::new(monitor(&tree));
    let jobs = Jobs::with_job("l");
    let weak = Arc::downgrade(&monitor);
    *jobs.on_count.lock() = Some(Box::new(move || weak.upgrade().unwrap().stop()));
    monitor.set_manager(jobs.clone());
    monitor.start(ms(5)).unwrap();
    assert!(monitor.verdict().to_string().contains("stopped"), "{}", monitor.verdict());
    monitor.start(ms(5)).unwrap();
    wait_until("the job is paused", || jobs.called("pause l memory") == 1);
}

#[test]
fn a_count_that_has_a_check_taken_is_not_asked_for_that_check() {
    let tree = ProcTree::new(1);
    let monitor = Arc::new(monitor(&tree));
    let jobs = Jobs::with_job("m");
    monitor.set_manager(jobs.clone());
    let counts = Arc::new(AtomicUsize::new(0));
    let (weak, counted, again) = (Arc::downgrade(&monitor), Arc::clone(&counts), Arc::downgrade(&jobs));
    *jobs.on_count.lock() = Some(Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let deeper = Arc::clone(&counted);
        *again.upgrade().unwrap().on_count.lock() = Some(Box::new(move || {
            deeper.fetch_add(1, Ordering::Relaxed);
        }));
        assert_eq!(weak.upgrade().unwrap().check_now().running_jobs, 0, "not known yet");
    }));
    assert_eq!(monitor.check_now().running_jobs, 3);
    assert_eq!(counts.load(Ordering::Relaxed), 1);
}

#[test]
fn a_manager_set_after_start_is_asked_too() {
    let tree = ProcTree::new(1000);
    let monitor = monitor(&tree);
    monitor.start(ms(5)).unwrap();
    let jobs = Jobs::with_job("late");
    monitor.set_manager(jobs.clone());
    wait_until("the job is paused", || jobs.called("pause late memory") == 1);
}

#[test]
fn a_manager_that_was_taken_away_is_dropped_and_asked_no_more() {
    let tree = ProcTree::new(1000);
    let monitor = monitor(&tree);
    let jobs = Jobs::with_job("t");
    monitor.set_manager(jobs.clone());
    monitor.start(ms(5)).unwrap();
    wait_until("shedding goes on", || jobs.called("cancel t memory") >= 2);
    monitor.clear_manager();
    wait_until("nobody but the test has it", || Arc::strong_count(&jobs) == 1);
    let calls = jobs.calls.lock().len();
    let snapshots = monitor.snapshots();
    for _ in 0..20 {
        snapshots.recv_timeout(common::DEADLINE).unwrap();
    }
    assert_eq!(jobs.calls.lock().len(), calls);
    let snapshot = monitor.latest().unwrap();
    assert_eq!((snapshot.running_jobs, snapshot.active_sheets), (0, 0));
}

#[test]
fn nothing_is_shed_on_a_failed_reading() {
    let tree = ProcTree::new(1000);
    tree.stat(200, b"garbage");
    let monitor = monitor(&tree);
    let jobs = Jobs::with_job("c");
    monitor.set_manager(jobs.clone());
    monitor.start(ms(5)).unwrap();
    let snapshots = monitor.snapshots();
    for _ in 0..4 {
        assert!(snapshots.recv_timeout(common::DEADLINE).unwrap().probe_failed());
    }
    assert_eq!(jobs.called("oldest"), 0);
}

#[test]
fn a_hook_that_hangs_delays_no_check_and_stop_by_its_patience_only() {
    let tree = ProcTree::new(1000);
    let monitor = monitor(&tree);
    let jobs = Jobs::with_job("d");
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let hook_gate = Arc::clone(&gate);
    *jobs.on_pause.lock() = Some(Box::new(move || {
        let mut released = hook_gate.0.lock();
        while !*released {
            hook_gate.1.wait(&mut released);
        }
    }));
    monitor.set_manager(jobs.clone());
    monitor.start(ms(5)).unwrap();
    wait_until("the hook hangs", || jobs.called("pause d memory") == 1);
    let snapshots = monitor.snapshots();
    for _ in 0..5 {
        snapshots.recv_timeout(common::DEADLINE).unwrap();
    }
    assert!(!monitor.is_accepting_work());
    assert!(!monitor.verdict().is_accepting());
    // Returns while the hook hangs, which it does until further below.
    monitor.stop();

    // A restart behind the hung hook: checks go on, hooks wait until it is gone.
    monitor.start(ms(5)).unwrap();
    for _ in 0..5 {
        snapshots.recv_timeout(common::DEADLINE).unwrap();
    }
    let calls = jobs.calls.lock().len();
    monitor.check_now();
    assert_eq!(jobs.calls.lock().len(), calls, "a hook was called while another of an earlier run was in progress");
    *gate.0.lock() = true;
    gate.1.notify_all();
    // The job was paused in the end, before the restart, and is still the oldest.
    wait_until("the restarted monitor sheds", || jobs.called("cancel d memory") >= 1);
    assert_eq!(jobs.called("pause d memory"), 1);
}

#[test]
fn a_hook_may_stop_restart_and_drop_the_monitor() {
    let tree = ProcTree::new(1000);
    let owned = Arc::new(Mutex::new(Some(Arc::new(monitor(&tree)))));
    let monitor: Weak<ResourceMonitor> = Arc::downgrade(owned.lock().as_ref().unwrap());
    let jobs = Jobs::with_job("e");
    let finished = Arc::new(AtomicBool::new(false));
    let (hook_owned, hook_finished) = (Arc::clone(&owned), Arc::clone(&finished));
    *jobs.on_pause.lock() = Some(Box::new(move || {
        let monitor = hook_owned.lock().take().unwrap();
        let before = Instant::now();
        monitor.check_now();
        monitor.verdict();
        monitor.stop();
        monitor.start(ms(5)).unwrap();
        monitor.update_limits(limits());
        monitor.set_manager(Jobs::with_job("f"));
        drop(monitor);
        assert!(before.elapsed() < common::DEADLINE);
        hook_finished.store(true, Ordering::Relaxed);
    }));
    {
        let monitor = monitor.upgrade().unwrap();
        monitor.set_manager(jobs.clone());
        monitor.start(ms(5)).unwrap();
    }
    wait_until("the hook has dropped the monitor", || finished.load(Ordering::Relaxed));
    assert!(monitor.upgrade().is_none());
    wait_until("the manager is let go", || Arc::strong_count(&jobs) == 1);
}

#[test]
fn a_manager_whose_drop_hangs_does_not_hold_up_a_stop() {
    /// Says that it is being dropped, and hangs until it is let go.
    struct HangsInDrop(mpsc::Sender<()>, Mutex<mpsc::Receiver<()>>);
    impl Drop for HangsInDrop {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
            let _ = self.1.lock().recv();
        }
    }
    let tree = ProcTree::new(1000);
    let monitor = Arc::new(monitor(&tree));
    let (release, released) = mpsc::channel();
    let (entered, dropping) = mpsc::channel();
    let (replaced, hangs) = (Arc::downgrade(&monitor), HangsInDrop(entered, Mutex::new(released)));
    let jobs = QuietJobs::new().naming(move || {
        let _held = &hangs;
        // Replaced while it is asked: the action thread is left with the last handle.
        if let Some(monitor) = replaced.upgrade() {
            monitor.set_manager(Jobs::with_job("n"));
        }
        None
    });
    monitor.set_manager(jobs.shared());
    monitor.start(ms(5)).unwrap();
    dropping.recv_timeout(common::DEADLINE).unwrap();
    // Returns while the drop hangs.
    monitor.stop();
    drop(release);
}

#[test]
fn a_replaced_manager_is_dropped_even_when_its_drop_calls_back() {
    struct CallsBack(Weak<ResourceMonitor>, Arc<AtomicBool>);
    impl Drop for CallsBack {
        fn drop(&mut self) {
            if let Some(monitor) = self.0.upgrade() {
                monitor.check_now();
                monitor.set_manager(Jobs::with_job("g"));
            }
            self.1.store(true, Ordering::Relaxed);
            panic!("in the drop of a manager");
        }
    }
    let tree = ProcTree::new(1);
    let monitor = Arc::new(monitor(&tree));
    monitor.start(ms(5)).unwrap();
    let dropped = Arc::new(AtomicBool::new(false));
    let calls_back = CallsBack(Arc::downgrade(&monitor), Arc::clone(&dropped));
    let count = move || {
        let _held = &calls_back;
        0
    };
    monitor.set_manager(QuietJobs::new().counting(count).shared());
    monitor.set_manager(Jobs::with_job("h"));
    wait_until("the old manager is dropped", || dropped.load(Ordering::Relaxed));
}

#[test]
fn pruning_is_switched_off_after_three_failures_and_on_again_with_a_new_manager() {
    let tree = ProcTree::new(1);
    let monitor = monitor(&tree);
    let failing = Jobs::with_job("i");
    failing.prune_fails.store(true, Ordering::Relaxed);
    monitor.set_manager(failing.clone());
    monitor.start(ms(5)).unwrap();
    wait_until("it failed three times", || failing.prunes.load(Ordering::Relaxed) == 3);
    let snapshots = monitor.snapshots();
    for _ in 0..10 {
        snapshots.recv_timeout(common::DEADLINE).unwrap();
    }
    assert_eq!(failing.prunes.load(Ordering::Relaxed), 3);
    let working = Jobs::with_job("j");
    monitor.set_manager(working.clone());
    wait_until("the new one is pruned", || working.prunes.load(Ordering::Relaxed) >= 2);
}

#[test]
fn a_process_group_is_asked_to_clean_up_without_a_manager() {
    #[derive(Default)]
    struct Group(AtomicUsize, AtomicUsize);
    impl ProcessGroup for Group {
        fn cleanup_orphans(&self) -> std::io::Result<Vec<u32>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied))
        }
        fn reap_orphaned_backends(&self) -> std::io::Result<Vec<u32>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            panic!("reaping panics")
        }
    }
    let tree = ProcTree::new(1);
    let monitor = monitor(&tree);
    let group = Arc::new(Group::default());
    monitor.set_process_group(group.clone());
    monitor.start(ms(5)).unwrap();
    wait_until("both were called again and again", || {
        group.0.load(Ordering::Relaxed) > 3 && group.1.load(Ordering::Relaxed) > 3
    });
}
