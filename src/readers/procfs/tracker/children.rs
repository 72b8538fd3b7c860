//! `/proc/<pid>/task/<tid>/children`, proc_pid_task(5): the children that one thread has started, on one line.
//!
//! ```text
//! 4243 4250 4251
//! ```
//!
//! The surprise: it is a list per thread, and it can leave out a live child while one before it in the list is being
//! reaped. So a list that is not empty is read twice, and whoever uses it keeps those it knew until they are seen to be
//! gone. The files are there only with `CONFIG_PROC_CHILDREN`.

use std::io;
use std::os::fd::AsFd;

use crate::readers::procfs::process_table::is_gone_or_hidden;
use crate::readers::procfs::{stat, Source};
use crate::sys::file::{name, read_whole};
use crate::vocabulary::Error;

/// Entries of a `task` directory asked for at once: about a hundred threads.
const TASK_BUFFER: usize = 4096;

/// Reads children, in buffers that are kept.
#[derive(Debug, Default)]
pub(super) struct Children {
    pids: Vec<u32>,
    threads: Vec<u32>,
    text: Vec<u8>,
    entries: Vec<u8>,
}

impl Children {
    /// Whether the kernel has these files.
    pub(super) fn are_listed(&mut self, source: Source<'_>, own: u32) -> bool {
        self.pids.clear();
        self.read_list(source, own, own).is_ok_and(|found| found)
    }

    /// The children of a process, each once; none when it is gone.
    pub(super) fn of(&mut self, source: Source<'_>, pid: u32) -> Result<&[u32], Error> {
        self.pids.clear();
        match threads(source, pid)? {
            0 => {}
            1 => {
                self.read_list(source, pid, pid)?;
            }
            _ => {
                self.list_threads(source, pid)?;
                for index in 0..self.threads.len() {
                    self.read_list(source, pid, self.threads[index])?;
                }
            }
        }
        self.pids.sort_unstable();
        self.pids.dedup();
        Ok(&self.pids)
    }

    /// The first thread comes last: the children of a thread that ends meanwhile become its.
    fn list_threads(&mut self, source: Source<'_>, pid: u32) -> Result<(), Error> {
        self.threads.clear();
        self.entries.resize(TASK_BUFFER, 0);
        let threads = &mut self.threads;
        let visited = name(&mut [0; 32], format_args!("{pid}/task")).and_then(|path| {
            source.root.visit(path, &mut self.entries, |entry| {
                threads.extend(stat::pid(entry.name.to_bytes()).filter(|&thread| thread != pid));
            })
        });
        match visited {
            Ok(()) => self.threads.push(pid),
            Err(error) if is_gone_or_hidden(&error) => self.threads.clear(),
            Err(error) => return Err(Error::read(source.path.join(format!("{pid}/task")), error)),
        }
        Ok(())
    }

    /// Returns false when there is no such file.
    fn read_list(&mut self, source: Source<'_>, pid: u32, thread: u32) -> Result<bool, Error> {
        let path = || source.path.join(format!("{pid}/task/{thread}/children"));
        let Children { pids, text, .. } = self;
        let mut read = || -> io::Result<bool> {
            let file = source.root.open_file(name(&mut [0; 48], format_args!("{pid}/task/{thread}/children"))?)?;
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
            Err(error) if is_gone_or_hidden(&error) => Ok(false),
            Err(error) => Err(Error::read(path(), error)),
        }
    }
}

/// How many threads a process has, the ended first one of a live process included; 0 when it is gone. Its `task`
/// directory has two links more than that.
pub(super) fn threads(source: Source<'_>, pid: u32) -> Result<u64, Error> {
    match name(&mut [0; 32], format_args!("{pid}/task")).and_then(|path| source.root.status(path)) {
        Ok(status) => Ok(status.links.saturating_sub(2)),
        Err(error) if is_gone_or_hidden(&error) => Ok(0),
        Err(error) => Err(Error::read(source.path.join(format!("{pid}/task")), error)),
    }
}

/// Adds the pids of a list; false when it is none.
fn parse(list: &[u8], pids: &mut Vec<u32>) -> bool {
    let fields = list.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    fields.map(|field| stat::pid(field).map(|pid| pids.push(pid))).all(|pushed| pushed.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::procfs::fixture::{process, tree};
    use crate::readers::procfs::Files;
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
        assert!(!Children::default().are_listed(root.source(), 7));
        let root = root.with("7/task/7/children", "8 nine");
        let error = Children::default().of(root.source(), 7).unwrap_err();
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
            let files = Files::default();
            let source = files.source(Path::new("/proc")).unwrap();
            let mut expected: Vec<_> = sleepers.iter().map(|child| child.id()).collect();
            expected.sort_unstable();
            let mut children = Children::default();
            if children.are_listed(source, std::process::id()) {
                assert_eq!(children.of(source, std::process::id()).unwrap(), expected);
            } else {
                println!("skipped: this kernel has no children files");
            }
            for child in &mut sleepers {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            assert!(children.of(source, expected[0]).unwrap().is_empty());
            drop(end);
        }
    }
}
