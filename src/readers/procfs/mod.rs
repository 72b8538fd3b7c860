//! What `/proc` says, of this process and of those that descend from it.

pub(crate) mod descendants;
pub(crate) mod meminfo;
pub(crate) mod process_table;
pub(crate) mod stat;
pub(crate) mod statm;
mod status;
mod tracker;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use parking_lot::Mutex;

use self::descendants::Descendants;
use self::process_table::ProcessTable;
use self::stat::Process;
use self::tracker::Tracker;
use crate::sys::file::{name, page_size, read_line, Directory};
use crate::vocabulary::{Error, MemoryScope};

/// The files of `/proc`, and its path, for errors to name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    root: &'a Directory,
    path: &'a Path,
}

impl Source<'_> {
    fn unlisted(self, error: io::Error) -> Error {
        Error::read(self.path.to_owned(), error)
    }

    /// The listing is not of this process's kernel, or is not whole.
    fn without_us(self, own_pid: u32) -> Error {
        Error::malformed(self.path.to_owned(), &format!("it does not list {own_pid}, this process"))
    }
}

/// The descriptors and buffers of one process. Each is opened when first needed and then kept, so that it outlives a
/// `chroot`, a dropped privilege and a full table of descriptors; what could not be opened is tried again next time.
///
/// Good only in the process that opened them: `self/statm` is that of the opener, and a listing's offset is shared.
#[derive(Debug, Default)]
pub(crate) struct Files {
    root: OnceLock<Directory>,
    own_pid: OnceLock<u32>,
    statm: OnceLock<OwnedFd>,
    /// Whether the tree is the kernel's, and its process ids are those that system calls take.
    is_own_kernels: OnceLock<bool>,
    scanner: Mutex<Scanner>,
    tracker: Mutex<Tracker>,
}

#[derive(Debug, Default)]
struct Scanner {
    table: ProcessTable,
    descendants: Descendants,
}

impl Files {
    /// The resident memory of this process, in bytes.
    pub(crate) fn own_memory(&self, path: &Path) -> Result<u64, Error> {
        let statm_path = || path.join("self/statm");
        let statm = get_or_open(&self.statm, || {
            let root = self.root(path)?;
            let open = || root.open_file(name(&mut [0; 16], format_args!("self/statm"))?);
            open().map_err(|error| Error::read(statm_path(), error))
        })?;
        // Seven numbers of up to 20 digits.
        let mut buffer = [0; 256];
        let length = read_line(statm.as_fd(), &mut buffer).map_err(|error| Error::read(statm_path(), error))?;
        let pages = match buffer.get(..length) {
            Some(line) if length < buffer.len() => statm::parse(line),
            _ => Err("it is too long"),
        };
        pages.map(bytes).map_err(|what| Error::malformed(statm_path(), what))
    }

    /// Reads every process that can be seen, and has `judge` look at them, in ascending order of process id.
    pub(crate) fn processes<T>(&self, path: &Path, judge: impl FnOnce(&[Process]) -> T) -> Result<T, Error> {
        self.scan(path, |table, _, own_pid| descendants::index_of(table, own_pid).map(|_| judge(table)))
    }

    /// Reads every process that can be seen, and has `judge` look at those that descend from this one, in ascending
    /// order of process id.
    pub(crate) fn descendants<T>(
        &self,
        path: &Path,
        judge: impl FnOnce(&mut dyn Iterator<Item = &Process>) -> T,
    ) -> Result<T, Error> {
        self.scan(path, |table, descendants, own_pid| {
            descendants.find(table, own_pid).map(|mut found| judge(&mut found))
        })
    }

    /// One process, or `None` when it is gone or hidden.
    pub(crate) fn process(&self, path: &Path, pid: u32) -> Result<Option<Process>, Error> {
        process_table::read_process(self.source(path)?, pid)
    }

    /// Whether the numbers of this tree are those that system calls of this process take.
    pub(crate) fn is_of_own_kernel(&self, path: &Path) -> Result<bool, Error> {
        self.is_own_kernels(path, self.own_pid(path)?)
    }

    /// As [`descendants`](Self::descendants), but for the memory, which is read in scope `Tree` alone, and for the
    /// cost: reads only what can have changed since the last call, where the kernel can be asked for that.
    pub(crate) fn tracked<T>(
        &self,
        path: &Path,
        scope: MemoryScope,
        judge: impl FnOnce(&mut dyn Iterator<Item = &Process>) -> T,
    ) -> Result<T, Error> {
        let own_pid = self.own_pid(path)?;
        if self.is_own_kernels(path, own_pid)? {
            // Two checks at once must not share an offset, and none waits: the second one scans.
            if let Some(mut tracker) = self.tracker.try_lock() {
                let found = tracker.check(self.source(path)?, own_pid, scope)?;
                return Ok(judge(&mut found.iter().map(|known| &known.process)));
            }
        }
        self.descendants(path, judge)
    }

    /// Has `judge` look at a fresh table; it says `None` when this process is not in it.
    fn scan<T>(
        &self,
        path: &Path,
        judge: impl FnOnce(&[Process], &mut Descendants, u32) -> Option<T>,
    ) -> Result<T, Error> {
        let own_pid = self.own_pid(path)?;
        let source = self.source(path)?;
        let scan = |Scanner { table, descendants }: &mut Scanner| {
            judge(table.scan(source)?, descendants, own_pid).ok_or_else(|| source.without_us(own_pid))
        };
        // Whoever finds the kept buffers in use makes some: two scans at once must not share an offset, and none waits.
        match self.scanner.try_lock() {
            Some(mut kept) => scan(&mut kept),
            None => scan(&mut Scanner::default()),
        }
    }

    /// How many descriptors this process has open; `None` where there is no such folder. Since Linux 6.2 its size tells
    /// (proc_pid_fd(5)).
    pub(crate) fn open_files(&self, path: &Path) -> Result<Option<u64>, Error> {
        let root = self.root(path)?;
        let count = || {
            let mut buffer = [0; 16];
            let folder = name(&mut buffer, format_args!("self/fd"))?;
            match root.status(folder)?.size {
                size @ 1.. if root.is_procfs() => Ok(size),
                _ => {
                    let mut entries = 0_u64;
                    root.visit(folder, &mut [0; 4096], |_| entries += 1)?;
                    // `.`, `..`, and the descriptor that lists.
                    Ok(entries.saturating_sub(3))
                }
            }
        };
        present(count()).map_err(|error| Error::read(path.join("self/fd"), error))
    }

    /// How many threads this process has: its folder of tasks has so many links and two more.
    pub(crate) fn threads(&self, path: &Path) -> Option<u64> {
        let root = self.root(path).ok()?;
        let folder = root.status(name(&mut [0; 16], format_args!("self/task")).ok()?).ok()?;
        folder.links.checked_sub(2)
    }

    fn source<'a>(&'a self, path: &'a Path) -> Result<Source<'a>, Error> {
        Ok(Source { root: self.root(path)?, path })
    }

    fn is_own_kernels(&self, path: &Path, own_pid: u32) -> Result<bool, Error> {
        let is_own_kernels = get_or_open(&self.is_own_kernels, || {
            let source = self.source(path)?;
            Ok(source.root.is_procfs() && status::is_of_own_namespace(source, own_pid))
        })?;
        Ok(*is_own_kernels)
    }

    fn root(&self, path: &Path) -> Result<&Directory, Error> {
        get_or_open(&self.root, || Directory::open(path).map_err(|error| Error::read(path.to_owned(), error)))
    }

    /// What this process is called in the pid namespace of this `/proc`, which need not be its own: `getpid` would not
    /// do.
    fn own_pid(&self, path: &Path) -> Result<u32, Error> {
        let own_pid = get_or_open(&self.own_pid, || {
            let root = self.root(path)?;
            let mut target = [0; 16];
            let read = name(&mut [0; 8], format_args!("self")).and_then(|link| root.read_link(link, &mut target));
            let length = read.map_err(|error| Error::read(path.join("self"), error))?;
            let pid = target.get(..length).and_then(stat::pid);
            pid.ok_or_else(|| Error::malformed(path.join("self"), "it does not point to a process"))
        })?;
        Ok(*own_pid)
    }
}

#[cfg(test)]
impl Files {
    /// How many processes need not be read again because they do not descend from this one.
    pub(crate) fn strangers(&self) -> usize {
        self.tracker.lock().strangers()
    }
}

/// `None` for a file that is not there.
fn present<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// The bytes in that many pages.
pub(crate) fn bytes(pages: u64) -> u64 {
    pages.saturating_mul(page_size())
}

/// A failure is kept by nobody: the next call tries again.
fn get_or_open<T>(cell: &OnceLock<T>, open: impl FnOnce() -> Result<T, Error>) -> Result<&T, Error> {
    match cell.get() {
        Some(kept) => Ok(kept),
        None => {
            let opened = open()?;
            Ok(cell.get_or_init(|| opened))
        }
    }
}

/// Trees like `/proc`, laid out in one statement: `tree(7, [process(7, 1), process(8, 7).state('Z')])`.
#[cfg(test)]
pub(crate) mod fixture {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use tempfile::TempDir;

    use super::Source;
    use crate::sys::file::Directory;

    pub(crate) struct Tree(TempDir, Directory);

    /// A tree whose `self` is `own`, which has 50 resident pages.
    pub(crate) fn tree(own: u32, lines: impl IntoIterator<Item = Line>) -> Tree {
        let folder = tempfile::tempdir().unwrap();
        let root = Directory::open(folder.path()).unwrap();
        let tree = Tree(folder, root);
        symlink(own.to_string(), tree.path().join("self")).unwrap();
        let tree = tree.with(&format!("{own}/statm"), "900 50 30 10 0 20 0\n");
        lines.into_iter().fold(tree, |tree, line| tree.with(&format!("{}/stat", line.pid), &line.line()))
    }

    impl Tree {
        pub(crate) fn path(&self) -> &Path {
            self.0.path()
        }

        pub(crate) fn source(&self) -> Source<'_> {
            Source { root: &self.1, path: self.path() }
        }

        pub(crate) fn with(self, path: &str, text: &str) -> Tree {
            let path = self.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        pub(crate) fn without(self, path: &str) -> Tree {
            fs::remove_file(self.path().join(path)).unwrap();
            self
        }
    }

    /// A `stat` file to be.
    pub(crate) struct Line {
        pid: u32,
        parent: u32,
        group: u32,
        state: char,
        threads: u32,
        start_ticks: u64,
        pages: u64,
    }

    /// A process that sleeps in a group of its own, started at the tick of its number, with 10 resident pages.
    pub(crate) fn process(pid: u32, parent: u32) -> Line {
        Line { pid, parent, group: pid, state: 'S', threads: 1, start_ticks: pid.into(), pages: 10 }
    }

    impl Line {
        pub(crate) fn state(self, state: char) -> Line {
            Line { state, ..self }
        }

        pub(crate) fn threads(self, threads: u32) -> Line {
            Line { threads, ..self }
        }

        pub(crate) fn started(self, start_ticks: u64) -> Line {
            Line { start_ticks, ..self }
        }

        pub(crate) fn group(self, group: u32) -> Line {
            Line { group, ..self }
        }

        pub(crate) fn pages(self, pages: u64) -> Line {
            Line { pages, ..self }
        }

        pub(crate) fn line(&self) -> String {
            let Line { pid, parent, group, state, threads, start_ticks, pages } = self;
            format!(
                "{pid} (a) Z 1 (x\n) {state} {parent} {group} {group} 0 -1 4194560 1 0 0 0 3 1 0 0 20 0 {threads} 0 \
                 {start_ticks} 5562368 {pages} 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0\n"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::{process, tree};
    use super::*;

    #[test]
    fn a_scan_within_a_scan_sees_everything_and_so_does_the_outer() {
        let root = tree(7, (8..60).map(|pid| process(pid, 7)).chain([process(7, 1)]));
        let files = Files::default();
        let count = |found: &mut dyn Iterator<Item = &Process>| found.count();
        for _ in 0..2 {
            let both = files.descendants(root.path(), |outer| (files.descendants(root.path(), count), outer.count()));
            assert!(matches!(both, Ok((Ok(52), 52))));
        }
    }

    #[test]
    fn what_could_not_be_opened_is_tried_again() {
        let root = tree(7, [process(7, 1)]).without("7/statm").without("self");
        let files = Files::default();
        assert!(files.own_memory(root.path()).is_err());
        assert!(files.descendants(root.path(), |_| ()).is_err());
        std::os::unix::fs::symlink("7", root.path().join("self")).unwrap();
        let root = root.with("7/statm", "9 5 3 1 0 2 0\n");
        assert_eq!(files.own_memory(root.path()).unwrap(), bytes(5));
        assert!(files.descendants(root.path(), |_| ()).is_ok());
    }
}
