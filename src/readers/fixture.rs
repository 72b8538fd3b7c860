//! Trees like those of the kernel, for unit tests, each laid out in one statement:
//! `tree(7, [process(7, 1), process(8, 7).state('Z')])`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use crate::readers::procfs::ProcRoot;
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
