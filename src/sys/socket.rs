//! Connecting to a socket of the file system without waiting, `unix(7)`.

use std::io;
use std::mem::{size_of, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::syscall;

/// Connects a stream that does not block. It fails with EAGAIN when the listener's queue is full, where the standard
/// library's `UnixStream::connect` would wait.
pub(crate) fn connect(path: &Path) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no memory is passed.
    let fd = syscall(|| unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: a `sockaddr_un` is plain integers, for which zeroes are valid.
    let mut address = unsafe { MaybeUninit::<libc::sockaddr_un>::zeroed().assume_init() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let name = path.as_os_str().as_bytes();
    // The zero at the end must fit as well.
    if name.len() >= address.sun_path.len() || name.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in address.sun_path.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `address`, which are all of it.
    syscall(|| unsafe { libc::connect(socket.as_raw_fd(), std::ptr::addr_of!(address).cast(), length) })?;
    Ok(socket)
}

/// Sends all of the data at once, or fails: the socket must not block. A peer that has closed its end is EPIPE, and no
/// SIGPIPE, which would end a host that has not chosen otherwise (`send(2)`).
pub(crate) fn send(socket: BorrowedFd<'_>, data: &[u8]) -> io::Result<()> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the kernel reads at most `data.len()` bytes of `data`.
    let sent = unsafe { libc::send(socket.as_raw_fd(), data.as_ptr().cast(), data.len(), flags) };
    match usize::try_from(sent) {
        Ok(sent) if sent == data.len() => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{signal, SigHandler, Signal};
    use rusty_fork::rusty_fork_test;
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_listener_that_is_too_busy_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let mut connected = Vec::new();
        let error = loop {
            match connect(&path) {
                Ok(socket) => connected.push(socket),
                Err(error) => break error,
            }
        };
        assert!(!connected.is_empty() && error.kind() == io::ErrorKind::WouldBlock, "{error}");
        assert!(connect(&folder.path().join("none")).is_err());
        assert!(connect(Path::new(&"x".repeat(200))).is_err());
    }

    rusty_fork_test! {
        #![rusty_fork(timeout_ms = 600_000)]

        #[test]
        fn a_peer_that_is_gone_is_an_error_and_no_signal() {
            // As in a program that is not written in Rust.
            // SAFETY: no code of ours is run for the signal.
            unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.unwrap();
            let (ours, theirs) = UnixStream::pair().unwrap();
            send(ours.as_fd(), b"heard").unwrap();
            drop(theirs);
            assert_eq!(send(ours.as_fd(), b"not heard").unwrap_err().raw_os_error(), Some(libc::EPIPE));
        }
    }
}
