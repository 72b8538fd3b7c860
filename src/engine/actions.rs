//! The action thread: asks the host for its counts, sheds, tells it when pressure is over, keeps house; and trims the
//! allocator, which locks what every thread of the host needs, so that no check and no caller waits for it here.
//!
//! Every call of the host's code is made here, through [`Worker::hook`], and nowhere under a lock.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use crate::host::events;
use crate::host::{contained, BoxError, JobManager, ProcessGroup};
use crate::judgement::shed::{Checked, Move, Outcome, ShedPolicy, ShedStep};
use crate::judgement::{Stopped, Trimmed};
use crate::sys::SignalMask;
use crate::vocabulary::Critical;

use super::core::{Core, Shared};
use super::hooks::{Set, Shedding};
use super::run::{Handover, Run};
use super::worker::Worker;

/// After this many failures in a row, stale jobs are no longer pruned.
const PRUNE_ATTEMPTS: u32 = 3;

/// How long to sleep when nothing is expected; a handover rings.
const IDLE: Duration = Duration::from_secs(3600);

/// The body of the action thread.
pub(super) fn run(shared: &Arc<Shared>, run: &Arc<Run>, worker: &Worker) {
    let Some(core) = shared.current() else { return };
    let mut actions = ActionThread {
        core,
        worker,
        setting: 0,
        prune: Prune::default(),
        panicking: Vec::new(),
        group_failed: [false; 3],
    };
    let died = contained(|| {
        while !run.is_stopping() && !worker.is_copy() {
            let rings = run.inbox_bell.count();
            match run.take_handover() {
                Some(handover) if !core.lifecycle.hook_left_behind() => actions.handle(handover),
                Some(_) => {}
                None if run.is_stopping() => {}
                None => run.inbox_bell.wait(rings, IDLE),
            }
        }
    });
    if let Err(message) = died {
        if !run.is_stopping() {
            core.close(Stopped::Died(worker.name()));
        }
        core.hooks.call_logger(Some(worker), || events::loop_died_unexpectedly(worker.name(), &message));
    }
}

struct ActionThread<'a> {
    core: &'a Core,
    worker: &'a Worker,
    /// The setting of the manager that the rest of this state is about.
    setting: u64,
    prune: Prune,
    /// The hooks that panicked when they were last called.
    panicking: Vec<&'static str>,
    /// Whether each of the process group's methods failed last time.
    group_failed: [bool; 3],
}

#[derive(Default)]
struct Prune {
    consecutive_failures: u32,
}

impl ActionThread<'_> {
    fn handle(&mut self, Handover { checked, housekeeping }: Handover) {
        let Set { manager, setting, group, .. } = self.core.hooks.get();
        if setting != self.setting {
            (self.setting, self.prune) = (setting, Prune::default());
        }
        self.trim_if_retained(&checked);
        if let Some(manager) = manager {
            self.shed_if_critical(&manager, &checked);
            self.count(&manager);
            if housekeeping {
                self.prune(&manager);
            }
            self.drop_contained("drop of the manager", manager);
        }
        if let Some(group) = group {
            let observed = self.call_fallible("observe", || group.observe());
            self.group_failed[2] =
                self.report_clean_up("observe", observed.map(|done| done.map(|()| Vec::new())), self.group_failed[2]);
            if housekeeping {
                self.clean_up(&group);
            }
            self.drop_contained("drop of the process group", group);
        }
    }

    /// Calls the host; the first panic in a row is logged. `None` if the monitor is being stopped.
    fn call<R>(&mut self, hook: &'static str, code: impl FnOnce() -> R) -> Option<Result<R, String>> {
        let result = self.worker.hook(self.core.hooks.mask(), code)?;
        let panicked_before = self.panicking.contains(&hook);
        match &result {
            Ok(_) => self.panicking.retain(|panicking| *panicking != hook),
            Err(_) if panicked_before => {}
            Err(message) => {
                self.panicking.push(hook);
                self.call_logger(|| events::hook_panicked(hook, message));
            }
        }
        Some(result)
    }

    /// As `call`, for hooks that can fail: a panic is a failure like any other. The error is the host's code too, in
    /// what it says and when it is dropped.
    fn call_fallible<R, E: std::fmt::Display>(
        &mut self,
        hook: &'static str,
        code: impl FnOnce() -> Result<R, E>,
    ) -> Option<Result<R, String>> {
        let result = self.call(hook, || code().map_err(|error| error.to_string()))?;
        Some(result.unwrap_or_else(|message| Err(format!("panicked: {message}"))))
    }

    fn call_logger(&self, line: impl FnOnce()) {
        self.core.hooks.call_logger(Some(self.worker), line);
    }

    /// Drops a handle of the host's, which may be the last one, as the host's code that it is.
    fn drop_contained<T>(&self, what: &str, handle: T) {
        if let Err(message) = self.worker.drop_contained(self.core.hooks.mask(), handle) {
            self.call_logger(|| events::hook_panicked(what, &message));
        }
    }

    fn count(&self, manager: &Arc<dyn JobManager>) {
        if let Some(counted) = self.worker.hook(self.core.hooks.mask(), || self.core.hooks.count(&**manager)) {
            self.core.hooks.counted(Some(self.worker), counted);
        }
    }

    /// The memory of shedding the current manager's jobs. Held for moments, and never while the host is called.
    fn with_policy<R>(&self, look: impl FnOnce(&mut ShedPolicy) -> R) -> R {
        let mut shedding = self.core.hooks.shedding.lock();
        match self.setting.cmp(&shedding.setting) {
            Ordering::Equal => {}
            Ordering::Greater => *shedding = Shedding { setting: self.setting, policy: ShedPolicy::default() },
            // Left behind in a hook of a manager that has been replaced: nobody's business any more.
            Ordering::Less => return look(&mut ShedPolicy::default()),
        }
        look(&mut shedding.policy)
    }

    /// Has the allocator give back what it keeps, if it keeps much while memory shuts the gate.
    fn trim_if_retained(&self, checked: &Checked) {
        let core = self.core;
        let is_due = {
            let (judgement, now) = (core.judgement.lock(), core.now());
            judgement.is_look_due(now) && checked.is_trusted(now, judgement.max_age())
        };
        if !is_due || !core.config.allocator.can_trim() {
            return;
        }
        // A stop waits for it no longer than for a hook. Unlike one it runs deaf to the host's signals.
        let trimmed = self.worker.hook(SignalMask::all_but_faults(), || self.look_and_trim());
        let Some(Ok(Some(trimmed))) = trimmed else { return };
        // The gate follows at once.
        core.read_memory_alone();
        if trimmed.has_helped {
            self.with_policy(|policy| policy.reclaimed(core.now()));
        }
        if trimmed.is_news {
            let is_set = core.config.settings.return_freed_memory;
            self.call_logger(|| events::memory_retained(&trimmed, is_set));
        }
    }

    fn look_and_trim(&self) -> Option<Trimmed> {
        let core = self.core;
        let (limits, clock) = (core.limits.get(), &core.config.clock);
        let began = clock.fine_now();
        let before = core.own_memory()?;
        let looked = clock.fine_now();
        if !core.judgement.lock().looked(&before, looked.saturating_sub(began), core.now(), &limits) {
            return None;
        }
        core.config.allocator.trim();
        let took = clock.fine_now().saturating_sub(looked);
        let after = core.own_memory()?;
        Some(core.judgement.lock().trimmed(&before, &after, took, core.now()))
    }

    /// Says what the last shed has reached, then does what the check calls for.
    fn shed_if_critical(&mut self, manager: &Arc<dyn JobManager>, checked: &Checked) {
        let (max_age, settle) = {
            let judgement = self.core.judgement.lock();
            (judgement.max_age(), judgement.settle())
        };
        if !checked.is_trusted(self.core.now(), max_age) {
            return;
        }
        if let Some(effect) = self.with_policy(|policy| policy.effect(checked, settle)) {
            self.call_logger(|| events::shed_effect(&effect));
            if effect.gives_up {
                self.call_logger(|| events::shed_ineffective(&effect));
            }
        }
        match self.with_policy(|policy| policy.next(checked, settle)) {
            ShedStep::Nothing => {}
            ShedStep::Cleared => {
                self.call("pressure_cleared", || manager.pressure_cleared());
            }
            ShedStep::Reclaim(critical) => match self.call("reclaim", || manager.reclaim(critical.resource)) {
                None => {}
                Some(Ok(true)) => self.with_policy(|policy| policy.reclaimed(self.core.now())),
                Some(Ok(false) | Err(_)) => self.shed(manager, &critical),
            },
            ShedStep::Shed(critical) => self.shed(manager, &critical),
        }
    }

    fn shed(&mut self, manager: &Arc<dyn JobManager>, critical: &Critical) {
        let Some(oldest) = self.call("oldest_running_job", || manager.oldest_running_job()) else { return };
        // A host that panics has named no job.
        let oldest = oldest.unwrap_or_default();
        let reason = critical.to_string();
        let next = self.with_policy(|policy| policy.shed_job(oldest.as_deref(), critical.resource));
        let (job, outcome) = match (next, &oldest) {
            (Move::Pause, Some(job)) => (job, self.pause(manager, job, critical, &reason)),
            (Move::Cancel, Some(job)) => {
                self.call_logger(|| events::cancelling_oldest_job(job, &reason));
                (job, self.cancel(manager, job, critical))
            }
            (without_job, _) => {
                if without_job == (Move::NoJob { log: true }) {
                    self.call_logger(|| events::no_job_to_shed(&reason));
                }
                let is_spared = without_job == Move::Spare;
                return self.with_policy(|policy| policy.done_without_job(self.core.now(), is_spared));
            }
        };
        self.with_policy(|policy| policy.done(job, critical, outcome, self.core.now()));
    }

    fn pause(&mut self, manager: &Arc<dyn JobManager>, job: &str, critical: &Critical, reason: &str) -> Outcome {
        self.call_logger(|| events::pausing_oldest_job(job, reason));
        match self.call_fallible("pause_job", || manager.pause_job(job, critical.resource)) {
            None => Outcome::Failed,
            Some(Ok(())) => Outcome::Paused,
            Some(Err(refusal)) => {
                self.call_logger(|| events::pause_failed_falling_back_to_cancel(job, &refusal));
                self.cancel(manager, job, critical)
            }
        }
    }

    fn cancel(&mut self, manager: &Arc<dyn JobManager>, job: &str, critical: &Critical) -> Outcome {
        match self.call_fallible("cancel_job", || manager.cancel_job(job, critical.resource)) {
            None => Outcome::Failed,
            Some(Ok(())) => Outcome::Cancelled,
            Some(Err(error)) => {
                self.call_logger(|| events::cancel_failed(job, &error));
                Outcome::Failed
            }
        }
    }

    fn prune(&mut self, manager: &Arc<dyn JobManager>) {
        let failures = self.prune.consecutive_failures;
        if failures >= PRUNE_ATTEMPTS {
            return;
        }
        let result: Option<Result<(), String>> =
            self.call_fallible("prune_stale", || -> Result<(), BoxError> { manager.prune_stale() });
        match result {
            None => {}
            Some(Ok(())) => {
                self.prune.consecutive_failures = 0;
                if failures > 0 {
                    self.call_logger(|| events::prune_recovered(failures));
                }
            }
            Some(Err(error)) => {
                let failures = failures + 1;
                self.prune.consecutive_failures = failures;
                self.call_logger(|| events::prune_stale_failed(failures, &error));
                if failures == PRUNE_ATTEMPTS {
                    self.call_logger(|| events::prune_disabled(failures, &error));
                }
            }
        }
    }

    fn clean_up(&mut self, group: &Arc<dyn ProcessGroup>) {
        let cleaned = self.call_fallible("cleanup_orphans", || group.cleanup_orphans());
        self.group_failed[0] = self.report_clean_up("cleanup_orphans", cleaned, self.group_failed[0]);
        let reaped = self.call_fallible("reap_orphaned_backends", || group.reap_orphaned_backends());
        self.group_failed[1] = self.report_clean_up("reap_orphaned_backends", reaped, self.group_failed[1]);
    }

    /// Logs the first failure of a row; returns whether this was one.
    fn report_clean_up(&self, hook: &str, result: Option<Result<Vec<u32>, String>>, failed_before: bool) -> bool {
        match result {
            None => failed_before,
            Some(Ok(pids)) => {
                if !pids.is_empty() {
                    self.call_logger(|| events::process_group_cleaned(hook, &pids));
                }
                false
            }
            Some(Err(error)) => {
                if !failed_before {
                    self.call_logger(|| events::process_group_failed(hook, &error));
                }
                true
            }
        }
    }
}
