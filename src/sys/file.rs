//! Descriptors that are opened once and kept, and the reads that leave no offset behind.

use std::ffi::CStr;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Bytes of directory entries asked for at once: about a thousand processes.
const LISTING_BUFFER: usize = 32 * 1024;

/// Offset of the length of a `linux_dirent64`, and of its name, which ends in a NUL.
const ENTRY_LENGTH: usize = 16;
const ENTRY_NAME: usize = 19;

/// A directory that names are looked up in, whatever the process has since made its root or its user.
#[derive(Debug)]
pub(crate) struct Directory(OwnedFd);

impl Directory {
    pub(crate) fn open(path: &Path) -> io::Result<Directory> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        // The standard library adds O_CLOEXEC and retries on EINTR.
        Ok(Directory(OpenOptions::new().read(true).custom_flags(flags).open(path)?.into()))
    }

    pub(crate) fn open_file(&self, name: &CStr) -> io::Result<OwnedFd> {
        self.open_at(name, libc::O_RDONLY)
    }

    /// A listing of this directory with an offset of its own.
    pub(crate) fn list(&self) -> io::Result<Listing> {
        let mut buffer = [0; 2];
        let fd = self.open_at(name(&mut buffer, format_args!("."))?, libc::O_RDONLY | libc::O_DIRECTORY)?;
        Ok(Listing { fd, buffer: vec![0; LISTING_BUFFER].into_boxed_slice() })
    }

    /// The number of bytes of the link's target that were put into `target`; one longer than that is cut off.
    pub(crate) fn read_link(&self, name: &CStr, target: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the name ends in a NUL, and the kernel writes at most `target.len()` bytes to `target`.
        length(|| unsafe {
            libc::readlinkat(self.0.as_raw_fd(), name.as_ptr(), target.as_mut_ptr().cast(), target.len())
        })
    }

    fn open_at(&self, name: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
        // SAFETY: the name ends in a NUL; the flags create nothing, so no mode is read.
        let fd = length(|| unsafe { libc::openat(self.0.as_raw_fd(), name.as_ptr(), flags | libc::O_CLOEXEC) })?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    }
}

/// The names in a directory, over and over, from a descriptor and a buffer that are kept.
#[derive(Debug)]
pub(crate) struct Listing {
    fd: OwnedFd,
    buffer: Box<[u8]>,
}

impl Listing {
    /// Visits every name there is now, from the first. The offset belongs to whoever holds the descriptor, hence
    /// `&mut`: two visits at once would each see half.
    pub(crate) fn visit(&mut self, mut visit: impl FnMut(&CStr)) -> io::Result<()> {
        self.rewind()?;
        loop {
            let mut entries = match self.fill()? {
                0 => return Ok(()),
                length => self.buffer.get(..length).unwrap_or_default(),
            };
            while let Some((name, rest)) = split_entry(entries) {
                visit(name);
                entries = rest;
            }
        }
    }

    fn rewind(&mut self) -> io::Result<()> {
        // SAFETY: no memory is passed.
        length(|| unsafe { libc::lseek(self.fd.as_raw_fd(), 0, libc::SEEK_SET) }).map(drop)
    }

    fn fill(&mut self) -> io::Result<usize> {
        let buffer = &mut self.buffer;
        // SAFETY: the kernel writes at most `buffer.len()` bytes to `buffer`.
        length(|| unsafe {
            libc::syscall(libc::SYS_getdents64, self.fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
        })
    }
}

/// The name in the first entry, and the entries after it.
fn split_entry(entries: &[u8]) -> Option<(&CStr, &[u8])> {
    let length = entries.get(ENTRY_LENGTH..ENTRY_LENGTH + 2)?.try_into().ok()?;
    let length = usize::from(u16::from_ne_bytes(length));
    let name = CStr::from_bytes_until_nul(entries.get(ENTRY_NAME..length)?).ok()?;
    Some((name, entries.get(length..)?))
}

/// Reads the file from its start until it ends or `buffer` is full, without moving or minding the descriptor's offset.
pub(crate) fn read_at_start(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(free @ [_, ..]) = buffer.get_mut(filled..) {
        // SAFETY: the kernel writes at most `free.len()` bytes to `free`. The offset is at most the length of a slice.
        let read = length(|| unsafe {
            libc::pread(fd.as_raw_fd(), free.as_mut_ptr().cast(), free.len(), filled as libc::off_t)
        })?;
        match read {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// A file name put together on the stack, for readers that must not allocate.
pub(crate) fn name<'a>(buffer: &'a mut [u8], text: fmt::Arguments<'_>) -> io::Result<&'a CStr> {
    let mut rest = &mut *buffer;
    rest.write_fmt(text)?;
    rest.write_all(&[0])?;
    CStr::from_bytes_until_nul(buffer).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Bytes in a page, the unit of the kernel's memory counts. (The C library keeps it: no system call.)
pub(crate) fn page_size() -> u64 {
    // SAFETY: no memory is passed.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

/// The length, descriptor or offset that a system call returns, which is negative when it failed. The call is made
/// again for as long as a signal interrupts it.
fn length<T: TryInto<usize>>(mut call: impl FnMut() -> T) -> io::Result<usize> {
    loop {
        match call().try_into() {
            Ok(length) => return Ok(length),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_listing_sees_every_name_each_time_also_what_is_new() {
        let root = tempfile::tempdir().unwrap();
        let mut listing = Directory::open(root.path()).unwrap().list().unwrap();
        let mut names = || {
            let mut names = BTreeSet::new();
            listing.visit(|name| assert!(names.insert(name.to_str().unwrap().to_owned()))).unwrap();
            names
        };
        assert_eq!(names().len(), 2, ". and ..");
        // More than one buffer of them.
        (0..2000).for_each(|number| fs::write(root.path().join(format!("file-{number}")), "").unwrap());
        assert_eq!(names().len(), 2002);
        assert_eq!(names().len(), 2002);
    }

    #[test]
    fn a_kept_descriptor_is_read_from_the_start_each_time_up_to_the_buffer() {
        let root = tempfile::tempdir().unwrap();
        let mut buffer = [0; 8];
        fs::write(root.path().join("file"), "first").unwrap();
        let file = Directory::open(root.path()).unwrap();
        let file = file.open_file(name(&mut buffer, format_args!("file")).unwrap()).unwrap();
        assert_eq!((read_at_start(file.as_fd(), &mut buffer).unwrap(), &buffer[..5]), (5, &b"first"[..]));
        fs::write(root.path().join("file"), "much longer").unwrap();
        assert_eq!((read_at_start(file.as_fd(), &mut buffer).unwrap(), &buffer), (8, b"much lon"));
    }

    #[test]
    fn a_name_too_long_for_its_buffer_is_an_error() {
        assert!(name(&mut [0; 4], format_args!("self")).is_err());
        assert_eq!(name(&mut [0; 5], format_args!("self")).unwrap().to_bytes(), b"self");
    }

    #[test]
    fn a_page_is_a_power_of_two() {
        assert!(page_size().is_power_of_two());
    }
}
