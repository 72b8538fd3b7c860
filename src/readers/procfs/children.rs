//! `/proc/<pid>/task/<tid>/children`, proc_pid_task(5): the children that one thread has started, on one line.
//!
//! ```text
//! 4243 4250 4251
//! ```
//!
//! The surprise: it is a list per thread, and it can leave out a live child while one before it in the list is being
//! reaped. So a list that is not empty is read twice, and its users keep those that they knew until they are seen to be
//! gone. The files are there only with `CONFIG_PROC_CHILDREN`.

use std::io;
use std::os::fd::AsFd;

use super::process_table::is_gone_or_concealed;
use super::{stat, tasks, ProcRoot};
use crate::sys::file::{read_whole, stack_path};
use crate::vocabulary::Error;

/// Entries of a `task` directory asked for at once: about a hundred threads.
const TASK_BUFFER: usize = 4096;

/// The reader of these lists, with its buffers, which are kept.
#[derive(Debug, Default)]
pub(super) struct Children {
    pids: Vec<u32>,
    threads: Vec<u32>,
    text: Vec<u8>,
    entries: Vec<u8>,
}

impl Children {
    /// Returns `true` if the kernel has these files.
    pub(super) fn are_listed(&mut self, root: ProcRoot<'_>, own: u32) -> bool {
        self.pids.clear();
        self.read_list(root, own, own).is_ok_and(|found| found)
    }

    /// The children of a process, each once; none when it is gone.
    pub(super) fn of(&mut self, root: ProcRoot<'_>, pid: u32) -> Result<&[u32], Error> {
        self.pids.clear();
        match tasks::count(root, pid)? {
            0 => {}
            1 => {
                self.read_list(root, pid, pid)?;
            }
            _ => {
                self.list_threads(root, pid)?;
                for index in 0..self.threads.len() {
                    self.read_list(root, pid, self.threads[index])?;
                }
            }
        }
        self.pids.sort_unstable();
        self.pids.dedup();
        Ok(&self.pids)
    }

    /// Lists the threads with the first one last: it is given the children of a thread that ends meanwhile.
    fn list_threads(&mut self, root: ProcRoot<'_>, pid: u32) -> Result<(), Error> {
        self.threads.clear();
        self.entries.resize(TASK_BUFFER, 0);
        let Children { threads, entries, .. } = self;
        tasks::visit(root, pid, entries, |thread| threads.extend(Some(thread).filter(|&thread| thread != pid)))?;
        threads.push(pid);
        Ok(())
    }

    /// Adds the children of one thread. Returns `false` when there is no such file.
    fn read_list(&mut self, root: ProcRoot<'_>, pid: u32, thread: u32) -> Result<bool, Error> {
        let path = || root.path.join(format!("{pid}/task/{thread}/children"));
        let Children { pids, text, .. } = self;
        let mut read = || -> io::Result<bool> {
            let file =
                root.directory.open_file(stack_path(&mut [0; 48], format_args!("{pid}/task/{thread}/children"))?)?;
            for _ in 0..2 {
                let list = read_whole(file.as_fd(), text)?;
                if list.is_empty() {
                    break;
                }
                if !parse(list, pids) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        match read() {
            Ok(true) => Ok(true),
            Ok(false) => Err(Error::malformed(path(), "it is not a list of process ids")),
            Err(error) if is_gone_or_concealed(&error) => Ok(false),
            Err(error) => Err(Error::read(path(), error)),
        }
    }
}

/// Adds the pids of a list; `false` when it is no list of them.
fn parse(list: &[u8], pids: &mut Vec<u32>) -> bool {
    let fields = list.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    fields.map(|field| stat::pid(field).map(|pid| pids.push(pid))).all(|pushed| pushed.is_some())
}

/// What is a list is numbers that can be those of processes, all of them.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let mut pids = Vec::new();
    if parse(bytes, &mut pids) {
        let words: Vec<_> = pids.iter().map(u32::to_string).collect();
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(text.split_ascii_whitespace().collect::<Vec<_>>(), words);
    }
    assert!(!pids.contains(&0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::fixture::{process, tree};
    use crate::readers::procfs::ProcFiles;
    use crate::vocabulary::ErrorKind;
    use rusty_fork::rusty_fork_test;
    use std::path::Path;

    #[test]
    fn a_list_is_pids_and_nothing_else() {
        let mut pids = Vec::new();
        assert!(parse(b"4243 4250 4251 ", &mut pids) && parse(b"", &mut pids) && parse(b"7", &mut pids));
        assert_eq!(pids, [4243, 4250, 4251, 7]);
        for list in [&b"x"[..], b"4243 0", b"-1 ", b"4294967296", b"\xff\x00"] {
            assert!(!parse(list, &mut Vec::new()), "{}", list.escape_ascii());
        }
    }

    #[test]
    fn a_tree_without_the_files_has_none_listed_and_one_that_lies_is_an_error() {
        let root = tree(7, [process(7, 1)]);
        assert!(!Children::default().are_listed(root.proc_root(), 7));
        let root = root.with("7/task/7/children", "8 nine");
        let error = Children::default().of(root.proc_root(), 7).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Malformed, Some(&*root.path().join("7/task/7/children"))));
    }

    rusty_fork_test! {
        #![rusty_fork(timeout_ms = 600_000)]

        #[test]
        fn the_children_of_every_thread_are_found() {
            let sleeper = || std::process::Command::new("sleep").arg("1000").spawn().unwrap();
            let (spawned, other) = std::sync::mpsc::channel();
            let (end, ended) = std::sync::mpsc::channel::<()>();
            std::thread::spawn(move || {
                spawned.send(sleeper()).unwrap();
                let _ = ended.recv();
            });
            let mut sleepers = [sleeper(), other.recv().unwrap()];
            let files = ProcFiles::default();
            let root = files.root(Path::new("/proc")).unwrap();
            let mut expected: Vec<_> = sleepers.iter().map(|child| child.id()).collect();
            expected.sort_unstable();
            let mut children = Children::default();
            if children.are_listed(root, std::process::id()) {
                assert_eq!(children.of(root, std::process::id()).unwrap(), expected);
            } else {
                println!("skipped: this kernel has no children files");
            }
            for child in &mut sleepers {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            assert!(children.of(root, expected[0]).unwrap().is_empty());
            drop(end);
        }
    }
}
