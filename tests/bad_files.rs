//! Something else in the place of each file of a process: a clear error or a reading, and never a hang, a panic, or memory
//! without bounds.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::channel;

use common::{ProcTree, DEADLINE};
use highwater::{MemoryScope, ResourceLimits, ResourceMonitor, ResourceSnapshot};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

type Replace = fn(&Path);

const REPLACEMENTS: [(&str, Replace); 9] = [
    ("an endless file", |path| symlink("/dev/zero", path).unwrap()),
    ("a device without data", |path| symlink("/dev/null", path).unwrap()),
    ("a terminal", |path| symlink("/dev/tty", path).unwrap()),
    ("a FIFO", |path| mkfifo(path, Mode::S_IRWXU).unwrap()),
    ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
    ("a folder", |path| fs::create_dir(path).unwrap()),
    ("an empty file", |path| fs::write(path, "").unwrap()),
    ("bytes", |path| fs::write(path, (0..=255).cycle().take(100_000).collect::<Vec<u8>>()).unwrap()),
    ("a link to itself", |path| symlink(path, path).unwrap()),
];

/// Each file, and whether nothing can be said without it.
const FILES: [(&str, bool); 8] = [
    ("self", true),
    ("100/statm", true),
    ("100/stat", true),
    ("200/stat", true),
    ("100/fd", false),
    ("100/task", false),
    ("100/task/100/children", false),
    ("200/smaps_rollup", false),
];

fn tree() -> ProcTree {
    let tree = ProcTree::new(10_000);
    tree.process(200, ProcTree::OWN_PID);
    for folder in ["100/fd", "100/task/100"] {
        fs::create_dir_all(tree.root().join(folder)).unwrap();
    }
    for (file, text) in [("100/task/100/children", "200 "), ("200/smaps_rollup", "Rss: 8 kB\n")] {
        fs::write(tree.root().join(file), text).unwrap();
    }
    tree
}

/// A check of a tree that has more than its limit, so that everything is read.
fn check(root: &Path) -> Option<(ResourceSnapshot, String)> {
    let limits = ResourceLimits::builder().max_memory_mb(10).max_processes(100).build().unwrap();
    let builder = ResourceMonitor::builder(limits).memory_scope(MemoryScope::Tree);
    let monitor = builder.proc_root(root).build().unwrap();
    let (done, checked) = channel();
    std::thread::spawn(move || {
        let snapshot = monitor.check_now();
        // Nobody waits any more after the deadline.
        drop(done.send((snapshot, monitor.verdict().to_string())));
    });
    checked.recv_timeout(DEADLINE).ok()
}

#[test]
fn something_else_in_the_place_of_a_file_is_an_error_that_names_it_or_is_done_without() {
    let good = tree();
    let (snapshot, verdict) = check(good.root()).unwrap();
    assert!(!snapshot.probe_failed() && snapshot.child_process_count == Some(1), "{verdict}");
    for (file, is_required) in FILES {
        for (name, replace) in REPLACEMENTS {
            let tree = tree();
            let path = tree.root().join(file);
            match fs::symlink_metadata(&path).unwrap().is_dir() {
                true => fs::remove_dir_all(&path).unwrap(),
                false => fs::remove_file(&path).unwrap(),
            }
            replace(&path);
            let (snapshot, verdict) = check(tree.root()).unwrap_or_else(|| panic!("{name} at {file}: no answer"));
            let named = verdict.contains(file) || verdict.contains(&file.replace("100", "self"));
            if is_required {
                assert!(snapshot.probe_failed() && named, "{name} at {file}: {verdict}");
            } else {
                assert!(!snapshot.probe_failed() || named, "{name} at {file}: {verdict}");
            }
        }
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kb: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kb < 256 << 10, "{peak_kb} kB at most");
}
