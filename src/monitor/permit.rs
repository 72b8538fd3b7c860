//! Admitted work, whose cost is reserved while it lives.

use std::fmt;
use std::sync::Arc;

use crate::engine::{self, Grant, Shared};
use crate::vocabulary::{Error, Work, WorkUsage};

/// Permission to do a piece of work. The cost of the work is reserved for as long as the permit lives.
///
/// It ends in one of three ways, which say different things:
///
/// - [`finish`](Self::finish): the work has ended and nothing of it is left. Its room is free at once.
/// - Dropped: everything that was declared can be seen by a check from now on (all processes forked, memory touched).
///   It stays reserved until the first good check after that.
/// - [`attach`](Self::attach)ed to the process that does the work, and finished or dropped when that has ended. What
///   a check has measured of the process, and of everything below it, is not reserved any more, so nothing counts
///   twice, and what the work will grow to is counted before it grows.
///
/// A permit that is held beyond that without being attached is counted on top of measured usage: the same work counts
/// twice, and the gate errs on the closed side. One that has been held for a minute is logged once
/// (`monitor.permit_held_long`). A permit may be dropped on any thread and may outlive its monitor. Its copy in a forked
/// child reserves nothing. The page [waiting for room](crate::guide::waiting) has a picture of its life.
#[must_use = "a permit that is dropped at once reserves its work only until the next check"]
pub struct Permit {
    shared: Arc<Shared>,
    grant: Grant,
    is_finished: bool,
}

impl Permit {
    pub(crate) fn new(shared: Arc<Shared>, grant: Grant) -> Permit {
        Permit { shared, grant, is_finished: false }
    }

    /// The work that was admitted.
    pub fn work(&self) -> Work {
        self.grant.work
    }

    /// Gives the room back at once: the work has ended, and nothing of it is left. Whoever waits for room and fits now is
    /// granted it.
    ///
    /// Of attached work, the processes that the last check has counted are taken off at once. So a host to which orphans
    /// come (a child subreaper) finishes only once it has ended those that its work has left; until the next check they
    /// would not count. Memory that the allocator keeps is measured like anything else. The cost is that of the grant while nobody waits: some atomic operations and no system call.
    pub fn finish(mut self) {
        self.is_finished = true;
    }

    /// Says that the work is the process `pid`, a descendant of this one, and everything below it.
    ///
    /// From now on reserved is what was declared beyond what a check has measured of them, in memory and in processes;
    /// the permit may live as long as the work. Their memory stands against the control group; against the memory limit
    /// in scope [`Tree`](crate::MemoryScope::Tree) only. Once the process has ended nothing is reserved any more: a check
    /// sees that, and so does a refusal or the drop of the permit if it is a child of this process, whose exit status is
    /// left for whoever waits for it. Until then it is a zombie, which is a process and counts as one. Descendants that
    /// outlive it, as those of a daemon do, count as measured wherever they do, and reserve nothing. Attached work is
    /// measured in each check, which costs it 8 us a process.
    ///
    /// # Errors
    /// [`Process`](crate::ErrorKind::Process) if `pid` is not there, is a thread, does not descend from this process, or
    /// has another permit attached to it; or if this process was forked since the work was admitted.
    /// [`Read`](crate::ErrorKind::Read) if that cannot be told. [`InvalidSetting`](crate::ErrorKind::InvalidSetting) if
    /// `pid` is 0 or the permit is attached already. An error leaves the permit as it was. A child that has ended and has
    /// not been waited for is no error.
    ///
    /// ```
    /// use std::process::Command;
    /// use highwater::{ResourceLimits, ResourceMonitor, Work};
    ///
    /// let monitor = ResourceMonitor::new(ResourceLimits::builder().max_processes(50).build()?);
    /// monitor.check_now();
    /// let permit = monitor.try_admit(Work::new().processes(3))?;
    /// let mut child = Command::new("true").spawn()?;
    /// permit.attach(child.id())?;
    /// child.wait()?;
    /// permit.finish();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn attach(&self, pid: u32) -> Result<(), Error> {
        engine::attach(&self.shared, &self.grant, pid)
    }

    /// The usage of the attached process and everything below it, as the last check saw it; `None` before one has, and
    /// for a permit that is not attached.
    pub fn usage(&self) -> Option<WorkUsage> {
        engine::usage(&self.shared, &self.grant)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_finished {
            engine::finish(&self.shared, &self.grant);
        } else {
            engine::release(&self.shared, &self.grant);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("work", &self.grant.work).finish_non_exhaustive()
    }
}
