//! The time of a monitor whose clock a test moves: what is due is done by the threads whose work it is, before the
//! clock moves on.

use std::time::{Duration, Instant};

use super::core::Core;
use crate::vocabulary::Verdict;

/// How long the threads of a monitor, which call the host, may take over one thing.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether a thread that is waited for has ended.
const LOOK: Duration = Duration::from_millis(10);

impl Core {
    /// Moves the clock on, and stops at each time at which the check thread has something to do until it has done it.
    pub(crate) fn advance(&self, by: Duration) {
        let Some(clock) = self.config.clock.manual() else { return };
        let end = clock.now().saturating_add(by);
        loop {
            self.settle();
            let run = self.lifecycle.current_run().filter(|run| run.checker.is_running());
            match run.and_then(|_| clock.due()).filter(|due| *due <= end) {
                Some(due) => {
                    clock.move_to(due);
                    self.bell.ring();
                }
                None => return clock.move_to(end),
            }
        }
    }

    /// Waits until the threads of the monitor have done whatever is to be done now.
    pub(crate) fn settle(&self) {
        // For what was asked since.
        self.bell.ring();
        let deadline = Instant::now() + PATIENCE;
        while let Some(run) = self.lifecycle.current_run() {
            let is_own = run.workers().any(|worker| worker.is_current());
            assert!(!is_own, "a hook cannot wait for the monitor's threads, of which its own is one");
            let rings = || (self.bell.count(), run.inbox_bell.count());
            let before = rings();
            for worker in run.workers() {
                let bell = if worker.name() == run.checker.name() { &self.bell } else { &run.inbox_bell };
                while worker.is_running() && !bell.is_heard() {
                    assert!(Instant::now() < deadline, "thread {} is in a hook for {PATIENCE:?}", worker.name());
                    bell.wait_until_heard(LOOK);
                }
            }
            // One may have rung for the other meanwhile.
            if rings() == before {
                return;
            }
        }
    }

    /// Has the check thread take a check as soon as one is due for somebody who asks.
    pub(crate) fn demand_check(&self) {
        self.admission.word.take_demand(Duration::MAX);
        self.bell.ring();
    }

    /// On the check thread, hangs for as long as `hangs` says so when it is rung for, or until the run is over.
    pub(crate) fn hang_while(&self, hangs: impl Fn() -> bool) {
        let Some(clock) = self.config.clock.manual() else { return };
        loop {
            let rings = self.bell.count();
            let is_check_thread = self.lifecycle.current_run().is_some_and(|run| run.checker.is_current());
            if !is_check_thread || !hangs() {
                return;
            }
            clock.sleeps_for(Duration::MAX);
            self.bell.wait(rings, Duration::MAX);
        }
    }

    /// From now on every answer is this verdict, which must be one of a closed gate. The core is one that never checks.
    pub(crate) fn refuse_with(&self, verdict: Verdict) {
        self.judgement.lock().refuse_with(verdict);
    }
}
