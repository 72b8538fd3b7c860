//! The readings of one process, and what it keeps open for them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use parking_lot::Mutex;

use super::children::Children;
use super::descendants::{self, Descendants};
use super::process_table::{self, Listed, ProcessTable};
use super::sharing::Sharing;
use super::stat::{self, Process};
use super::subtrees::Subtrees;
use super::tracker::Tracker;
use super::{statm, status, tasks, ProcRoot};
use crate::sys::child::{self, Child};
use crate::sys::file::{page_size, stack_path, Directory};
use crate::vocabulary::{Error, Identity, MemoryScope, Subtree};

/// The descriptors and buffers of one process. Each is opened when first needed and then kept, so that it outlives a
/// `chroot`, a dropped privilege and a full table of descriptors. A failure is not kept: the next call tries again.
///
/// They are good only in the process that opened them: `self/statm` is that of the opener, and the offset of a listing
/// is shared with the parent after a fork.
#[derive(Debug, Default)]
pub(crate) struct ProcFiles {
    directory: OnceLock<Directory>,
    own_pid: OnceLock<u32>,
    statm: OnceLock<OwnedFd>,
    /// Set where the tree is the kernel's, and its process ids are those that system calls take.
    is_own_kernels: OnceLock<bool>,
    scanner: Mutex<Scanner>,
    tracker: Mutex<Tracker>,
    sharing: Mutex<Sharing>,
    subtrees: Mutex<Subtrees>,
}

#[derive(Debug, Default)]
struct Scanner {
    table: ProcessTable,
    descendants: Descendants,
    /// The descendants that the last scan has found.
    known: Vec<Listed>,
}

/// The depth below us at which a process is looked for: deeper than any tree of processes is.
const DEEPEST: usize = 1 << 16;

impl ProcFiles {
    /// The resident memory of this process, in bytes.
    ///
    /// `self` is the first thread. Once that has ended before the others it shows nothing, also through a descriptor
    /// from before; the calling thread lives. It is not kept, because it may end as well.
    pub(crate) fn own_memory(&self, path: &Path) -> Result<u64, Error> {
        let root = self.root(path)?;
        let open = |file: &str| {
            let open = || root.directory.open_file(stack_path(&mut [0; 32], format_args!("{file}"))?);
            open().map_err(|error| Error::read(path.join(file), error))
        };
        let read = |file: &str, statm: &OwnedFd| {
            let pages = statm::read(statm.as_fd()).map_err(|error| Error::read(path.join(file), error))?;
            pages.map_err(|what| Error::malformed(path.join(file), what))
        };
        let (first, calling) = ("self/statm", "thread-self/statm");
        let mut pages = read(first, get_or_open(&self.statm, || open(first))?)?;
        if pages == 0 {
            pages = match open(calling) {
                Err(error) if error.os_error() == Some(libc::ENOENT) => 0,
                opened => read(calling, &opened?)?,
            };
        }
        if pages == 0 {
            return Err(Error::malformed(path.join(first), "it says that nothing is resident"));
        }
        Ok(bytes(pages))
    }

    /// Has `judge` look at every process that can be seen, in ascending order of process id.
    pub(crate) fn processes<T>(&self, path: &Path, judge: impl FnOnce(&[Process]) -> T) -> Result<T, Error> {
        self.scan(path, |scanner, own_pid| {
            let table = scanner.table.processes();
            descendants::index_of(table, own_pid).map(|_| judge(table))
        })
    }

    /// The numbers of all processes that can be seen, ascending. Opens nothing, once a scan has opened the listing.
    pub(crate) fn numbers(&self, path: &Path) -> Result<Vec<u32>, Error> {
        let root = self.root(path)?;
        let list = |Scanner { table, .. }: &mut Scanner| Ok(table.numbers(root)?.collect());
        match self.scanner.try_lock() {
            Some(mut kept) => list(&mut kept),
            None => list(&mut Scanner::default()),
        }
    }

    /// Reads every process that can be seen, and has `judge` look at those that descend from this one, in ascending
    /// order of process id.
    pub(crate) fn descendants<T>(
        &self,
        path: &Path,
        judge: impl FnOnce(&mut dyn Iterator<Item = &Process>) -> T,
    ) -> Result<T, Error> {
        let root = self.root(path)?;
        self.scan(path, |Scanner { table, descendants, known }, own_pid| {
            let mut found = descendants.find(table.processes(), own_pid)?;
            // A stranger may not be looked at, and is invisible; a descendant that may not be any more still lives.
            if let Some(denied) = table.denied().find(|denied| known.contains(denied)) {
                return Some(Err(root.denied(denied.pid)));
            }
            known.clear();
            known.extend(found.clone().filter_map(|process| table.listed(process.pid)));
            Some(Ok(judge(&mut found)))
        })?
    }

    /// The memory of this process, which has `own_bytes` of its own, and of its descendants, in bytes: the plain sum,
    /// or with the pages that they share counted once where that sum would reach `closes_from`.
    pub(crate) fn tree_memory<'a>(
        &self,
        path: &Path,
        own_bytes: u64,
        descendants: impl Iterator<Item = &'a Process>,
        closes_from: u64,
    ) -> u64 {
        let count = |sharing: &mut Sharing| {
            sharing.begin(descendants);
            let plain = sharing.plain_bytes().saturating_add(own_bytes);
            if plain < closes_from {
                sharing.forget();
                return plain;
            }
            let own =
                self.root(path).and_then(|root| Ok((root, process_table::read_process(root, self.own_pid(path)?)?)));
            match own {
                Ok((root, Some(own))) => {
                    sharing.add(Process { resident_pages: own_bytes / page_size(), ..own });
                    sharing.bytes(root, closes_from)
                }
                _ => plain,
            }
        };
        match self.sharing.try_lock() {
            Some(mut kept) => count(&mut kept),
            None => count(&mut Sharing::default()),
        }
    }

    /// Measures subtrees of descendants. `find` has each descendant added, in ascending order of process id.
    pub(crate) fn measured<T>(
        &self,
        path: &Path,
        scope: MemoryScope,
        subtrees: &mut [Subtree],
        find: impl FnOnce(&mut dyn FnMut(&Process)) -> T,
    ) -> T {
        if subtrees.is_empty() {
            return find(&mut |_| ());
        }
        let measure = |kept: &mut Subtrees| {
            kept.begin();
            let found = find(&mut |process| kept.add(process));
            if let Ok(root) = self.root(path) {
                kept.measure(root, scope, subtrees);
            }
            found
        };
        match self.subtrees.try_lock() {
            Some(mut kept) => measure(&mut kept),
            None => measure(&mut Subtrees::default()),
        }
    }

    /// The identity of a descendant of this process, and whether it is a child.
    ///
    /// # Errors
    /// There is no such process, or it is this one, a thread, or nobody that descends from this one.
    pub(crate) fn descendant(&self, path: &Path, pid: u32) -> Result<(Identity, bool), Error> {
        let (root, own_pid) = (self.root(path)?, self.own_pid(path)?);
        if pid == 0 {
            return Err(Error::setting("process 0 is no process"));
        }
        if pid == own_pid {
            return Err(Error::process(format!("process {pid} is this process itself")));
        }
        let not_there = || Error::process(format!("process {pid} is not there, or may not be looked at"));
        let process = process_table::read_process(root, pid)?.ok_or_else(not_there)?;
        let is_own_kernels = self.is_own_kernels(path, own_pid)?;
        if is_own_kernels && process.parent == own_pid && child::find(pid) != Child::Unknown {
            return Ok((process.identity(), true));
        }
        if is_own_kernels && !status::is_process(root, pid) {
            return Err(Error::process(format!("{pid} is the number of a thread, not of a process")));
        }
        let mut above = process;
        // Processes that are read one after the other can form a circle.
        for _ in 0..DEEPEST {
            match process_table::read_process(root, above.parent)? {
                Some(parent) if parent.start_ticks > above.start_ticks => break,
                Some(parent) if parent.pid == own_pid => return Ok((process.identity(), false)),
                Some(parent) if parent.parent != 0 => above = parent,
                Some(_) | None => break,
            }
        }
        Err(Error::process(format!("process {pid} does not descend from this one")))
    }

    /// One process, or `None` when it is gone or concealed.
    pub(crate) fn process(&self, path: &Path, pid: u32) -> Result<Option<Process>, Error> {
        process_table::read_process(self.root(path)?, pid)
    }

    /// Returns `true` if the kernel lists `pid` among the children of `parent`.
    pub(crate) fn is_listed_child(&self, path: &Path, parent: u32, pid: u32) -> Result<bool, Error> {
        Ok(Children::default().of(self.root(path)?, parent)?.contains(&pid))
    }

    /// Returns `true` if the numbers of this tree are those that system calls of this process take.
    pub(crate) fn is_of_own_kernel(&self, path: &Path) -> Result<bool, Error> {
        self.is_own_kernels(path, self.own_pid(path)?)
    }

    /// As [`descendants`](Self::descendants), but reads only what can have changed since the last call, where the
    /// kernel can be asked for that. Memory is that of now in scope `Tree` alone.
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
                let found = tracker.check(self.root(path)?, own_pid, scope)?;
                return Ok(judge(&mut found.iter().map(|known| &known.process)));
            }
        }
        self.descendants(path, judge)
    }

    /// Has `judge` look at a fresh table; its answer is `None` when this process is not in it.
    fn scan<T>(&self, path: &Path, judge: impl FnOnce(&mut Scanner, u32) -> Option<T>) -> Result<T, Error> {
        let own_pid = self.own_pid(path)?;
        let root = self.root(path)?;
        let is_own_kernels = self.is_own_kernels(path, own_pid)?;
        let scan = |scanner: &mut Scanner| {
            scanner.table.scan(root, own_pid, is_own_kernels)?;
            judge(scanner, own_pid).ok_or_else(|| root.without_us(own_pid))
        };
        // Two scans at once must not share an offset, and none waits: the second one has buffers of its own.
        match self.scanner.try_lock() {
            Some(mut kept) => scan(&mut kept),
            None => scan(&mut Scanner::default()),
        }
    }

    /// The number of descriptors that this process has open; `None` where there is no such folder.
    pub(crate) fn open_files(&self, path: &Path) -> Result<Option<u64>, Error> {
        let root = self.root(path)?;
        let count = match count_entries(root, "self/fd") {
            // At least that of the root is open: the first thread has ended, and the calling one lives.
            Ok(0) => count_entries(root, "thread-self/fd"),
            count => count,
        };
        present(count).map_err(|error| Error::read(path.join("self/fd"), error))
    }

    /// The number of threads of this process.
    pub(crate) fn threads(&self, path: &Path) -> Option<u64> {
        let threads = tasks::count(self.root(path).ok()?, self.own_pid(path).ok()?).ok()?;
        Some(threads).filter(|&threads| threads > 0)
    }

    pub(super) fn root<'a>(&'a self, path: &'a Path) -> Result<ProcRoot<'a>, Error> {
        let open = || Directory::open(path).map_err(|error| Error::read(path.to_owned(), error));
        Ok(ProcRoot::new(get_or_open(&self.directory, open)?, path))
    }

    fn is_own_kernels(&self, path: &Path, own_pid: u32) -> Result<bool, Error> {
        let is_own_kernels = get_or_open(&self.is_own_kernels, || {
            let root = self.root(path)?;
            Ok(root.directory.is_procfs() && status::is_of_own_namespace(root, own_pid))
        })?;
        Ok(*is_own_kernels)
    }

    /// The number of this process in the pid namespace of this `/proc`. `getpid` would not do: that namespace need not
    /// be its own.
    fn own_pid(&self, path: &Path) -> Result<u32, Error> {
        let own_pid = get_or_open(&self.own_pid, || {
            let root = self.root(path)?.directory;
            let mut target = [0; 16];
            let read = stack_path(&mut [0; 8], format_args!("self")).and_then(|link| root.read_link(link, &mut target));
            let length = read.map_err(|error| Error::read(path.join("self"), error))?;
            let pid = target.get(..length).and_then(stat::pid);
            pid.ok_or_else(|| Error::malformed(path.join("self"), "it does not point to a process"))
        })?;
        Ok(*own_pid)
    }
}

#[cfg(test)]
impl ProcFiles {
    /// The number of processes that need not be read again because they do not descend from this one.
    pub(crate) fn strangers(&self) -> usize {
        self.tracker.lock().strangers()
    }
}

/// The number of descriptors in a folder of the calling process's own. Since Linux 6.2 that is its size
/// (proc_pid_fd(5)); before, it is listed.
fn count_entries(root: ProcRoot<'_>, folder: &str) -> io::Result<u64> {
    let mut buffer = [0; 16];
    let folder = stack_path(&mut buffer, format_args!("{folder}"))?;
    match root.directory.status(folder)?.size {
        size @ 1.. if root.directory.is_procfs() => Ok(size),
        _ => {
            let mut entries = 0_u64;
            root.directory.visit(folder, &mut [0; 4096], |_| entries += 1)?;
            // `.`, `..`, and the descriptor that lists.
            Ok(entries.saturating_sub(3))
        }
    }
}

/// `None` for a file that is not there.
fn present<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// The bytes in this number of pages.
pub(crate) fn bytes(pages: u64) -> u64 {
    pages.saturating_mul(page_size())
}

/// The value of a cell, opened now if need be. A failure is not kept: the next call tries again.
fn get_or_open<T>(cell: &OnceLock<T>, open: impl FnOnce() -> Result<T, Error>) -> Result<&T, Error> {
    match cell.get() {
        Some(kept) => Ok(kept),
        None => {
            let opened = open()?;
            Ok(cell.get_or_init(|| opened))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::fixture::{process, tree};

    #[test]
    fn a_scan_within_a_scan_sees_everything_and_so_does_the_outer() {
        let root = tree(7, (8..60).map(|pid| process(pid, 7)).chain([process(7, 1)]));
        let files = ProcFiles::default();
        let count = |found: &mut dyn Iterator<Item = &Process>| found.count();
        for _ in 0..2 {
            let both = files.descendants(root.path(), |outer| (files.descendants(root.path(), count), outer.count()));
            assert!(matches!(both, Ok((Ok(52), 52))));
        }
    }

    #[test]
    fn a_descendant_is_told_from_strangers_and_from_those_that_have_gone() {
        let lines = [
            process(1, 0),
            process(7, 1).started(7),
            process(8, 7).started(8),
            process(9, 8).started(9),
            process(10, 1).started(9),
            // Older than the process whose number its parent's is now.
            process(11, 7).started(6),
            process(20, 21).started(20),
            process(21, 20).started(20),
        ];
        let root = tree(7, lines);
        let files = ProcFiles::default();
        let found = |pid| files.descendant(root.path(), pid).map_err(|error| error.to_string());
        assert_eq!(found(8), Ok((Identity { pid: 8, start_ticks: 8 }, false)), "no child of this test");
        assert_eq!(found(9), Ok((Identity { pid: 9, start_ticks: 9 }, false)));
        for pid in [1, 10, 11, 20] {
            assert_eq!(found(pid), Err(format!("process {pid} does not descend from this one")));
        }
        assert_eq!(found(7), Err("process 7 is this process itself".to_owned()));
        assert_eq!(found(0), Err("process 0 is no process".to_owned()));
        assert_eq!(found(99), Err("process 99 is not there, or may not be looked at".to_owned()));
    }

    #[test]
    fn what_could_not_be_opened_is_tried_again() {
        let root = tree(7, [process(7, 1)]).without("7/statm").without("self");
        let files = ProcFiles::default();
        assert!(files.own_memory(root.path()).is_err());
        assert!(files.descendants(root.path(), |_| ()).is_err());
        std::os::unix::fs::symlink("7", root.path().join("self")).unwrap();
        let root = root.with("7/statm", "9 5 3 1 0 2 0\n");
        assert_eq!(files.own_memory(root.path()).unwrap(), bytes(5));
        assert!(files.descendants(root.path(), |_| ()).is_ok());
    }
}
