//! Leave to do a piece of work.

use std::fmt;
use std::sync::Arc;

use crate::engine::Shared;
use crate::sys;
use crate::vocabulary::Work;

/// Leave to do a piece of work, whose cost is reserved for as long as the permit lives.
///
/// Drop it when everything it declared can be seen by a check (all processes forked, memory touched), or when the work
/// has ended; the cost stays reserved until the first good check after that. Held longer, it is counted on top of what
/// is measured, which errs on the closed side. It may be dropped on any thread and outlive its monitor. A forked
/// child's copy reserves nothing.
#[must_use = "a permit that is dropped at once reserves its work only until the next check"]
pub struct Permit {
    shared: Arc<Shared>,
    generation: u64,
    work: Work,
}

impl Permit {
    pub(crate) fn new(shared: Arc<Shared>, work: Work) -> Permit {
        Permit { shared, generation: sys::generation(), work }
    }

    /// The work that was admitted.
    pub fn work(&self) -> Work {
        self.work
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // In a child forked since, the reservation is the parent's.
        if self.generation != sys::generation() {
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
