//! Files that are read again and again, of which a handful is kept open.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::sys::file::{open_regular, read_at_start, read_line};
use crate::vocabulary::Error;

/// The number of files that may still be kept open.
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
        let filled = self.fill(allowance, buffer);
        whole(&self.path, filled, buffer)
    }

    /// The text of a file that is not kept, or as much of it as there is room for.
    pub(crate) fn read_beginning<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = read_at_start(open_regular(&self.path)?.as_fd(), buffer)?;
        Ok(buffer.get(..length).unwrap_or_default())
    }

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
        let opened = open_regular(&self.path)?;
        let length = read_line(opened.as_fd(), buffer)?;
        if allowance.0 > 0 {
            allowance.0 -= 1;
            self.kept = Some(opened);
        }
        Ok(length)
    }
}

/// The whole text of a file; an error if that is not all of it.
pub(crate) fn whole<'a>(path: &Path, filled: io::Result<usize>, buffer: &'a [u8]) -> Result<&'a [u8], Failure> {
    let length = filled.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV) => Failure::Gone,
        _ => Failure::Other(Error::read(path.to_owned(), error)),
    })?;
    match buffer.get(..length) {
        Some(text) if length < buffer.len() => Ok(text),
        _ => Err(Failure::Other(Error::malformed(path.to_owned(), "it is too long"))),
    }
}
