//! The host's code that a monitor calls, and what is remembered of it: the manager, the process group, the logger.
//!
//! Nothing here is called under a lock of ours, and nothing of the host's is dropped under one.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

use super::worker::Worker;
use crate::host::{contained, events, JobManager, ProcessGroup};
use crate::judgement::shed::ShedPolicy;
use crate::sys::fork::{ForkCell, Mutex};
use crate::sys::SignalMask;

thread_local! {
    /// Whether this thread is asking a manager for its counts. A manager that takes a check to answer is not asked
    /// again for that check.
    static COUNTING: Cell<bool> = const { Cell::new(false) };
}

/// The host's code, and what came of calling it.
#[derive(Debug)]
pub(crate) struct Hooks {
    set: ForkCell<Set>,
    pub(super) shedding: Mutex<Shedding>,
    inherited: Inherited,
    running_jobs: AtomicUsize,
    active_sheets: AtomicUsize,
    /// Whether the manager panicked when it was last asked for its counts.
    count_panicked: AtomicBool,
}

/// The host's code that is set. One value, so that of racing setters one is last in everything.
#[derive(Clone)]
pub(crate) struct Set {
    pub(super) manager: Option<Arc<dyn JobManager>>,
    /// How often a manager was set or taken away: each one starts with a clean slate.
    pub(super) setting: u64,
    pub(super) group: Option<Arc<dyn ProcessGroup>>,
    /// The signal mask for the host's code on our threads: that of the thread which set it, or called `start`.
    pub(super) mask: SignalMask,
}

/// The state of shedding, and the setting of the manager whose jobs are shed.
#[derive(Debug, Default)]
pub(super) struct Shedding {
    pub(super) setting: u64,
    pub(super) policy: ShedPolicy,
}

/// Host code that a forked child has from its parent, and that may wait for ever: a thread of the parent's may have
/// been in it at the fork, and held its locks. Until a call has come back, only threads of ours make one.
#[derive(Debug, Default)]
struct Inherited {
    logger: AtomicBool,
    manager: AtomicBool,
}

impl Hooks {
    /// Nothing is set.
    pub(super) fn new() -> Hooks {
        let mask = SignalMask::current();
        Hooks::with(Set { manager: None, setting: 0, group: None, mask }, Inherited::default())
    }

    /// Those of a forked child, which has no jobs yet.
    pub(super) fn inherit(&self) -> Hooks {
        Hooks::with(self.set.get(), Inherited { logger: true.into(), manager: true.into() })
    }

    fn with(set: Set, inherited: Inherited) -> Hooks {
        Hooks {
            set: ForkCell::new(set),
            shedding: Mutex::default(),
            inherited,
            running_jobs: AtomicUsize::new(0),
            active_sheets: AtomicUsize::new(0),
            count_panicked: AtomicBool::new(false),
        }
    }

    /// Replaces the manager.
    pub(crate) fn set_manager(&self, manager: Option<Arc<dyn JobManager>>) {
        let mask = SignalMask::current();
        let replaced = self.set.replace(|set| Set { manager, setting: set.setting + 1, mask, ..set.clone() });
        // A manager that the host sets now is not one that a thread of the parent's may have been in.
        self.inherited.manager.store(false, Relaxed);
        self.drop_contained("drop of the manager", replaced);
    }

    /// Replaces the process group.
    pub(crate) fn set_process_group(&self, group: Option<Arc<dyn ProcessGroup>>) {
        let mask = SignalMask::current();
        let replaced = self.set.replace(|set| Set { group, mask, ..set.clone() });
        self.drop_contained("drop of the process group", replaced);
    }

    /// From now on the host's code runs under the mask of the calling thread.
    pub(super) fn set_mask_here(&self) {
        let mask = SignalMask::current();
        let replaced = self.set.replace(|set| Set { mask, ..set.clone() });
        self.drop_contained("drop of the manager", replaced);
    }

    /// Handles of all that is set. Whoever takes them drops them as the host's code that they are.
    pub(super) fn get(&self) -> Set {
        self.set.get()
    }

    pub(super) fn mask(&self) -> SignalMask {
        self.set.with(|set| set.mask)
    }

    /// Whether there is anything for the action thread to call.
    pub(super) fn are_set(&self) -> bool {
        self.set.with(|set| set.manager.is_some() || set.group.is_some())
    }

    /// The manager's counts as they were last told: running jobs, and units of work in them.
    pub(super) fn counts(&self) -> (usize, usize) {
        // A manager that was taken away may still be counting, and store what it counted late.
        match self.set.with(|set| set.manager.is_some()) {
            true => (self.running_jobs.load(Relaxed), self.active_sheets.load(Relaxed)),
            false => (0, 0),
        }
    }

    /// Asks the manager for its counts on a caller's thread, if that may call the host at all.
    pub(super) fn count_on_caller(&self) {
        if self.inherited.manager.load(Relaxed) {
            return;
        }
        let Set { manager, group, .. } = self.get();
        let counted = contained(|| {
            if let Some(manager) = &manager {
                self.count(&**manager);
            }
            drop((manager, group));
        });
        self.counted(None, counted);
    }

    /// Asks the manager for its counts. Host code, whose outcome is given to [`counted`](Self::counted).
    pub(super) fn count(&self, manager: &dyn JobManager) {
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
        self.running_jobs.store(manager.running_count(), Relaxed);
        self.active_sheets.store(manager.active_job_count(), Relaxed);
    }

    /// Logs the first panic in a row.
    pub(super) fn counted(&self, worker: Option<&Worker>, counted: Result<(), String>) {
        self.inherited.manager.store(false, Relaxed);
        let panicked_before = self.count_panicked.swap(counted.is_err(), Relaxed);
        if let (Err(message), false) = (counted, panicked_before) {
            self.call_logger(worker, || events::hook_panicked("running_count or active_job_count", &message));
        }
    }

    /// Calls the host's logger; on a thread of ours under the host's signal mask, and not after a stop.
    pub(crate) fn call_logger(&self, worker: Option<&Worker>, line: impl FnOnce()) {
        // A logger that panics cannot be reported to.
        match worker {
            Some(worker) => {
                if worker.hook(self.mask(), line).is_some() {
                    self.inherited.logger.store(false, Relaxed);
                }
            }
            None if self.logger_is_inherited() => {}
            None => drop(contained(line)),
        }
    }

    /// Whether only threads of ours call the host's logger.
    pub(super) fn logger_is_inherited(&self) -> bool {
        self.inherited.logger.load(Relaxed)
    }

    /// Drops a handle of the host's, which may be the last one, as the host's code that it is.
    fn drop_contained<T>(&self, what: &str, handle: T) {
        if let Err(message) = contained(|| drop(handle)) {
            self.call_logger(None, || events::hook_panicked(what, &message));
        }
    }
}

impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Set").field("setting", &self.setting).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Counting;
    use super::*;

    fn idle() -> Arc<dyn JobManager> {
        Arc::new(Counting(|| 1))
    }

    #[test]
    fn of_racing_setters_the_last_one_is_last_in_everything() {
        let hooks = &Hooks::new();
        let last_seen = &AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for round in 0..500 {
                        hooks.set_manager(((thread + round) % 2 == 0).then(idle));
                        let setting = usize::try_from(hooks.get().setting).unwrap();
                        last_seen.fetch_max(setting, Relaxed);
                    }
                });
            }
        });
        assert_eq!((hooks.get().setting, last_seen.load(Relaxed)), (2000, 2000));
        assert_eq!(hooks.are_set(), hooks.get().manager.is_some());
    }

    #[test]
    fn a_manager_that_was_taken_away_counts_no_more() {
        let hooks = Hooks::new();
        hooks.set_manager(Some(idle()));
        hooks.count_on_caller();
        assert_eq!(hooks.counts(), (1, 1));
        hooks.set_manager(None);
        assert_eq!((hooks.counts(), hooks.are_set()), ((0, 0), false));
    }
}
