//! The log events, one function each: target `highwater`, key `event`, typed values. The crate documentation has the
//! table of them.
//!
//! The functions call the host's logger. So their callers hold no lock of ours, and contain its panic.

use std::time::Duration;

use log::{debug, error, info, log, warn};

use crate::judgement::Event;
use crate::vocabulary::{percent_tenths, Error, Level, Quantity, Resource, ResourceLimits, Unit, MB};

const TARGET: &str = "highwater";

/// The name of an event of a resource.
macro_rules! event_of {
    ($resource:expr, $what:literal) => {
        match $resource {
            Resource::Memory => concat!("monitor.memory_", $what),
            Resource::Processes => concat!("monitor.processes_", $what),
            Resource::CgroupMemory => concat!("monitor.cgroup_memory_", $what),
            Resource::CgroupPids => concat!("monitor.cgroup_pids_", $what),
            Resource::OpenFiles => concat!("monitor.open_files_", $what),
            Resource::MemoryPressure => concat!("monitor.memory_pressure_", $what),
        }
    };
}

pub(crate) fn started(interval: Duration) {
    info!(target: TARGET, event = "monitor.started", interval_seconds = interval.as_secs_f64(); "monitor started");
}

pub(crate) fn stopped() {
    info!(target: TARGET, event = "monitor.stopped"; "monitor stopped");
}

pub(crate) fn limits_updated(old: &ResourceLimits, new: &ResourceLimits) {
    info!(
        target: TARGET,
        event = "monitor.limits_updated",
        old_max_memory_bytes = old.max_memory_bytes(),
        new_max_memory_bytes = new.max_memory_bytes(),
        old_max_processes = old.max_processes(),
        new_max_processes = new.max_processes(),
        old_max_open_files = old.max_open_files(),
        new_max_open_files = new.max_open_files(),
        old_max_memory_pressure_percent = old.max_memory_pressure_percent(),
        new_max_memory_pressure_percent = new.max_memory_pressure_percent(),
        old_warn_percent = old.warn_percent(),
        new_warn_percent = new.warn_percent(),
        old_hard_percent = old.hard_percent(),
        new_hard_percent = new.hard_percent(),
        old_resume_percent = old.resume_percent(),
        new_resume_percent = new.resume_percent();
        "limits updated"
    );
}

/// Logs an event of a check.
pub(crate) fn judged(event: &Event) {
    match event {
        Event::LevelEntered { resource, level, usage, limit, group, changes } => {
            let (severity, what) = match level {
                Level::Normal => (log::Level::Info, "back to normal"),
                Level::Warning => (log::Level::Warn, "near the limit"),
                Level::Critical => (log::Level::Error, "at the limit"),
            };
            let event = match level {
                Level::Normal => event_of!(*resource, "normal"),
                Level::Warning => event_of!(*resource, "warning"),
                Level::Critical => event_of!(*resource, "critical"),
            };
            // Not clamped, because usage can exceed its limit. Without a limit there is no percentage. A limit of 0
            // counts as 1, so that the percentage stays finite.
            let percent = limit.map(|limit| *usage as f64 * 100.0 / limit.max(1) as f64);
            let shown = limit.map(|limit| percent_tenths((*usage).into(), limit));
            let shown =
                shown.map_or_else(|| "no limit".to_string(), |tenths| format!("{}.{} %", tenths / 10, tenths % 10));
            let message = format!("{resource} {what}: {} ({shown})", Quantity(*resource, *usage));
            let cgroup = group.as_ref().map(|group| group.display().to_string());
            let (usage_mb, limit_mb) = (*usage as f64 / MB as f64, limit.map(|limit| limit as f64 / MB as f64));
            let (count, limit, changes) = (*usage, *limit, *changes);
            match (resource.unit(), cgroup.as_deref()) {
                (Unit::Bytes, None) => {
                    log!(target: TARGET, severity, event, usage_mb, limit_mb, percent, changes; "{message}");
                }
                (Unit::Bytes, Some(cgroup)) => {
                    log!(target: TARGET, severity, event, usage_mb, limit_mb, percent, changes, cgroup; "{message}");
                }
                (Unit::Count, None) => {
                    log!(target: TARGET, severity, event, count, limit, percent, changes; "{message}");
                }
                (Unit::Count, Some(cgroup)) => {
                    log!(target: TARGET, severity, event, count, limit, percent, changes, cgroup; "{message}");
                }
                (Unit::Percent, _) => {
                    let some_avg10 = count as f64 / 100.0;
                    let limit = limit.map(|limit| limit as f64 / 100.0);
                    log!(target: TARGET, severity, event, some_avg10, limit, percent, changes; "{message}");
                }
            }
        }
        Event::Unread { resource, error } => warn!(
            target: TARGET, event = event_of!(*resource, "unread"), error:% = error;
            "{resource} cannot be read and is not judged: {error}"
        ),
        Event::ReadAgain { resource } => info!(
            target: TARGET, event = event_of!(*resource, "read_again"); "{resource} can be read again"
        ),
        Event::Zombies { pids } => warn!(
            target: TARGET, event = "monitor.zombies_detected", zombie_pids:? = pids, count = pids.len();
            "descendants have ended and nobody waits for them"
        ),
        Event::CheckFailed { failures, error } => error!(
            target: TARGET, event = "monitor.check_failed", consecutive_failures = *failures, error:% = error;
            "check failed: {error}"
        ),
        Event::Degraded { failures, error } => error!(
            target: TARGET, event = "monitor.degraded", consecutive_failures = *failures, error:% = error;
            "degraded after {failures} failed checks: {error}"
        ),
        Event::RunningLate(planned) => warn!(
            target: TARGET,
            event = "monitor.running_late",
            lateness_seconds = planned.lateness.as_secs_f64(),
            planned_delay_seconds = planned.delay.as_secs_f64();
            "a check began {:.1} s after its time", planned.lateness.as_secs_f64()
        ),
        Event::Recovered { after_failures } => info!(
            target: TARGET, event = "monitor.recovered", after_failures = *after_failures;
            "checks succeed again"
        ),
        Event::DegradedCleared { after_failures } => info!(
            target: TARGET, event = "monitor.degraded_cleared", after_failures = *after_failures;
            "no longer degraded"
        ),
    }
}

pub(crate) fn pressure_not_watched(error: &Error) {
    info!(
        target: TARGET, event = "monitor.pressure_not_watched", error:% = error;
        "the kernel wakes no check when memory gets short; the timer goes on: {error}"
    );
}

pub(crate) fn pausing_oldest_job(job_id: &str, reason: &str) {
    warn!(target: TARGET, event = "monitor.pausing_oldest_job", job_id, reason; "pausing job {job_id}: {reason}");
}

pub(crate) fn pause_failed_falling_back_to_cancel(job_id: &str, reason: &str) {
    warn!(
        target: TARGET, event = "monitor.pause_failed_falling_back_to_cancel", job_id, reason;
        "cancelling job {job_id}, it could not be paused: {reason}"
    );
}

pub(crate) fn cancelling_oldest_job(job_id: &str, reason: &str) {
    warn!(
        target: TARGET, event = "monitor.cancelling_oldest_job", job_id, reason;
        "cancelling job {job_id}, shedding it once did not help: {reason}"
    );
}

pub(crate) fn cancel_failed(job_id: &str, error: &str) {
    error!(target: TARGET, event = "monitor.cancel_failed", job_id, error; "could not cancel job {job_id}: {error}");
}

pub(crate) fn no_job_to_shed(reason: &str) {
    warn!(target: TARGET, event = "monitor.no_job_to_shed", reason; "no job to shed: {reason}");
}

pub(crate) fn prune_stale_failed(consecutive_failures: u32, error: &str) {
    warn!(
        target: TARGET, event = "monitor.prune_stale_failed", consecutive_failures, error;
        "pruning stale jobs failed: {error}"
    );
}

pub(crate) fn prune_disabled(consecutive_failures: u32, error: &str) {
    error!(
        target: TARGET, event = "monitor.prune_disabled", consecutive_failures, error;
        "pruning stale jobs switched off after {consecutive_failures} failures: {error}"
    );
}

pub(crate) fn prune_recovered(after_failures: u32) {
    info!(target: TARGET, event = "monitor.prune_recovered", after_failures; "pruning stale jobs works again");
}

pub(crate) fn process_group_cleaned(hook: &str, pids: &[u32]) {
    debug!(
        target: TARGET, event = "monitor.process_group_cleaned", hook, pids:? = pids, count = pids.len();
        "{hook} dealt with {} processes", pids.len()
    );
}

pub(crate) fn process_group_failed(hook: &str, error: &str) {
    warn!(target: TARGET, event = "monitor.process_group_failed", hook, error; "{hook} failed: {error}");
}

pub(crate) fn hook_panicked(hook: &str, message: &str) {
    error!(target: TARGET, event = "monitor.hook_panicked", hook, error = message; "{hook} panicked: {message}");
}

pub(crate) fn actions_unavailable(error: &Error) {
    error!(
        target: TARGET, event = "monitor.actions_unavailable", error:% = error;
        "no work can be shed until the action thread exists: {error}"
    );
}

pub(crate) fn loop_died_unexpectedly(thread: &str, message: &str) {
    error!(
        target: TARGET, event = "monitor.loop_died_unexpectedly", thread, error = message;
        "thread {thread} died: {message}"
    );
}

pub(crate) fn group_set_up(group: u32, subreaper: bool) {
    info!(
        target: TARGET, event = "pgroup.setup_complete", pgid = group, subreaper;
        "set up in process group {group}"
    );
}

pub(crate) fn group_already_led(group: u32) {
    debug!(target: TARGET, event = "pgroup.already_leader", pgid = group; "already leader of process group {group}");
}

pub(crate) fn group_setup_failed(error: &Error) {
    error!(target: TARGET, event = "pgroup.setup_failed", error:% = error; "{error}");
}

pub(crate) fn children_signaled(signal: i32, signaled: &[u32], survivors: &[u32]) {
    warn!(
        target: TARGET,
        event = "pgroup.signaled_children",
        signal,
        pids:? = signaled,
        count = signaled.len(),
        survivor_pids:? = survivors,
        survivors = survivors.len();
        "signal {signal} sent to {} processes, of which {} live on", signaled.len(), survivors.len()
    );
}

pub(crate) fn orphans_ended(signal: i32, pids: &[u32]) {
    info!(
        target: TARGET, event = "pgroup.orphan_cleanup", signal, pids:? = pids, count = pids.len();
        "signal {signal} sent to {} orphans", pids.len()
    );
}

pub(crate) fn zombie_reaped(pid: u32, exit_status: &str) {
    debug!(target: TARGET, event = "pgroup.reaped_zombie", pid, exit_status; "process {pid} has ended: {exit_status}");
}

pub(crate) fn signal_denied(pid: u32, signal: i32) {
    warn!(
        target: TARGET, event = "pgroup.permission_denied", pid, signal;
        "no permission to send signal {signal} to process {pid}"
    );
}
