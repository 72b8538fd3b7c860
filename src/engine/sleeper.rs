//! The sleep of the check thread, which a bell or the kernel's alarms end.

use std::time::Duration;

use super::core::Core;
use super::worker::Worker;
use crate::host::events;
use crate::readers::cgroup::Alarms;
use crate::sys::bell::{Bell, PollBell};
use crate::sys::poll::Ready;
use crate::sys::Clock;
use crate::vocabulary::Error;

/// The means by which the check thread sleeps: a bell, and the kernel's alarms where some are armed.
pub(super) struct Sleeper<'a> {
    bell: &'a Bell,
    clock: &'a Clock,
    pub(super) alarms: Alarms,
    /// Attached while there are alarms to hear besides the bell.
    poll_bell: Option<PollBell<'a>>,
    /// Until then alarms are not heard: what they ask for has just been done.
    pub(super) ignore_alarms_until: Duration,
    logged_unarmed: bool,
}

impl<'a> Sleeper<'a> {
    pub(super) fn new(core: &'a Core) -> Sleeper<'a> {
        let (bell, clock) = (&core.bell, &core.config.clock);
        // A thread that was left behind may have one still.
        bell.detach();
        let ignore_alarms_until = Duration::ZERO;
        Sleeper { bell, clock, alarms: Alarms::default(), poll_bell: None, ignore_alarms_until, logged_unarmed: false }
    }

    /// Says so, once, when nothing of what was asked for could be armed: then the timer alone goes on.
    pub(super) fn set_alarms(&mut self, mut alarms: Alarms, core: &Core, worker: &Worker) {
        if alarms.is_armed() && self.poll_bell.is_none() {
            match self.bell.attach_eventfd() {
                Ok(poll_bell) => self.poll_bell = Some(poll_bell),
                Err(error) => alarms.give_up(Error::poll(error)),
            }
        }
        self.alarms = alarms;
        self.log_if_unarmed(core, worker);
    }

    pub(super) fn log_if_unarmed(&mut self, core: &Core, worker: &Worker) {
        if self.alarms.is_armed() {
            return;
        }
        self.poll_bell = None;
        if let (false, Some(error)) = (self.logged_unarmed, self.alarms.failures.first()) {
            self.logged_unarmed = true;
            core.hooks.call_logger(Some(worker), || events::pressure_not_watched(error));
        }
    }

    /// Returns whether the kernel has woken the thread.
    pub(super) fn sleep(&mut self, rings: u32, timeout: Duration) -> bool {
        let Some(poll_bell) = &self.poll_bell else {
            self.bell.wait(rings, self.clock.sleep(timeout));
            return false;
        };
        let ignored_for = self.ignore_alarms_until.saturating_sub(self.clock.coarse_now());
        let slept = if ignored_for.is_zero() {
            self.alarms.wait(poll_bell, rings, timeout)
        } else {
            let ready = &mut [Ready::default()];
            poll_bell.wait(rings, timeout.min(ignored_for), std::iter::empty(), ready).map(|()| false)
        };
        slept.unwrap_or_else(|error| {
            // There are fewer descriptors now than it takes to wait for these.
            self.alarms.give_up(Error::poll(error));
            self.poll_bell = None;
            false
        })
    }
}
