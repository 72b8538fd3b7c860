//! The host's code: its manager, its process group, its logger.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::{Core, Manager};
use crate::engine::worker::Worker;
use crate::host::events;
use crate::host::{contained, JobManager, ProcessGroup};
use crate::sys::SignalMask;

thread_local! {
    /// Whether this thread is asking a manager for its counts: a manager that has a check taken to answer is not asked
    /// again for that check.
    static COUNTING: Cell<bool> = const { Cell::new(false) };
}

impl Core {
    /// Asks the manager for its counts. The host's code: called as such, and its outcome given to `counted`.
    pub(crate) fn count(&self, manager: &dyn JobManager) {
        struct Asked;
        impl Drop for Asked {
            fn drop(&mut self) {
                COUNTING.with(|counting| counting.set(false));
            }
        }
        if COUNTING.with(|counting| counting.replace(true)) {
            return;
        }
        let _asked = Asked;
        self.running_jobs.store(manager.running_count(), Ordering::Relaxed);
        self.active_sheets.store(manager.active_job_count(), Ordering::Relaxed);
    }

    /// Logs the first panic in a row.
    pub(crate) fn counted(&self, worker: Option<&Worker>, counted: Result<(), String>) {
        self.inherited.manager.store(false, Ordering::Relaxed);
        let panicked_before = self.count_panicked.swap(counted.is_err(), Ordering::Relaxed);
        if let (Err(message), false) = (counted, panicked_before) {
            self.say(worker, || events::hook_panicked("running_count or active_job_count", &message));
        }
    }

    /// Replaces the manager; the old one is dropped under no lock.
    pub(crate) fn set_manager(&self, manager: Option<Arc<dyn JobManager>>) {
        let setting = self.manager_settings.fetch_add(1, Ordering::Relaxed) + 1;
        self.hooked.fetch_or(manager.is_some(), Ordering::Relaxed);
        self.has_manager.store(manager.is_some(), Ordering::Relaxed);
        self.inherited.manager.store(false, Ordering::Relaxed);
        self.host_mask.set(SignalMask::current());
        let old = self.manager.set(Manager { manager, setting });
        self.let_go("drop of the manager", old);
    }

    /// Replaces the process group; the old one is dropped under no lock.
    pub(crate) fn set_process_group(&self, group: Option<Arc<dyn ProcessGroup>>) {
        self.hooked.fetch_or(group.is_some(), Ordering::Relaxed);
        self.host_mask.set(SignalMask::current());
        let old = self.group.set(group);
        self.let_go("drop of the process group", old);
    }

    fn let_go<T>(&self, what: &str, handle: T) {
        if let Err(message) = contained(|| drop(handle)) {
            self.say(None, || events::hook_panicked(what, &message));
        }
    }

    /// Whether there is anything for the action thread to call.
    pub(crate) fn has_hooks(&self) -> bool {
        self.hooked.load(Ordering::Relaxed)
    }

    /// Whether only threads of ours call the host's logger.
    pub(crate) fn logger_is_inherited(&self) -> bool {
        self.inherited.logger.load(Ordering::Relaxed)
    }

    /// Calls the host's logger; on a thread of ours under the host's signal mask, and not after a stop.
    pub(crate) fn say(&self, worker: Option<&Worker>, line: impl FnOnce()) {
        // A logger that panics cannot be reported to.
        match worker {
            Some(worker) => {
                if worker.hook(self.host_mask.get(), line).is_some() {
                    self.inherited.logger.store(false, Ordering::Relaxed);
                }
            }
            None if self.logger_is_inherited() => {}
            None => drop(contained(line)),
        }
    }
}
