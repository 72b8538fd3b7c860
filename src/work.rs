//! What a host is about to take on.

use crate::limits::MB;
use crate::resource::{PerResource, Resource};

/// The cost of a piece of work that a host asks to be admitted: what it will add to each resource. The default costs
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct Work {
    cost: PerResource<u64>,
}

impl Work {
    /// Work that costs nothing yet.
    pub fn new() -> Work {
        Work::default()
    }

    /// The number of descendant processes it will have at once.
    pub fn processes(mut self, processes: u64) -> Work {
        self.cost.processes = processes;
        self
    }

    /// The resident memory it will add, in MB of 1024 x 1024 bytes; what does not fit in 64 bits of bytes could never
    /// be admitted and is held as the largest number that does.
    pub fn memory_mb(self, mb: u64) -> Work {
        self.memory_bytes(mb.saturating_mul(MB))
    }

    /// The resident memory it will add, in bytes.
    pub fn memory_bytes(mut self, bytes: u64) -> Work {
        self.cost.memory = bytes;
        self
    }

    pub(crate) fn cost(&self) -> PerResource<u64> {
        self.cost
    }

    pub(crate) fn of(&self, resource: Resource) -> u64 {
        *self.cost.get(resource)
    }
}
