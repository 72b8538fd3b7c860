//! The watched resources, and how near to its limit each one can be.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::Error;

/// Bytes in what this crate calls a megabyte: 1024 x 1024, the unit of `free -m` and of container limits.
pub(crate) const MB: u64 = 1024 * 1024;

/// One watched quantity with a limit.
///
/// [`Memory`](Resource::Memory) and [`Processes`](Resource::Processes) are required: while one cannot be read, no work
/// is accepted. The others are optional: what is not there, or cannot be read, closes nothing; that it cannot be read
/// is said in the verdict and in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Resource {
    /// Resident memory, in bytes, of the process or of its whole tree (see [`MemoryScope`]).
    Memory,
    /// Descendant processes of the process, at any depth, zombies included.
    Processes,
    /// Memory that is charged to the control group whose limit leaves the least room, the own one or one above it, in
    /// bytes, without what the kernel would take back before it refuses more.
    CgroupMemory,
    /// Tasks, which are threads, in the control group whose limit leaves the least room, the own one or one above it.
    CgroupPids,
    /// File descriptors that this process has open.
    OpenFiles,
    /// The share of the last ten seconds in which some task waited for memory, in hundredths of a percent: that of the
    /// own control group, else of the machine.
    MemoryPressure,
}

/// In what a resource is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Count,
    /// Hundredths of a percent.
    Percent,
}

impl Resource {
    const COUNT: usize = 6;

    /// Every resource, in the order in which verdicts list them.
    pub(crate) const ALL: [Resource; Resource::COUNT] = [
        Resource::Memory,
        Resource::Processes,
        Resource::CgroupMemory,
        Resource::CgroupPids,
        Resource::OpenFiles,
        Resource::MemoryPressure,
    ];

    /// Whether a check that could not read it has failed.
    pub(crate) fn is_required(self) -> bool {
        matches!(self, Resource::Memory | Resource::Processes)
    }

    pub(crate) fn unit(self) -> Unit {
        match self {
            Resource::Memory | Resource::CgroupMemory => Unit::Bytes,
            Resource::Processes | Resource::CgroupPids | Resource::OpenFiles => Unit::Count,
            Resource::MemoryPressure => Unit::Percent,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Resource::Memory => "memory",
            Resource::Processes => "processes",
            Resource::CgroupMemory => "cgroup memory",
            Resource::CgroupPids => "cgroup pids",
            Resource::OpenFiles => "open files",
            Resource::MemoryPressure => "memory pressure",
        })
    }
}

/// So much of a resource, as texts show it: rounded down, so that what is below a threshold is never printed as if it
/// had reached it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quantity(pub(crate) Resource, pub(crate) u64);

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quantity(resource, amount) = *self;
        match resource.unit() {
            Unit::Bytes => {
                let tenths = u128::from(amount) * 10 / u128::from(MB);
                write!(f, "{}.{} MB", tenths / 10, tenths % 10)
            }
            Unit::Count => write!(f, "{amount}"),
            Unit::Percent => write!(f, "{}.{:02} %", amount / 100, amount % 100),
        }
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

/// What was read of a resource.
#[derive(Debug, Clone, Default)]
pub(crate) struct Amount {
    pub(crate) usage: u64,
    /// As the kernel has it; the host may have set another.
    pub(crate) limit: Option<u64>,
    /// The control group that usage and limit are those of.
    pub(crate) group: Option<Arc<Path>>,
    /// What else might have had something to say, and could not be read.
    pub(crate) unread: Option<Arc<Error>>,
}

impl Amount {
    /// Of what only the host limits.
    pub(crate) fn of(usage: u64) -> Amount {
        Amount { usage, ..Amount::default() }
    }
}

/// What a reading of something optional found. Absent is `None`; what is there and could not be read is an error.
pub(crate) type Optional<T> = Result<Option<T>, Arc<Error>>;

/// The same of something that has parts, and the error of one that could not be read.
pub(crate) type Partly<T> = Result<(Option<T>, Option<Arc<Error>>), Arc<Error>>;

/// What was found of each resource.
pub(crate) type Found = PerResource<Optional<Amount>>;

/// One value for each [`Resource`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PerResource<T>([T; Resource::COUNT]);

impl<T> PerResource<T> {
    pub(crate) fn from_fn(value: impl FnMut(Resource) -> T) -> PerResource<T> {
        PerResource(Resource::ALL.map(value))
    }

    pub(crate) fn get(&self, resource: Resource) -> &T {
        &self.0[resource as usize]
    }

    pub(crate) fn get_mut(&mut self, resource: Resource) -> &mut T {
        &mut self.0[resource as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_resource_has_a_place_of_its_own() {
        let places = PerResource::from_fn(|resource| resource);
        for resource in Resource::ALL {
            assert_eq!(*places.get(resource), resource);
        }
    }
}
