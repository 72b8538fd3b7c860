//! The kind of a file that somebody else has named: what may be written to it, and whether it may be opened at all.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::file::file_system;

/// The kind of a file, as far as writing to it is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file of the kernel's: of a proc file system, or of one of control groups.
    OfTheKernel,
    Fifo,
    Socket,
    Other,
}

/// The file at a path, found out without opening what may act on being opened (a device). Symbolic links are followed.
pub(crate) fn kind_of(path: &Path) -> io::Result<(Kind, Identity)> {
    let handle = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
    kind_of_open(&handle)
}

/// The same of a file that is open.
pub(crate) fn kind_of_open(file: &File) -> io::Result<(Kind, Identity)> {
    let metadata = file.metadata()?;
    let identity = Identity { device: metadata.dev(), inode: metadata.ino() };
    let file_type = metadata.file_type();
    let kind = if file_type.is_fifo() {
        Kind::Fifo
    } else if file_type.is_socket() {
        Kind::Socket
    } else if file_type.is_file() && is_of_the_kernel(file.as_fd())? {
        Kind::OfTheKernel
    } else {
        Kind::Other
    };
    Ok((kind, identity))
}

/// The identity of a file, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

fn is_of_the_kernel(file: BorrowedFd<'_>) -> io::Result<bool> {
    let system = file_system(file)?;
    Ok([libc::PROC_SUPER_MAGIC, libc::CGROUP_SUPER_MAGIC, libc::CGROUP2_SUPER_MAGIC].contains(&system))
}
