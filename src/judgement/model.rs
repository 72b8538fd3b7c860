//! Permits, waiters, checks, limits and a stop, in every order that a random scheduler comes upon.
//!
//! The judgement, its room and the queue are those of the monitor. Threads and the lock are the scheduler's, which
//! switches at every access; what the engine does under the lock is repeated here. A referee beside them counts the work
//! that really is alive. `.ci/run model` runs it; `HIGHWATER_GRANTS` says how many grants to see (default 100,000).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shuttle::rand::Rng;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::atomic::AtomicUsize;
use shuttle::sync::{Arc, Condvar, Mutex};
use shuttle::{thread, Runner};

use super::admission::Admission;
use super::queue::Queue;
use super::{Judgement, Observation, Stopped};
use crate::vocabulary::{
    Error, ErrorKind, Found, Measured, Overtaking, PerResource, Resource, ResourceLimits, Settings, Work,
};

/// Grants so far, over all executions.
static GRANTS: AtomicU64 = AtomicU64::new(0);

const NOW: Duration = Duration::from_secs(1);

/// One monitor as the model has it.
struct Monitor {
    admission: std::sync::Arc<Admission>,
    locked: Mutex<Locked>,
    referee: std::sync::Mutex<Referee>,
    /// The number of askers that have nothing more to ask.
    done: AtomicUsize,
}

/// The values that the lock of the judgement guards.
struct Locked {
    judgement: Judgement,
    queue: Queue<Arc<Told>>,
    limits: ResourceLimits,
    next_number: u64,
}

/// The truth: work that was granted and has not ended, and the largest limit that it may be held against.
struct Referee {
    alive: u64,
    limit: u64,
    stopped: bool,
}

/// A waiter's answer.
struct Told {
    granted: Mutex<Option<bool>>,
    changed: Condvar,
}

impl Told {
    fn tell(&self, granted: bool) {
        *self.granted.lock().unwrap() = Some(granted);
        self.changed.notify_one();
    }

    fn wait(&self) -> bool {
        let mut granted = self.granted.lock().unwrap();
        loop {
            match *granted {
                Some(granted) => return granted,
                None => granted = self.changed.wait(granted).unwrap(),
            }
        }
    }
}

/// Work is granted below this many processes, and the gate is closed from four fifths of them on.
fn limits(processes: u64) -> ResourceLimits {
    ResourceLimits::builder().max_processes(processes).warn_percent(80).hard_percent(100).build().unwrap()
}

fn found(processes: u64) -> Found {
    PerResource::from_fn(|resource| match resource {
        Resource::Memory => Ok(Some(Measured::of(1))),
        Resource::Processes => Ok(Some(Measured::of(processes))),
        _ => Ok(None),
    })
}

impl Monitor {
    fn new(limit: u64) -> Monitor {
        let overtaking = Overtaking { times: 2, time: Duration::from_secs(5) };
        let mut judgement = Judgement::new(Settings::default(), false, None);
        judgement.begin(NOW);
        let admission = std::sync::Arc::clone(judgement.admission());
        let locked = Locked { judgement, queue: Queue::new(overtaking), limits: limits(limit), next_number: 1 };
        let monitor = Monitor {
            admission,
            locked: Mutex::new(locked),
            referee: std::sync::Mutex::new(Referee { alive: 0, limit, stopped: false }),
            done: AtomicUsize::new(0),
        };
        monitor.check();
        monitor
    }

    fn serve(&self, locked: &mut Locked) {
        let room = &self.admission.room;
        if room.has_waiters() && self.admission.word.is_fresh(NOW) {
            let tell = |told: Arc<Told>| {
                room.remove_waiter();
                told.tell(true);
            };
            locked.queue.serve(NOW, |work| room.try_reserve(work).is_ok(), tell);
        }
    }

    fn try_admit(&self, work: &Work) -> bool {
        self.admission.try_grant(work, NOW) || self.admit_judged(&mut self.locked.lock().unwrap(), work)
    }

    fn admit_judged(&self, locked: &mut Locked, work: &Work) -> bool {
        self.serve(locked);
        if locked.queue.bars(work, NOW) || locked.judgement.admit(work, NOW, &locked.limits).is_err() {
            return false;
        }
        locked.queue.was_passed_by(work);
        true
    }

    fn admit(&self, work: &Work) -> bool {
        if self.admission.try_grant(work, NOW) {
            return true;
        }
        let mut locked = self.locked.lock().unwrap();
        if self.admit_judged(&mut locked, work) {
            return true;
        }
        if locked.judgement.is_hopeless() {
            return false;
        }
        let told = Arc::new(Told { granted: Mutex::new(None), changed: Condvar::new() });
        self.admission.room.add_waiter();
        locked.queue.push(*work, NOW, Arc::clone(&told));
        self.serve(&mut locked);
        drop(locked);
        told.wait()
    }

    fn begin_work(&self, work: &Work, stopped_before: bool) {
        GRANTS.fetch_add(1, Ordering::Relaxed);
        assert!(!stopped_before, "granted by a monitor that had been stopped");
        let mut referee = self.referee.lock().unwrap();
        referee.alive += work.of(Resource::Processes);
        assert!(referee.alive < referee.limit, "{} of {} are alive", referee.alive, referee.limit);
    }

    fn end_work(&self, work: &Work) {
        self.referee.lock().unwrap().alive -= work.of(Resource::Processes);
    }

    /// The work has ended and its permit says so.
    fn finish(&self, work: &Work) {
        self.end_work(work);
        if self.admission.finish(work) {
            let mut locked = self.locked.lock().unwrap();
            self.serve(&mut locked);
        }
    }

    fn check(&self) {
        self.check_that(|measured| found(measured));
    }

    /// A check that finds out nothing, as which the room is without a bound.
    fn fail(&self) {
        self.check_that(|_| {
            PerResource::from_fn(|_| Err(Error::new(ErrorKind::Panicked, "a check that fails").into()))
        });
    }

    fn check_that(&self, find: impl FnOnce(u64) -> Found) {
        let number = {
            let mut locked = self.locked.lock().unwrap();
            locked.next_number += 1;
            locked.next_number
        };
        let released = self.admission.room.take_released();
        let measured = self.referee.lock().unwrap().alive;
        thread::yield_now();
        let mut guard = self.locked.lock().unwrap();
        let locked = &mut *guard;
        let check = Observation {
            number,
            now: NOW,
            began: NOW,
            ended: NOW,
            cpu: Duration::ZERO,
            cpu_between: Duration::ZERO,
            planned: None,
            found: &find(measured),
            zombies: &[],
            subtrees: &[],
            released,
        };
        if locked.judgement.record(&check, &locked.limits).is_some() {
            locked.judgement.publish_check(&locked.limits);
            self.serve(locked);
        }
    }

    fn update_limit(&self, limit: u64) {
        let mut guard = self.locked.lock().unwrap();
        let locked = &mut *guard;
        let mut referee = self.referee.lock().unwrap();
        referee.limit = referee.limit.max(limit);
        drop(referee);
        locked.limits = limits(limit);
        locked.judgement.publish_rejudged(&locked.limits);
        self.serve(locked);
    }

    fn stop(&self) {
        let mut guard = self.locked.lock().unwrap();
        let locked = &mut *guard;
        locked.judgement.close(Stopped::Asked);
        locked.judgement.publish_check(&locked.limits);
        let tell = |told: Arc<Told>| {
            self.admission.room.remove_waiter();
            told.tell(false);
        };
        locked.queue.dismiss(|_| true, tell);
        drop(guard);
        self.referee.lock().unwrap().stopped = true;
    }
}

/// Asks for work of some size, a few times, in each of the ways in which a host can.
fn ask(monitor: &Monitor, waits: bool) {
    let mut random = shuttle::rand::thread_rng();
    for _ in 0..3 {
        let work = Work::new().processes(random.gen_range(1..6));
        let stopped_before = monitor.referee.lock().unwrap().stopped;
        let granted = if waits { monitor.admit(&work) } else { monitor.try_admit(&work) };
        if !granted {
            continue;
        }
        monitor.begin_work(&work, stopped_before);
        thread::yield_now();
        if random.gen_bool(0.5) {
            monitor.finish(&work);
        } else {
            // What is seen by checks from now on, and ends at some time.
            monitor.admission.room.release(&work);
            thread::yield_now();
            monitor.end_work(&work);
        }
    }
    monitor.done.fetch_add(1, Ordering::SeqCst);
}

/// Three threads that ask, of which two wait.
fn askers(monitor: &Arc<Monitor>) -> Vec<thread::JoinHandle<()>> {
    let asker = |waits| {
        let monitor = Arc::clone(monitor);
        thread::spawn(move || ask(&monitor, waits))
    };
    [false, true, true].map(asker).into()
}

/// Runs executions until there were enough grants.
fn explore(execution: impl Fn() + Send + Sync + 'static) {
    let wanted = std::env::var("HIGHWATER_GRANTS").ok().and_then(|grants| grants.parse().ok()).unwrap_or(100_000);
    let execution = std::sync::Arc::new(execution);
    let before = GRANTS.load(Ordering::Relaxed);
    while GRANTS.load(Ordering::Relaxed) - before < wanted {
        let execution = std::sync::Arc::clone(&execution);
        Runner::new(RandomScheduler::new(1_000), config()).run(move || execution());
    }
}

/// Room for a verdict and its text, which the scheduler's own stacks lack.
fn config() -> shuttle::Config {
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    config
}

#[test]
fn no_order_of_events_grants_past_a_threshold_or_leaves_a_waiter_beside_room() {
    explore(|| {
        let monitor = Arc::new(Monitor::new(10));
        let askers = askers(&monitor);
        let changer = {
            let monitor = Arc::clone(&monitor);
            thread::spawn(move || {
                monitor.check();
                monitor.update_limit(7);
                monitor.check();
                monitor.update_limit(10);
            })
        };
        changer.join().unwrap();
        // A monitor goes on checking. A waiter whom nobody serves although there is room would keep it at that for ever,
        // which the scheduler reports.
        while monitor.done.load(Ordering::SeqCst) < askers.len() {
            monitor.check();
            thread::yield_now();
        }
        for asker in askers {
            asker.join().unwrap();
        }
        monitor.check();
        assert_eq!(monitor.admission.room.reserved(Resource::Processes), 0);
        assert!(!monitor.admission.room.has_waiters());
    });
}

#[test]
fn nothing_is_granted_because_a_check_has_found_out_nothing() {
    explore(|| {
        let monitor = Arc::new(Monitor::new(10));
        let work = Work::new().processes(6);
        assert!(monitor.try_admit(&work));
        monitor.begin_work(&work, false);
        let asker = {
            let monitor = Arc::clone(&monitor);
            thread::spawn(move || (0..2).for_each(|_| assert!(!monitor.try_admit(&work), "12 of 10 are alive")))
        };
        monitor.fail();
        asker.join().unwrap();
    });
}

#[test]
fn a_stop_ends_every_wait_and_nothing_is_granted_after_it() {
    explore(|| {
        let monitor = Arc::new(Monitor::new(8));
        let askers = askers(&monitor);
        monitor.check();
        monitor.stop();
        for asker in askers {
            asker.join().unwrap();
        }
        assert!(!monitor.admission.room.has_waiters());
    });
}

/// With checks that come again and again, a forgotten waiter is served by the next one. Here nobody checks.
#[test]
fn work_that_finishes_serves_whoever_waits() {
    explore(|| {
        let monitor = Arc::new(Monitor::new(10));
        let askers: Vec<_> = (0..4)
            .map(|_| {
                let monitor = Arc::clone(&monitor);
                thread::spawn(move || {
                    for _ in 0..2 {
                        let work = Work::new().processes(shuttle::rand::thread_rng().gen_range(3..8));
                        assert!(monitor.admit(&work));
                        monitor.begin_work(&work, false);
                        monitor.finish(&work);
                    }
                })
            })
            .collect();
        for asker in askers {
            asker.join().unwrap();
        }
        assert_eq!(monitor.admission.room.reserved(Resource::Processes), 0);
    });
}

/// An asker looks, a check takes back as much as somebody else then reserves, and the asker finds what it had seen.
#[test]
fn a_reservation_that_looks_unchanged_is_judged_on_the_new_measurement() {
    let execution = || {
        let monitor = Arc::new(Monitor::new(10));
        let work = Work::new().processes(4);
        let ask = |monitor: Arc<Monitor>| {
            thread::spawn(move || {
                if monitor.admission.try_grant(&work, NOW) {
                    monitor.begin_work(&work, false);
                    monitor.admission.room.release(&work);
                }
            })
        };
        let first = ask(Arc::clone(&monitor));
        let others = [ask(Arc::clone(&monitor)), ask(Arc::clone(&monitor))];
        monitor.check();
        for asker in others.into_iter().chain([first]) {
            asker.join().unwrap();
        }
    };
    Runner::new(PctScheduler::new(4, 10_000), config()).run(execution);
}

/// Readers of the gate look at one word while that says that no bound is reached.
#[test]
fn the_gate_is_closed_to_whoever_holds_the_work_that_closes_it() {
    let execution = || {
        let monitor = Arc::new(Monitor::new(10));
        let holder = {
            let monitor = Arc::clone(&monitor);
            thread::spawn(move || {
                let work = Work::new().processes(8);
                if monitor.admission.try_grant(&work, NOW) {
                    monitor.begin_work(&work, false);
                    for _ in 0..3 {
                        assert!(!monitor.admission.is_open(NOW));
                    }
                    monitor.finish(&work);
                }
            })
        };
        let other = {
            let monitor = Arc::clone(&monitor);
            thread::spawn(move || {
                let work = Work::new().processes(1);
                if monitor.admission.try_grant(&work, NOW) {
                    monitor.begin_work(&work, false);
                    monitor.finish(&work);
                }
            })
        };
        monitor.check();
        monitor.check();
        holder.join().unwrap();
        other.join().unwrap();
        monitor.check();
        assert!(monitor.admission.is_open(NOW));
    };
    Runner::new(PctScheduler::new(4, 10_000), config()).run(execution);
    Runner::new(RandomScheduler::new(10_000), config()).run(execution);
}
