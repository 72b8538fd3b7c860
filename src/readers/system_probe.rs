//! All readers together: each resource read once, of the kernel or of a tree that is laid out like its.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::readers::cgroup::{Alarms, Cgroups, Growth, Watch};
use crate::readers::disk::DiskReader;
use crate::readers::machine::MachineFiles;
use crate::readers::probe::Probe;
use crate::readers::procfs::{ProcFiles, Process};
use crate::readers::Roots;
use crate::sys::fork::{self, PerProcess};
use crate::sys::rlimit;
use crate::vocabulary::{
    Error, Found, Identity, MemoryScope, OpenFiles, PerResource, Reading, Resource, ResourceSnapshot, Settings,
};

/// Own memory, descendants and zombies without a monitor, each by a full scan.
///
/// They come from `/proc`, as proc_pid_statm(5) and proc_pid_stat(5) describe it. Three descriptors are opened when
/// first needed and kept, close-on-exec. Any number of threads may read at once. A forked child opens its own.
///
/// A process that ends while it is looked at is left out in silence. Any other failure is an error and never a low
/// count. A descendant that may not be looked at (`hidepid`, proc(5); a security module) is counted all the same, as
/// long as its parent may be: the kernel lists it among the children of that. Its memory is not known. A stranger in
/// the same state is nobody's business.
///
/// ```
/// let probe = highwater::SystemProbe::new();
/// println!("{} bytes, {} processes", probe.memory_bytes()?, probe.child_count()?);
/// # Ok::<(), highwater::Error>(())
/// ```
pub struct SystemProbe {
    roots: Roots,
    files: PerProcess<ProcFiles>,
    cgroups: PerProcess<Mutex<Cgroups>>,
    growths: PerProcess<Growths>,
    machine: PerProcess<Mutex<MachineFiles>>,
    disk: PerProcess<DiskReader>,
    memory_closes_from: AtomicU64,
}

/// The growth of what the pressure file of each resource counts.
type Growths = PerResource<fork::Mutex<Growth>>;

impl SystemProbe {
    /// Reads `/proc`. Opens nothing yet.
    pub fn new() -> SystemProbe {
        SystemProbe::with_roots(Roots::default())
    }

    /// Reads trees that are laid out like `/proc` and `/sys/fs/cgroup`.
    pub(crate) fn with_roots(roots: Roots) -> SystemProbe {
        let cgroups = PerProcess::new(Mutex::new(Cgroups::new(roots.clone())));
        let machine = PerProcess::new(Mutex::new(MachineFiles::new(&roots.proc_root)));
        SystemProbe {
            roots,
            files: PerProcess::new(ProcFiles::default()),
            cgroups,
            growths: PerProcess::new(Growths::default()),
            machine,
            disk: PerProcess::new(DiskReader::new()),
            memory_closes_from: AtomicU64::new(u64::MAX),
        }
    }

    fn root(&self) -> &Path {
        &self.roots.proc_root
    }

    /// The resident memory of this process alone, in bytes, shared pages included.
    ///
    /// Costs about 1 us: one read of `self/statm`.
    ///
    /// # Errors
    /// [`Read`](crate::ErrorKind::Read) or [`Malformed`](crate::ErrorKind::Malformed), naming the file.
    pub fn memory_bytes(&self) -> Result<u64, Error> {
        self.files().own_memory(self.root())
    }

    /// The number of processes that descend from this one, at any depth, zombies included.
    ///
    /// Costs about 10 us for each process on the machine, whoever it descends from: one read of `<pid>/stat`. A process
    /// that started before the parent it claims does not count: that parent's number was given away again.
    ///
    /// # Errors
    /// [`Read`](crate::ErrorKind::Read) or [`Malformed`](crate::ErrorKind::Malformed), naming the file: a process that
    /// is there and cannot be read, or a `/proc` in which this process is not.
    pub fn child_count(&self) -> Result<usize, Error> {
        self.files().descendants(self.root(), |found| found.count())
    }

    /// The process ids of descendants that have ended and that nobody has waited for, in ascending order.
    ///
    /// A process whose first thread has ended while others live is none: it cannot be waited for yet. Costs as much as
    /// [`child_count`](SystemProbe::child_count).
    ///
    /// # Errors
    /// As [`child_count`](SystemProbe::child_count).
    pub fn zombies(&self) -> Result<Vec<u32>, Error> {
        self.files().descendants(self.root(), |found| {
            found.filter(|process| process.is_zombie()).map(|process| process.pid).collect()
        })
    }

    /// The number of processes in process group `pgid`, zombies included, `exclude_pid` left out (0 leaves out none).
    /// They need not descend from this process. A group's number may be given away again once the group is empty.
    ///
    /// Costs as much as [`child_count`](SystemProbe::child_count).
    ///
    /// # Errors
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) when `pgid` is 0, which is no group (in system calls it
    /// means the caller's own); else as [`child_count`](SystemProbe::child_count).
    pub fn count_group_members(&self, pgid: u32, exclude_pid: u32) -> Result<usize, Error> {
        if pgid == 0 {
            return Err(Error::setting("process group 0 is not a group"));
        }
        self.files().processes(self.root(), |found| {
            found.iter().filter(|process| process.group == Some(pgid) && process.pid != exclude_pid).count()
        })
    }

    fn files(&self) -> &ProcFiles {
        self.files.current_or_renew(|_inherited| ProcFiles::default())
    }
}

impl SystemProbe {
    /// Has `read` use the kept files of the control groups; whoever finds them in use makes some.
    fn with_cgroups<T>(&self, read: impl FnOnce(&mut Cgroups) -> T) -> T {
        let cgroups = || Cgroups::new(self.roots.clone());
        match self.cgroups.current_or_renew(|_inherited| Mutex::new(cgroups())).try_lock() {
            Some(mut kept) => read(&mut kept),
            None => read(&mut cgroups()),
        }
    }

    /// Reads the open files, unless they are ignored.
    fn read_open_files(&self, settings: &Settings, into: &mut Reading) {
        if *settings.ignored.get(Resource::OpenFiles) {
            return;
        }
        let limit = rlimit::open_files();
        let count = match self.files().open_files(self.root()) {
            // They cannot be listed because no descriptor is left: all that the limit allows are open.
            Err(error) if error.os_error() == Some(libc::EMFILE) => Ok(limit),
            count => count.map_err(Arc::new),
        };
        let open_files = count.map(|count| (count.map(|count| OpenFiles { count, limit }), None));
        into.snapshot.open_files = into.noting(Resource::OpenFiles, open_files);
    }

    /// Reads the memory of the machine, unless it is ignored. Whoever finds the kept file in use opens it.
    fn read_machine(&self, settings: &Settings, into: &mut Reading) {
        if *settings.ignored.get(Resource::MachineMemory) {
            return;
        }
        let files = || MachineFiles::new(self.root());
        let read = match self.machine.current_or_renew(|_inherited| Mutex::new(files())).try_lock() {
            Some(mut kept) => kept.memory(),
            None => files().memory(),
        };
        into.snapshot.machine_memory = into.noting(Resource::MachineMemory, read.map(|memory| (memory, None)));
    }

    /// Reads the resources of the control groups, but for those that are ignored: all of them, or those alone that are
    /// read between two checks.
    fn read_cgroups(&self, settings: &Settings, alone: bool, into: &mut Reading) {
        let is_read = |resource: Resource| !settings.ignored.get(resource) && (resource.facts().read_alone || !alone);
        const READ_HERE: [Resource; 5] = [
            Resource::CgroupMemory,
            Resource::CgroupPids,
            Resource::MemoryPressure,
            Resource::CpuPressure,
            Resource::IoPressure,
        ];
        if !READ_HERE.into_iter().any(is_read) {
            return;
        }
        let growths = self.growths.current_or_renew(|_inherited| Growths::default());
        self.with_cgroups(|cgroups| {
            let refreshed = cgroups.refresh().map_err(Arc::new);
            let refreshed = || refreshed.as_ref().copied().map_err(Arc::clone);
            if is_read(Resource::CgroupMemory) {
                let read = refreshed().and_then(|()| cgroups.memory());
                into.snapshot.cgroup_memory = into.noting(Resource::CgroupMemory, read);
            }
            if is_read(Resource::CgroupPids) {
                let read = refreshed().and_then(|()| cgroups.pids());
                into.snapshot.cgroup_pids = into.noting(Resource::CgroupPids, read);
            }
            if is_read(Resource::MemoryPressure) {
                let read = cgroups.memory_pressure().map(|pressure| (pressure, None));
                into.snapshot.memory_pressure = into.noting(Resource::MemoryPressure, read);
            }
            if is_read(Resource::CpuPressure) {
                let read = cgroups.cpu_pressure(growths.get(Resource::CpuPressure)).map(|pressure| (pressure, None));
                into.snapshot.cpu_pressure = into.noting(Resource::CpuPressure, read);
            }
            if is_read(Resource::IoPressure) {
                let read = cgroups.io_pressure(growths.get(Resource::IoPressure)).map(|pressure| (pressure, None));
                into.snapshot.io_pressure = into.noting(Resource::IoPressure, read);
            }
        });
    }
}

impl Probe for SystemProbe {
    fn prepare(&self, settings: &Settings) {
        // Elsewhere every reading reads everything.
        if self.files().is_of_own_kernel(self.root()).unwrap_or(false) {
            self.read(settings, &mut Reading::default());
        }
    }

    fn read(&self, settings: &Settings, into: &mut Reading) {
        into.clear();
        let disk = into.disk.clone().filter(|_| !*settings.ignored.get(Resource::DiskSpace));
        let disk_reader = || self.disk.current_or_renew(|_inherited| DiskReader::new());
        if let Some(path) = &disk {
            disk_reader().begin(path);
        }
        let scope = settings.memory_scope;
        let own_memory = self.own_memory().map_err(Arc::new);
        let (zombies, subtrees) = (&mut into.zombies, &mut into.subtrees);
        let mut count = |found: &mut dyn Iterator<Item = &Process>, add: &mut dyn FnMut(&Process)| {
            let mut count = 0_usize;
            let found = found.inspect(|process| {
                count += 1;
                add(process);
                if process.is_zombie() {
                    zombies.push(process.identity());
                }
            });
            let memory = match (scope, &own_memory) {
                (MemoryScope::Tree, &Ok(own)) => {
                    let closes_from = self.memory_closes_from.load(Ordering::Relaxed);
                    self.files().tree_memory(self.root(), own, found, closes_from)
                }
                _ => {
                    found.for_each(drop);
                    0
                }
            };
            (count, memory)
        };
        let counted = self.files().measured(self.root(), scope, subtrees, |add| {
            self.files().tracked(self.root(), scope, |found| count(found, add))
        });
        let counted = counted.map_err(Arc::new);
        let memory = own_memory.and_then(|own| match (scope, &counted) {
            (MemoryScope::Own, _) => Ok(own),
            (MemoryScope::Tree, Ok((_, memory))) => Ok(*memory),
            // A part of the tree is not the tree.
            (MemoryScope::Tree, Err(error)) => Err(Arc::clone(error)),
        });
        into.snapshot.memory_bytes = into.noting(Resource::Memory, memory.map(|bytes| (Some(bytes), None)));
        let count = counted.map(|(count, _)| (Some(count), None));
        into.snapshot.child_process_count = into.noting(Resource::Processes, count);
        into.snapshot.zombie_pids.extend(into.zombies.iter().map(|zombie| zombie.pid));
        self.read_cgroups(settings, false, into);
        self.read_machine(settings, into);
        self.read_open_files(settings, into);
        if let Some(path) = &disk {
            let read = disk_reader().finish(path).map(|space| (space, None));
            into.snapshot.disk_space = into.noting(Resource::DiskSpace, read);
        }
        into.snapshot.thread_count = self.files().threads(self.root()).map(to_usize);
    }

    fn set_memory_closes_from(&self, bytes: u64) {
        self.memory_closes_from.store(bytes, Ordering::Relaxed);
    }

    fn read_memory(&self, settings: &Settings) -> Found {
        let memory_bytes = match settings.memory_scope {
            MemoryScope::Own => self.own_memory().ok(),
            MemoryScope::Tree => None,
        };
        let snapshot = ResourceSnapshot { memory_bytes, ..ResourceSnapshot::unread() };
        let mut reading = Reading { snapshot, ..Reading::default() };
        self.read_cgroups(settings, true, &mut reading);
        self.read_machine(settings, &mut reading);
        reading.found()
    }

    fn own_memory(&self) -> Result<u64, Error> {
        self.memory_bytes()
    }

    fn descendant(&self, pid: u32) -> Result<(Identity, bool), Error> {
        self.files().descendant(self.root(), pid)
    }

    fn arm(&self, settings: &Settings, watch: &Watch) -> Alarms {
        let is_read = |resource| !settings.ignored.get(resource);
        let (pressure, memory) = (is_read(Resource::MemoryPressure), is_read(Resource::CgroupMemory));
        self.with_cgroups(|cgroups| cgroups.arm(watch, pressure, memory))
    }

    fn is_outdated(&self, alarms: &Alarms) -> bool {
        // Somebody else is reading: the next check will tell.
        let cgroups = self.cgroups.current().and_then(Mutex::try_lock);
        cgroups.is_some_and(|cgroups| cgroups.fingerprint() != alarms.fingerprint)
    }
}

fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

impl Default for SystemProbe {
    fn default() -> SystemProbe {
        SystemProbe::new()
    }
}

impl fmt::Debug for SystemProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemProbe").field("roots", &self.roots).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::readers::fixture::{process, tree, Machine, Tree};
    use crate::readers::procfs::bytes;
    use crate::vocabulary::ErrorKind;

    fn probe(tree: &Tree) -> SystemProbe {
        SystemProbe::with_roots(Roots { proc_root: tree.path().into(), ..Roots::default() })
    }

    fn read(tree: &Tree, scope: MemoryScope) -> Reading {
        let mut reading = Reading::default();
        probe(tree).read(&Settings { memory_scope: scope, ..Settings::default() }, &mut reading);
        reading
    }

    /// Memory and descendants.
    fn required(reading: &Reading) -> (Option<u64>, Option<usize>) {
        (reading.snapshot.memory_bytes, reading.snapshot.child_process_count)
    }

    /// The error of the first required resource that was not read.
    fn error(reading: &Reading) -> Option<&Error> {
        [Resource::Memory, Resource::Processes].into_iter().find_map(|resource| reading.unread.get(resource).as_deref())
    }

    #[test]
    fn this_process_has_some_memory() {
        assert!(SystemProbe::new().memory_bytes().unwrap() > 0);
    }

    #[test]
    fn a_prepared_probe_need_not_read_strangers_again_and_a_tree_is_not_read_twice() {
        for memory_scope in [MemoryScope::Own, MemoryScope::Tree] {
            let settings = Settings { memory_scope, ..Settings::default() };
            let prepared = SystemProbe::new();
            assert_eq!(prepared.files().strangers(), 0);
            prepared.prepare(&settings);
            // Init at the least.
            assert!(prepared.files().strangers() > 0);
            let root = tree(7, [process(1, 0), process(7, 1)]);
            let of_a_tree = probe(&root);
            of_a_tree.prepare(&settings);
            assert_eq!(of_a_tree.files().strangers(), 0);
        }
    }

    #[test]
    fn one_reading_has_memory_descendants_and_zombies() {
        let root = tree(
            7,
            [
                process(7, 1),
                process(8, 7),
                process(9, 8).state('Z').pages(0),
                process(10, 1),
                process(11, 10).state('Z'),
            ],
        );
        let own = read(&root, MemoryScope::Own);
        assert_eq!(required(&own), (Some(bytes(50)), Some(2)));
        assert_eq!(own.zombies, [Identity { pid: 9, start_ticks: 9 }]);
        assert_eq!(own.snapshot.zombie_pids, [9]);
        assert!(error(&own).is_none());
        assert_eq!(required(&read(&root, MemoryScope::Tree)).0, Some(bytes(60)), "50 of its own, 10 of process 8");
        assert_eq!((probe(&root).child_count().unwrap(), probe(&root).zombies().unwrap()), (2, vec![9]));
    }

    #[test]
    fn every_resource_is_read_where_its_files_are() {
        let pressure =
            "some avg10=1.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let machine =
            Machine::new("0::/box\n", mounts).memory_v2("box", "268435456", 1 << 20).pids("cgroup/box", "100", 3);
        let root = tree(7, [process(7, 1)]).with("7/cgroup", "0::/box\n").with("7/mountinfo", mounts);
        let root = root.with("meminfo", "MemTotal: 100 kB\nMemAvailable: 60 kB\n");
        let root = ["cpu", "io", "memory"].into_iter().fold(root, |root, kind| {
            fs::create_dir_all(root.path().join("pressure")).unwrap();
            root.with(&format!("pressure/{kind}"), pressure)
        });
        let roots = Roots { proc_root: root.path().into(), ..machine.roots() };
        // Open files are counted on this machine, the others on any that has all files.
        let found = [SystemProbe::new(), SystemProbe::with_roots(roots)].map(|probe| {
            let mut reading = Reading { disk: Some(Path::new("/").into()), ..Reading::default() };
            probe.read(&Settings::default(), &mut reading);
            reading.found()
        });
        for resource in Resource::READ {
            assert!(found.iter().any(|found| matches!(found.get(resource), Ok(Some(_)))), "{resource}");
        }
    }

    #[test]
    fn a_zombie_leader_with_live_threads_counts_and_is_no_zombie() {
        let root = tree(7, [process(7, 1), process(8, 7).state('Z').threads(3)]);
        assert_eq!((probe(&root).child_count().unwrap(), probe(&root).zombies().unwrap()), (1, vec![]));
    }

    #[test]
    fn the_child_of_a_reused_number_is_a_stranger() {
        let root = tree(7, [process(7, 1).started(500), process(8, 7).started(499), process(9, 7).started(500)]);
        assert_eq!(probe(&root).child_count().unwrap(), 1);
    }

    #[test]
    fn a_circle_of_parents_ends() {
        let root = tree(7, [process(7, 1), process(8, 9).started(9), process(9, 8)]);
        assert_eq!(probe(&root).child_count().unwrap(), 0);
    }

    #[test]
    fn memory_beyond_counting_is_the_most_that_can_be_counted() {
        let root = tree(7, [process(7, 1), process(8, 7).pages(u64::MAX), process(9, 7).pages(u64::MAX)]);
        assert_eq!(required(&read(&root, MemoryScope::Tree)).0, Some(u64::MAX));
    }

    #[test]
    fn one_resource_may_fail_without_the_other() {
        let root = tree(7, [process(7, 1), process(8, 7)]).without("7/statm");
        let reading = read(&root, MemoryScope::Own);
        assert_eq!(required(&reading), (None, Some(1)));
        assert_eq!(error(&reading).unwrap().path(), Some(&*root.path().join("self/statm")));

        let root = tree(7, [process(7, 1), process(8, 7)]).with("8/stat", "8 (x");
        let reading = read(&root, MemoryScope::Own);
        assert_eq!(required(&reading), (Some(bytes(50)), None));
        assert_eq!(error(&reading).unwrap().path(), Some(&*root.path().join("8/stat")));
        assert_eq!(required(&read(&root, MemoryScope::Tree)), (None, None), "a part of the tree is not the tree");
    }

    #[test]
    fn nothing_is_left_of_an_earlier_reading() {
        let mut reading = Reading::default();
        probe(&tree(7, [process(7, 1), process(8, 7).state('Z')])).read(&Settings::default(), &mut reading);
        assert_eq!(reading.zombies.len(), 1);
        probe(&tree(7, [])).read(&Settings::default(), &mut reading);
        assert_eq!((reading.snapshot.child_process_count, reading.zombies.len()), (None, 0));
        assert!(error(&reading).is_some() && reading.snapshot.zombie_pids.is_empty());
        probe(&tree(7, [process(7, 1)])).read(&Settings::default(), &mut reading);
        assert!(error(&reading).is_none());
    }

    #[test]
    fn a_proc_in_which_this_process_is_not_is_an_error() {
        let unlisted = tree(7, [process(8, 7)]);
        let error = probe(&unlisted).child_count().unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Malformed, Some(unlisted.path())));
        assert!(probe(&unlisted).count_group_members(8, 0).is_err());

        let selfless = tree(7, [process(7, 1)]).without("self");
        let error = probe(&selfless).child_count().unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Read, Some(&*selfless.path().join("self"))));

        std::os::unix::fs::symlink("thread-self", selfless.path().join("self")).unwrap();
        assert_eq!(probe(&selfless).child_count().unwrap_err().kind(), ErrorKind::Malformed);

        let nowhere = SystemProbe::with_roots(Roots { proc_root: "/nowhere".into(), ..Roots::default() });
        assert_eq!(nowhere.child_count().unwrap_err().kind(), ErrorKind::Read);
        assert_eq!(nowhere.memory_bytes().unwrap_err().kind(), ErrorKind::Read);
    }

    #[test]
    fn memory_that_cannot_be_understood_is_an_error_and_no_zero() {
        for text in ["", "900", "900 5", "\u{0}\u{fffd}", "0 0 0 0 0 0 0\n", &"9 ".repeat(200)] {
            let root = tree(7, [process(7, 1)]).with("7/statm", text);
            assert_eq!(probe(&root).memory_bytes().unwrap_err().kind(), ErrorKind::Malformed, "{text:?}");
        }
    }

    #[test]
    fn a_group_has_members_that_need_not_descend_from_us() {
        let root =
            tree(7, [process(7, 1), process(20, 1), process(21, 1).group(20), process(22, 7).group(20).state('Z')]);
        let members = |pgid, exclude_pid| probe(&root).count_group_members(pgid, exclude_pid);
        assert_eq!((members(20, 0).unwrap(), members(20, 20).unwrap(), members(99, 0).unwrap()), (3, 2, 0));
        assert_eq!(members(0, 1).unwrap_err().kind(), ErrorKind::InvalidSetting);
    }
}
