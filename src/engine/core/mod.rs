//! The state behind a monitor and its handles.
//!
//! Lock order: `flight`, then `judgement`, then `publisher`. None is held while the host's code runs.

mod checks;
mod hooks;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use crate::host::events;
use crate::host::Publisher;
use crate::host::{contained, JobManager, ProcessGroup};
use crate::judgement::shed::ShedPolicy;
use crate::judgement::word::ReadinessWord;
use crate::judgement::{Judgement, Stopped};
use crate::readers::cgroup::{Alarms, Watch};
use crate::readers::probe::{Probe, Reading};
use crate::sys::fork::ForkCell;
use crate::sys::fork::{Desk, Mutex};
use crate::sys::{self, Bell, PerProcess, SignalMask};
use crate::vocabulary::{ResourceLimits, ResourceSnapshot, Settings, Verdict, Work};

use super::lifecycle::Lifecycle;

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
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("settings", &self.config.settings)
            .field("word", &self.word)
            .finish_non_exhaustive()
    }
}
