//! A reading: the values of a snapshot, and the reasons for those that it lacks.

use std::path::Path;
use std::sync::Arc;

use super::{Error, Identity, PerResource, Resource, ResourceSnapshot};

/// The result of reading something optional. Absent is `None`; unreadable is an error.
pub(crate) type ReadOptional<T> = Result<Option<T>, Arc<Error>>;

/// The result of reading something optional that has parts: beside the value, the error of a part that could not be
/// read.
pub(crate) type ReadPart<T> = Result<(Option<T>, Option<Arc<Error>>), Arc<Error>>;

/// The numbers of one resource, as they were read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    pub(crate) usage: u64,
    /// The kernel's limit, where the host may have set another; all that there is of a resource with a floor.
    pub(crate) limit: Option<u64>,
    /// The control group, or the folder, that usage and limit are those of.
    pub(crate) place: Option<Arc<Path>>,
    /// The error of a part that could not be read, and might have changed the numbers.
    pub(crate) unread: Option<Arc<Error>>,
}

impl Measured {
    /// The usage of a resource that only the host limits.
    pub(crate) fn of(usage: u64) -> Measured {
        Measured { usage, ..Measured::default() }
    }
}

/// The numbers of each resource.
pub(crate) type Found = PerResource<ReadOptional<Measured>>;

/// One reading of everything. Readers write into the snapshot itself, so that a value has one place from the file to
/// the host.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) snapshot: ResourceSnapshot,
    /// The reason why a resource, or a part of it, could not be read.
    pub(crate) unread: PerResource<Option<Arc<Error>>>,
    /// In ascending order of process id.
    pub(crate) zombies: Vec<Identity>,
    /// The subtrees that are to be measured, in ascending order of process id.
    pub(crate) subtrees: Vec<Subtree>,
    /// The path to the file system that is to be asked for its room.
    pub(crate) disk: Option<Arc<Path>>,
}

/// A process, and what it and everything below it use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subtree {
    pub(crate) root: Identity,
    /// Whether pages of files are left out of its memory.
    pub(crate) is_without_files: bool,
    pub(crate) memory_bytes: u64,
    /// Zombies included; 0 when the process was not found.
    pub(crate) processes: u64,
    /// Set if the process was found, and has not ended.
    pub(crate) is_alive: bool,
}

impl Subtree {
    /// One that was not measured yet.
    pub(crate) fn of(root: Identity) -> Subtree {
        Subtree { root, is_without_files: false, memory_bytes: 0, processes: 0, is_alive: false }
    }
}

impl Default for Reading {
    fn default() -> Reading {
        Reading {
            snapshot: ResourceSnapshot::unread(),
            unread: PerResource::default(),
            zombies: Vec::new(),
            subtrees: Vec::new(),
            disk: None,
        }
    }
}

impl Reading {
    /// Becomes as new, but keeps the buffers of its lists, and what is to be measured.
    pub(crate) fn clear(&mut self) {
        self.snapshot.clear();
        self.unread = PerResource::default();
        self.zombies.clear();
        for subtree in &mut self.subtrees {
            *subtree = Subtree::of(subtree.root);
        }
    }

    /// Notes why the resource, or a part of it, could not be read, and returns the value if there is one.
    pub(crate) fn noting<T>(&mut self, resource: Resource, read: ReadPart<T>) -> Option<T> {
        let (value, unread) = read.unwrap_or_else(|error| (None, Some(error)));
        *self.unread.get_mut(resource) = unread;
        value
    }

    /// Notes that no required resource could be read.
    pub(crate) fn fail(&mut self, error: Error) {
        self.clear();
        let error = Arc::new(error);
        for resource in Resource::required() {
            *self.unread.get_mut(resource) = Some(Arc::clone(&error));
        }
    }

    /// The numbers of each resource.
    pub(crate) fn found(&self) -> Found {
        PerResource::from_fn(|resource| match (self.snapshot.measured(resource), self.unread.get(resource)) {
            (Some(measured), unread) => Ok(Some(Measured { unread: unread.clone(), ..measured })),
            (None, Some(error)) => Err(Arc::clone(error)),
            (None, None) => Ok(None),
        })
    }
}
