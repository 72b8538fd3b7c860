//! `/proc/<pid>/status`, proc_pid_status(5): here its line `NSpid`, the numbers of a process in each pid namespace from
//! that of this `/proc` down to its own.
//!
//! ```text
//! NSpid:  4242  17  1
//! ```
//!
//! The surprise: the numbers under `/proc` are those that system calls take only where there is one of them.

use std::os::fd::AsFd;

use super::Source;
use crate::sys::file::{name, read_at_start};

/// Long enough for what comes before the line, and for the line.
const STATUS_BUFFER: usize = 4096;

/// Whether the numbers under this `/proc` mean the same processes to the system calls of this process. When that cannot be
/// told, the answer is no.
pub(super) fn is_of_own_namespace(source: Source<'_>, own_pid: u32) -> bool {
    let mut buffer = [0; STATUS_BUFFER];
    let read = name(&mut [0; 16], format_args!("self/status"))
        .and_then(|path| source.root.open_file(path))
        .and_then(|file| read_at_start(file.as_fd(), &mut buffer));
    let status = read.ok().and_then(|length| buffer.get(..length)).unwrap_or_default();
    has_one_pid(status) && own_pid == std::process::id()
}

fn has_one_pid(status: &[u8]) -> bool {
    let mut lines = status.split(|&byte| byte == b'\n');
    lines
        .find_map(|line| line.strip_prefix(b"NSpid:"))
        .is_some_and(|pids| pids.split(u8::is_ascii_whitespace).filter(|pid| !pid.is_empty()).count() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_is_the_own_namespace_and_anything_else_is_not() {
        assert!(has_one_pid(b"Name:\tx\nNStgid:\t7\nNSpid:\t4242\nNSpgid:\t7\n"));
        for status in [&b"Name:\tx\nNSpid:\t4242\t1\n"[..], b"Name:\tx\nNSpid:\t\n", b"Name:\tx\n", b"", b"\xff"] {
            assert!(!has_one_pid(status), "{}", status.escape_ascii());
        }
    }
}
