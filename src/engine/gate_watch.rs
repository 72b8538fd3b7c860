//! Those who are told when the gate opens or closes, whatever is reserved: by what was measured, or because nothing is known.
//!
//! A thread that lends room to others has to take back what nobody has taken yet when usage gets near a limit. To ask
//! again and again would have it awake for as long as it lives. It is rung instead, by whoever has taken the check.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use super::core::Core;
use crate::judgement::Judgement;
use crate::sys::fork::Mutex;
use crate::sys::poll::EventFd;
use crate::vocabulary::ResourceLimits;

/// The bells of those who watch the gate, and its last state.
#[derive(Debug, Default)]
pub(super) struct GateWatch {
    /// Set for good with the first: nobody else pays.
    is_watched: AtomicBool,
    was_open: AtomicBool,
    bells: Mutex<Vec<Weak<EventFd>>>,
}

impl Core {
    /// Rings this bell each time that the gate opens or closes, for as long as the bell is there.
    pub(crate) fn watch_gate(&self, bell: &Arc<EventFd>) {
        let GateWatch { is_watched, was_open, bells } = &self.gate_watch;
        let limits = self.limits.get();
        let judgement = self.judgement.lock();
        bells.lock().push(Arc::downgrade(bell));
        // Relaxed, here and below: both flags are read and written under the judgement's lock alone.
        was_open.store(judgement.is_open_as_measured(&limits), Relaxed);
        is_watched.store(true, Relaxed);
    }

    /// Whether the gate is open by what was measured.
    pub(crate) fn is_open_as_measured(&self) -> bool {
        let limits = self.limits.get();
        self.judgement.lock().is_open_as_measured(&limits)
    }

    /// Rings those who watch, if the gate has changed. Under the lock of the judgement, and so in its order.
    pub(super) fn tell_gate(&self, judgement: &Judgement, limits: &ResourceLimits) {
        let GateWatch { is_watched, was_open, bells } = &self.gate_watch;
        if !is_watched.load(Relaxed) {
            return;
        }
        let is_open = judgement.is_open_as_measured(limits);
        if was_open.swap(is_open, Relaxed) != is_open {
            bells.lock().retain(|bell| bell.upgrade().map(|bell| bell.signal()).is_some());
        }
    }
}
