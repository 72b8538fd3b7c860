//! Waiting for descriptors, `poll(2)`, and one that a thread can make ready itself, `eventfd(2)`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::{errno, interruptible, syscall};

/// An event to wait for at a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Data to read.
    Input,
    /// News of a file of the kernel's, which has data to read at any time.
    Priority,
}

/// The answer of a poll about one descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ready {
    /// The event that was waited for.
    pub(crate) event: bool,
    /// An error, which is there for good: each further wait ends at once.
    pub(crate) error: bool,
}

impl Ready {
    pub(crate) fn any(self) -> bool {
        self.event || self.error
    }
}

/// Waits until one of the descriptors has its event or an error, or for `timeout`, or for no reason at all. As many
/// descriptors are asked as `ready` has places, which are filled in their order.
///
/// It fails, and does not wait, when there are more descriptors than `RLIMIT_NOFILE` allows by now.
pub(crate) fn poll<'a>(
    fds: impl Iterator<Item = (BorrowedFd<'a>, Interest)>,
    ready: &mut [Ready],
    timeout: Duration,
) -> io::Result<()> {
    const MOST: usize = 8;
    ready.fill(Ready::default());
    let mut polled = [libc::pollfd { fd: -1, events: 0, revents: 0 }; MOST];
    let mut count = 0;
    for ((fd, interest), polled) in fds.take(ready.len()).zip(&mut polled) {
        polled.fd = fd.as_raw_fd();
        polled.events = match interest {
            Interest::Input => libc::POLLIN,
            Interest::Priority => libc::POLLPRI,
        };
        count += 1;
    }
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs().min(3600) as libc::time_t,
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    };
    // SAFETY: `polled` has at least `count` entries, which the kernel reads and writes during the call; it only reads
    // the timeout; no signal mask is passed. The descriptors are borrowed for the whole call.
    let answered = interruptible(|| unsafe {
        libc::ppoll(polled.as_mut_ptr(), count as libc::nfds_t, &timeout, std::ptr::null())
    });
    match answered {
        Ok(0) => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
        Err(error) => return Err(error),
    }
    for (ready, polled) in ready.iter_mut().zip(&polled[..count]) {
        let has = |event| polled.revents & event != 0;
        let error = has(libc::POLLERR | libc::POLLHUP | libc::POLLNVAL);
        *ready = Ready { event: has(polled.events), error };
    }
    Ok(())
}

/// A descriptor that threads make ready themselves: from a call of `signal` to one of `clear`.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> io::Result<EventFd> {
        // SAFETY: no memory is passed.
        let fd = syscall(|| unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes it ready, in one system call. That fails only when 2^64 calls were not cleared: then it is ready already.
    pub(crate) fn signal(&self) {
        let one = 1_u64;
        // Not `write(3)`, at which the caller's thread may be cancelled.
        errno::kept(|| {
            // SAFETY: the kernel reads the eight bytes of `one`.
            unsafe {
                libc::syscall(libc::SYS_write, self.0.as_raw_fd(), std::ptr::addr_of!(one), std::mem::size_of_val(&one))
            }
        });
    }

    /// Makes it unready, however often it was signalled.
    pub(crate) fn clear(&self) {
        let mut count = 0_u64;
        // SAFETY: the kernel writes at most the eight bytes of `count`.
        unsafe { libc::read(self.0.as_raw_fd(), std::ptr::addr_of_mut!(count).cast(), std::mem::size_of_val(&count)) };
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_ready_from_signal_to_clear() {
        let (first, second) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        let mut ready = [Ready::default(); 2];
        let mut poll = |timeout| {
            let fds = [&first, &second].map(|event| (event.as_fd(), Interest::Input));
            poll(fds.into_iter(), &mut ready, timeout).unwrap();
            ready.map(Ready::any)
        };
        assert_eq!(poll(Duration::ZERO), [false, false]);
        second.signal();
        second.signal();
        // Without it, this would take an hour.
        assert_eq!(poll(Duration::MAX), [false, true]);
        second.clear();
        assert_eq!(poll(Duration::from_millis(1)), [false, false]);
    }

    #[test]
    fn only_what_is_waited_for_ends_the_wait() {
        let event = EventFd::new().unwrap();
        event.signal();
        let mut ready = [Ready::default()];
        poll([(event.as_fd(), Interest::Priority)].into_iter(), &mut ready, Duration::from_millis(1)).unwrap();
        assert!(!ready[0].any());
    }
}
