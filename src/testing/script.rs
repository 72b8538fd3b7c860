//! The script of a monitor: what it reads, and how time goes on for it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::readings::{Amount, Readings, Scripted, ScriptedProbe};
use crate::engine::{self, Shared};
use crate::sys::manual_clock::ManualClock;
use crate::sys::Clock;
use crate::vocabulary::{LimitedBy, Resource, ResourceSnapshot, MB};

/// The script of one monitor: what its checks read, and how time goes on for it. A cheap clone is one of the same script.
///
/// What is scripted is found by the next check, as what happens to a program is. No real time passes for the monitor: its
/// clock stands still but for [`advance`](Self::advance), and its check thread sleeps but for that, [`check`](Self::check)
/// and [`settle`](Self::settle). Whoever finds the last check older than 100 ms takes one, as in production.
///
/// Only the monitor that it was made with follows it. Once that is dropped, a script does nothing.
#[derive(Debug, Clone)]
pub struct Script {
    scripted: Arc<Scripted>,
    clock: Arc<ManualClock>,
}

impl Script {
    pub(super) fn new() -> (Script, ScriptedProbe) {
        let scripted = Arc::new(Scripted::default());
        let probe = ScriptedProbe(Arc::clone(&scripted));
        (Script { scripted, clock: Arc::new(ManualClock::new()) }, probe)
    }

    pub(super) fn clock(&self) -> Clock {
        Clock::of_test(Arc::clone(&self.clock))
    }

    /// Becomes the script of this monitor.
    pub(super) fn follow(&self, shared: &Arc<Shared>) {
        // The first monitor is the only one.
        let _ = self.scripted.monitor.set(Arc::downgrade(shared));
    }

    /// From now on resident memory is this much, in MB of 1024 x 1024 bytes.
    pub fn memory_mb(&self, mb: u64) -> &Script {
        self.set(Resource::Memory, mb.saturating_mul(MB), None)
    }

    /// From now on there are so many descendant processes.
    pub fn processes(&self, count: u64) -> &Script {
        self.set(Resource::Processes, count, None)
    }

    /// From now on so much of a resource is used, in the unit that its page says: bytes, a count, or hundredths of a
    /// percent. `limit` is the kernel's: that of the control group, `RLIMIT_NOFILE`, all memory of the machine, all of
    /// the file system.
    ///
    /// # Panics
    /// If `limit` is there and the kernel has none, or lacks where the kernel always has one; of a gauge, which its host
    /// [sets](crate::Gauge::set).
    ///
    /// ```
    /// use highwater::{Resource, ResourceLimits};
    ///
    /// let (monitor, script) = highwater::testing::monitor(ResourceLimits::builder().build()?);
    /// script.set(Resource::CgroupMemory, 80 << 20, 100 << 20).set(Resource::OpenFiles, 12, None).check();
    /// assert_eq!(monitor.verdict().resource(), Some(Resource::CgroupMemory));
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn set(&self, resource: Resource, usage: u64, limit: impl Into<Option<u64>>) -> &Script {
        let limit = limit.into();
        let has_limit = match resource {
            Resource::Gauge(_) => panic!("gauge {resource} is set by its host"),
            Resource::OpenFiles => limit.is_some(),
            Resource::CgroupMemory | Resource::CgroupPids => true,
            _ => resource.facts().limited_by == LimitedBy::Floor,
        };
        assert!(
            limit.is_some() == has_limit,
            "{resource} has {} limit of the kernel's",
            if has_limit { "a" } else { "no" }
        );
        self.with_readings(|readings| *readings.resources.get_mut(resource) = Some(Ok(Amount { usage, limit })))
    }

    /// From now on a resource cannot be read, for this reason. Of memory or processes that makes the check fail; of any
    /// other it is said, and closes nothing.
    pub fn fail(&self, resource: Resource, reason: impl Into<String>) -> &Script {
        let reason = reason.into();
        self.with_readings(|readings| *readings.resources.get_mut(resource) = Some(Err(reason)))
    }

    /// From now on a process and everything below it use so much memory, in bytes, and are so many processes: a permit
    /// can be [attached](crate::Permit::attach) to it. With 0 processes it has ended. That it counts in
    /// [`processes`](Self::processes) too is the script's to say.
    pub fn subtree(&self, pid: u32, memory_bytes: u64, processes: u64) -> &Script {
        self.with_readings(|readings| *readings.subtrees.entry(pid).or_default() = (memory_bytes, processes))
    }

    /// The check thread falls silent: its next check hangs, until [`resume`](Self::resume) or a stop of the monitor.
    /// Without a start there is no such thread, and no check comes by itself anyway.
    pub fn hang(&self) -> &Script {
        self.with_readings(|readings| readings.hang = true);
        self.scripted.with_core(|core| core.demand_check());
        self.settle()
    }

    /// Ends a [hang](Self::hang): the check that hung finds what is scripted now.
    pub fn resume(&self) -> &Script {
        self.with_readings(|readings| readings.hang = false);
        self.scripted.with_core(|core| core.demand_check());
        self.settle()
    }

    /// Moves the clock on by a millisecond, because no two checks are taken at once, takes a check as
    /// [`check_now`](crate::ResourceMonitor::check_now) does, and waits until the host's hooks have been called that
    /// follow from it. `None` once the monitor is gone.
    ///
    /// # Panics
    /// As [`settle`](Self::settle).
    pub fn check(&self) -> Option<ResourceSnapshot> {
        self.advance(Duration::from_millis(1));
        let snapshot = self.scripted.monitor.get().and_then(Weak::upgrade).map(|shared| engine::check_now(&shared));
        self.settle();
        snapshot
    }

    /// Moves the clock on. Whatever is due meanwhile is done at its time and by its thread: checks, log events, hooks
    /// of the host's. When this returns, it has been done.
    ///
    /// Threads that wait for room see the moved clock within some milliseconds of real time.
    ///
    /// # Panics
    /// As [`settle`](Self::settle).
    pub fn advance(&self, by: Duration) -> &Script {
        // Without a monitor there is nobody for whom time goes on.
        self.scripted.with_core(|core| core.advance(by));
        self
    }

    /// Has the threads of the monitor do whatever is to be done now, and waits for it: the check that a question to the
    /// gate has asked for, the hooks that follow from it.
    ///
    /// # Panics
    /// If it is called from a hook of the host's, which is what it would wait for; if a hook takes a minute of real time.
    pub fn settle(&self) -> &Script {
        self.scripted.with_core(|core| core.settle());
        self
    }

    fn with_readings(&self, change: impl FnOnce(&mut Readings)) -> &Script {
        self.scripted.with_readings(change);
        self
    }
}
