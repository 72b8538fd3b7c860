//! The state behind a monitor and its handles, and what a check does to it.
//!
//! Lock order: `flight`, then `judgement`, then `publisher`. None is held while the host's code runs.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cgroup::{Alarms, Watch};
use crate::error::{Error, ErrorKind};
use crate::events;
use crate::fork_cell::ForkCell;
use crate::host::{contained, JobManager, ProcessGroup};
use crate::judgement::shed::ShedPolicy;
use crate::judgement::{Judgement, Observation, Planned, Report, Settings, Stopped};
use crate::limits::ResourceLimits;
use crate::lock::{Desk, Mutex};
use crate::probe::{Probe, Reading};
use crate::readiness_word::ReadinessWord;
use crate::resource::Resource;
use crate::snapshot::ResourceSnapshot;
use crate::subscription::Publisher;
use crate::surroundings::Surroundings;
use crate::sys::{self, Bell, PerProcess, SignalMask};
use crate::verdict::Verdict;
use crate::work::Work;

use super::lifecycle::Lifecycle;
use super::worker::Worker;

/// What a monitor and all its handles share. A forked child finds its parent's there and makes its own.
pub(crate) type Shared = PerProcess<Core>;

/// What is set once, when the monitor is built.
pub(crate) struct Config {
    pub(crate) settings: Settings,
    pub(crate) probe: Box<dyn Probe>,
}

/// The manager, and how often one was set: a new one starts with a clean slate.
#[derive(Clone, Default)]
pub(crate) struct Manager {
    pub(crate) manager: Option<Arc<dyn JobManager>>,
    pub(crate) setting: u64,
}

/// The state of one monitor in one process.
pub(crate) struct Core {
    pub(crate) config: Arc<Config>,
    pub(crate) limits: ForkCell<ResourceLimits>,
    pub(crate) manager: ForkCell<Manager>,
    pub(crate) group: ForkCell<Option<Arc<dyn ProcessGroup>>>,
    /// The signal mask for the host's code on our threads.
    pub(crate) host_mask: ForkCell<SignalMask>,
    pub(crate) word: ReadinessWord,
    pub(crate) bell: Bell,
    pub(crate) judgement: Mutex<Judgement>,
    pub(crate) publisher: Mutex<Publisher>,
    pub(crate) lifecycle: Lifecycle,
    pub(super) shedding: Mutex<Shedding>,
    /// Whether the host's locks may be held for ever by threads that this process does not have.
    inherited: Inherited,
    /// Held by whoever checks on the monitor's behalf, so that a herd of callers takes one fresh check between them.
    flight: Desk<Scratch>,
    next_number: AtomicU64,
    stopped: AtomicBool,
    /// Whether a manager or a process group is set. Looking without taking a handle, whose drop is the host's code.
    hooked: AtomicBool,
    has_manager: AtomicBool,
    manager_settings: AtomicU64,
    /// Whether the manager panicked when it was last asked for its counts.
    count_panicked: AtomicBool,
    running_jobs: AtomicUsize,
    active_sheets: AtomicUsize,
}

/// What shedding remembers, and of which setting of the manager.
#[derive(Debug, Default)]
pub(super) struct Shedding {
    pub(super) setting: u64,
    pub(super) policy: ShedPolicy,
}

/// What a forked child has from its parent that may wait for ever: a thread of the parent's, ours among them, may have
/// been in it at the fork. Only threads of ours call it, until a call has come back.
#[derive(Debug, Default)]
struct Inherited {
    logger: AtomicBool,
    manager: AtomicBool,
}

thread_local! {
    /// Whether this thread is asking a manager for its counts: a manager that has a check taken to answer is not asked
    /// again for that check.
    static COUNTING: Cell<bool> = const { Cell::new(false) };
}

/// Buffers that checks in the steady state reuse.
struct Scratch {
    reading: Reading,
    snapshot: ResourceSnapshot,
}

impl Scratch {
    fn new() -> Scratch {
        Scratch { reading: Reading::default(), snapshot: ResourceSnapshot::unread() }
    }
}

impl Core {
    pub(crate) fn new(config: Arc<Config>, limits: ResourceLimits) -> Core {
        Core::with(config, limits, Manager::default(), None, SignalMask::current(), Judgement::new(false, None), false)
    }

    /// The core of a forked child, which takes over what was set and nothing that was measured, locked or opened.
    fn inherit(parent: &Core) -> Core {
        let stopped = parent.stopped.load(Ordering::Relaxed);
        // The counts are the parent's: the child has no jobs yet.
        let core = Core::with(
            Arc::clone(&parent.config),
            parent.limits.get(),
            parent.manager.get(),
            parent.group.get(),
            parent.host_mask.get(),
            Judgement::new(true, stopped.then_some(Stopped::Asked)),
            stopped,
        );
        Core { inherited: Inherited { logger: true.into(), manager: true.into() }, ..core }
    }

    fn with(
        config: Arc<Config>,
        limits: ResourceLimits,
        manager: Manager,
        group: Option<Arc<dyn ProcessGroup>>,
        host_mask: SignalMask,
        judgement: Judgement,
        stopped: bool,
    ) -> Core {
        Core {
            config,
            limits: ForkCell::new(limits),
            hooked: AtomicBool::new(manager.manager.is_some() || group.is_some()),
            has_manager: AtomicBool::new(manager.manager.is_some()),
            manager_settings: AtomicU64::new(manager.setting),
            manager: ForkCell::new(manager),
            group: ForkCell::new(group),
            host_mask: ForkCell::new(host_mask),
            word: ReadinessWord::new(),
            bell: Bell::new(),
            judgement: Mutex::new(judgement),
            publisher: Mutex::default(),
            lifecycle: Lifecycle::default(),
            shedding: Mutex::default(),
            inherited: Inherited::default(),
            flight: Desk::new(Scratch::new()),
            next_number: AtomicU64::new(1),
            stopped: AtomicBool::new(stopped),
            count_panicked: AtomicBool::new(false),
            running_jobs: AtomicUsize::new(0),
            active_sheets: AtomicUsize::new(0),
        }
    }

    /// The core of the calling process, made now if it was forked since.
    pub(crate) fn of(shared: &Shared) -> &Core {
        shared.current_or_renew(Core::inherit)
    }

    /// Whether work is accepted: the hot path.
    #[inline]
    pub(crate) fn is_accepting(&self) -> bool {
        let now = sys::coarse_now();
        self.demand(now);
        self.word.is_open(now)
    }

    /// Wakes the check thread if the last check is old and nobody has done so since.
    #[inline]
    fn demand(&self, now: Duration) {
        if self.word.take_demand(now) {
            self.bell.ring();
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let now = sys::coarse_now();
        self.demand(now);
        self.judgement.lock().verdict(now, &self.limits.get(), &self.config.settings)
    }

    /// Judges the work on a fresh enough reading, taking one if need be, and reserves its cost.
    pub(crate) fn admit(shared: &Arc<Shared>, core: &Core, work: &Work) -> Result<(), Verdict> {
        let settings = &core.config.settings;
        let old = || core.judgement.lock().needs_fresh(sys::coarse_now(), settings);
        if old() {
            // Whoever waits here longer than a reading may be old is judged on what there is, which is stale by then.
            let patience = core.judgement.lock().max_age(settings);
            let report = core
                .flight
                .work(patience, |scratch| if old() { core.check_as_caller(scratch) } else { None })
                .flatten();
            if let Some(report) = report {
                core.follow_up(shared, &report);
            }
        }
        let mut judgement = core.judgement.lock();
        let admitted = judgement.admit(work, sys::coarse_now(), &core.limits.get(), settings);
        core.amend_word(&judgement);
        admitted
    }

    /// Gives back what a permit reserved, with the first good check that begins from now on.
    pub(crate) fn release(&self, work: &Work) {
        let mut judgement = self.judgement.lock();
        judgement.release(work, self.next_number());
        self.amend_word(&judgement);
    }

    pub(crate) fn update_limits(&self, limits: ResourceLimits) {
        let old = {
            let judgement = self.judgement.lock();
            let old = self.limits.set(limits.clone());
            self.amend_word(&judgement);
            old
        };
        if let Some(old) = old.filter(|old| *old != limits) {
            self.say(None, || events::limits_updated(&old, &limits));
            // The next check moves the levels, logs them and sheds: soon, not after an interval.
            self.demand(Duration::MAX);
        }
    }

    /// Opens the judgement for a run of the monitor with this interval.
    pub(crate) fn begin(&self, interval: Duration) {
        let mut judgement = self.judgement.lock();
        self.stopped.store(false, Ordering::Relaxed);
        judgement.begin(interval);
        self.publish_word(&judgement);
    }

    /// Closes the gate until the next `begin`.
    pub(crate) fn close(&self, why: Stopped) {
        let mut judgement = self.judgement.lock();
        self.stopped.store(true, Ordering::Relaxed);
        judgement.close(why);
        self.publish_word(&judgement);
    }

    /// Makes the judgement's answer the one that every reader sees. The lock that guards the judgement is held, so
    /// words follow one another in the order of the judgements.
    fn publish_word(&self, judgement: &Judgement) {
        self.word.publish(&judgement.publication(&self.limits.get(), &self.config.settings));
    }

    /// As `publish_word`, where no check was published: whoever was woken to take one still is.
    fn amend_word(&self, judgement: &Judgement) {
        self.word.amend(&judgement.publication(&self.limits.get(), &self.config.settings));
    }

    /// Before the first check of a start, whose cost says when the next one is due: among thousands of processes it
    /// would be seconds.
    pub(super) fn prepare(&self) {
        // What panics here does so again in the check, and is reported there.
        drop(contained(|| self.config.probe.prepare(&self.config.settings)));
    }

    /// A check on a caller's thread, asking the manager for its counts.
    pub(crate) fn check_on_caller(&self) -> (ResourceSnapshot, Option<Report>) {
        if !self.inherited.manager.load(Ordering::Relaxed) && !self.lifecycle.hook_left_behind() {
            let manager = self.manager.get().manager;
            if let Some(manager) = manager {
                let counted = contained(|| {
                    self.count(&*manager);
                    drop(manager);
                });
                self.counted(None, counted);
            }
        }
        let mut scratch = Scratch::new();
        let report = self.check_as_caller(&mut scratch);
        (scratch.snapshot, report)
    }

    fn check_as_caller(&self, scratch: &mut Scratch) -> Option<Report> {
        self.check_into(scratch, &mut sys::thread_cpu_time(), None)
    }

    /// A check on the check thread, if it is still due when nobody else is checking any more. All of the thread's CPU
    /// time since its last check is the cost of this one.
    pub(crate) fn check_on_thread(
        &self,
        last_own_check: Duration,
        demanded: bool,
        cpu_since: &mut Duration,
        planned: Planned,
    ) -> Option<Report> {
        let check = |scratch: &mut Scratch| match self.next_check(last_own_check, demanded) > sys::coarse_now() {
            true => None,
            false => self.check_into(scratch, cpu_since, Some(planned)),
        };
        self.flight.work(Duration::MAX, check).flatten()
    }

    /// When the check thread's next check is due.
    pub(crate) fn next_check(&self, last_own_check: Duration, demanded: bool) -> Duration {
        let (limits, settings) = (self.limits.get(), &self.config.settings);
        self.judgement.lock().next_check(last_own_check, demanded, &limits, settings)
    }

    /// When memory is due to be read alone, if it is.
    pub(super) fn next_memory_reading(&self) -> Option<Duration> {
        let limits = self.limits.get();
        self.judgement.lock().next_memory_reading(self.word.is_demanded(), &limits, &self.config.settings)
    }

    /// Reads memory alone, a few microseconds. Returns false when own memory cannot be read, which is left to the next
    /// check to report.
    pub(super) fn read_memory_alone(&self) -> bool {
        let settings = &self.config.settings;
        let cpu_began = sys::thread_cpu_time();
        let Ok(memory) = contained(|| self.config.probe.read_memory(settings)) else { return false };
        let cpu = sys::thread_cpu_time().saturating_sub(cpu_began);
        let mut judgement = self.judgement.lock();
        judgement.record_memory(&memory, sys::coarse_now(), cpu);
        self.publish_word(&judgement);
        matches!(memory.get(Resource::Memory), Ok(Some(_)))
    }

    /// Asks the kernel to wake the check thread when memory gets short.
    pub(super) fn arm(&self, watch: &Watch) -> Alarms {
        contained(|| self.config.probe.arm(&self.config.settings, watch)).unwrap_or_default()
    }

    /// The least time between two readings of memory alone.
    pub(super) fn memory_gap(&self) -> Duration {
        self.judgement.lock().memory_gap()
    }

    /// Whether somebody has asked for a fresh answer since the last one.
    pub(super) fn is_demanded(&self) -> bool {
        self.word.is_demanded()
    }

    /// The number that the next check will have.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number.load(Ordering::SeqCst)
    }

    /// Asks the manager for its counts. The host's code: called as such, and its outcome given to `counted`.
    pub(super) fn count(&self, manager: &dyn JobManager) {
        struct Asked;
        impl Drop for Asked {
            fn drop(&mut self) {
                COUNTING.with(|counting| counting.set(false));
            }
        }
        if COUNTING.with(|counting| counting.replace(true)) {
            return;
        }
        let _asked = Asked;
        self.running_jobs.store(manager.running_count(), Ordering::Relaxed);
        self.active_sheets.store(manager.active_job_count(), Ordering::Relaxed);
    }

    /// Logs the first panic in a row.
    pub(super) fn counted(&self, worker: Option<&Worker>, counted: Result<(), String>) {
        self.inherited.manager.store(false, Ordering::Relaxed);
        let panicked_before = self.count_panicked.swap(counted.is_err(), Ordering::Relaxed);
        if let (Err(message), false) = (counted, panicked_before) {
            self.say(worker, || events::hook_panicked("running_count or active_job_count", &message));
        }
    }

    /// Replaces the manager; the old one is dropped under no lock.
    pub(crate) fn set_manager(&self, manager: Option<Arc<dyn JobManager>>) {
        let setting = self.manager_settings.fetch_add(1, Ordering::Relaxed) + 1;
        self.hooked.fetch_or(manager.is_some(), Ordering::Relaxed);
        self.has_manager.store(manager.is_some(), Ordering::Relaxed);
        self.inherited.manager.store(false, Ordering::Relaxed);
        self.host_mask.set(SignalMask::current());
        let old = self.manager.set(Manager { manager, setting });
        self.let_go("drop of the manager", old);
    }

    /// Replaces the process group; the old one is dropped under no lock.
    pub(crate) fn set_process_group(&self, group: Option<Arc<dyn ProcessGroup>>) {
        self.hooked.fetch_or(group.is_some(), Ordering::Relaxed);
        self.host_mask.set(SignalMask::current());
        let old = self.group.set(group);
        self.let_go("drop of the process group", old);
    }

    fn let_go<T>(&self, what: &str, handle: T) {
        if let Err(message) = contained(|| drop(handle)) {
            self.say(None, || events::hook_panicked(what, &message));
        }
    }

    /// Whether there is anything for the action thread to call.
    pub(super) fn has_hooks(&self) -> bool {
        self.hooked.load(Ordering::Relaxed)
    }

    /// Reads every resource, judges and publishes. `None` when a check that began later was published first. What this
    /// thread has used from `cpu_since`, which is set to now, is counted as well.
    fn check_into(&self, scratch: &mut Scratch, cpu_since: &mut Duration, planned: Option<Planned>) -> Option<Report> {
        let Scratch { reading, snapshot } = scratch;
        // Taken before anything is read: a permit dropped before this point is covered by what is read after it.
        let number = self.next_number.fetch_add(1, Ordering::SeqCst);
        let (began, cpu_began) = (Instant::now(), sys::thread_cpu_time());
        reading.clear();
        if let Err(message) = contained(|| self.config.probe.read(&self.config.settings, reading)) {
            reading.clear();
            reading.error = Some(Arc::new(Error::new(ErrorKind::Panicked, format!("a reading panicked: {message}"))));
        }
        let cpu_now = sys::thread_cpu_time();
        let cpu = cpu_now.saturating_sub(cpu_began);
        let cpu_between = cpu_began.saturating_sub(std::mem::replace(cpu_since, cpu_now));

        snapshot.timestamp = Instant::now();
        snapshot.check_duration = snapshot.timestamp.saturating_duration_since(began);
        snapshot.lateness = planned.map_or(Duration::ZERO, |planned| planned.lateness);
        snapshot.memory_bytes = reading.memory;
        snapshot.child_process_count = reading.descendants.map(to_usize);
        // One that was taken away may still be counting.
        let counts = match self.has_manager.load(Ordering::Relaxed) {
            true => (self.running_jobs.load(Ordering::Relaxed), self.active_sheets.load(Ordering::Relaxed)),
            false => (0, 0),
        };
        (snapshot.running_jobs, snapshot.active_sheets) = counts;
        snapshot.zombie_pids.clear();
        snapshot.zombie_pids.extend(reading.zombies.iter().map(|zombie| zombie.pid));

        let Surroundings { cgroup_memory, cgroup_pids, open_files, memory_pressure, threads, .. } =
            &reading.surroundings;
        snapshot.thread_count = threads.map(to_usize);
        snapshot.cgroup_memory = cgroup_memory.as_ref().ok().cloned().flatten();
        snapshot.cgroup_pids = cgroup_pids.as_ref().ok().cloned().flatten();
        snapshot.open_files = open_files.as_ref().ok().copied().flatten();
        snapshot.memory_pressure = memory_pressure.as_ref().ok().copied().flatten();

        let found = reading.found();
        let mut judgement = self.judgement.lock();
        let report = judgement.record(
            &Observation {
                number,
                now: sys::coarse_now(),
                ended: sys::fine_now(),
                cpu,
                cpu_between,
                planned,
                found: &found,
                zombies: &reading.zombies,
            },
            &self.limits.get(),
            &self.config.settings,
        )?;
        self.publish_word(&judgement);
        // Taken before the judgement is let go, so that snapshots are published in the order in which they were judged.
        let mut publisher = self.publisher.lock();
        drop(judgement);
        publisher.publish(snapshot);
        Some(report)
    }

    /// Logs what a check on a caller's thread found, and hands it to the action thread.
    pub(crate) fn follow_up(&self, shared: &Arc<Shared>, report: &Report) {
        for event in &report.events {
            self.say(None, || events::judged(event));
        }
        if report.climbing {
            // The thread sleeps until what it thought before.
            self.bell.ring();
        }
        if let Some(run) = self.lifecycle.current_run() {
            run.hand_over(shared, self, None, report, false);
        }
    }

    /// Whether only threads of ours call the host's logger.
    pub(super) fn logger_is_inherited(&self) -> bool {
        self.inherited.logger.load(Ordering::Relaxed)
    }

    /// Calls the host's logger; on a thread of ours under the host's signal mask, and not after a stop.
    pub(crate) fn say(&self, worker: Option<&Worker>, line: impl FnOnce()) {
        // A logger that panics cannot be reported to.
        match worker {
            Some(worker) => {
                if worker.hook(self.host_mask.get(), line).is_some() {
                    self.inherited.logger.store(false, Ordering::Relaxed);
                }
            }
            None if self.logger_is_inherited() => {}
            None => drop(contained(line)),
        }
    }
}

fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("settings", &self.config.settings)
            .field("word", &self.word)
            .finish_non_exhaustive()
    }
}
