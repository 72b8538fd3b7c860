//! `/proc/<pid>/task`, proc_pid_task(5): a folder for each thread of a process.
//!
//! The surprise: the first thread is there for as long as the process is, also when it has ended before the others.

use std::io;
use std::os::fd::AsFd;

use super::process_table::is_gone_or_concealed;
use super::{stat, statm, ProcRoot};
use crate::sys::file::stack_path;
use crate::vocabulary::Error;

/// The number of threads of a process, an ended first one included; 0 when it is gone. The folder has two links more
/// than that, so that it need not be listed.
pub(super) fn count(root: ProcRoot<'_>, pid: u32) -> Result<u64, Error> {
    let status = stack_path(&mut [0; 32], format_args!("{pid}/task")).and_then(|path| root.directory.status(path));
    found(root, pid, status.map(|status| status.links.saturating_sub(2)))
}

/// Visits the threads of a process through a buffer of the caller's; none when it is gone.
pub(super) fn visit(root: ProcRoot<'_>, pid: u32, buffer: &mut [u8], mut visit: impl FnMut(u32)) -> Result<(), Error> {
    let visited = stack_path(&mut [0; 32], format_args!("{pid}/task")).and_then(|path| {
        root.directory.visit(path, buffer, |entry| {
            if let Some(thread) = stat::pid(entry.name.to_bytes()) {
                visit(thread);
            }
        })
    });
    found(root, pid, visited)
}

/// The resident set of a process whose first thread has ended, in pages: that of any thread which lives.
pub(super) fn resident_pages(root: ProcRoot<'_>, pid: u32) -> Result<u64, Error> {
    let mut resident = Ok(0);
    visit(root, pid, &mut [0; 1024], |thread| {
        if let Ok(0) = resident {
            resident = thread_pages(root, pid, thread);
        }
    })?;
    resident
}

/// The same as one thread shows it; 0 when that has ended.
fn thread_pages(root: ProcRoot<'_>, pid: u32, thread: u32) -> Result<u64, Error> {
    let path = || root.path.join(format!("{pid}/task/{thread}/statm"));
    let read = stack_path(&mut [0; 48], format_args!("{pid}/task/{thread}/statm"))
        .and_then(|path| root.directory.open_file(path))
        .and_then(|statm| statm::read(statm.as_fd()));
    match read {
        Ok(pages) => pages.map_err(|what| Error::malformed(path(), what)),
        Err(error) if is_gone_or_concealed(&error) => Ok(0),
        Err(error) => Err(Error::read(path(), error)),
    }
}

/// The content of the folder; nothing when its process is gone.
fn found<T: Default>(root: ProcRoot<'_>, pid: u32, read: io::Result<T>) -> Result<T, Error> {
    match read {
        Ok(read) => Ok(read),
        Err(error) if is_gone_or_concealed(&error) => Ok(T::default()),
        Err(error) => Err(Error::read(root.path.join(format!("{pid}/task")), error)),
    }
}
