//! Descriptors that are opened once and kept, and the reads that leave no offset behind.

use std::ffi::CStr;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{count, syscall};

/// Bytes of directory entries asked for at once: about a thousand processes.
const LISTING_BUFFER: usize = 32 * 1024;

/// Offsets in a `linux_dirent64` (`getdents64(2)`): of its length, and of its name, which ends in a NUL. It starts with
/// the inode's number.
const ENTRY_LENGTH: usize = 16;
const ENTRY_NAME: usize = 19;

/// The length at which a file is taken for endless, and for something else in the place of the kernel's. None that is
/// read here comes near it: four million process ids have eight characters each, a hundred thousand mounts fit too.
const ENDLESS: usize = 32 << 20;

/// A directory that is kept open, so that names are looked up in it after the process has changed its root or its user.
#[derive(Debug)]
pub(crate) struct Directory(OwnedFd);

impl Directory {
    pub(crate) fn open(path: &Path) -> io::Result<Directory> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        // The standard library adds O_CLOEXEC and retries on EINTR.
        Ok(Directory(OpenOptions::new().read(true).custom_flags(flags).open(path)?.into()))
    }

    pub(crate) fn open_file(&self, name: &CStr) -> io::Result<OwnedFd> {
        // A FIFO in the place of a file of the kernel's would make the caller wait, and a terminal would be adopted.
        self.open_at(name, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY)
    }

    /// A listing of this directory with an offset of its own.
    pub(crate) fn list(&self) -> io::Result<Listing> {
        let fd = self.open_directory(stack_path(&mut [0; 2], format_args!("."))?)?;
        Ok(Listing { fd, buffer: vec![0; LISTING_BUFFER].into_boxed_slice() })
    }

    /// Visits the entries of a directory below this one, through a buffer of the caller's.
    pub(crate) fn visit(&self, name: &CStr, buffer: &mut [u8], visit: impl FnMut(Entry<'_>)) -> io::Result<()> {
        visit_entries(self.open_directory(name)?.as_fd(), buffer, visit)
    }

    fn open_directory(&self, name: &CStr) -> io::Result<OwnedFd> {
        self.open_at(name, libc::O_RDONLY | libc::O_DIRECTORY)
    }

    /// The status of a file below this directory (`stat(2)`).
    pub(crate) fn status(&self, name: &CStr) -> io::Result<Status> {
        let mut status = MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: the name ends in a NUL, and the kernel writes one `stat` to `status`.
        syscall(|| unsafe { libc::fstatat(self.0.as_raw_fd(), name.as_ptr(), status.as_mut_ptr(), 0) })?;
        // SAFETY: a `stat` is plain integers, for which zeroes are valid too.
        let status = unsafe { status.assume_init() };
        // The width of both differs from machine to machine.
        #[allow(clippy::unnecessary_cast)]
        Ok(Status { links: status.st_nlink as u64, size: u64::try_from(status.st_size).unwrap_or_default() })
    }

    /// Returns `true` if this is a proc file system of the kernel's own.
    pub(crate) fn is_procfs(&self) -> bool {
        is_procfs(self.0.as_fd())
    }

    /// The number of bytes of the link's target that were put into `target`; one longer than that is cut off.
    pub(crate) fn read_link(&self, name: &CStr, target: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the name ends in a NUL, and the kernel writes at most `target.len()` bytes to `target`.
        let length = syscall(|| unsafe {
            libc::readlinkat(self.0.as_raw_fd(), name.as_ptr(), target.as_mut_ptr().cast(), target.len())
        });
        length.map(count)
    }

    fn open_at(&self, name: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
        // SAFETY: the name ends in a NUL; the flags create nothing, so no mode is read.
        let fd = syscall(|| unsafe { libc::openat(self.0.as_raw_fd(), name.as_ptr(), flags | libc::O_CLOEXEC) })?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// The kind of file system that a file is on (`statfs(2)`).
#[allow(clippy::unnecessary_cast)] // its width differs from machine to machine
pub(super) fn file_system(file: BorrowedFd<'_>) -> io::Result<libc::c_long> {
    let mut status = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the kernel writes one `statfs` to `status`.
    syscall(|| unsafe { libc::fstatfs(file.as_raw_fd(), status.as_mut_ptr()) })?;
    // SAFETY: a `statfs` is plain integers, for which zeroes are valid too.
    Ok(unsafe { status.assume_init() }.f_type as libc::c_long)
}

/// The part of a file's status that is used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Status {
    pub(crate) links: u64,
    pub(crate) size: u64,
}

/// One name in a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) inode: u64,
    pub(crate) name: &'a CStr,
}

/// The entries of a directory, over and over, from a descriptor and a buffer that are kept.
#[derive(Debug)]
pub(crate) struct Listing {
    fd: OwnedFd,
    buffer: Box<[u8]>,
}

impl Listing {
    /// Visits every entry there is now, from the first. The offset belongs to whoever holds the descriptor, hence
    /// `&mut`: two visits at once would each see half.
    pub(crate) fn visit(&mut self, visit: impl FnMut(Entry<'_>)) -> io::Result<()> {
        // SAFETY: no memory is passed.
        syscall(|| unsafe { libc::lseek(self.fd.as_raw_fd(), 0, libc::SEEK_SET) })?;
        visit_entries(self.fd.as_fd(), &mut self.buffer, visit)
    }
}

/// Visits the entries from the descriptor's offset on.
fn visit_entries(fd: BorrowedFd<'_>, buffer: &mut [u8], mut visit: impl FnMut(Entry<'_>)) -> io::Result<()> {
    loop {
        // SAFETY: the kernel writes at most `buffer.len()` bytes to `buffer`.
        let filled = syscall(|| unsafe {
            libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
        })?;
        let mut entries = match count(filled) {
            0 => return Ok(()),
            filled => buffer.get(..filled).unwrap_or_default(),
        };
        while let Some((entry, rest)) = split_entry(entries) {
            visit(entry);
            entries = rest;
        }
    }
}

/// The first entry, and the entries after it.
fn split_entry(entries: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let inode = u64::from_ne_bytes(entries.get(..8)?.try_into().ok()?);
    let length = entries.get(ENTRY_LENGTH..ENTRY_LENGTH + 2)?.try_into().ok()?;
    let length = usize::from(u16::from_ne_bytes(length));
    let name = CStr::from_bytes_until_nul(entries.get(ENTRY_NAME..length)?).ok()?;
    Some((Entry { inode, name }, entries.get(length..)?))
}

/// Returns `true` if this is in a proc file system of the kernel's own (`statfs(2)`).
pub(crate) fn is_procfs(fd: BorrowedFd<'_>) -> bool {
    file_system(fd).is_ok_and(|system| system == libc::PROC_SUPER_MAGIC as libc::c_long)
}

/// Opens a file of the kernel's, or one that is laid out like it. Something else in its place (a folder, a device, a
/// FIFO) is an error: it neither makes the caller wait nor becomes the terminal of the process.
pub(crate) fn open_regular(path: &Path) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file.into())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
    }
}

/// Reads a file of one line from its start until the line ends, the file does, or `buffer` is full, without moving or
/// minding the descriptor's offset. One more read after a whole line would only find the end, for a system call.
pub(crate) fn read_line(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    read_on(fd, buffer, 0, |read| read.last() == Some(&b'\n'))
}

/// Reads the file from its start until it ends or `buffer` is full.
pub(crate) fn read_at_start(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    read_on(fd, buffer, 0, |_| false)
}

/// Reads the file from its start until it ends, into a buffer that grows with it and is kept by the caller.
pub(crate) fn read_whole<'a>(fd: BorrowedFd<'_>, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            buffer.resize((filled * 2).max(4096), 0);
        }
        filled = read_on(fd, buffer, filled, |_| false)?;
        if filled < buffer.len() {
            return Ok(&buffer[..filled]);
        }
        if filled >= ENDLESS {
            *buffer = Vec::new();
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not end"));
        }
    }
}

/// Visits the lines of a file without their ends, through a buffer of the caller's: a longer line is cut off there. A
/// file that does not end is an error.
pub(crate) fn visit_lines(fd: BorrowedFd<'_>, buffer: &mut [u8], mut visit: impl FnMut(&[u8])) -> io::Result<()> {
    let (mut offset, mut filled, mut is_cut) = (0, 0, false);
    while offset < ENDLESS {
        let read = read_at(fd, buffer.get_mut(filled..).unwrap_or_default(), offset)?;
        offset += read;
        filled += read;
        let mut rest = buffer.get(..filled).unwrap_or_default();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            if !std::mem::take(&mut is_cut) {
                visit(line);
            }
            rest = &after[1..];
        }
        if read == 0 || rest.len() == buffer.len() {
            if !rest.is_empty() && !is_cut {
                visit(rest);
            }
            if read == 0 {
                return Ok(());
            }
            (filled, is_cut) = (0, true);
            continue;
        }
        let done = filled - rest.len();
        buffer.copy_within(done..filled, 0);
        filled -= done;
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "it does not end"))
}

/// Goes on reading where `filled` bytes have been read, and returns how many have been then.
fn read_on(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    mut filled: usize,
    is_whole: impl Fn(&[u8]) -> bool,
) -> io::Result<usize> {
    while let Some(free @ [_, ..]) = buffer.get_mut(filled..) {
        let read = read_at(fd, free, filled)?;
        filled += read;
        if read == 0 || is_whole(buffer.get(..filled).unwrap_or_default()) {
            break;
        }
    }
    Ok(filled)
}

/// One read at an offset, which is no more than the length of a slice.
fn read_at(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: usize) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes to `buffer`.
    let read = syscall(|| unsafe {
        libc::pread(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), offset as libc::off_t)
    });
    read.map(count)
}

/// A path put together on the stack, for readers that must not allocate.
pub(crate) fn stack_path<'a>(buffer: &'a mut [u8], text: fmt::Arguments<'_>) -> io::Result<&'a CStr> {
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

/// Lines are seen whole and in their order, each cut off at the length of the buffer, which the bytes begin with.
#[cfg(any(test, fuzzing))]
pub(super) fn law_of_lines(bytes: &[u8]) {
    let Some((room, text)) = bytes.split_first() else { return };
    let room = usize::from(*room) + 1;
    let mut seen = Vec::new();
    let mut read = || {
        // SAFETY: the name ends in a NUL.
        let fd = syscall(|| unsafe { libc::memfd_create(b"lines\0".as_ptr().cast(), libc::MFD_CLOEXEC) })?;
        // SAFETY: a new descriptor, which nobody else has.
        let mut file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        file.write_all(text)?;
        visit_lines(file.as_fd(), &mut vec![0; room], |line| seen.push(line.to_vec()))
    };
    let read = read();
    assert!(read.is_ok(), "{read:?}");
    // After the last end of a line there is none.
    let ended = text.strip_suffix(b"\n").unwrap_or(text);
    let lines = ended.split(|byte| *byte == b'\n').filter(|_| !text.is_empty());
    let expected: Vec<_> = lines.map(|line| &line[..line.len().min(room)]).collect();
    assert_eq!(seen, expected);
}

/// Entries are told one after the other, and there is an end to them.
#[cfg(any(test, fuzzing))]
pub(super) fn law_of_entries(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((entry, after)) = split_entry(rest) {
        assert!(after.len() + ENTRY_NAME + entry.name.to_bytes_with_nul().len() <= rest.len());
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::CString;
    use std::fs;

    use super::*;

    #[test]
    fn a_listing_sees_every_name_each_time_also_what_is_new() {
        let root = tempfile::tempdir().unwrap();
        let mut listing = Directory::open(root.path()).unwrap().list().unwrap();
        let mut names = || {
            let mut names = BTreeSet::new();
            listing.visit(|entry| assert!(names.insert(entry.name.to_str().unwrap().to_owned()))).unwrap();
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
        let file = file.open_file(stack_path(&mut buffer, format_args!("file")).unwrap()).unwrap();
        assert_eq!((read_at_start(file.as_fd(), &mut buffer).unwrap(), &buffer[..5]), (5, &b"first"[..]));
        fs::write(root.path().join("file"), "much longer").unwrap();
        assert_eq!((read_at_start(file.as_fd(), &mut buffer).unwrap(), &buffer), (8, b"much lon"));
    }

    #[test]
    fn a_line_is_read_to_its_end_or_that_of_its_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        for (text, read) in [("first\n", 6), ("first", 5), ("", 0), ("longer than the buffer\n", 8)] {
            fs::write(&path, text).unwrap();
            let file = fs::File::open(&path).unwrap();
            assert_eq!(read_line(file.as_fd(), &mut [0; 8]).unwrap(), read, "{text:?}");
        }
    }

    #[test]
    fn lines_are_visited_whatever_the_buffer_and_long_ones_are_cut() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        let lines = |text: &str| {
            fs::write(&path, text).unwrap();
            let mut lines = Vec::new();
            let file = fs::File::open(&path).unwrap();
            visit_lines(file.as_fd(), &mut [0; 8], |line| lines.push(String::from_utf8(line.to_vec()).unwrap()))
                .unwrap();
            lines
        };
        assert_eq!(lines("one\ntwo\n\nseven77\nend"), ["one", "two", "", "seven77", "end"]);
        assert_eq!(lines("much longer than that\neight888\n"), ["much lon", "eight888"]);
        assert_eq!(lines("longer still"), ["longer s"]);
        assert!(lines("").is_empty());
    }

    #[test]
    fn a_file_that_does_not_end_is_an_error() {
        let endless = fs::File::open("/dev/zero").unwrap();
        let mut buffer = Vec::new();
        assert!(read_whole(endless.as_fd(), &mut buffer).is_err() && buffer.capacity() == 0);
        assert!(visit_lines(endless.as_fd(), &mut [0; 4096], |_| ()).is_err());
    }

    #[test]
    fn only_a_regular_file_is_opened_and_nothing_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let (file, fifo, socket) = (root.path().join("file"), root.path().join("fifo"), root.path().join("socket"));
        fs::write(&file, "text").unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(open_regular(&file).is_ok());
        for path in [root.path(), &fifo, &socket, Path::new("/dev/zero"), Path::new("/dev/tty")] {
            assert!(open_regular(path).is_err(), "{}", path.display());
        }
    }

    #[test]
    fn a_file_longer_than_the_buffer_makes_it_grow() {
        let root = tempfile::tempdir().unwrap();
        let text = "0123456789".repeat(2000);
        fs::write(root.path().join("file"), &text).unwrap();
        let file = fs::File::open(root.path().join("file")).unwrap();
        let mut buffer = Vec::new();
        for _ in 0..2 {
            assert_eq!(read_whole(file.as_fd(), &mut buffer).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn a_directory_below_is_listed_and_a_file_has_a_status() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("below/inner")).unwrap();
        fs::write(root.path().join("file"), "four").unwrap();
        let directory = Directory::open(root.path()).unwrap();
        let mut names = BTreeSet::new();
        let named = |name: &str| CString::new(name).unwrap();
        directory.visit(&named("below"), &mut [0; 4096], |entry| assert!(names.insert(entry.name.to_owned()))).unwrap();
        assert!(names.len() == 3 && names.contains(&named("inner")));
        assert_eq!(directory.status(&named("file")).unwrap().size, 4);
        assert!(directory.status(&named("none")).is_err() && !directory.is_procfs());
        assert!(Directory::open(Path::new("/proc")).unwrap().is_procfs());
    }

    #[test]
    fn a_path_too_long_for_its_buffer_is_an_error() {
        assert!(stack_path(&mut [0; 4], format_args!("self")).is_err());
        assert_eq!(stack_path(&mut [0; 5], format_args!("self")).unwrap().to_bytes(), b"self");
    }

    #[test]
    fn a_page_is_a_power_of_two() {
        assert!(page_size().is_power_of_two());
    }
}
