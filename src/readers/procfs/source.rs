//! The mounted tree that everything is read from.

use std::io;
use std::path::Path;

use crate::sys::file::Directory;
use crate::vocabulary::Error;

/// The open root of a `/proc`, and its path, for errors to name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProcRoot<'a> {
    pub(super) directory: &'a Directory,
    pub(super) path: &'a Path,
}

impl<'a> ProcRoot<'a> {
    pub(crate) fn new(directory: &'a Directory, path: &'a Path) -> ProcRoot<'a> {
        ProcRoot { directory, path }
    }

    /// The error of a listing that failed.
    pub(super) fn unlisted(self, error: io::Error) -> Error {
        Error::read(self.path.to_owned(), error)
    }

    /// The error of a process that is there and may not be looked at.
    pub(super) fn denied(self, pid: u32) -> Error {
        Error::read(self.path.join(format!("{pid}/stat")), io::ErrorKind::PermissionDenied.into())
    }

    /// The error of a listing without this process: it is of another kernel's processes, or is not whole.
    pub(super) fn without_us(self, own_pid: u32) -> Error {
        Error::malformed(self.path.to_owned(), &format!("it does not list {own_pid}, this process"))
    }
}
