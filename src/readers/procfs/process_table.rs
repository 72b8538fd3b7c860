//! Every process there is: one listing, and one `stat` file of each.

use std::io;
use std::os::fd::AsFd;

use super::concealed::{self, Search};
use super::descendants::{index_of, index_of_key, parent_index};
use super::stat::{self, Process};
use super::{tasks, ProcRoot};
use crate::sys::file::{read_line, stack_path, Directory, Listing};
use crate::vocabulary::Error;

/// Room for a `stat` line and some; the longest that a kernel can write is about 1.2 KiB.
const STAT_BUFFER: usize = 2048;

/// The processes of the last scan, in buffers that are kept from scan to scan.
#[derive(Debug, Default)]
pub(crate) struct ProcessTable {
    listing: Option<Listing>,
    listed: Vec<Listed>,
    processes: Vec<Process>,
    /// Those that are listed and cannot be read.
    denied: Vec<Listed>,
    search: Search,
}

/// An entry of `/proc`: a number that is given away again comes with another inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) pid: u32,
    pub(super) inode: u64,
}

impl ProcessTable {
    /// Reads every process that can be seen, in ascending order of process id, and adds the descendants of `own` that
    /// are concealed. A process that ends meanwhile is left out, and so is a concealed stranger. One that cannot be
    /// read for any other reason is an error, because a process left out would be room for one more.
    pub(crate) fn scan(&mut self, root: ProcRoot<'_>, own: u32, is_own_kernels: bool) -> Result<(), Error> {
        self.list(root.directory).map_err(|error| root.unlisted(error))?;
        self.processes.clear();
        self.denied.clear();
        for &listed in &self.listed {
            match look(root, listed.pid)? {
                Look::Process(process) => self.processes.push(process),
                Look::Gone => {}
                Look::Denied => self.denied.push(listed),
            }
        }
        self.read_orphans_again(root)?;
        if !self.denied.is_empty() || concealed::may_conceal(root) {
            self.add_concealed(root, own, is_own_kernels)?;
        }
        Ok(())
    }

    /// The numbers of all processes that can be seen, ascending.
    pub(crate) fn numbers(&mut self, root: ProcRoot<'_>) -> Result<impl Iterator<Item = u32> + '_, Error> {
        self.list(root.directory).map_err(|error| root.unlisted(error))?;
        Ok(self.listed.iter().map(|listed| listed.pid))
    }

    /// The processes that the last scan has read, in ascending order of process id.
    pub(super) fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// Those that are listed and could not be read, and that were not found otherwise.
    pub(super) fn denied(&self) -> impl Iterator<Item = Listed> + '_ {
        self.denied.iter().copied().filter(|denied| index_of(&self.processes, denied.pid).is_none())
    }

    /// The entry of a process in the listing.
    pub(super) fn listed(&self, pid: u32) -> Option<Listed> {
        index_of_key(&self.listed, pid, |listed| listed.pid).map(|index| self.listed[index])
    }

    fn add_concealed(&mut self, root: ProcRoot<'_>, own: u32, is_own_kernels: bool) -> Result<(), Error> {
        let processes = &self.processes;
        let shown = |pid| index_of(processes, pid).map(|index| processes[index]);
        if let Some(own) = shown(own) {
            let found = self.search.run(root, own, is_own_kernels, shown)?;
            self.processes.extend(found.iter().map(|found| found.process));
            self.processes.sort_unstable_by_key(|process| process.pid);
        }
        Ok(())
    }

    fn list(&mut self, directory: &Directory) -> io::Result<()> {
        let listing = match &mut self.listing {
            Some(listing) => listing,
            closed => closed.insert(directory.list()?),
        };
        self.listed.clear();
        let listed = &mut self.listed;
        listing.visit(|entry| {
            let pid = stat::pid(entry.name.to_bytes());
            listed.extend(pid.map(|pid| Listed { pid, inode: entry.inode }));
        })?;
        self.listed.sort_unstable_by_key(|listed| listed.pid);
        Ok(())
    }

    /// Reads those again that claim a parent which is not there: they were read before that parent died. By now they
    /// have another one, which is this process if it is a child subreaper.
    fn read_orphans_again(&mut self, root: ProcRoot<'_>) -> Result<(), Error> {
        let mut any_gone = false;
        for index in 0..self.processes.len() {
            let orphan = self.processes[index];
            if orphan.parent == 0 || parent_index(&self.processes, &orphan).is_some() {
                continue;
            }
            match read_process(root, orphan.pid)? {
                Some(process) => self.processes[index] = process,
                None => {
                    self.processes[index].group = None;
                    any_gone = true;
                }
            }
        }
        if any_gone {
            self.processes.retain(|process| !process.is_gone());
        }
        Ok(())
    }
}

/// The result of a look at a process.
#[derive(Debug)]
enum Look {
    Process(Process),
    /// It is gone, or a mount conceals it altogether.
    Gone,
    /// It is there, and may not be looked at.
    Denied,
}

/// One process, or `None` when it is gone or concealed.
pub(super) fn read_process(root: ProcRoot<'_>, pid: u32) -> Result<Option<Process>, Error> {
    match look(root, pid)? {
        Look::Process(process) => Ok(Some(process)),
        Look::Gone | Look::Denied => Ok(None),
    }
}

fn look(root: ProcRoot<'_>, pid: u32) -> Result<Look, Error> {
    let stat_path = || root.path.join(format!("{pid}/stat"));
    let unread = |error: io::Error| match error.raw_os_error() {
        _ if !is_gone_or_concealed(&error) => Err(Error::read(stat_path(), error)),
        Some(libc::EPERM | libc::EACCES) => Ok(Look::Denied),
        _ => Ok(Look::Gone),
    };
    let mut buffer = [0; STAT_BUFFER];
    let length = match read_stat(root.directory, pid, &mut buffer) {
        Ok(length) => length,
        Err(error) => return unread(error),
    };
    let parsed = match buffer.get(..length) {
        // It ended while it was read, or else this file is not what it should be.
        Some([]) => match read_stat(root.directory, pid, &mut buffer) {
            Err(error) => return unread(error),
            Ok(_) => Err("it is empty"),
        },
        Some(line) if length < STAT_BUFFER => stat::parse(line),
        _ => Err("it is too long"),
    };
    match parsed {
        Ok(process) if process.pid != pid => Err(Error::malformed(stat_path(), "it is about another process")),
        Ok(process) if process.is_gone() => Ok(Look::Gone),
        // Its memory is shown by the threads that live, and not by the first one.
        Ok(process) if process.state == b'Z' && !process.is_zombie() => {
            Ok(Look::Process(Process { resident_pages: tasks::resident_pages(root, pid)?, ..process }))
        }
        Ok(process) => Ok(Look::Process(process)),
        Err(what) => Err(Error::malformed(stat_path(), what)),
    }
}

fn read_stat(root: &Directory, pid: u32, buffer: &mut [u8]) -> io::Result<usize> {
    let mut path = [0; 32];
    let file = root.open_file(stack_path(&mut path, format_args!("{pid}/stat"))?)?;
    read_line(file.as_fd(), buffer)
}

/// Returns `true` if the error says that there is no such process, or none to be seen. A mount with `hidepid=1` lists
/// processes of others and answers EPERM for all that is in them; one with `hidepid=2` neither lists them nor answers
/// other than ENOENT; a security module answers EACCES.
pub(super) fn is_gone_or_concealed(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::EPERM | libc::EACCES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::fixture::{process, tree};
    use crate::vocabulary::ErrorKind;

    #[test]
    fn every_process_is_read_in_order_and_nothing_else() {
        let root = tree(7, [process(100, 7), process(7, 1), process(9, 7)]).with("uptime", "1.0 1.0").with("007", "x");
        let mut table = ProcessTable::default();
        for _ in 0..2 {
            table.scan(root.proc_root(), 7, false).unwrap();
            assert_eq!(table.processes().iter().map(|process| process.pid).collect::<Vec<_>>(), [7, 9, 100]);
        }
    }

    #[test]
    fn whoever_ends_meanwhile_is_left_out_in_silence() {
        let root = tree(7, [process(7, 1), process(8, 7).state('X')]);
        std::fs::create_dir(root.path().join("9")).unwrap();
        let mut table = ProcessTable::default();
        table.scan(root.proc_root(), 7, false).unwrap();
        assert_eq!(table.processes().len(), 1);
    }

    #[test]
    fn a_stat_file_that_cannot_be_understood_is_an_error_with_its_path() {
        let cases =
            ["", "8", "8 (x) S 7", "8 (x", "\u{1}\u{0}\u{fffd}", &"8".repeat(STAT_BUFFER), &process(9, 7).line()];
        for text in cases {
            let root = tree(7, [process(7, 1)]).with("8/stat", text);
            let error = ProcessTable::default().scan(root.proc_root(), 7, false).unwrap_err();
            assert_eq!((error.kind(), error.path()), (ErrorKind::Malformed, Some(&*root.path().join("8/stat"))));
        }
    }

    #[test]
    fn a_stat_file_that_cannot_be_read_is_an_error_with_its_path() {
        let root = tree(7, [process(7, 1)]).with("8/stat/x", "");
        let error = ProcessTable::default().scan(root.proc_root(), 7, false).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Read, Some(&*root.path().join("8/stat"))));
    }

    #[test]
    fn only_a_missing_or_concealed_process_may_be_left_out() {
        let left_out = |errno| is_gone_or_concealed(&io::Error::from_raw_os_error(errno));
        assert!([libc::ENOENT, libc::ESRCH, libc::EPERM, libc::EACCES].into_iter().all(left_out));
        assert!(![libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EIO, libc::ENXIO].into_iter().any(left_out));
    }

    #[test]
    fn an_orphan_is_read_again_and_has_its_new_parent() {
        let root = tree(7, [process(7, 1), process(8, 7), process(9, 7)]);
        let stale = |pid| stat::parse(process(pid, 50).line().as_bytes()).unwrap();
        let own = stat::parse(process(7, 1).line().as_bytes()).unwrap();
        let mut table = ProcessTable { processes: vec![own, stale(8), stale(9), stale(10)], ..ProcessTable::default() };
        table.read_orphans_again(root.proc_root()).unwrap();
        let parents: Vec<_> = table.processes.iter().map(|process| (process.pid, process.parent)).collect();
        assert_eq!(parents, [(7, 1), (8, 7), (9, 7)], "10 has ended by now");
    }
}
