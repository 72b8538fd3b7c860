//! The questions that any thread may ask of the gate, and how a question keeps the answer young.

use super::core::Core;
use crate::judgement::Report;
use crate::sys;
use crate::vocabulary::{Reading, Verdict};

impl Core {
    /// Returns `true` if work is accepted: the hot path.
    #[inline]
    pub(crate) fn is_accepting(&self) -> bool {
        let now = self.now();
        if self.admission.word.take_demand(now) {
            self.meet_demand_unnoticed();
            return self.admission.is_open(self.now());
        }
        self.admission.is_open(now)
    }

    /// The largest share of what closes the gate.
    pub(crate) fn pressure(&self) -> f64 {
        if self.admission.word.take_demand(self.now()) {
            self.meet_demand_unnoticed();
        }
        self.admission.pressure(self.now())
    }

    pub(crate) fn verdict(&self) -> Verdict {
        if self.admission.word.take_demand(self.now()) {
            self.meet_demand();
        }
        self.judgement.lock().verdict(self.now(), &self.limits.get())
    }

    #[cold]
    fn meet_demand_unnoticed(&self) {
        sys::unnoticed(|| self.meet_demand());
    }

    /// Has a check taken, because the last one is old: on this thread if that is cheap and nobody else is checking,
    /// else by the check thread, which is not waited for. So a rare asker is told what is true now.
    #[cold]
    fn meet_demand(&self) {
        let now = self.now();
        let (may_check, may_read_memory) = {
            let judgement = self.judgement.lock();
            (judgement.may_check_inline(now), judgement.may_read_memory_inline(now))
        };
        let check = |reading: &mut Reading| match () {
            () if may_check => {
                if let Some(report) = self.check_as_caller(reading) {
                    self.leave_to_check_thread(report);
                }
                true
            }
            () => may_read_memory && self.read_memory_alone(),
        };
        let is_met = (may_check || may_read_memory) && self.single_flight.try_with(check).unwrap_or(false);
        // A gate that is closed is looked at again by the check thread, which sleeps until what it thought before.
        if !is_met || !self.admission.is_open(now) {
            self.wake_check_thread();
        }
    }

    /// Wakes the check thread for what was asked of it. Where a test moves the clock, it wakes with the clock.
    fn wake_check_thread(&self) {
        if !self.config.clock.is_manual() {
            self.bell.ring();
        }
    }

    /// Leaves what a check found to the check thread: the asker may hold a lock that the host's logger takes.
    fn leave_to_check_thread(&self, report: Report) {
        if !report.events.is_empty() || report.climbing || self.calls_for_action(&report) {
            self.reports.lock().push(report);
            self.wake_check_thread();
        }
    }
}
