//! Descendants that `/proc` does not show.
//!
//! A mount with `hidepid` (proc(5)) shows only the processes of this user, or only those that may be traced: a child
//! that runs as another user, or that may not be dumped, is left out of the listing (2, 4) or lists and cannot be read
//! (1). A security module refuses in the same way. Nobody can say what is in such a process, but the kernel lists it
//! among the children of its parent, and tells that its number is taken.
//!
//! So where something is concealed, the lists of children are gone through from parent to child beside the listing, at
//! 5 us a thread. The children of a concealed process are concealed with it, unless they are shown themselves: then
//! they claim it as their parent. A kernel without lists of children shows none that was not seen before.

use std::collections::HashSet;
use std::os::fd::AsFd;

use super::children::Children;
use super::process_table::read_process;
use super::stat::Process;
use super::ProcRoot;
use crate::sys::child::{self, Child};
use crate::sys::file::{stack_path, visit_lines};
use crate::sys::process;
use crate::vocabulary::Error;

/// Longer than any line that the kernel can write of a mount of `/proc`, which has few options.
const MOUNT_BUFFER: usize = 4096;

/// A search through the lists of children, with its buffers, which are kept.
#[derive(Debug, Default)]
pub(super) struct Search {
    children: Children,
    to_visit: Vec<Process>,
    met: HashSet<u32>,
    found: Vec<Found>,
}

/// A descendant that is not among those that were shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) process: Process,
    /// Set if it cannot be read; else it was started since the others were listed.
    pub(super) is_concealed: bool,
}

impl Search {
    /// The descendants of `own` that are listed as children and are not among those that `shown` knows, ascending by
    /// process id.
    pub(super) fn run(
        &mut self,
        root: ProcRoot<'_>,
        own: Process,
        is_own_kernels: bool,
        shown: impl Fn(u32) -> Option<Process>,
    ) -> Result<&[Found], Error> {
        self.found.clear();
        self.met.clear();
        self.to_visit.clear();
        self.to_visit.push(own);
        while let Some(parent) = self.to_visit.pop() {
            for &pid in self.children.of(root, parent.pid)? {
                // Lists that are read one after the other may have one process twice.
                if pid == own.pid || !self.met.insert(pid) {
                    continue;
                }
                let process = match shown(pid) {
                    Some(process) => process,
                    None => {
                        let found = match read_process(root, pid)? {
                            Some(process) => Found { process, is_concealed: false },
                            None if is_own_kernels && !process::exists(pid) => continue,
                            None => {
                                let has_ended = is_own_kernels && child::find(pid) == Child::Ended;
                                Found { process: Process::concealed(pid, &parent, has_ended), is_concealed: true }
                            }
                        };
                        self.found.push(found);
                        found.process
                    }
                };
                self.to_visit.push(process);
            }
        }
        self.found.sort_unstable_by_key(|found| found.process.pid);
        Ok(&self.found)
    }
}

impl Process {
    /// A process of which nothing is known but its number and its parent. It counts as started with that, which no
    /// child of its own has been before; and it has no memory that anybody could tell.
    pub(crate) fn concealed(pid: u32, parent: &Process, has_ended: bool) -> Process {
        Process {
            pid,
            state: if has_ended { b'Z' } else { b'S' },
            parent: parent.pid,
            group: Some(0),
            threads: 1,
            start_ticks: parent.start_ticks,
            resident_pages: 0,
            page_faults: 0,
        }
    }

    /// Returns `true` if it is such a process. None that was read has come to life without a page fault.
    pub(crate) fn is_concealed(&self) -> bool {
        self.group == Some(0) && self.page_faults == 0 && self.resident_pages == 0
    }
}

/// Returns `true` if a mount may conceal processes. In a tree that is no proc file system, or whose mount this process
/// cannot see, anything may be.
pub(super) fn may_conceal(root: ProcRoot<'_>) -> bool {
    let (mut any, mut conceals) = (false, false);
    let mut read = || {
        let file = root.directory.open_file(stack_path(&mut [0; 32], format_args!("thread-self/mountinfo"))?)?;
        visit_lines(file.as_fd(), &mut [0; MOUNT_BUFFER], |line| {
            if let Some(hidepid) = hidepid(line) {
                any = true;
                conceals |= hidepid;
            }
        })
    };
    !root.directory.is_procfs() || read().is_err() || !any || conceals
}

/// Whether a line of `mountinfo` (proc_pid_mountinfo(5)) that mounts a proc file system says `hidepid`; `None` for any
/// other mount. It is an option of the file system, and so in the last field:
///
/// ```text
/// 25 30 0:23 / /proc rw,relatime shared:5 - proc proc rw,hidepid=invisible
/// ```
fn hidepid(line: &[u8]) -> Option<bool> {
    let mut fields = line.split(|byte| *byte == b' ').skip_while(|field| *field != b"-");
    if fields.nth(1)? != b"proc" {
        return None;
    }
    let mut values = fields.last()?.split(|byte| *byte == b',').filter_map(|option| option.strip_prefix(b"hidepid="));
    Some(values.any(|value| !matches!(value, b"0" | b"off")))
}

/// Only a mount of a proc file system says something, and only by its last field.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    let says = hidepid(bytes);
    assert!(says.is_none() || has(b"- proc"));
    assert!(says != Some(true) || has(b"hidepid="));
    let shown = [bytes, b" rw"].concat();
    assert!(says.is_none() || hidepid(&shown) == Some(false));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::fixture::{process, tree};
    use crate::readers::procfs::stat;

    #[test]
    fn a_mount_says_that_it_conceals_in_its_last_field() {
        let mount = |end: &str| hidepid(format!("25 30 0:23 / /proc rw,hidepid=2 shared:5 - {end}").as_bytes());
        for conceals in ["hidepid=1", "rw,hidepid=2", "rw,gid=4,hidepid=invisible,subset=pid", "hidepid=ptraceable"] {
            assert_eq!(mount(&format!("proc proc {conceals}")), Some(true), "{conceals}");
        }
        for shows in ["rw", "rw,hidepid=0", "rw,hidepid=off", "rw,subset=pid"] {
            assert_eq!(mount(&format!("proc none {shows}")), Some(false), "{shows}");
        }
        for other in ["tmpfs proc rw,hidepid=2", "sysfs sysfs rw", "proc", ""] {
            assert_eq!(mount(other), None, "{other}");
        }
    }

    #[test]
    fn who_is_listed_as_a_child_and_is_not_shown_is_found_with_its_parent() {
        let root = tree(7, [process(7, 1), process(8, 7), process(12, 8)])
            .with("7/task/7/children", "8 9 ")
            .with("8/task/8/children", "10 12 ");
        let parsed = |line: crate::readers::fixture::Line| stat::parse(line.line().as_bytes()).unwrap();
        let (own, shown) = (parsed(process(7, 1)), parsed(process(8, 7)));
        let mut search = Search::default();
        let found = search.run(root.proc_root(), own, false, |pid| Some(shown).filter(|_| pid == 8)).unwrap();
        let found: Vec<_> =
            found.iter().map(|found| (found.process.pid, found.process.parent, found.is_concealed)).collect();
        // No folder of a thread is there beyond 7 and 8.
        assert_eq!(found, [(9, 7, true), (10, 8, true), (12, 8, false)]);
    }
}
