//! A `/proc` of a test's own making.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

/// A `/proc` laid out in a folder.
pub struct ProcTree {
    dir: TempDir,
}

impl ProcTree {
    pub const OWN_PID: u32 = 100;

    /// Init and a process of ours with this many resident pages.
    pub fn new(resident_pages: u64) -> ProcTree {
        let tree = ProcTree { dir: tempfile::tempdir().unwrap() };
        symlink(Self::OWN_PID.to_string(), tree.root().join("self")).unwrap();
        tree.process(1, 0).process(Self::OWN_PID, 1);
        tree.set_resident_pages(resident_pages);
        tree
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn process(&self, pid: u32, parent: u32) -> &ProcTree {
        self.stat(pid, stat_line(pid, "job", 'S', parent, 1, 1000).as_bytes())
    }

    pub fn stat(&self, pid: u32, bytes: &[u8]) -> &ProcTree {
        let folder = self.root().join(pid.to_string());
        fs::create_dir_all(&folder).unwrap();
        // In two steps, as a reader may come between: no reader ever sees half a file.
        let new = self.root().join("stat.new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, folder.join("stat")).unwrap();
        self
    }

    pub fn remove(&self, pid: u32) {
        fs::remove_dir_all(self.root().join(pid.to_string())).unwrap();
    }

    /// Rewritten in place and at its old length, for readers that keep the file open.
    pub fn set_resident_pages(&self, pages: u64) {
        self.write_statm(format!("{:012} {pages:012} 0 0 0 0 0\n", pages * 2).as_bytes(), false);
    }

    pub fn write_statm(&self, bytes: &[u8], truncate: bool) {
        let path = self.root().join(Self::OWN_PID.to_string()).join("statm");
        let mut file = fs::OpenOptions::new().create(true).write(true).truncate(truncate).open(path).unwrap();
        file.write_all(bytes).unwrap();
    }
}

pub fn stat_line(pid: u32, comm: &str, state: char, parent: u32, threads: u32, start: u64) -> String {
    format!(
        "{pid} ({comm}) {state} {parent} {pid} {pid} 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 {threads} 0 {start} 1000000 250 \
         18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    )
}

pub const PAGE: u64 = 4096;
