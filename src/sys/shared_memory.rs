//! Memory that several processes share, and locks on its parts that end with the process which holds them.
//!
//! The locks are POSIX record locks, `fcntl(2)`: the kernel gives them back whichever way their holder ends, they are not
//! inherited by a forked child, and anybody may ask whether a part is locked. Their price: *any* close of the file by the
//! process gives all of them back, so there is one descriptor of a file in a process, and it stays open.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use super::syscall;

/// A file that is mapped, whole and shared.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    /// Closed by `drop` alone, and only while the number is still that of the file.
    file: ManuallyDrop<File>,
    identity: FileIdentity,
    words: NonNull<AtomicU64>,
    count: usize,
}

/// The file system and the number of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    pub(crate) fn of(status: &std::fs::Metadata) -> FileIdentity {
        FileIdentity { device: status.dev(), inode: status.ino() }
    }
}

// SAFETY: the words are atomics in memory that stays mapped for as long as this lives, and belongs to no thread.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

const WORD: usize = std::mem::size_of::<AtomicU64>();

impl SharedMemory {
    /// Memory of so many words, all zero, without a name, whose length nobody can change.
    pub(crate) fn create(name: &CStr, count: usize) -> io::Result<SharedMemory> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: the name ends in a NUL.
        let fd = syscall(|| unsafe { libc::memfd_create(name.as_ptr(), flags) })?;
        // SAFETY: a new descriptor, which nobody else has.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        file.set_len((count * WORD) as u64)?;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: takes numbers alone.
        syscall(|| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
        SharedMemory::map(file, count)
    }

    /// Maps so many words of a file, which is that long.
    pub(crate) fn map(file: File, count: usize) -> io::Result<SharedMemory> {
        let identity = FileIdentity::of(&file.metadata()?);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), count * WORD, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let words = NonNull::new(start.cast::<AtomicU64>()).ok_or_else(|| io::Error::from(io::ErrorKind::Other))?;
        Ok(SharedMemory { file: ManuallyDrop::new(file), identity, words, count })
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: so many words were mapped there, at the beginning of a page, readable and writable for as long as this
        // lives; other processes write them too, which is what atomics are for.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.count) }
    }

    pub(crate) fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// Looks whether the descriptor is still that of the file, and the file is as long as it was.
    pub(crate) fn look_after(&self) -> io::Result<()> {
        let status = self.file.metadata()?;
        if FileIdentity::of(&status) != self.identity {
            return Err(io::Error::new(io::ErrorKind::Other, "its descriptor is another file's"));
        }
        if status.len() != (self.count * WORD) as u64 {
            return Err(io::Error::new(io::ErrorKind::Other, format!("it is {} bytes long now", status.len())));
        }
        Ok(())
    }

    /// Locks the part of this number, until the process ends or unlocks it. `false` if another process has it.
    pub(crate) fn try_lock(&self, part: usize) -> io::Result<bool> {
        match self.lock_call(libc::F_SETLK, libc::F_WRLCK, part) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn unlock(&self, part: usize) -> io::Result<()> {
        self.lock_call(libc::F_SETLK, libc::F_UNLCK, part).map(drop)
    }

    /// Whether another process has locked this part. Of the own locks nothing is said.
    pub(crate) fn is_locked_by_another(&self, part: usize) -> io::Result<bool> {
        // The number of the holder is 0 where it has none in this namespace, so that only the kind tells.
        Ok(self.lock_call(libc::F_GETLK, libc::F_WRLCK, part)?.l_type != libc::F_UNLCK as libc::c_short)
    }

    fn lock_call(&self, command: libc::c_int, kind: libc::c_int, part: usize) -> io::Result<libc::flock> {
        // SAFETY: plain numbers, for which zeroes are valid.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = libc::off_t::try_from(part).unwrap_or(libc::off_t::MAX);
        lock.l_len = 1;
        // SAFETY: the kernel reads one `flock`, and may write it.
        syscall(|| unsafe { libc::fcntl(self.file.as_raw_fd(), command, &mut lock) })?;
        Ok(lock)
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: mapped here, and lent to nobody beyond the life of this.
        unsafe { libc::munmap(self.words.as_ptr().cast(), self.count * WORD) };
        // The host may have closed it, and the number may be another file's by now.
        let is_ours = self.file.metadata().is_ok_and(|status| FileIdentity::of(&status) == self.identity);
        if is_ours {
            // SAFETY: dropped here, once, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.file) };
        }
    }
}

/// The user on whose behalf this process opens files.
pub(crate) fn user() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn memory_without_a_name_is_as_long_as_was_asked_for_and_keeps_its_length() {
        let memory = SharedMemory::create(c_name(), 600).unwrap();
        assert!(memory.words().iter().all(|word| word.load(Relaxed) == 0) && memory.words().len() == 600);
        memory.look_after().unwrap();
        assert!(memory.file.set_len(8).is_err() && memory.file.set_len(1 << 20).is_err());
    }

    #[test]
    fn a_lock_is_not_told_of_to_its_own_process() {
        let memory = SharedMemory::create(c_name(), 600).unwrap();
        assert!(memory.try_lock(3).unwrap() && memory.try_lock(3).unwrap());
        assert!(!memory.is_locked_by_another(3).unwrap());
        memory.unlock(3).unwrap();
    }

    fn c_name() -> &'static CStr {
        CStr::from_bytes_with_nul(b"test\0").unwrap()
    }
}
