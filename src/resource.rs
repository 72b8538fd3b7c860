//! The watched resources, and how near to its limit each one can be.

use std::fmt;

/// One watched quantity with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Resource {
    /// Resident memory, in bytes, of the process or of its whole tree (see [`MemoryScope`]).
    Memory,
    /// Descendant processes of the process, at any depth, zombies included.
    Processes,
}

impl Resource {
    /// Every resource, in the order in which verdicts list them.
    pub(crate) const ALL: [Resource; 2] = [Resource::Memory, Resource::Processes];
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Resource::Memory => "memory",
            Resource::Processes => "processes",
        })
    }
}

/// Whose resident memory is held against the memory limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum MemoryScope {
    /// The process that links this library, alone.
    #[default]
    Own,
    /// That process and every descendant. Pages shared between them count once for each.
    Tree,
}

/// How near to its limit a resource was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Level {
    #[default]
    Normal,
    Warning,
    Critical,
}

/// One value for each [`Resource`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PerResource<T> {
    pub(crate) memory: T,
    pub(crate) processes: T,
}

impl<T> PerResource<T> {
    pub(crate) fn get(&self, resource: Resource) -> &T {
        match resource {
            Resource::Memory => &self.memory,
            Resource::Processes => &self.processes,
        }
    }

    pub(crate) fn get_mut(&mut self, resource: Resource) -> &mut T {
        match resource {
            Resource::Memory => &mut self.memory,
            Resource::Processes => &mut self.processes,
        }
    }
}
