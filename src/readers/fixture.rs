//! Trees like those of the kernel, for unit tests, each laid out in one statement:
//! `tree(7, [process(7, 1), process(8, 7).state('Z')])`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use crate::readers::procfs::ProcRoot;
use crate::readers::Roots;
use crate::sys::file::Directory;

/// A `/proc` laid out in a folder.
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

    pub(crate) fn proc_root(&self) -> ProcRoot<'_> {
        ProcRoot::new(&self.1, self.path())
    }

    pub(crate) fn with(self, path: &str, text: &str) -> Tree {
        lay_out(self.path(), path, text);
        self
    }

    pub(crate) fn without(self, path: &str) -> Tree {
        fs::remove_file(self.path().join(path)).unwrap();
        self
    }
}

/// A `stat` file to be.
#[derive(Clone)]
pub(crate) struct Line {
    pid: u32,
    parent: u32,
    group: u32,
    state: char,
    threads: u32,
    start_ticks: i64,
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

    pub(crate) fn started(self, start_ticks: i64) -> Line {
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
        // Nanoseconds that wrapped, in ticks.
        let start_ticks = if *start_ticks < 0 { start_ticks + 1_844_674_407_371 } else { *start_ticks };
        format!(
            "{pid} (a) Z 1 (x\n) {state} {parent} {group} {group} 0 -1 4194560 1 0 0 0 3 1 0 0 20 0 {threads} 0 \
             {start_ticks} 5562368 {pages} 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0\n"
        )
    }
}

/// A machine with `/proc` and `/sys/fs/cgroup`, laid out in a folder as `proc` and `cgroup`.
pub(crate) struct Machine(TempDir);

impl Machine {
    /// A machine whose control groups are found by these texts.
    pub(crate) fn new(own: &str, mounts: &str) -> Machine {
        let machine = Machine(tempfile::tempdir().unwrap());
        machine.with("proc/self/cgroup", own).with("proc/self/mountinfo", mounts)
    }

    pub(crate) fn with(self, path: &str, text: &str) -> Machine {
        self.write(path, text);
        self
    }

    /// The files of the memory controller of version 2.
    pub(crate) fn memory_v2(self, group: &str, max: &str, current: u64) -> Machine {
        let group = if group.is_empty() { "cgroup".to_owned() } else { format!("cgroup/{group}") };
        self.with(&format!("{group}/memory.max"), &format!("{max}\n"))
            .with(&format!("{group}/memory.current"), &format!("{current}\n"))
            .with(&format!("{group}/memory.stat"), STAT_V2)
    }

    pub(crate) fn memory_v1(self, group: &str, limit: &str, usage: u64) -> Machine {
        self.with(&format!("{group}/memory.limit_in_bytes"), &format!("{limit}\n"))
            .with(&format!("{group}/memory.usage_in_bytes"), &format!("{usage}\n"))
            .with(&format!("{group}/memory.stat"), STAT_V1)
    }

    pub(crate) fn pids(self, group: &str, max: &str, current: u64) -> Machine {
        self.with(&format!("{group}/pids.max"), &format!("{max}\n"))
            .with(&format!("{group}/pids.current"), &format!("{current}\n"))
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        lay_out(self.path(), path, text);
    }

    pub(crate) fn remove(&self, path: &str) {
        fs::remove_dir_all(self.path().join(path)).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots { proc_root: self.path().join("proc"), cgroup_root: self.path().join("cgroup") }
    }

    /// The group's name below the mount.
    pub(crate) fn name(&self, path: &Path) -> String {
        path.strip_prefix(self.path().join("cgroup")).unwrap().display().to_string()
    }
}

fn lay_out(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// `memory.stat` of Linux 6.18, version 1, in part: 151,920,640 bytes of page cache, 89,612,288 of it inactive.
pub(crate) const STAT_V1: &str = "\
cache 151920640
rss 236961792
rss_huge 0
shmem 0
mapped_file 9797632
inactive_anon 236699648
active_anon 147456
inactive_file 89612288
active_file 62308352
unevictable 0
hierarchical_memory_limit 9223372036854771712
hierarchical_memsw_limit 9223372036854771712
total_cache 151920640
total_rss 236961792
total_rss_huge 0
total_shmem 0
total_mapped_file 9797632
total_inactive_anon 236699648
total_active_anon 147456
total_inactive_file 89612288
total_active_file 62308352
total_unevictable 0
";

/// `memory.stat` of version 2, in part: 60 MiB anonymous, 30 MiB of files, 20 MiB of them inactive.
const STAT_V2: &str = "\
anon 62914560
file 31457280
kernel 2097152
kernel_stack 98304
pagetables 409600
sec_pagetables 0
percpu 1080
sock 0
vmalloc 0
shmem 4194304
file_mapped 8192000
file_dirty 4096
file_writeback 0
swapcached 0
inactive_anon 67026944
active_anon 81920
inactive_file 20971520
active_file 6291456
unevictable 0
slab_reclaimable 827392
slab_unreclaimable 442368
slab 1269760
workingset_refault_anon 0
workingset_refault_file 0
";
