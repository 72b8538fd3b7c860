//! The state of one monitor in one process, and what each part of the engine may ask of it.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::Arc;
use std::time::Duration;

use super::hooks::Hooks;
use super::run::Lifecycle;
use crate::host::{contained, events, Publisher};
use crate::judgement::word::ReadinessWord;
use crate::judgement::{Judgement, Stopped};
use crate::readers::cgroup::{Alarms, Watch};
use crate::readers::probe::Probe;
use crate::readers::SystemProbe;
use crate::sys::fork::{ForkCell, Mutex, PatientMutex};
use crate::sys::{self, Bell, PerProcess};
use crate::vocabulary::{Reading, ResourceLimits, Settings, Verdict, Work};

/// The state that a monitor and all its handles share. A forked child finds its parent's there and makes its own.
pub(crate) type Shared = PerProcess<Core>;

/// The parts that are fixed when the monitor is built.
pub(crate) struct Config {
    pub(crate) settings: Settings,
    pub(crate) probe: Box<dyn Probe>,
    /// The environment's wish as it was when the monitor was built.
    pub(crate) watch: Watch,
}

impl Default for Config {
    fn default() -> Config {
        Config { settings: Settings::default(), probe: Box::new(SystemProbe::new()), watch: Watch::from_environment() }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The state of one monitor in one process.
pub(crate) struct Core {
    pub(crate) config: Arc<Config>,
    pub(crate) limits: ForkCell<ResourceLimits>,
    pub(crate) hooks: Hooks,
    pub(crate) word: ReadinessWord,
    pub(crate) bell: Bell,
    pub(crate) judgement: Mutex<Judgement>,
    pub(crate) publisher: Mutex<Publisher>,
    pub(crate) lifecycle: Lifecycle,
    /// Held by whoever checks on the monitor's behalf, so that a herd of callers takes one fresh check between them.
    pub(super) single_flight: PatientMutex<Reading>,
    pub(super) next_number: AtomicU64,
    /// A copy of what the judgement knows, for a forked child, which must not wait for the judgement's lock.
    stopped: AtomicBool,
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
            config,
            limits: ForkCell::new(limits),
            hooks,
            word: ReadinessWord::new(),
            bell: Bell::new(),
            judgement: Mutex::new(judgement),
            publisher: Mutex::default(),
            lifecycle: Lifecycle::default(),
            single_flight: PatientMutex::new(Reading::default()),
            next_number: AtomicU64::new(1),
            stopped: AtomicBool::new(stopped),
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
        self.judgement.lock().verdict(now, &self.limits.get())
    }

    /// Judges the work on the last reading, and reserves its cost.
    pub(super) fn admit(&self, work: &Work) -> Result<(), Verdict> {
        let mut judgement = self.judgement.lock();
        let admitted = judgement.admit(work, sys::coarse_now(), &self.limits.get());
        self.publish_rejudged(&judgement);
        admitted
    }

    /// Gives back what a permit reserved, with the first good check that begins from now on.
    pub(crate) fn release(&self, work: &Work) {
        let mut judgement = self.judgement.lock();
        judgement.release(work, self.next_number());
        self.publish_rejudged(&judgement);
    }

    pub(crate) fn update_limits(&self, limits: ResourceLimits) {
        let old = {
            let judgement = self.judgement.lock();
            let old = self.limits.set(limits.clone());
            self.publish_rejudged(&judgement);
            old
        };
        if let Some(old) = old.filter(|old| *old != limits) {
            self.hooks.call_logger(None, || events::limits_updated(&old, &limits));
            // The next check moves the levels, logs them and sheds: soon, not after an interval.
            self.demand(Duration::MAX);
        }
    }

    /// Opens the judgement for a run of the monitor with this interval.
    pub(crate) fn begin(&self, interval: Duration) {
        let mut judgement = self.judgement.lock();
        self.stopped.store(false, Relaxed);
        judgement.begin(interval);
        self.publish_check(&judgement);
    }

    /// Closes the gate until the next `begin`.
    pub(crate) fn close(&self, why: Stopped) {
        let mut judgement = self.judgement.lock();
        self.stopped.store(true, Relaxed);
        judgement.close(why);
        self.publish_check(&judgement);
    }

    /// Makes the judgement's answer the one that every reader sees. The lock that guards the judgement is held, so
    /// words follow one another in the order of the judgements.
    pub(super) fn publish_check(&self, judgement: &Judgement) {
        self.word.publish_check(&judgement.publication(&self.limits.get()));
    }

    /// As `publish_check`, where no check was published: whoever was woken to take one still is.
    fn publish_rejudged(&self, judgement: &Judgement) {
        self.word.publish_rejudged(&judgement.publication(&self.limits.get()));
    }

    /// When the check thread's next check is due.
    pub(crate) fn next_check(&self, last_own_check: Duration, demanded: bool) -> Duration {
        let limits = self.limits.get();
        self.judgement.lock().next_check(last_own_check, demanded, &limits)
    }

    /// When memory is due to be read alone, if it is.
    pub(super) fn next_memory_reading(&self) -> Option<Duration> {
        let limits = self.limits.get();
        self.judgement.lock().next_memory_reading(self.word.is_demanded(), &limits)
    }

    /// Asks the kernel to wake the check thread when memory gets short.
    pub(super) fn arm(&self) -> Alarms {
        let Config { settings, probe, watch } = &*self.config;
        contained(|| probe.arm(settings, watch)).unwrap_or_default()
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
        self.next_number.load(SeqCst)
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("settings", &self.config.settings)
            .field("word", &self.word)
            .finish_non_exhaustive()
    }
}
