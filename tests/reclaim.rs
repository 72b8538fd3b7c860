//! What of a group's memory counts, asked of the kernel itself: a group is filled with one kind of memory, and work of
//! 200 MB must be admitted if, and only if, 200 MB of anonymous memory can then be had in it without a kill.
//!
//! A group belongs to the whole process, so every test has a process of its own. Each says what it skips where the
//! machine lacks the means.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::Path;

use common::groups::{limit_memory, Groups};
use highwater::{ResourceLimits, ResourceMonitor, Work};
use nix::fcntl::{fcntl, FcntlArg};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::sys::mman::{madvise, mlock, mmap, mmap_anonymous, MapFlags, MmapAdvise, ProtFlags};
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::{fork, ForkResult};
use rusty_fork::rusty_fork_test;

const MIB: usize = 1 << 20;

/// A block of private anonymous memory, none of it touched, which is left to the end of the process.
fn block(length: usize) -> &'static mut [u8] {
    let (protection, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
    // SAFETY: a new mapping at no fixed address, which nobody else knows of.
    #[allow(unsafe_code)]
    unsafe {
        let start = mmap_anonymous(None, NonZeroUsize::new(length).unwrap(), protection, flags).unwrap();
        std::slice::from_raw_parts_mut(start.as_ptr().cast::<u8>(), length)
    }
}

fn touch(block: &mut [u8], with: u8) {
    block.iter_mut().step_by(4096).for_each(|byte| *byte = with);
}

/// Whether a child that takes so much memory lives. It is the first to be killed.
fn can_be_had(bytes: usize) -> bool {
    // SAFETY: the child opens and writes one file and touches a mapping of its own, for which it needs no lock.
    #[allow(unsafe_code)]
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let first = fs::write("/proc/self/oom_score_adj", "1000").is_ok();
            touch(block(bytes), 1);
            // SAFETY: `_exit` ends the process and touches nothing.
            unsafe { nix::libc::_exit(i32::from(!first)) }
        }
        ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, code) => {
                assert_eq!(code, 0);
                true
            }
            WaitStatus::Signaled(..) => false,
            other => panic!("{other:?}"),
        },
    }
}

/// Fills a group with that limit, and compares the answer of the gate with the kernel's.
fn is_judged_as_the_kernel_does<T>(limit: usize, fill: impl FnOnce() -> T, can_go: bool) {
    let Some(groups) = Groups::new("memory") else { return };
    limit_memory(&groups.outer, limit as u64);
    groups.enter();
    let filled = fill();
    let monitor = ResourceMonitor::new(ResourceLimits::builder().build().unwrap());
    let memory = monitor.check_now().cgroup_memory.unwrap();
    println!("{memory:?}");
    assert!(memory.raw_bytes > 100 * MIB as u64, "the group is not filled: {memory:?}");
    if can_go {
        assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
    }
    let admitted = monitor.try_admit(Work::new().memory_mb(200));
    assert_eq!((admitted.is_ok(), can_be_had(200 * MIB)), (can_go, can_go), "{admitted:?} {memory:?}");
    drop((admitted, monitor, filled));
}

/// A file on a disk; `None` where the folder is in memory.
fn file_on_disk(length: usize) -> Option<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    if nix::sys::statfs::statfs(file.path()).unwrap().filesystem_type() == nix::sys::statfs::TMPFS_MAGIC {
        println!("skipped: the target folder is in memory");
        return None;
    }
    write(&mut file, length);
    Some(file)
}

/// The same with none of it in the page cache.
fn cold_file(length: usize) -> Option<tempfile::NamedTempFile> {
    let file = file_on_disk(length)?;
    file.as_file().sync_all().unwrap();
    nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    Some(file)
}

fn write(file: &mut impl Write, length: usize) {
    let block = vec![7_u8; MIB];
    for _ in 0..length / MIB {
        file.write_all(&block).unwrap();
    }
}

fn read_through(path: &Path) {
    let mut block = vec![0; MIB];
    let mut file = File::open(path).unwrap();
    while file.read(&mut block).unwrap() > 0 {}
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn page_cache_can_be_had_also_of_files_that_are_read_again_and_again() {
        let Some(file) = cold_file(240 * MIB) else { return };
        is_judged_as_the_kernel_does(256 * MIB, || (0..3).for_each(|_| read_through(file.path())), true);
    }

    #[test]
    fn page_cache_that_is_still_to_be_written_can_be_had() {
        is_judged_as_the_kernel_does(256 * MIB, || file_on_disk(200 * MIB), true);
    }

    /// 200 bytes for each name; how many of them can be given back version 1 does not say.
    #[test]
    fn names_that_were_looked_up_in_vain_can_be_had() {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let look_up = || (0..2_200_000).for_each(|name| assert!(!folder.path().join(name.to_string()).exists()));
        is_judged_as_the_kernel_does(512 * MIB, look_up, true);
    }

    #[test]
    fn a_file_that_is_mapped_can_be_had() {
        let Some(file) = cold_file(220 * MIB) else { return };
        let map = || touched_map(file.as_file(), 220 * MIB);
        is_judged_as_the_kernel_does(256 * MIB, map, true);
    }

    #[test]
    fn a_file_that_is_locked_cannot_be_had() {
        let Some(file) = cold_file(128 * MIB) else { return };
        let lock = || {
            let map = touched_map(file.as_file(), 128 * MIB);
            // SAFETY: the range is that of the mapping, which stays.
            #[allow(unsafe_code)]
            unsafe { mlock(std::ptr::NonNull::from(&map[0]).cast(), map.len()) }.unwrap();
        };
        is_judged_as_the_kernel_does(256 * MIB, lock, false);
    }

    #[test]
    fn anonymous_memory_cannot_be_had() {
        is_judged_as_the_kernel_does(256 * MIB, || touch(block(128 * MIB), 1), false);
    }

    #[test]
    fn memory_that_was_given_up_and_written_again_cannot_be_had() {
        let give_up = || {
            let block = block(128 * MIB);
            touch(block, 1);
            // SAFETY: the advice is about a mapping of our own; what it loses has no meaning.
            #[allow(unsafe_code)]
            unsafe { madvise(std::ptr::NonNull::from(&mut block[0]).cast(), block.len(), MmapAdvise::MADV_FREE) }.unwrap();
            touch(block, 2);
        };
        is_judged_as_the_kernel_does(256 * MIB, give_up, false);
    }

    #[test]
    fn files_in_memory_cannot_be_had() {
        let shared = || {
            let mut file = File::from(memfd_create("reclaim", MFdFlags::MFD_CLOEXEC).unwrap());
            write(&mut file, 128 * MIB);
            file
        };
        is_judged_as_the_kernel_does(256 * MIB, shared, false);
    }

    #[test]
    fn what_the_kernel_holds_for_pipes_cannot_be_had() {
        let pipes = || (0..128).map(|_| full_pipe()).collect::<Vec<_>>();
        is_judged_as_the_kernel_does(256 * MIB, pipes, false);
    }
}

/// A shared mapping of a file, all of it read.
fn touched_map(file: &File, length: usize) -> &'static [u8] {
    let length = NonZeroUsize::new(length).unwrap();
    // SAFETY: a new mapping at no fixed address, of a file that nobody else writes to; it is left to the end of the
    // process.
    #[allow(unsafe_code)]
    let map = unsafe {
        let start = mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file.as_fd(), 0).unwrap();
        std::slice::from_raw_parts(start.as_ptr().cast::<u8>(), length.get())
    };
    assert_eq!(map.iter().step_by(4096).filter(|byte| **byte != 7).count(), 0);
    map
}

/// A pipe with a mebibyte in it.
fn full_pipe() -> (std::os::fd::OwnedFd, std::os::fd::OwnedFd) {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK).unwrap();
    fcntl(&write, FcntlArg::F_SETPIPE_SZ(MIB as i32)).unwrap();
    while nix::unistd::write(&write, &[7; 4096]).is_ok() {}
    (read, write)
}
