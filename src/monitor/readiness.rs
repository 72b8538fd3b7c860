//! The handle through which any thread asks the gate and admits work.

use std::fmt;
use std::sync::Arc;

use crate::engine::{self, Core, Shared};
use crate::monitor::permit::Permit;
use crate::sys;
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
    /// A few atomic loads and one coarse clock read (about 10 ns); never blocks, never allocates, callable from any
    /// thread. The answer is as old as the last check (see
    /// [`seconds_since_last_check`](Self::seconds_since_last_check)), and `false` when that is too old to trust. The
    /// first caller to find the check older than `refresh_after` wakes the check thread, which is one system call.
    #[inline]
    pub fn is_accepting_work(&self) -> bool {
        match self.shared.own() {
            Some(core) => core.is_accepting(),
            None => self.shared.current().is_some_and(Core::is_accepting),
        }
    }

    /// The gate's state and the reason, from one reading: the answer and the text of a verdict never disagree.
    ///
    /// It takes a lock that is never held across a reading or a call of the host's code.
    pub fn verdict(&self) -> Verdict {
        match self.shared.current() {
            Some(core) => core.verdict(),
            None => Verdict::new(Reason::Forked),
        }
    }

    /// Admits the work if the gate is open and the work, on top of what is measured and reserved, stays below the hard
    /// threshold of every resource. Its cost is then reserved until the first good check after the permit was dropped.
    ///
    /// Work is judged on a reading no older than `refresh_after` (or the gap that the CPU budget puts between checks,
    /// if that is longer): when the last check is older, one caller takes a fresh one on its own thread and the others
    /// wait for it. Before the first check all work is refused.
    ///
    /// No reservation is given back between two checks. So work that ends sooner is limited to as much as fits below
    /// the warning threshold once per `refresh_after`; a server of short requests declares only what outlasts each.
    ///
    /// # Errors
    /// The verdict that refused the work; see [`Verdict::could_never_fit`].
    pub fn try_admit(&self, work: Work) -> Result<Permit, Verdict> {
        engine::admit(&self.shared, &work)?;
        Ok(Permit::new(Arc::clone(&self.shared), work))
    }

    /// Returns `true` from the fifth failed check in a row until a check succeeds.
    ///
    /// Meanwhile checks come ever more rarely, after an interval that doubles up to 5 minutes, but once a second while
    /// somebody asks.
    pub fn is_degraded(&self) -> bool {
        self.shared.current().is_some_and(|core| core.word.is_degraded())
    }

    /// Seconds since the last *successful* check, with the resolution of the coarse clock (1 to 10 ms); infinity before
    /// the first.
    pub fn seconds_since_last_check(&self) -> f64 {
        let last = self.shared.current().and_then(|core| core.word.last_success());
        last.map_or(f64::INFINITY, |last| sys::coarse_now().saturating_sub(last).as_secs_f64())
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").field("core", &self.shared.current()).finish()
    }
}
