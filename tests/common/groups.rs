//! Control groups for real, where they can be made.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// A control group below the one that this process is in, and one below that, which the process is put
/// into and taken out of again at the end.
pub struct Groups {
    before: PathBuf,
    pub outer: PathBuf,
    pub inner: PathBuf,
}

impl Groups {
    /// Of version 1, in the hierarchy of this controller.
    pub fn new(controller: &str) -> Option<Groups> {
        let made = Groups::below(Path::new(&format!("/sys/fs/cgroup/{controller}")), controller);
        if made.is_none() {
            println!("skipped: no control group of version 1 with the {controller} controller can be made");
        }
        made
    }

    /// Of version 2, with no controller.
    pub fn unified() -> Option<Groups> {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter().map(Path::new);
        let mount = mounts.into_iter().find(|mount| mount.join("cgroup.procs").exists());
        let made = mount.and_then(|mount| Groups::below(mount, ""));
        if made.is_none() {
            println!("skipped: no control group of version 2 can be made");
        }
        made
    }

    fn below(mount: &Path, controller: &str) -> Option<Groups> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let path = own.lines().find_map(|line| line.split_once(&format!(":{controller}:"))).map(|(_, path)| path);
        let before = mount.join(path?.trim_start_matches('/'));
        // Another test of this process may have some of its own.
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let outer = before.join(format!("highwater-{number}-{}", std::process::id()));
        let inner = outer.join("inner");
        fs::create_dir_all(&inner).ok()?;
        Some(Groups { before, outer, inner })
    }

    /// Both groups, by more than a test takes.
    pub fn limit_amply(&self) {
        for group in [&self.inner, &self.outer] {
            for (file, limit) in [("memory.limit_in_bytes", "4294967296"), ("pids.max", "10000")] {
                let file = group.join(file);
                if file.exists() {
                    fs::write(file, limit).unwrap();
                }
            }
        }
    }

    pub fn enter(&self) {
        join(&self.inner);
    }

    pub fn enter_outer(&self) {
        join(&self.outer);
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        join(&self.before);
        // What was killed in it may take a moment to leave.
        let deadline = Instant::now() + Duration::from_secs(120);
        for group in [&self.inner, &self.outer] {
            while group.exists() && fs::remove_dir(group).is_err() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

fn join(group: &Path) {
    fs::write(group.join("cgroup.procs"), std::process::id().to_string()).unwrap();
}

pub fn limit_memory(group: &Path, bytes: u64) {
    fs::write(group.join("memory.limit_in_bytes"), bytes.to_string()).unwrap();
}

pub fn limit_pids(group: &Path, pids: &str) {
    fs::write(group.join("pids.max"), pids).unwrap();
}
