//! Descriptors set aside for the moment when none is left.
//!
//! A shutdown is the moment at which a host is likely to have run out of descriptors, and to end processes some must be
//! opened: a handle, and the file that says whose it is. So a few are held that are good for nothing, and given up when
//! the call that needs one finds none. Another thread of the host may take the place that was made; then the call fails
//! as it would have without.

use std::os::fd::{FromRawFd, OwnedFd};

use super::fork::Mutex;
use super::syscall;

/// A handle, the file that is read beside it, and one for another thread that opens a file at that moment.
const SPARES: usize = 3;

/// The spares of one process. Empty until it is filled.
#[derive(Debug, Default)]
pub(crate) struct Reserve(Mutex<Vec<OwnedFd>>);

impl Reserve {
    /// Sets aside as many as there should be and can be had.
    pub(crate) fn fill(&self) {
        fill(&mut self.0.lock());
    }

    /// Makes a call, and where it fails because there is no descriptor, gives up the spares and makes it again.
    /// `errno` tells the number of the system's error.
    pub(crate) fn lend<T, E>(
        &self,
        mut call: impl FnMut() -> Result<T, E>,
        errno: impl Fn(&E) -> Option<i32>,
    ) -> Result<T, E> {
        match call() {
            Err(error) if is_exhausted(errno(&error)) => {
                let mut spares = self.0.lock();
                if spares.is_empty() {
                    return Err(error);
                }
                spares.clear();
                let result = call();
                fill(&mut spares);
                result
            }
            result => result,
        }
    }
}

/// Returns `true` for the errors that say that no descriptor is left: to this process, or on this machine.
pub(crate) fn is_exhausted(errno: Option<i32>) -> bool {
    matches!(errno, Some(libc::EMFILE | libc::ENFILE))
}

fn fill(spares: &mut Vec<OwnedFd>) {
    while spares.len() < SPARES {
        // SAFETY: no memory is passed.
        let Ok(fd) = syscall(|| unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) }) else { return };
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        spares.push(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Fails with this error until the spares were given up.
    fn fails_once(errno: i32) -> impl FnMut() -> io::Result<u32> {
        let mut calls = 0;
        move || {
            calls += 1;
            if calls > 1 {
                return Ok(calls);
            }
            Err(io::Error::from_raw_os_error(errno))
        }
    }

    #[test]
    fn spares_are_given_up_for_a_call_that_finds_none_and_set_aside_again() {
        let reserve = Reserve::default();
        let held = || reserve.0.lock().len();
        let lend = |errno| reserve.lend(fails_once(errno), io::Error::raw_os_error);
        assert!(lend(libc::EMFILE).is_err(), "there is nothing to give up");
        reserve.fill();
        assert_eq!(held(), SPARES);
        for errno in [libc::EMFILE, libc::ENFILE] {
            assert_eq!(lend(errno).unwrap(), 2);
            assert_eq!(held(), SPARES);
        }
        assert!(lend(libc::ENOENT).is_err(), "a spare is of no help");
    }
}
