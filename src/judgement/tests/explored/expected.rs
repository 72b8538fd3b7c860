//! The promises of the documentation, restated with nothing but the steps in mind: what a machine must answer after each.

use std::time::Duration;

use super::super::{ms, s, INTERVAL};
use super::{Check, Limits, Promise};
use crate::judgement::Event;
use crate::vocabulary::Level;

/// The answers that a machine must give, by what has happened to it.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) now: Duration,
    pub(super) limits: Limits,
    pub(super) is_running: bool,
    is_stopped: bool,
    is_forked: bool,
    /// When the last check was taken, and the processes that it found unless it has failed.
    last: Option<(Duration, Option<u64>)>,
    failures: u32,
    max_age: Duration,
    level: Level,
    /// The level that the log knows of.
    announced: Level,
    /// What permits hold.
    pub(super) held: u64,
    /// What dropped permits held, until a good check.
    dropped: u64,
    /// When the last shed was over, and whether the host has yet to hear that the pressure is gone.
    shed_at: Option<Duration>,
}

impl Expected {
    pub(super) fn new(now: Duration) -> Expected {
        Expected {
            now,
            limits: Limits::Held,
            is_running: false,
            is_stopped: false,
            is_forked: false,
            last: None,
            failures: 0,
            max_age: s(2),
            level: Level::Normal,
            announced: Level::Normal,
            held: 0,
            dropped: 0,
            shed_at: None,
        }
    }

    /// Open only by a successful check that is not stale, of a monitor that is neither stopped, failing nor forked.
    fn trusted(&self) -> Option<u64> {
        let (at, found) = self.last?;
        let is_fresh = self.now - at <= self.max_age;
        found.filter(|_| is_fresh && !self.is_stopped && !self.is_forked)
    }

    pub(super) fn is_known(&self) -> bool {
        self.trusted().is_some()
    }

    /// Measured and reserved usage below the warning threshold, and a level that is normal.
    pub(super) fn is_open(&self) -> bool {
        self.trusted().is_some_and(|measured| {
            let [_, warn, _] = self.limits.thresholds();
            self.level_of(measured) == Level::Normal && measured + self.held + self.dropped < warn
        })
    }

    /// Work is granted where the gate is open and all of it stays below the hard threshold.
    pub(super) fn grants(&self, processes: u64) -> bool {
        let [.., hard] = self.limits.thresholds();
        self.is_open() && self.trusted().is_some_and(|measured| measured + self.held + self.dropped + processes < hard)
    }

    /// Nobody will take a check for those who wait.
    pub(super) fn is_hopeless(&self) -> bool {
        self.is_forked || self.is_stopped || (self.last.is_none() && !self.is_running)
    }

    fn level_of(&self, measured: u64) -> Level {
        let [resume, warn, hard] = self.limits.thresholds();
        match measured {
            _ if measured >= hard => Level::Critical,
            _ if measured >= warn => Level::Warning,
            _ if measured >= resume && self.level != Level::Normal => Level::Warning,
            _ => Level::Normal,
        }
    }

    pub(super) fn drop_permit(&mut self, processes: u64) {
        self.held -= processes;
        self.dropped += processes;
    }

    pub(super) fn start(&mut self) {
        // What was found before a stop, or not found at all, answers for nothing after the start.
        self.last = self.last.filter(|(_, found)| found.is_some() && !self.is_stopped);
        (self.is_running, self.is_stopped) = (true, false);
        (self.failures, self.level, self.announced) = (0, Level::Normal, Level::Normal);
        self.max_age = 3 * INTERVAL;
    }

    pub(super) fn stop(&mut self) {
        (self.is_running, self.is_stopped) = (false, true);
    }

    pub(super) fn fork(&mut self) {
        *self =
            Expected { limits: self.limits, is_stopped: self.is_stopped, is_forked: true, ..Expected::new(self.now) };
    }

    /// Takes a check, and says whether the log may be told of these events.
    pub(super) fn check(&mut self, check: Check, events: &[Event]) -> Result<(), Promise> {
        self.is_forked = false;
        let found = check.processes();
        self.last = Some((self.now, found));
        let failures_before = self.failures;
        match found {
            Some(measured) => {
                self.level = self.level_of(measured);
                (self.failures, self.dropped) = (0, 0);
            }
            None => self.failures += 1,
        }
        let mut expected = self.failures_told(failures_before);
        for event in events {
            let is_due = match event {
                Event::LevelEntered { level, .. } => {
                    let is_news = found.is_some() && *level == self.level && *level != self.announced;
                    self.announced = *level;
                    is_news
                }
                Event::CheckFailed { .. } => std::mem::take(&mut expected[0]),
                Event::Degraded { .. } => std::mem::take(&mut expected[1]),
                Event::Recovered { .. } => std::mem::take(&mut expected[2]),
                Event::DegradedCleared { .. } => std::mem::take(&mut expected[3]),
                _ => false,
            };
            if !is_due {
                return Err(Promise::NoEventWithoutAChange);
            }
        }
        if expected.contains(&true) {
            return Err(Promise::NoEventWithoutAChange);
        }
        Ok(())
    }

    /// Of a failure up to the fifth, of the fifth, of a good check after any, and after five.
    fn failures_told(&self, before: u32) -> [bool; 4] {
        let now = self.failures;
        [(1..=5).contains(&now), now == 5, now == 0 && before > 0, now == 0 && before >= 5]
    }

    /// Whether a job may be shed on account of the last check: by what it has measured, and one at a time, each with its
    /// time to take effect.
    pub(super) fn may_shed(&self) -> bool {
        let is_settled = self.shed_at.map_or(true, |at| self.now > at + INTERVAL);
        self.trusted().is_some() && self.level == Level::Critical && is_settled
    }

    pub(super) fn shed(&mut self) {
        self.shed_at = Some(self.now);
    }

    /// Takes the news that the pressure is gone, which is due once after a shed.
    pub(super) fn clear(&mut self) -> bool {
        let is_due = self.shed_at.is_some_and(|at| self.now > at) && self.level == Level::Normal;
        self.shed_at = None;
        is_due
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time.max(ms(1));
    }
}
