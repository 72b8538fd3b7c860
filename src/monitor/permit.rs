//! Admitted work, whose cost is reserved while it lives.

use std::fmt;
use std::sync::Arc;

use crate::engine::Shared;
use crate::sys::ProcessMark;
use crate::vocabulary::Work;

/// Permission to do a piece of work. The cost of the work is reserved for as long as the permit lives.
///
/// Drop it when everything it declared can be seen by a check (all processes forked, memory touched), or when the work
/// has ended; the cost stays reserved until the first good check after that. A permit held longer is counted on top of
/// measured usage, so the same work counts twice and the gate errs on the closed side. A permit may be dropped on any
/// thread and may outlive its monitor. Its copy in a forked child reserves nothing.
#[must_use = "a permit that is dropped at once reserves its work only until the next check"]
pub struct Permit {
    shared: Arc<Shared>,
    mark: ProcessMark,
    work: Work,
}

impl Permit {
    pub(crate) fn new(shared: Arc<Shared>, work: Work) -> Permit {
        Permit { shared, mark: ProcessMark::here(), work }
    }

    /// The work that was admitted.
    pub fn work(&self) -> Work {
        self.work
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // In a child forked after the grant, the reservation is still the parent's.
        if self.mark.is_inherited() {
            return;
        }
        if let Some(core) = self.shared.current() {
            core.release(&self.work);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("work", &self.work).finish_non_exhaustive()
    }
}
