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

use super::{stat, ProcRoot};
use crate::sys::file::{read_at_start, stack_path};

/// Room for these lines, and for all that comes before them.
const STATUS_BUFFER: usize = 4096;

/// Returns `true` if the numbers under this `/proc` mean the same processes to the system calls of this process. When
/// that cannot be told, the answer is no.
pub(super) fn is_of_own_namespace(root: ProcRoot<'_>, own_pid: u32) -> bool {
    let mut buffer = [0; STATUS_BUFFER];
    let status = read(root, own_pid, &mut buffer);
    own_pid == std::process::id() && numbers(status, b"NSpid:").is_some_and(|numbers| numbers.count() == 1)
}

/// Returns `true` if the number is that of a process, and not of a thread beside the first one, or of nobody.
pub(super) fn is_process(root: ProcRoot<'_>, pid: u32) -> bool {
    let mut buffer = [0; STATUS_BUFFER];
    let status = read(root, pid, &mut buffer);
    numbers(status, b"Tgid:").is_some_and(|mut numbers| numbers.next().and_then(stat::pid) == Some(pid))
}

fn read<'a>(root: ProcRoot<'_>, pid: u32, buffer: &'a mut [u8]) -> &'a [u8] {
    let read = stack_path(&mut [0; 32], format_args!("{pid}/status"))
        .and_then(|path| root.directory.open_file(path))
        .and_then(|file| read_at_start(file.as_fd(), buffer));
    read.ok().and_then(|length| buffer.get(..length)).unwrap_or_default()
}

/// The values on the line of this name.
fn numbers<'a>(status: &'a [u8], line_name: &[u8]) -> Option<impl Iterator<Item = &'a [u8]>> {
    let mut lines = status.split(|&byte| byte == b'\n');
    let values = lines.find_map(|line| line.strip_prefix(line_name))?;
    Some(values.split(u8::is_ascii_whitespace).filter(|value| !value.is_empty()))
}

/// Values are words, and those of one line whatever other lines there are.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    for name in [&b"Tgid:"[..], b"NSpid:"] {
        let values = |status| numbers(status, name).map(|values| values.map(<[u8]>::to_vec).collect::<Vec<_>>());
        let found = values(bytes);
        assert_eq!(found, values(&crate::laws::after_a_line("Name:\tTgid: 1", bytes)));
        let is_word = |value: &Vec<u8>| !value.is_empty() && !value.iter().any(u8::is_ascii_whitespace);
        assert!(found.iter().flatten().all(is_word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::fixture::{process, tree};
    use crate::readers::procfs::ProcFiles;
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
        assert!(
            is_process(root.proc_root(), 7) && !is_process(root.proc_root(), 8) && !is_process(root.proc_root(), 9)
        );

        let files = ProcFiles::default();
        let root = files.root(Path::new("/proc")).unwrap();
        assert!(is_process(root, std::process::id()));
        // This one is the test's, not the first.
        assert!(!is_process(root, nix::unistd::gettid().as_raw() as u32));
    }
}
