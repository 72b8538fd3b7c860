//! The log events: those of checks in [`judged`], every other in a function of its own. Target `highwater`, key
//! `event`, typed values. Their table is `src/guide/log_events.md`.
//!
//! The functions call the host's logger. So their callers hold no lock of ours, and contain its panic.

use std::fmt::{self, Display};
use std::io;
use std::path::Path;
use std::time::Duration;

use log::kv::{ToValue, Value};
use log::{debug, error, info, warn};

use crate::judgement::shed::{Effect, IN_VAIN};
use crate::judgement::{Event, Trimmed};
use crate::vocabulary::{Error, Holder, Level, Resource, ResourceLimits, Shown, ShownShare, ShownUp, Unit, MB};

const TARGET: &str = "highwater";

/// The name of an event of one resource, such as `monitor.cgroup_memory_warning`.
fn event_of(resource: Resource, what: &str) -> String {
    format!("monitor.{}_{what}", resource.facts().event_key)
}

/// Logs a line whose keys are not known before run time, which the macros of `log` ask for.
fn log_keys(level: log::Level, keys: &[(&str, Value<'_>)], message: fmt::Arguments<'_>) {
    if level > log::STATIC_MAX_LEVEL || level > log::max_level() {
        return;
    }
    let mut record = log::Record::builder();
    record.level(level).target(TARGET).key_values(&keys).args(message);
    record.module_path_static(Some(module_path!())).file_static(Some(file!())).line(Some(line!()));
    log::logger().log(&record.build());
}

/// An amount of a resource: MB, a count, or a percentage.
fn number(resource: Resource, amount: u64) -> Value<'static> {
    match resource.facts().unit {
        Unit::Bytes => Value::from(amount as f64 / MB as f64),
        Unit::Count => Value::from(amount),
        Unit::Percent => Value::from(amount as f64 / 100.0),
    }
}

pub(crate) fn started(interval: Duration) {
    info!(target: TARGET, event = "monitor.started", interval_seconds = interval.as_secs_f64(); "monitor started");
}

pub(crate) fn stopped() {
    info!(target: TARGET, event = "monitor.stopped"; "monitor stopped");
}

pub(crate) fn limits_updated(old: &ResourceLimits, new: &ResourceLimits) {
    let of_host = Resource::ALL.into_iter().filter_map(|resource| Some((resource, resource.facts().limit_key?)));
    let mut values: Vec<(&str, [Option<u64>; 2])> = of_host
        .map(|(resource, key)| {
            let per_unit = if resource.facts().unit == Unit::Percent { 100 } else { 1 };
            (key, [old, new].map(|limits| limits.limit(resource).map(|limit| limit / per_unit)))
        })
        .collect();
    values.extend([
        ("warn_percent", [old, new].map(|limits| Some(limits.warn_percent().into()))),
        ("hard_percent", [old, new].map(|limits| Some(limits.hard_percent().into()))),
        ("resume_percent", [old, new].map(|limits| limits.resume_percent().map(u64::from))),
    ]);
    let keys: Vec<(String, String)> =
        values.iter().map(|(key, _)| (format!("old_{key}"), format!("new_{key}"))).collect();
    let mut line = vec![("event", Value::from("monitor.limits_updated"))];
    for ((old_key, new_key), (_, [old, new])) in keys.iter().zip(&values) {
        line.extend([(old_key.as_str(), old.to_value()), (new_key.as_str(), new.to_value())]);
    }
    log_keys(log::Level::Info, &line, format_args!("limits updated"));
}

/// Logs an event of a check.
pub(crate) fn judged(event: &Event) {
    match event {
        Event::LevelEntered { resource, level, usage, limit, floor, place, changes } => {
            let (severity, what, said) = match level {
                Level::Normal => (log::Level::Info, "normal", "back to normal"),
                Level::Warning => (log::Level::Warn, "warning", "near the limit"),
                Level::Critical => (log::Level::Error, "critical", "at the limit"),
            };
            let facts = resource.facts();
            let (usage, limit, event) = (*usage, *limit, event_of(*resource, what));
            let number = |amount| number(*resource, amount);
            let limit_key = if facts.unit == Unit::Bytes { "limit_mb" } else { "limit" };
            // Not clamped, because usage can exceed its limit. Without a limit there is no percentage. A limit of 0
            // counts as 1, so that the percentage stays finite.
            let percent = limit.map(|limit| usage as f64 * 100.0 / limit.max(1) as f64);
            let place = place.as_ref().map(|place| place.display().to_string());
            let floor_key = if facts.unit == Unit::Bytes { "floor_mb" } else { "floor" };
            let mut line = vec![
                ("event", Value::from(event.as_str())),
                (facts.usage_key, number(usage)),
                (limit_key, limit.map_or_else(Value::null, number)),
                ("percent", percent.to_value()),
                ("changes", changes.to_value()),
            ];
            if let Resource::Gauge(gauge) = resource {
                line.push(("gauge", Value::from(gauge.name())));
            }
            line.extend(floor.map(|floor| (floor_key, number(floor))));
            line.extend(place.as_deref().map(|place| (facts.place_key, Value::from(place))));
            let shown = Shown(*resource, usage);
            match (limit, floor) {
                (Some(limit), Some(floor)) => {
                    let (left, floor) = (ShownUp(*resource, limit.saturating_sub(usage)), Shown(*resource, *floor));
                    log_keys(severity, &line, format_args!("{resource} {said}: {left} left, floor {floor}"));
                }
                (Some(limit), None) => {
                    let share = ShownShare { usage: usage.into(), limit };
                    log_keys(severity, &line, format_args!("{resource} {said}: {shown} ({share})"));
                }
                (None, _) => log_keys(severity, &line, format_args!("{resource} {said}: {shown} (no limit)")),
            }
        }
        Event::Unread { resource, error } => warn!(
            target: TARGET, event = event_of(*resource, "unread").as_str(), error:% = error;
            "{resource} cannot be read and is not judged: {error}"
        ),
        Event::ReadAgain { resource } => info!(
            target: TARGET, event = event_of(*resource, "read_again").as_str(); "{resource} can be read again"
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
        Event::LedgerUnusable { error } => error!(
            target: TARGET, event = "monitor.ledger_unusable", error:% = error;
            "the gate is closed until the ledger can be used: {error}"
        ),
        Event::LedgerUsable => info!(target: TARGET, event = "monitor.ledger_usable"; "the ledger can be used again"),
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

pub(crate) fn permit_held_long(holder: &Holder) {
    let Holder { label, held_for, work, .. } = *holder;
    let [memory_bytes, processes] = [Resource::Memory, Resource::Processes].map(|resource| work.of(resource));
    let held_seconds = held_for.as_secs_f64();
    warn!(
        target: TARGET,
        event = "monitor.permit_held_long",
        label,
        held_seconds,
        memory_mb = memory_bytes as f64 / MB as f64,
        processes;
        "a permit ({}) has been held for {held_seconds:.0} s without being attached: its work may count twice",
        label.unwrap_or("no label")
    );
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

/// Logs how much usage has fallen within the settle time after a shed.
pub(crate) fn shed_effect(effect: &Effect) {
    let Effect { ref job, resource, before, after, .. } = *effect;
    let [before_key, after_key, fell_key] = match resource.facts().unit {
        Unit::Bytes => ["before_mb", "after_mb", "fell_mb"],
        Unit::Count | Unit::Percent => ["before", "after", "fell"],
    };
    let fell = before.saturating_sub(after);
    let mut line = vec![
        ("event", Value::from("monitor.shed_effect")),
        ("job_id", Value::from(job.as_str())),
        ("resource", Value::from(resource.facts().event_key)),
        (before_key, number(resource, before)),
        (after_key, number(resource, after)),
        (fell_key, number(resource, fell)),
    ];
    if let Resource::Gauge(gauge) = resource {
        line.push(("gauge", Value::from(gauge.name())));
    }
    let [before, after, fell] = [before, after, fell].map(|amount| Shown(resource, amount));
    log_keys(
        log::Level::Info,
        &line,
        format_args!("{resource} fell by {fell} after job {job} was shed: from {before} to {after}"),
    );
}

pub(crate) fn shed_ineffective(effect: &Effect) {
    let resource = effect.resource;
    warn!(
        target: TARGET,
        event = "monitor.shed_ineffective",
        job_id = effect.job.as_str(),
        resource = resource.facts().event_key;
        "shedding does not help: {resource} has not fallen after {IN_VAIN} sheds in a row, and no further job is shed for it \
         until everything is normal again"
    );
}

pub(crate) fn memory_retained(trimmed: &Trimmed, is_set: bool) {
    let Trimmed { free, returned, kept, .. } = *trimmed;
    let [free_mb, returned_mb, kept_mb] = [free, returned, kept].map(|bytes| bytes as f64 / MB as f64);
    let advice = if is_set {
        "return_freed_memory is set: this is in blocks below 1 MiB, or was freed before the start"
    } else {
        "set return_freed_memory(true) on the builder"
    };
    warn!(
        target: TARGET, event = "monitor.memory_retained", free_mb, returned_mb, kept_mb, return_freed_memory = is_set;
        "memory shuts the gate, and the allocator kept {free_mb:.1} MB that were free: {returned_mb:.1} MB came back by \
         trimming, {kept_mb:.1} MB did not; {advice}"
    );
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

pub(crate) fn job_requeued(job: u64, tries: &dyn Display) {
    warn!(
        target: TARGET, event = "jobs.requeued", job_id = job, reason:% = tries;
        "job {job} waits to be run again: {tries}"
    );
}

pub(crate) fn job_unattached(job: u64, error: &Error, left_out: u64) {
    warn!(
        target: TARGET, event = "jobs.unattached", job_id = job, error:% = error, left_out;
        "job {job} counts twice while it runs: {error}"
    );
}

pub(crate) fn orphans_unlisted(error: &io::Error, left_out: u64) {
    warn!(
        target: TARGET, event = "jobs.orphans_unlisted", error:% = error, left_out;
        "what jobs leave behind is seen late: {error}"
    );
}

pub(crate) fn job_not_signalled(what: &str, job: u64, error: &io::Error) {
    warn!(
        target: TARGET, event = "jobs.signal_failed", job_id = job, error:% = error;
        "could not {what} job {job}: {error}"
    );
}

pub(crate) fn costs_unreadable(path: &Path, error: &io::Error) {
    warn!(
        target: TARGET, event = "jobs.costs_unreadable", path:% = path.display(), error:% = error;
        "what jobs have cost is not known: {}: {error}", path.display()
    );
}

pub(crate) fn output_lost(error: &io::Error) {
    warn!(
        target: TARGET, event = "jobs.output_lost", error:% = error;
        "not everything could be printed: {error}"
    );
}

pub(crate) fn costs_unwritable(path: &Path, error: &io::Error) {
    warn!(
        target: TARGET, event = "jobs.costs_unwritable", path:% = path.display(), error:% = error;
        "what jobs have cost is forgotten: {}: {error}", path.display()
    );
}

pub(crate) fn outer_jobserver_unusable(error: &io::Error) {
    warn!(
        target: TARGET, event = "jobserver.outer_unusable", error:% = error;
        "the jobserver that MAKEFLAGS names cannot be used, so no token is let out: {error}"
    );
}
