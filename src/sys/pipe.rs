//! Pipes and fifos that hold one byte at a time, `pipe(7)`, `fifo(7)`.
//!
//! A pipe of one page has one slot (`F_SETPIPE_SZ`, fcntl(2)). A byte in it fills the slot, as far as `epoll(7)` is concerned,
//! and whoever reads the byte makes the pipe writable: so its writer is told that it was read, by whichever process.
//!
//! `O_NONBLOCK` belongs to the open file description, which all that inherit a descriptor share, and most clients of a
//! shared pipe do not expect it. A pipe opened anew through `/proc/self/fd` has a description of its own.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::syscall;

/// The first descriptor that is none of the three standard streams, which a command replaces.
const ABOVE_STREAMS: RawFd = 3;

/// Both ends of a pipe that block, the one to read from first. Neither is a standard stream, whichever of those are closed.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends: [RawFd; 2] = [-1; 2];
    // SAFETY: the kernel writes two descriptors to `ends`.
    syscall(|| unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    let reader = unsafe { OwnedFd::from_raw_fd(ends[0]) };
    // SAFETY: as above.
    let writer = unsafe { OwnedFd::from_raw_fd(ends[1]) };
    Ok((above_streams(reader)?, above_streams(writer)?))
}

fn above_streams(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() >= ABOVE_STREAMS {
        return Ok(fd);
    }
    // SAFETY: no memory is passed.
    let above = syscall(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, ABOVE_STREAMS) })?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(above) })
}

/// Makes a fifo that this user alone may open.
pub(crate) fn make_fifo(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a text that ends with a zero, and is only read.
    syscall(|| unsafe { libc::mkfifo(path.as_ptr(), 0o600) }).map(drop)
}

/// The directions in which a pipe is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
    /// Of a fifo: opened so, it has a reader and a writer for as long as it is open.
    Both,
}

/// Opens a fifo, or a pipe anew, without waiting for the other side.
pub(crate) fn open(path: &Path, way: Way, is_blocking: bool) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    options.read(way != Way::Out).write(way != Way::In);
    options.custom_flags(if is_blocking { 0 } else { libc::O_NONBLOCK });
    let file = options.open(path)?;
    if !file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no pipe"));
    }
    above_streams(file.into())
}

/// Opens the pipe of a descriptor anew, with a description of its own that does not block.
pub(crate) fn reopen(fd: RawFd, way: Way) -> io::Result<OwnedFd> {
    open(Path::new(&format!("/proc/self/fd/{fd}")), way, false)
}

/// Lets a pipe have one slot.
pub(crate) fn set_one_slot(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no memory is passed. One byte is rounded up to a page.
    syscall(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, 1) }).map(drop)
}

/// The bytes that are in a pipe, by any of its ends.
pub(crate) fn queued(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes = MaybeUninit::<libc::c_int>::zeroed();
    // SAFETY: the kernel writes one integer to `bytes`.
    syscall(|| unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, bytes.as_mut_ptr()) })?;
    // SAFETY: zeroed, or written by the call; any integer is valid.
    Ok(usize::try_from(unsafe { bytes.assume_init() }).unwrap_or_default())
}

/// Reads what is there, at most as much as fits; 0 if nothing is, or nobody will write any more.
pub(crate) fn read_now(fd: &OwnedFd, into: &mut [u8]) -> io::Result<usize> {
    read_or_write_now(fd, |file| file.read(into))
}

/// Writes what there is room for. There must be a reader, or the signal `SIGPIPE` comes.
pub(crate) fn write_now(fd: &OwnedFd, from: &[u8]) -> io::Result<usize> {
    read_or_write_now(fd, |file| file.write(from))
}

fn read_or_write_now(fd: &OwnedFd, mut call: impl FnMut(&mut File) -> io::Result<usize>) -> io::Result<usize> {
    // SAFETY: the descriptor is open for as long as `fd` is borrowed, and is not closed through this file.
    let mut file = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(fd.as_raw_fd()) });
    loop {
        match call(&mut file) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            result => return result,
        }
    }
}

/// Has the program that a command starts inherit these descriptors under their numbers, and no other. It is then started
/// by `fork(2)`, which a program with much memory pays for.
pub(crate) fn inherit_in(command: &mut Command, ends: Arc<[OwnedFd; 2]>) {
    let inherit = move || {
        for end in ends.iter() {
            // SAFETY: no memory is passed. In the forked child it clears the flag of this descriptor, which is the only one.
            syscall(|| unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFD, 0) })?;
        }
        Ok(())
    };
    // SAFETY: between `fork` and `exec` it makes async-signal-safe calls alone, and touches no memory of others; the error
    // of a failed call is a number.
    unsafe { command.pre_exec(inherit) };
}

/// Whether a number is that of a descriptor of a pipe that is open here this way.
pub(crate) fn is_open_pipe(fd: RawFd, way: Way) -> bool {
    // SAFETY: no memory is passed; a number that is no descriptor's is an error.
    let Ok(flags) = syscall(|| unsafe { libc::fcntl(fd, libc::F_GETFL) }) else { return false };
    let mode = flags & libc::O_ACCMODE;
    let is_that_way = mode == libc::O_RDWR || mode == if way == Way::In { libc::O_RDONLY } else { libc::O_WRONLY };
    let path = format!("/proc/self/fd/{fd}");
    is_that_way && std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

#[cfg(test)]
mod tests {
    use super::super::epoll::{Epoll, EITHER};
    use super::*;
    use std::os::fd::AsFd;
    use std::time::Duration;

    fn ready(epoll: &Epoll) -> Vec<u64> {
        let mut ready = Vec::new();
        epoll.wait(&mut ready, Duration::ZERO).unwrap();
        ready
    }

    #[test]
    fn the_writer_of_a_pipe_of_one_slot_is_told_that_its_byte_was_read() {
        let (reader, writer) = pipe().unwrap();
        set_one_slot(writer.as_fd()).unwrap();
        let (taker, writer) =
            (reopen(reader.as_raw_fd(), Way::In).unwrap(), reopen(writer.as_raw_fd(), Way::Out).unwrap());
        let epoll = Epoll::new().unwrap();
        epoll.add_edges(writer.as_fd(), 7, EITHER).unwrap();
        assert_eq!(ready(&epoll), [7], "it is empty");
        for read_by in [&reader, &taker] {
            assert_eq!(write_now(&writer, b"+").unwrap(), 1);
            assert_eq!((ready(&epoll), queued(writer.as_fd()).unwrap()), (vec![], 1));
            assert_eq!(read_now(read_by, &mut [0; 8]).unwrap(), 1);
            assert_eq!((ready(&epoll), ready(&epoll)), (vec![7], vec![]));
        }
        assert_eq!(read_now(&taker, &mut [0; 8]).unwrap(), 0);
        epoll.remove(writer.as_fd());
    }

    #[test]
    fn every_byte_that_comes_into_a_fifo_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        make_fifo(&path).unwrap();
        let own = open(&path, Way::Both, false).unwrap();
        let other = open(&path, Way::Both, true).unwrap();
        set_one_slot(own.as_fd()).unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add_edges(own.as_fd(), 7, EITHER).unwrap();
        ready(&epoll);
        for count in 1..=3 {
            assert_eq!(write_now(&other, b"+").unwrap(), 1);
            assert_eq!((ready(&epoll), queued(own.as_fd()).unwrap()), (vec![7], count));
        }
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(open(&folder.path().join("file"), Way::In, false).is_err());
    }

    #[test]
    fn a_command_inherits_the_ends_and_no_other_does() {
        let (reader, writer) = pipe().unwrap();
        let (of_reader, of_writer) = (reader.as_raw_fd(), writer.as_raw_fd());
        assert!(is_open_pipe(of_reader, Way::In) && is_open_pipe(of_writer, Way::Out));
        assert!(!is_open_pipe(of_reader, Way::Out) && !is_open_pipe(-1, Way::In));
        let list = || {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("test -p /proc/self/fd/{of_reader} && test -p /proc/self/fd/{of_writer}")]);
            command
        };
        let mut heir = list();
        inherit_in(&mut heir, Arc::new([reader, writer]));
        assert!(!list().status().unwrap().success());
        assert!(heir.status().unwrap().success());
    }
}
