//! The file of the own process that says which groups it is in.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::readers::kept_file::{whole, Failure};
use crate::readers::procfs::stat;
use crate::sys::file::{open_regular, read_line};

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
