//! The public face: the objects that a host holds. Each call is passed on to the engine; no thread, lock or judgement
//! lives here.
//!
//! - `builder`: the settings that are fixed once a monitor exists.
//! - `readiness`: the handle through which any thread asks the gate and admits work.
//! - `permit`: admitted work, whose cost is reserved while it lives.
//! - `gauge`, `jobs`, `jobserver`: the ways to the host's own numbers, to programs that it has run, and to the builds that
//!   those run.

mod builder;
mod gauge;
mod jobs;
mod jobserver;
mod permit;
mod readiness;

use std::sync::Arc;
use std::time::Duration;

pub use self::builder::ResourceMonitorBuilder;
pub use self::gauge::Gauge;
pub use self::permit::Permit;
pub use self::readiness::Readiness;
use crate::engine::{self, Config, Core, Shared};
use crate::host::Snapshots;
use crate::host::{JobManager, ProcessGroup};
use crate::vocabulary::{
    Error, Holder, ResourceLimits, ResourceSnapshot, Verdict, Work, HARD_PERCENT, MB, WARN_PERCENT,
};

/// A watch over the process that it is linked into, which says whether that process may take on more work.
///
/// All methods take `&self` and may be called from any thread, from the host's own hooks too. Dropping the monitor
/// [stops](Self::stop) it and ends every subscription. A host uses one: two monitors count the same descendants and do
/// not see each other's permits.
///
/// ```
/// use std::time::Duration;
/// use highwater::{ResourceLimits, ResourceMonitor};
///
/// let limits = ResourceLimits::builder().max_memory_mb(8192).max_processes(50).build()?;
/// let monitor = ResourceMonitor::new(limits);
/// monitor.start(Duration::from_secs(15))?;
///
/// let readiness = monitor.readiness();
/// assert!(readiness.is_accepting_work(), "{}", readiness.verdict());
/// # Ok::<(), highwater::Error>(())
/// ```
#[derive(Debug)]
pub struct ResourceMonitor {
    readiness: Readiness,
}

impl ResourceMonitor {
    /// The default percentage of a limit at which the gate closes.
    pub const WARN_THRESHOLD: f64 = WARN_PERCENT as f64;
    /// The default percentage of a limit at which work is shed.
    pub const HARD_THRESHOLD: f64 = HARD_PERCENT as f64;

    /// A monitor with default settings. Nothing is read, opened or started yet.
    pub fn new(limits: ResourceLimits) -> ResourceMonitor {
        ResourceMonitor::with_config(Config::default(), limits)
    }

    pub(crate) fn with_config(config: Config, limits: ResourceLimits) -> ResourceMonitor {
        let core = Core::new(Arc::new(config), limits);
        ResourceMonitor { readiness: Readiness::new(Arc::new(Shared::new(core))) }
    }

    /// Takes the first check on the calling thread, then starts the check thread, which checks once per `interval` and
    /// sooner when callers ask.
    ///
    /// Before that check it reads every process on the machine, some 10 us each. The check itself then costs as little
    /// as all later ones, and the CPU budget does not put the next one off.
    ///
    /// When it returns, the gate shows the result of the first check. A first check that failed is not an error: the
    /// gate is closed and the thread keeps trying. A second `start` changes nothing, but the gate shows a first check
    /// when it returns as well, even if the first `start` is still in progress on another thread. After
    /// [`stop`](Self::stop), or in a forked child, `start` starts anew. The manager is asked for its counts on the
    /// calling thread, which must not hold a lock that they take.
    ///
    /// # Errors
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) if `interval` is zero, [`Thread`](crate::ErrorKind::Thread)
    /// if the thread could not be created; the monitor is then stopped.
    pub fn start(&self, interval: Duration) -> Result<(), Error> {
        engine::start(self.shared(), interval)
    }

    /// Closes the gate, then ends the monitor's threads and joins them.
    ///
    /// It waits at most 100 ms for a hook of the host that is in progress, and then leaves its thread behind. That
    /// thread calls no further hook and ends by itself; a restarted monitor calls none until it is gone. Called from a
    /// hook, `stop` never waits. It may be called from any thread, any number of times. Where pressure was watched, the
    /// kernel needs some 20 ms to remove the trigger.
    pub fn stop(&self) {
        engine::stop(self.shared());
    }

    /// Takes a check on the calling thread, publishes it like any other and returns it.
    ///
    /// It needs no `start`, and works from any number of threads at once. Where checks overlap, one that began before
    /// the last one published is returned to its caller and not published. Without a start the gate follows it for
    /// [`max_age`](crate::ResourceMonitorBuilder::max_age), 2 s at least by default; after [`stop`](Self::stop) it does
    /// not open the gate. The manager is asked for its counts on the calling thread, which must not hold a lock that
    /// they take.
    ///
    /// The first check reads every process on the machine, some 10 us each. Later ones read the changes: 60 to 120 us
    /// with 50 children.
    pub fn check_now(&self) -> ResourceSnapshot {
        engine::check_now(self.shared())
    }

    /// A handle for other threads, cheap to clone.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// As [`Readiness::is_accepting_work`].
    #[inline]
    pub fn is_accepting_work(&self) -> bool {
        self.readiness.is_accepting_work()
    }

    /// As [`Readiness::verdict`].
    pub fn verdict(&self) -> Verdict {
        self.readiness.verdict()
    }

    /// As [`Readiness::try_admit`].
    ///
    /// # Errors
    /// The verdict that refused the work.
    pub fn try_admit(&self, work: Work) -> Result<Permit, Verdict> {
        self.readiness.try_admit(work)
    }

    /// As [`Readiness::admit`].
    ///
    /// # Errors
    /// The verdict that refused the work.
    pub fn admit(&self, work: Work, timeout: Duration) -> Result<Permit, Verdict> {
        self.readiness.admit(work, timeout)
    }

    /// As [`Readiness::wait_until_accepting`].
    ///
    /// # Errors
    /// The verdict that the gate was closed with.
    pub fn wait_until_accepting(&self, timeout: Duration) -> Result<(), Verdict> {
        self.readiness.wait_until_accepting(timeout)
    }

    /// Every permit that lives, the one held longest first: who holds the room, and since when. For a page of the
    /// operator's; it takes some short locks and allocates the list.
    pub fn holders(&self) -> Vec<Holder> {
        self.shared().current().map_or_else(Vec::new, Core::holders)
    }

    /// The number of threads that [wait](Readiness::admit) for room now. One load.
    pub fn waiters(&self) -> usize {
        self.shared().current().map_or(0, |core| core.admission.room.waiters())
    }

    /// As [`Readiness::is_degraded`].
    pub fn is_degraded(&self) -> bool {
        self.readiness.is_degraded()
    }

    /// As [`Readiness::seconds_since_last_check`].
    pub fn seconds_since_last_check(&self) -> f64 {
        self.readiness.seconds_since_last_check()
    }

    /// The resident memory of this process now, in MB of 1024 x 1024 bytes; `None` when it cannot be read. It is a live
    /// reading of `statm` (`proc_pid_statm(5)`) in about 1 us, and does not depend on the memory scope.
    pub fn current_memory_mb(&self) -> Option<f64> {
        let bytes = self.core().config.probe.own_memory().ok()?;
        Some(bytes as f64 / MB as f64)
    }

    /// The memory limit in MB of 1024 x 1024 bytes; `None` means unlimited.
    pub fn max_memory_mb(&self) -> Option<u64> {
        self.limits().max_memory_mb()
    }

    /// The limits in force.
    pub fn limits(&self) -> ResourceLimits {
        self.core().limits.get()
    }

    /// Replaces the limits. For the gate, the last snapshot is judged against them at once; levels change, and events
    /// are logged, with the next check.
    pub fn update_limits(&self, limits: ResourceLimits) {
        self.core().update_limits(limits);
    }

    /// Sets the manager whose jobs are counted and shed, before or after `start`. Its methods run under the signal mask
    /// of the calling thread.
    pub fn set_manager(&self, manager: Arc<dyn JobManager>) {
        self.core().hooks.set_manager(Some(manager));
    }

    /// Removes the manager: nothing is counted or shed any more. If a method of the manager is running, the manager is
    /// dropped when that method has returned.
    pub fn clear_manager(&self) {
        self.core().hooks.set_manager(None);
    }

    /// Sets the process group that is asked to clean up, before or after `start`. Its methods run under the signal mask
    /// of the calling thread.
    pub fn set_process_group(&self, group: Arc<dyn ProcessGroup>) {
        self.core().hooks.set_process_group(Some(group));
    }

    /// The last snapshot that was published; `None` before the first.
    pub fn latest(&self) -> Option<ResourceSnapshot> {
        self.core().publisher.lock().latest()
    }

    /// A subscription to every snapshot from now on.
    pub fn snapshots(&self) -> Snapshots {
        self.core().publisher.lock().subscribe()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        self.readiness.shared()
    }

    fn core(&self) -> &Core {
        Core::of(self.shared())
    }
}

impl Drop for ResourceMonitor {
    fn drop(&mut self) {
        // A forked child that never used its monitor has nothing of its own to end.
        let Some(core) = self.shared().current() else { return };
        engine::stop(self.shared());
        // Subscribers see the end. The hooks are dropped here: a manager that holds a readiness would else keep itself
        // alive.
        core.publisher.lock().close();
        core.hooks.set_manager(None);
        core.hooks.set_process_group(None);
    }
}
