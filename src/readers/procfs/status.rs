//! `/proc/<pid>/status`, proc_pid_status(5): a name and a value on each line.
//!
//! ```text
//! Tgid:   4242
//! NSpid:  4242  17  1
//! ```
//!
//! `NSpid` has the numbers of a process in each pid namespace from that of this `/proc` down to its own. The surprises:
//! the numbers under `/proc` are those that system calls take only where there is one of them; and `/proc/<tid>` is
//! there for every thread, though no listing shows it, and seems a process of its own but for its `Tgid`.

use std::os::fd::AsFd;

use super::{stat, Source};
use crate::sys::file::{name, read_at_start};

/// Long enough for what comes before these lines, and for them.
const STATUS_BUFFER: usize = 4096;

/// Whether the numbers under this `/proc` mean the same processes to the system calls of this process. When that cannot
/// be told, the answer is no.
pub(super) fn is_of_own_namespace(source: Source<'_>, own_pid: u32) -> bool {
    let mut buffer = [0; STATUS_BUFFER];
    let status = read(source, own_pid, &mut buffer);
    own_pid == std::process::id() && numbers(status, b"NSpid:").is_some_and(|numbers| numbers.count() == 1)
}

/// Whether the number is that of a process, and not of a thread beside the first one of a process, or of nobody.
pub(super) fn is_process(source: Source<'_>, pid: u32) -> bool {
    let mut buffer = [0; STATUS_BUFFER];
    let status = read(source, pid, &mut buffer);
    numbers(status, b"Tgid:").is_some_and(|mut numbers| numbers.next().and_then(stat::pid) == Some(pid))
}

fn read<'a>(source: Source<'_>, pid: u32, buffer: &'a mut [u8]) -> &'a [u8] {
    let read = name(&mut [0; 32], format_args!("{pid}/status"))
        .and_then(|path| source.root.open_file(path))
        .and_then(|file| read_at_start(file.as_fd(), buffer));
    read.ok().and_then(|length| buffer.get(..length)).unwrap_or_default()
}

/// The values on the line of this name.
fn numbers<'a>(status: &'a [u8], line_name: &[u8]) -> Option<impl Iterator<Item = &'a [u8]>> {
    let mut lines = status.split(|&byte| byte == b'\n');
    let values = lines.find_map(|line| line.strip_prefix(line_name))?;
    Some(values.split(u8::is_ascii_whitespace).filter(|value| !value.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::procfs::fixture::{process, tree};
    use crate::readers::procfs::Files;
    use std::path::Path;

    fn values(status: &[u8], line_name: &[u8]) -> Option<usize> {
        numbers(status, line_name).map(|numbers| numbers.count())
    }

    #[test]
    fn a_line_is_found_by_its_name_and_has_its_values() {
        let status = b"Name:\tx\nTgid:\t7\nNStgid:\t7\nNSpid:\t4242\t17\t1\nEmpty:\t\n";
        assert_eq!((values(status, b"Tgid:"), values(status, b"NSpid:")), (Some(1), Some(3)));
        assert_eq!((values(status, b"Empty:"), values(status, b"None:")), (Some(0), None));
        assert_eq!((values(b"", b"Tgid:"), values(b"\xff\x00", b"Tgid:")), (None, None));
    }

    #[test]
    fn a_thread_beside_the_first_is_no_process() {
        let root = tree(7, [process(7, 1)]).with("7/status", "Tgid:\t7\n").with("8/status", "Tgid:\t7\n");
        assert!(is_process(root.source(), 7) && !is_process(root.source(), 8) && !is_process(root.source(), 9));

        let files = Files::default();
        let source = files.source(Path::new("/proc")).unwrap();
        assert!(is_process(source, std::process::id()));
        // This one is the test's, not the first.
        assert!(!is_process(source, nix::unistd::gettid().as_raw() as u32));
    }
}
