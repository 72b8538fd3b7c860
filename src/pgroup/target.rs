//! The checks of a number and a signal before anybody is signalled, and what is told of the outcome.

use std::io;

use crate::host::{contained, events};
use crate::vocabulary::Error;

/// The tree that names the processes that system calls of this process reach.
pub(super) const PROC: &str = "/proc";

/// A number that is that of one other process, and not of many, of init, or of ourselves.
pub(super) fn checked_pid(pid: u32) -> Result<u32, Error> {
    let what = match pid {
        0 => "means every process of a group",
        1 => "is init",
        _ if pid == std::process::id() => "is this process",
        _ if pid > i32::MAX as u32 => "is negative, and means a group",
        _ => return Ok(pid),
    };
    Err(Error::setting(format!("process id {pid} {what}")))
}

pub(super) fn checked_signal(signal: i32) -> Result<(), Error> {
    match signal {
        1..=64 => Ok(()),
        _ => Err(Error::setting(format!("signal {signal} does not exist"))),
    }
}

pub(super) fn report_denied(error: &Error, pid: u32, signal: i32) {
    if error.os_error() == Some(libc::EPERM) {
        call_logger(|| events::signal_denied(pid, signal));
    }
}

pub(super) fn io_error(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::Other, error)
}

/// Writes a line to the log. The logger is code of the host's, which may panic: a line lost is all that comes of it.
pub(super) fn call_logger(line: impl FnOnce()) {
    drop(contained(line));
}
