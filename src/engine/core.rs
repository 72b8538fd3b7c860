//! The state of one monitor in one process, and what each part of the engine may ask of it.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::gate_watch::GateWatch;
use super::holders::Holders;
use super::hooks::Hooks;
use super::ledger::{Participation, SharedLedger};
use super::run::Lifecycle;
use crate::host::{contained, Publisher};
use crate::judgement::admission::Admission;
use crate::judgement::queue::Queue;
use crate::judgement::{Judgement, OwnMemory, Report, Stopped};
use crate::readers::cgroup::{Alarms, Watch};
use crate::readers::probe::Probe;
use crate::readers::SystemProbe;
use crate::sys::allocator::Blocks;
use crate::sys::fork::{ForkCell, Mutex, PatientMutex};
use crate::sys::{Allocator, Bell, Clock, Latch, PerProcess};
use crate::vocabulary::{Holder, Reading, ResourceLimits, Settings};

/// The state that a monitor and all its handles share. A forked child finds its parent's there and makes its own.
pub(crate) type Shared = PerProcess<Core>;

/// The parts that are fixed when the monitor is built.
pub(crate) struct Config {
    pub(crate) settings: Settings,
    pub(crate) probe: Box<dyn Probe>,
    /// The environment's wish as it was when the monitor was built.
    pub(crate) watch: Watch,
    pub(crate) clock: Clock,
    /// Found when the monitor was built, because a forked child must not wait for the dynamic linker's lock.
    pub(crate) allocator: Allocator,
    /// The reservations that other processes share with this one.
    pub(crate) ledger: Option<Arc<dyn SharedLedger>>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            settings: Settings::default(),
            probe: Box::new(SystemProbe::new()),
            watch: Watch::from_environment(),
            clock: Clock::default(),
            allocator: Allocator::find(),
            ledger: None,
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The lock around the judgement. Whoever takes it finds the host's gauges there as they stand.
pub(crate) struct JudgementLock(Mutex<Judgement>);

impl JudgementLock {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Judgement> {
        let mut judgement = self.0.lock();
        judgement.take_gauges();
        judgement
    }
}

/// The state of one monitor in one process.
pub(crate) struct Core {
    pub(crate) config: Arc<Config>,
    pub(crate) limits: ForkCell<ResourceLimits>,
    pub(crate) hooks: Hooks,
    pub(crate) admission: Arc<Admission>,
    pub(crate) bell: Bell,
    pub(crate) judgement: JudgementLock,
    /// The threads that wait for room. Taken by those alone who have the judgement's lock.
    pub(super) queue: Mutex<Queue<Arc<Latch>>>,
    pub(super) holders: Holders,
    pub(super) gate_watch: GateWatch,
    pub(crate) publisher: Mutex<Publisher>,
    pub(crate) lifecycle: Lifecycle,
    /// Held by whoever checks on the monitor's behalf, so that a herd of callers takes one fresh check between them.
    pub(super) single_flight: PatientMutex<Reading>,
    /// The reports of checks whose takers may not call the host, for the check thread.
    pub(super) reports: Mutex<Vec<Report>>,
    pub(super) next_number: AtomicU64,
    /// A copy of what the judgement knows, for a forked child, which must not wait for the judgement's lock.
    pub(super) stopped: AtomicBool,
    pub(super) participation: Participation,
}

impl Core {
    pub(crate) fn new(config: Arc<Config>, limits: ResourceLimits) -> Core {
        let judgement = Judgement::new(config.settings, false, None);
        Core::with(config, limits, Hooks::new(), judgement, false)
    }

    /// The core of a forked child, which takes over what was set and nothing that was measured, locked or opened.
    fn inherit(parent: &Core) -> Core {
        let stopped = parent.stopped.load(Relaxed);
        let judgement = Judgement::new(parent.config.settings, true, stopped.then_some(Stopped::Asked));
        Core::with(Arc::clone(&parent.config), parent.limits.get(), parent.hooks.inherit(), judgement, stopped)
    }

    fn with(config: Arc<Config>, limits: ResourceLimits, hooks: Hooks, judgement: Judgement, stopped: bool) -> Core {
        Core {
            limits: ForkCell::new(limits),
            hooks,
            admission: Arc::clone(judgement.admission()),
            bell: Bell::new(),
            queue: Mutex::new(Queue::new(config.settings.overtaking)),
            holders: Holders::default(),
            gate_watch: GateWatch::default(),
            judgement: JudgementLock(Mutex::new(judgement)),
            publisher: Mutex::default(),
            lifecycle: Lifecycle::default(),
            single_flight: PatientMutex::new(Reading::default()),
            reports: Mutex::default(),
            next_number: AtomicU64::new(1),
            stopped: AtomicBool::new(stopped),
            participation: Participation::new(config.ledger.clone()),
            config,
        }
    }

    /// The core of the calling process, made now if it was forked since.
    pub(crate) fn of(shared: &Shared) -> &Core {
        shared.current_or_renew(Core::inherit)
    }

    /// The time by the monitor's coarse clock.
    #[inline]
    pub(crate) fn now(&self) -> Duration {
        self.config.clock.coarse_now()
    }

    /// Every permit that lives, the one held longest first.
    pub(crate) fn holders(&self) -> Vec<Holder> {
        let now = self.now();
        self.holders.all().iter().map(|held| held.holder(now)).collect()
    }

    /// Begins a run of the monitor with this interval in the judgement.
    pub(crate) fn begin(&self, interval: Duration) {
        let mut judgement = self.judgement.lock();
        self.stopped.store(false, Relaxed);
        judgement.begin(interval);
        judgement.publish_check(&self.limits.get());
    }

    /// When the check thread's next check is due.
    pub(crate) fn next_check(&self, last_own_check: Duration, demanded: bool) -> Duration {
        let limits = self.limits.get();
        self.judgement.lock().next_check(last_own_check, demanded, &limits)
    }

    /// How long the check thread may sleep at most.
    pub(super) fn longest_sleep(&self) -> Duration {
        self.judgement.lock().longest_sleep()
    }

    /// When memory is due to be read alone, if it is.
    pub(super) fn next_memory_reading(&self) -> Option<Duration> {
        let limits = self.limits.get();
        self.judgement.lock().next_memory_reading(self.admission.word.is_demanded(), &limits)
    }

    /// Asks the kernel to wake the check thread when memory gets short.
    pub(super) fn arm(&self) -> Alarms {
        let Config { settings, probe, watch, .. } = &*self.config;
        contained(|| probe.arm(settings, watch)).unwrap_or_default()
    }

    /// The memory of this process and the allocator's part in it; `None` where one of them does not say.
    pub(super) fn own_memory(&self) -> Option<OwnMemory> {
        let resident = self.config.probe.own_memory().ok()?;
        let Blocks { free, in_use } = self.config.allocator.blocks()?;
        Some(OwnMemory { resident, free, in_use })
    }

    /// Whether the action thread has something to do after this check.
    pub(super) fn calls_for_action(&self, report: &Report) -> bool {
        self.hooks.are_set() || (report.look_due && self.config.allocator.can_trim())
    }

    /// The least time between two readings of memory alone.
    pub(super) fn memory_gap(&self) -> Duration {
        self.judgement.lock().memory_gap()
    }

    /// Whether somebody has asked for a fresh answer since the last one.
    pub(super) fn is_demanded(&self) -> bool {
        self.admission.word.is_demanded()
    }

    /// The number that the next check will have.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number.load(SeqCst)
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("settings", &self.config.settings)
            .field("admission", &self.admission)
            .finish_non_exhaustive()
    }
}
