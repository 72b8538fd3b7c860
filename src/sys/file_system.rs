//! The room in a file system, `statvfs(3)`.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;

use super::syscall;

/// The room in a file system, and whether it can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileSystem {
    pub(crate) total_bytes: u64,
    /// What a user without privileges can have.
    pub(crate) free_bytes: u64,
    /// Set if no further file can be made, however many bytes are free.
    pub(crate) is_out_of_inodes: bool,
    pub(crate) is_read_only: bool,
}

/// Asks the file system that the path leads to. One on a server that is gone does not answer, for as long as that is so.
// As narrow as a long on the machines of 32 bits.
#[allow(clippy::useless_conversion)]
pub(crate) fn file_system(path: &CStr) -> io::Result<FileSystem> {
    let mut status = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path ends in a NUL, and one `statvfs` is written to `status`.
    syscall(|| unsafe { libc::statvfs(path.as_ptr(), status.as_mut_ptr()) })?;
    // SAFETY: a `statvfs` is plain integers, for which zeroes are valid too.
    let status = unsafe { status.assume_init() };
    let bytes = |blocks: libc::fsblkcnt_t| u64::from(blocks).saturating_mul(u64::from(status.f_frsize));
    Ok(FileSystem {
        total_bytes: bytes(status.f_blocks),
        free_bytes: bytes(status.f_bavail),
        // Those that make inodes as they are needed say that they have none at all.
        is_out_of_inodes: status.f_files > 0 && status.f_favail == 0,
        is_read_only: status.f_flag & libc::ST_RDONLY != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> io::Result<FileSystem> {
        file_system(&std::ffi::CString::new(path).unwrap())
    }

    #[test]
    fn there_is_no_more_free_than_there_is() {
        let root = of("/").unwrap();
        assert!(root.total_bytes > 0 && root.free_bytes <= root.total_bytes, "{root:?}");
        let proc = of("/proc").unwrap();
        assert_eq!((proc.total_bytes, proc.is_out_of_inodes), (0, false));
    }

    #[test]
    fn a_path_that_leads_nowhere_is_an_error() {
        assert_eq!(of("/nonexistent").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
