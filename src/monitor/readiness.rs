//! The handle through which any thread asks the gate and admits work.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{self, Core, Shared};
use crate::monitor::permit::Permit;
use crate::vocabulary::{Reason, Verdict, Work};

/// A handle through which any thread asks whether to take on more work. It is cheap to clone and keeps nothing running.
///
/// It says no when its monitor is stopped or gone, and in a forked child until that child has checked for itself
/// through the monitor.
#[derive(Clone)]
pub struct Readiness {
    shared: Arc<Shared>,
}

impl Readiness {
    pub(crate) fn new(shared: Arc<Shared>) -> Readiness {
        Readiness { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Returns `true` if new work should be accepted.
    ///
    /// A few atomic loads and one coarse clock read (about 10 ns); waits for nobody, never allocates, callable from any
    /// thread. The answer is as old as the last check (see
    /// [`seconds_since_last_check`](Self::seconds_since_last_check)), and `false` when that is too old to trust.
    ///
    /// The first caller to find the check older than [`refresh_after`] takes the next one itself, if the last one cost at
    /// most [`inline_check`] (1 ms of CPU time) and nobody else is checking: so a rare asker is told what is true now.
    /// Else it wakes the check thread, which is one system call, and goes on with what there is.
    ///
    /// [`refresh_after`]: crate::ResourceMonitorBuilder::refresh_after
    /// [`inline_check`]: crate::ResourceMonitorBuilder::inline_check
    #[inline]
    pub fn is_accepting_work(&self) -> bool {
        match self.shared.own() {
            Some(core) => core.is_accepting(),
            None => self.shared.current().is_some_and(Core::is_accepting),
        }
    }

    /// The gate's state and the reason, from one reading: the answer and the text of a verdict never disagree.
    ///
    /// It is as young as that of [`is_accepting_work`](Self::is_accepting_work). It takes a lock that is never held
    /// across a reading or a call of the host's code.
    pub fn verdict(&self) -> Verdict {
        match self.shared.current() {
            Some(core) => core.verdict(),
            None => Verdict::new(Reason::Forked),
        }
    }

    /// The largest share of its warning threshold that a resource, measured and reserved, has reached: 1.0 and more is
    /// closed, infinity is unknown.
    ///
    /// As young as the answer of [`is_accepting_work`](Self::is_accepting_work), and as cheap; waits for no lock. For a
    /// resource that hysteresis holds closed, the share is that of the resume threshold. A load balancer turns it into a
    /// weight, a queue into a delay.
    pub fn pressure(&self) -> f64 {
        self.shared.current().map_or(f64::INFINITY, Core::pressure)
    }

    /// Admits the work if the gate is open to its [`Class`](crate::Class) and the work, on top of what is measured and
    /// reserved, stays below the hard threshold of every resource. Its cost is then reserved until the [`Permit`] is
    /// given back.
    ///
    /// Granting takes no lock that is held across anything (about 150 ns with giving it back), while the last check is no older than
    /// `refresh_after` (or the gap that the CPU budget puts between checks, if that is longer). When it is older, one
    /// caller takes a fresh one on its own thread and the others wait for it. A refusal for a resource that is cheap to
    /// read alone, such as own memory, is judged on a reading of the last millisecond. Before the first check all work
    /// is refused, and so is work that may not pass others that [wait](Self::admit).
    ///
    /// # Errors
    /// The verdict that refused the work; see [`Verdict::could_never_fit`].
    pub fn try_admit(&self, work: Work) -> Result<Permit, Verdict> {
        let grant = engine::try_admit(&self.shared, &work)?;
        Ok(Permit::new(Arc::clone(&self.shared), grant))
    }

    /// As [`try_admit`](Self::try_admit), but waits until the work is admitted, for at most `timeout`.
    ///
    /// First come, first served within a [`Class`](crate::Class), and the more important class first. Work that fits may
    /// pass work that does not, until that has been passed 16 times or has waited for 5 s
    /// ([`overtaking`](crate::ResourceMonitorBuilder::overtaking)); then nobody passes it. Whatever makes room hands it
    /// over to those that fit and wakes exactly them: a permit that is [finished](Permit::finish), a check, new limits,
    /// a waiter that gives up. While somebody waits, checks come every 5 ms, within the CPU budget. Waiting itself costs
    /// nothing.
    ///
    /// `Duration::ZERO` is `try_admit`; with `Duration::MAX` there is no deadline. Deadlines are those of the monotonic
    /// clock. The monitor need not be started: then those who wait check.
    ///
    /// # Errors
    /// The verdict that refuses the work, which says for what it waited, how long, how many others were ahead, and who
    /// holds the room. At once where waiting cannot help: the work could never fit, or does not any more under new
    /// limits; the monitor is stopped, or was never started and has never checked; this process was forked.
    ///
    /// ```
    /// use std::time::Duration;
    /// use highwater::{Class, ResourceLimits, ResourceMonitor, Work};
    ///
    /// let monitor = ResourceMonitor::new(ResourceLimits::builder().max_processes(50).build()?);
    /// monitor.start(Duration::from_secs(15))?;
    /// let work = Work::new().processes(2).class(Class::Background).label("thumbnail");
    /// let permit = monitor.admit(work, Duration::from_secs(30))?;
    /// // ... the work ...
    /// permit.finish();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn admit(&self, work: Work, timeout: Duration) -> Result<Permit, Verdict> {
        let grant = engine::admit(&self.shared, &work, timeout)?;
        Ok(Permit::new(Arc::clone(&self.shared), grant))
    }

    /// Waits until the gate is open, for at most `timeout`, and keeps nothing: [`admit`](Self::admit) for
    /// `Work::new()`. It may be closed again a moment later.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn wait_until_accepting(&self, timeout: Duration) -> Result<(), Verdict> {
        self.admit(Work::new(), timeout).map(Permit::finish)
    }

    /// Returns `true` from the fifth failed check in a row until a check succeeds.
    ///
    /// Meanwhile checks come ever more rarely, after an interval that doubles up to 5 minutes, but once a second while
    /// somebody asks.
    pub fn is_degraded(&self) -> bool {
        self.shared.current().is_some_and(|core| core.admission.word.is_degraded())
    }

    /// Seconds since the last *successful* check, with the resolution of the coarse clock (1 to 10 ms); infinity before
    /// the first.
    pub fn seconds_since_last_check(&self) -> f64 {
        let age = |core: &Core| Some(core.now().saturating_sub(core.admission.word.last_success()?).as_secs_f64());
        self.shared.current().and_then(age).unwrap_or(f64::INFINITY)
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").field("core", &self.shared.current()).finish()
    }
}
