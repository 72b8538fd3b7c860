//! A sleep that any number of descriptors end, `epoll(7)`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::{interruptible, syscall};

/// The most events that one wait returns; the others are there at the next.
const MOST: usize = 64;

/// There is something to read.
pub(crate) const IN: u32 = libc::EPOLLIN as u32;

/// There is something to read, or room to write.
pub(crate) const EITHER: u32 = (libc::EPOLLIN | libc::EPOLLOUT) as u32;

/// The descriptors that are waited for, each with a number of the caller's.
#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    pub(crate) fn new() -> io::Result<Epoll> {
        // SAFETY: no memory is passed.
        let fd = syscall(|| unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Waits from now on for the descriptor to become readable, until it is closed: every time, or `once`.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, number: u64, once: bool) -> io::Result<()> {
        let once = if once { libc::EPOLLONESHOT } else { 0 };
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | once) as u32, u64: number };
        let (epoll, fd) = (self.0.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: the kernel reads one `epoll_event`, and keeps no address of it.
        syscall(|| unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event) }).map(drop)
    }

    /// Waits from now on for changes: each time that the descriptor becomes ready in one of these ways ([`IN`],
    /// [`EITHER`]), or data comes. It is told once at the beginning if it is.
    pub(crate) fn add_edges(&self, fd: BorrowedFd<'_>, number: u64, ways: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: ways | libc::EPOLLET as u32, u64: number };
        let (epoll, fd) = (self.0.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: the kernel reads one `epoll_event`, and keeps no address of it.
        syscall(|| unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event) }).map(drop)
    }

    /// Waits for the descriptor no more. Needed before it is closed where others have its open file description too.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        let (epoll, fd) = (self.0.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: no memory is passed. An error: it was not waited for.
        let _ = syscall(|| unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) });
    }

    /// Waits until one of the descriptors is ready, for `timeout` at most (rounded up to milliseconds), or for no
    /// reason at all. The numbers of those that are ready replace what was in `readable`.
    pub(crate) fn wait(&self, readable: &mut Vec<u64>, timeout: Duration) -> io::Result<()> {
        readable.clear();
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; MOST];
        let millis = timeout.as_nanos().saturating_add(999_999) / 1_000_000;
        let millis = libc::c_int::try_from(millis).unwrap_or(libc::c_int::MAX);
        let epoll = self.0.as_raw_fd();
        // SAFETY: the kernel writes at most `MOST` events, which is what there is room for.
        let found =
            interruptible(|| unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), MOST as libc::c_int, millis) });
        match found {
            Ok(found) => {
                readable.extend(events[..super::count(found)].iter().map(|event| event.u64));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::poll::EventFd;
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn readable_descriptors_are_told_by_their_numbers_every_time_or_once() {
        let epoll = Epoll::new().unwrap();
        let (each_time, once) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        epoll.add(each_time.as_fd(), 1, false).unwrap();
        epoll.add(once.as_fd(), 2, true).unwrap();
        let mut readable = vec![7];
        epoll.wait(&mut readable, Duration::ZERO).unwrap();
        assert!(readable.is_empty());
        each_time.signal();
        once.signal();
        // Without them, this would take weeks.
        epoll.wait(&mut readable, Duration::MAX).unwrap();
        readable.sort_unstable();
        assert_eq!(readable, [1, 2]);
        epoll.wait(&mut readable, Duration::from_secs(120)).unwrap();
        assert_eq!(readable, [1]);
        drop(each_time);
        epoll.wait(&mut readable, Duration::from_nanos(1)).unwrap();
        assert!(readable.is_empty());
    }
}
