//! The open `mountinfo` of the process: read as a stream, and asked whether it has changed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use super::own_file::OwnFile;
use crate::sys::file::{is_procfs, visit_lines};
use crate::sys::poll::{poll, Interest, Ready};
use crate::vocabulary::Error;

/// `mountinfo`, kept open: the kernel tells through its descriptor when mounts have changed (proc_pid_mounts(5)).
#[derive(Debug)]
pub(crate) struct MountInfo {
    file: OwnFile,
    kept: Option<OwnedFd>,
    /// Set where it is the kernel's, and not laid out in a folder: it tells of changes, and the mounts are there.
    is_of_kernel: bool,
}

impl MountInfo {
    pub(crate) fn new(proc_root: &Path) -> MountInfo {
        MountInfo { file: OwnFile::new(proc_root, "mountinfo"), kept: None, is_of_kernel: false }
    }

    pub(crate) fn is_of_kernel(&self) -> bool {
        self.is_of_kernel
    }

    /// Returns `true` if the kernel says that mounts have changed since this was asked or they were visited. One system
    /// call.
    pub(crate) fn has_changed(&self) -> bool {
        let Some(kept) = self.kept.as_ref().filter(|_| self.is_of_kernel) else { return false };
        let mut ready = [Ready::default()];
        let asked = poll(std::iter::once((kept.as_fd(), Interest::Priority)), &mut ready, Duration::ZERO);
        asked.is_ok() && ready[0].any()
    }

    /// Visits the lines, however many there are, but for those that are longer than the buffer, and says whether they
    /// are the kernel's.
    pub(crate) fn visit(&mut self, buffer: &mut [u8], visit: impl FnMut(&[u8], bool)) -> Result<(), Error> {
        self.visit_lines(buffer, visit).map_err(|error| Error::read(self.file.path().to_owned(), error))
    }

    fn visit_lines(&mut self, buffer: &mut [u8], mut visit: impl FnMut(&[u8], bool)) -> io::Result<()> {
        // A change from here on is told.
        self.has_changed();
        let file = match self.kept.take() {
            Some(file) => file,
            None => {
                let opened = self.file.open()?;
                self.is_of_kernel = is_procfs(opened.as_fd());
                opened
            }
        };
        let room = buffer.len();
        visit_lines(file.as_fd(), buffer, |line| {
            // A longer line is cut off there.
            if line.len() < room {
                visit(line, self.is_of_kernel);
            }
        })?;
        self.kept = Some(file).filter(|_| self.is_of_kernel);
        Ok(())
    }
}
