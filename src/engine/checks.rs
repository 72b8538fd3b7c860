//! Checks, whoever takes them.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::core::Core;
use super::run::Run;
use crate::host::contained;
use crate::judgement::{Observation, Planned, Report};
use crate::vocabulary::{Error, ErrorKind, MemoryScope, Reading, Resource};

impl Core {
    /// Before the first check of a start, whose cost says when the next one is due: among thousands of processes it
    /// would be seconds.
    pub(crate) fn prepare(&self) {
        // What panics here does so again in the check, and is reported there.
        drop(contained(|| self.config.probe.prepare(&self.config.settings)));
    }

    /// The first check of a run, on the thread that starts it.
    pub(super) fn first_check(&self) -> Option<Report> {
        let check = |reading: &mut Reading| {
            self.prepare();
            self.check_as_caller(reading)
        };
        // Another start waits for this one, so nobody else holds it but whoever checks for a caller right now.
        self.single_flight.with(Duration::MAX, check).flatten()
    }

    /// Waits until the first check of a run has been taken by whoever began it, or takes one.
    pub(super) fn await_first_check(&self, run: &Run) {
        let is_checked = || self.judgement.lock().is_checked_since(run.first_number);
        if !is_checked() {
            self.single_flight.with(Duration::MAX, |reading| {
                if !is_checked() && !run.is_stopping() {
                    self.check_as_caller(reading);
                }
            });
        }
    }

    /// Asks the manager for its counts on a caller's thread, unless its code is still running somewhere else.
    pub(super) fn count_on_caller(&self) {
        if !self.lifecycle.hook_left_behind() {
            self.hooks.count_on_caller();
        }
    }

    pub(super) fn check_as_caller(&self, reading: &mut Reading) -> Option<Report> {
        self.check_into(reading, &mut self.config.clock.thread_cpu_time(), None)
    }

    /// A check on the check thread, if it is still due when nobody else is checking any more. All of the thread's CPU
    /// time since its last check is the cost of this one.
    pub(crate) fn check_on_thread(
        &self,
        last_own_check: Duration,
        demanded: bool,
        cpu_since: &mut Duration,
        planned: Planned,
    ) -> Option<Report> {
        let check = |reading: &mut Reading| {
            let still_due = self.next_check(last_own_check, demanded) <= self.config.clock.fine_now();
            if still_due {
                self.check_into(reading, cpu_since, Some(planned))
            } else {
                None
            }
        };
        self.single_flight.with(Duration::MAX, check).flatten()
    }

    /// Reads memory alone, a few microseconds. Returns false when own memory cannot be read, which is left to the next
    /// check to report.
    pub(crate) fn read_memory_alone(&self) -> bool {
        let settings = &self.config.settings;
        let clock = &self.config.clock;
        // Taken before anything is read, as for a check.
        let released = self.admission.room.take_released_alone();
        let (began, cpu_began) = (clock.fine_now(), clock.thread_cpu_time());
        let Ok(memory) = contained(|| self.config.probe.read_memory(settings)) else {
            self.admission.room.release_again(&released);
            return false;
        };
        let cpu = clock.thread_cpu_time().saturating_sub(cpu_began);
        let limits = self.limits.get();
        let mut judgement = self.judgement.lock();
        judgement.record_memory(&memory, self.now(), began, cpu, &released, &limits);
        judgement.publish_check(&limits);
        self.serve_under(&mut judgement, &limits);
        matches!(memory.get(Resource::Memory), Ok(Some(_)))
    }

    /// Reads every resource, judges and publishes. `None` when a check that began later was published first. What this
    /// thread has used from `cpu_since`, which is set to now, is counted as well.
    fn check_into(&self, reading: &mut Reading, cpu_since: &mut Duration, planned: Option<Planned>) -> Option<Report> {
        // Both taken before anything is read: a permit dropped before this point is covered by what is read after it.
        let ledger_error = self.look_after_ledger();
        let number = self.next_number.fetch_add(1, SeqCst);
        let released = self.admission.room.take_released();
        let clock = &self.config.clock;
        let (began, cpu_began) = (clock.instant(), clock.thread_cpu_time());
        let precise_began = clock.fine_now();
        {
            let judgement = self.judgement.lock();
            let limits = self.limits.get();
            judgement.list_subtrees(&mut reading.subtrees);
            reading.disk = limits.shared_disk_path().cloned();
            if self.config.settings.memory_scope == MemoryScope::Tree {
                self.config.probe.set_memory_closes_from(judgement.memory_closes_from(&limits));
            }
        }
        reading.clear();
        if let Err(message) = contained(|| self.config.probe.read(&self.config.settings, reading)) {
            reading.fail(Error::new(ErrorKind::Panicked, format!("a reading panicked: {message}")));
        }
        let cpu_now = clock.thread_cpu_time();
        let cpu = cpu_now.saturating_sub(cpu_began);
        let cpu_between = cpu_began.saturating_sub(std::mem::replace(cpu_since, cpu_now));

        let snapshot = &mut reading.snapshot;
        snapshot.timestamp = clock.instant();
        snapshot.check_duration = snapshot.timestamp.saturating_duration_since(began);
        snapshot.lateness = planned.map_or(Duration::ZERO, |planned| planned.lateness);
        (snapshot.running_jobs, snapshot.active_sheets) = self.hooks.counts();

        let limits = self.limits.get();
        let mut judgement = self.judgement.lock();
        reading.snapshot.gauges = judgement.gauge_readings();
        let found = reading.found();
        let now = self.now();
        judgement.note_ledger(ledger_error);
        let report = judgement.record(
            &Observation {
                number,
                now,
                began: precise_began,
                ended: clock.fine_now(),
                cpu,
                cpu_between,
                planned,
                found: &found,
                zombies: &reading.zombies,
                subtrees: &reading.subtrees,
                released,
            },
            &limits,
        )?;
        reading.snapshot.exhaustion = judgement.exhaustion(now, &limits);
        judgement.publish_check(&limits);
        self.serve_under(&mut judgement, &limits);
        // Taken before the judgement is let go, so that snapshots are published in the order in which they were judged.
        let mut publisher = self.publisher.lock();
        drop(judgement);
        publisher.publish(&reading.snapshot);
        Some(report)
    }
}
