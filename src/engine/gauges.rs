//! Gauges: made, updated and taken back by the host.

use std::sync::Arc;

use super::core::{Core, Shared};
use crate::judgement::admission::Admission;
use crate::sys::{self, ProcessMark};
use crate::vocabulary::{Error, GaugeName, Work};

/// A gauge that is judged until this is dropped.
#[derive(Debug)]
pub(crate) struct PushedGauge {
    shared: Arc<Shared>,
    admission: Arc<Admission>,
    pub(crate) name: GaugeName,
    pub(crate) limit: u64,
    number: u16,
    mark: ProcessMark,
}

impl PushedGauge {
    /// Makes a gauge of the monitor in the calling process.
    pub(crate) fn new(shared: &Arc<Shared>, name: &'static str, limit: u64) -> Result<PushedGauge, Error> {
        let core = Core::of(shared);
        let limits = core.limits.get();
        let (name, number) = core.judgement.lock().add_gauge(name, limit, &limits)?;
        let (shared, admission) = (Arc::clone(shared), Arc::clone(&core.admission));
        Ok(PushedGauge { shared, admission, name, limit, number, mark: ProcessMark::here() })
    }

    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        self.admission.room.push(self.name, amount);
    }

    #[inline]
    pub(crate) fn sub(&self, amount: u64) {
        if self.admission.room.pull(self.name, amount) {
            self.serve();
        }
    }

    pub(crate) fn set(&self, value: u64) {
        if self.admission.room.set_pushed(self.name, value) {
            self.serve();
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.admission.room.pushed(self.name)
    }

    /// The work, and this much of the gauge.
    pub(crate) fn declared_by(&self, work: Work, amount: u64) -> Work {
        work.with_gauge(self.name, self.number, amount)
    }

    /// Serves those who wait for what was taken off.
    #[cold]
    fn serve(&self) {
        if let Some(core) = self.core() {
            sys::unnoticed(|| core.serve_freshly());
        }
    }

    /// The core of the process that the gauge was made in, if that is the calling one.
    fn core(&self) -> Option<&Core> {
        self.shared.current().filter(|_| !self.mark.is_inherited())
    }
}

impl Drop for PushedGauge {
    fn drop(&mut self) {
        let Some(core) = self.core() else { return };
        let limits = core.limits.get();
        let mut judgement = core.judgement.lock();
        judgement.remove_gauge(self.name, self.number, &limits);
        core.serve(&judgement);
    }
}
