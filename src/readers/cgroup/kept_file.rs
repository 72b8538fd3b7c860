//! Files that are read again and again, of which a handful is kept open.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::sys::file::read_line;
use crate::vocabulary::Error;

/// How many more files may be kept open.
#[derive(Debug)]
pub(crate) struct Allowance(pub(crate) usize);

/// A file whose text the kernel makes up in one piece when it is read.
#[derive(Debug)]
pub(crate) struct KeptFile {
    path: PathBuf,
    kept: Option<OwnedFd>,
}

/// Why a file could not be read.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is no such file, or its group was removed.
    Gone,
    Other(Error),
}

impl KeptFile {
    pub(crate) fn new(path: PathBuf) -> KeptFile {
        KeptFile { path, kept: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The text of the file now. Where the allowance is used up, it is opened each time, which costs five times as
    /// much.
    pub(crate) fn read<'a>(&mut self, allowance: &mut Allowance, buffer: &'a mut [u8]) -> Result<&'a [u8], Failure> {
        let length = self.fill(allowance, buffer).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV) => Failure::Gone,
            _ => Failure::Other(Error::read(self.path.clone(), error)),
        })?;
        match buffer.get(..length) {
            Some(text) if length < buffer.len() => Ok(text),
            _ => Err(self.malformed("it is too long")),
        }
    }

    #[cfg(test)]
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    pub(crate) fn malformed(&self, what: &str) -> Failure {
        Failure::Other(Error::malformed(self.path.clone(), what))
    }

    fn fill(&mut self, allowance: &mut Allowance, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(kept) = &self.kept {
            return read_line(kept.as_fd(), buffer);
        }
        let opened = OwnedFd::from(File::open(&self.path)?);
        let length = read_line(opened.as_fd(), buffer)?;
        if allowance.0 > 0 {
            allowance.0 -= 1;
            self.kept = Some(opened);
        }
        Ok(length)
    }
}
