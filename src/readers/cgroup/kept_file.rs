//! Files that are read again and again, of which a handful is kept open.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::readers::procfs::stat;
use crate::sys::file::{open_regular, read_at_start, read_line};
use crate::vocabulary::Error;

/// The number of files that may still be kept open.
#[derive(Debug)]
pub(crate) struct Allowance(pub(crate) usize);

/// The means that the files of all groups share: the time of the reading, a buffer, and the descriptors that may still
/// be kept.
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

/// A file of the own process in `/proc`, kept open.
///
/// It is that of the first thread, whose groups memory is charged to: in version 1 any other may be in groups of its
/// own. Once the first has ended before the others, its file says of version 1 that the process is in the highest
/// group, also through a descriptor from before. Then a thread opens its own, each time. Whether it has ended is asked
/// when the file says something else than before, and now and then.
#[derive(Debug)]
pub(crate) struct OwnFile {
    /// Not there before Linux 3.17, nor in a tree that is laid out.
    of_calling: PathBuf,
    of_first: PathBuf,
    stat_of_first: PathBuf,
    kept: Option<OwnedFd>,
    first_has_ended: bool,
    ask_again_at: Duration,
}

/// The first thread is asked after again when this is over.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Room for a line of `stat`.
const STAT_BUFFER: usize = 2048;

impl OwnFile {
    pub(crate) fn new(proc_root: &Path, name: &str) -> OwnFile {
        OwnFile {
            of_calling: proc_root.join("thread-self").join(name),
            of_first: proc_root.join("self").join(name),
            stat_of_first: proc_root.join("self/stat"),
            kept: None,
            first_has_ended: false,
            ask_again_at: Duration::ZERO,
        }
    }

    /// As [`KeptFile::read`], and always kept. `known` is what it said last.
    pub(crate) fn read<'a>(
        &mut self,
        now: Duration,
        known: Option<&[u8]>,
        buffer: &'a mut [u8],
    ) -> Result<&'a [u8], Failure> {
        let filled = self.fill(now, known, buffer);
        whole(&self.of_first, filled, buffer)
    }

    fn fill(&mut self, now: Duration, known: Option<&[u8]>, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.first_has_ended {
            let filled = self.fill_from_first(buffer);
            let is_known = matches!(&filled, Ok(length) if known.is_some() && buffer.get(..*length) == known);
            if is_known && now < self.ask_again_at {
                return filled;
            }
            // Asked after the reading: what was read of a thread that lives now is true.
            self.first_has_ended = self.is_first_ending();
            self.ask_again_at = now + ASK_AGAIN;
            if !self.first_has_ended {
                return filled;
            }
            self.kept = None;
        }
        read_line(self.open()?.as_fd(), buffer)
    }

    fn fill_from_first(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(kept) = &self.kept {
            return read_line(kept.as_fd(), buffer);
        }
        let opened = open_regular(&self.of_first)?;
        let length = read_line(opened.as_fd(), buffer)?;
        self.kept = Some(opened);
        Ok(length)
    }

    /// Whether the first thread has ended or is about to. Where that cannot be read, it lives.
    fn is_first_ending(&self) -> bool {
        let mut buffer = [0; STAT_BUFFER];
        let length = open_regular(&self.stat_of_first).and_then(|stat| read_line(stat.as_fd(), &mut buffer));
        length.is_ok_and(|length| stat::is_ending(buffer.get(..length).unwrap_or_default()))
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

/// The whole text of a file; an error if that is not all of it.
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
