//! The work that a host is about to take on.

use super::{Resource, MB};

/// The cost of a piece of work that a host asks to be admitted: what it will add to each resource. The default costs
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct Work {
    pub(super) memory_bytes: u64,
    pub(super) processes: u64,
    pub(super) open_files: u64,
}

impl Work {
    /// Work that costs nothing yet.
    pub fn new() -> Work {
        Work::default()
    }

    /// The number of descendant processes it will have at once. They count in the control group as well, as one task
    /// each.
    pub fn processes(mut self, processes: u64) -> Work {
        self.processes = processes;
        self
    }

    /// The resident memory it will add, in MB of 1024 x 1024 bytes; what does not fit in 64 bits of bytes could never
    /// be admitted and is held as the largest number that does.
    pub fn memory_mb(self, mb: u64) -> Work {
        self.memory_bytes(mb.saturating_mul(MB))
    }

    /// The resident memory it will add, in bytes. It counts in the control group as well.
    pub fn memory_bytes(mut self, bytes: u64) -> Work {
        self.memory_bytes = bytes;
        self
    }

    /// The number of file descriptors that it will have open in this process at once.
    pub fn open_files(mut self, open_files: u64) -> Work {
        self.open_files = open_files;
        self
    }

    /// The part of it that adds to this resource.
    pub(crate) fn of(&self, resource: Resource) -> u64 {
        (resource.facts().declared)(self)
    }
}
