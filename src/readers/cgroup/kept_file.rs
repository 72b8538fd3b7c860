//! Files that are read again and again, of which a handful is kept open.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sys::file::{open_regular, read_at_start, read_line};
use crate::sys::process::thread_id;
use crate::vocabulary::Error;

/// The number of files that may still be kept open.
#[derive(Debug)]
pub(crate) struct Allowance(pub(crate) usize);

/// What the files of all groups share: the time of the reading, a buffer, and the descriptors that may still be kept.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) now: Duration,
    pub(crate) allowance: Allowance,
    pub(crate) buffer: Box<[u8]>,
    pub(crate) proc_root: PathBuf,
    /// The memory of the machine, by which the kernel's memory of a group is judged.
    pub(crate) meminfo: KeptFile,
    pub(crate) zoneinfo: KeptFile,
}

impl Workspace {
    /// The text of a file now, which may be kept open.
    pub(crate) fn read(&mut self, file: &mut KeptFile) -> Result<&[u8], Failure> {
        file.read(&mut self.allowance, &mut self.buffer)
    }
}

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

/// A file of the own process in `/proc`, kept open and read through a thread that lives.
///
/// `/proc/self` will not do: it is the first thread. Once that has ended before the others, its file says of version 1
/// that the process is in the highest group, also through a descriptor from before. So a thread opens its own, and the
/// descriptor of the first thread is good in that thread alone, where it is known to live. Costs a system call to ask
/// which thread this is.
#[derive(Debug)]
pub(crate) struct OwnFile {
    of_calling: PathBuf,
    /// Where there is no `thread-self`: in a tree that is laid out, or before Linux 3.17.
    of_first: PathBuf,
    kept: Option<(OwnedFd, u32)>,
}

impl OwnFile {
    pub(crate) fn new(proc_root: &Path, name: &str) -> OwnFile {
        let [of_calling, of_first] = ["thread-self", "self"].map(|folder| proc_root.join(folder).join(name));
        OwnFile { of_calling, of_first, kept: None }
    }

    /// As [`KeptFile::read`], and always kept.
    pub(crate) fn read<'a>(&mut self, buffer: &'a mut [u8]) -> Result<&'a [u8], Failure> {
        let filled = self.fill(buffer);
        whole(&self.of_first, filled, buffer)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let thread = thread_id();
        if let Some((kept, opener)) = &self.kept {
            if *opener == thread || *opener != std::process::id() {
                match read_line(kept.as_fd(), buffer) {
                    // That thread has ended.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    filled => return filled,
                }
            }
        }
        self.kept = None;
        let opened = self.open()?;
        let length = read_line(opened.as_fd(), buffer)?;
        self.kept = Some((opened, thread));
        Ok(length)
    }

    /// Opens the file of the calling thread.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        match open_regular(&self.of_calling) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => open_regular(&self.of_first),
            opened => opened,
        }
    }

    /// The path as errors name it.
    pub(crate) fn path(&self) -> &Path {
        &self.of_first
    }
}

/// What was read of a file, if that is all of it.
fn whole<'a>(path: &Path, filled: io::Result<usize>, buffer: &'a [u8]) -> Result<&'a [u8], Failure> {
    let length = filled.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV) => Failure::Gone,
        _ => Failure::Other(Error::read(path.to_owned(), error)),
    })?;
    match buffer.get(..length) {
        Some(text) if length < buffer.len() => Ok(text),
        _ => Err(Failure::Other(Error::malformed(path.to_owned(), "it is too long"))),
    }
}
