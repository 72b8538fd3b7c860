//! The folders in which the kernel's trees are looked for.

use std::path::{Path, PathBuf};

/// The customary mount point of control groups, which [`Roots::cgroup_root`] stands for.
const CUSTOMARY_CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// The folders that stand for `/proc` and `/sys/fs/cgroup`.
#[derive(Debug, Clone)]
pub(crate) struct Roots {
    pub(crate) proc_root: PathBuf,
    /// A mount that is said to be below `/sys/fs/cgroup` is looked for below this.
    pub(crate) cgroup_root: PathBuf,
}

impl Default for Roots {
    fn default() -> Roots {
        Roots { proc_root: "/proc".into(), cgroup_root: CUSTOMARY_CGROUP_ROOT.into() }
    }
}

impl Roots {
    /// The folder that stands for a mount point below `/sys/fs/cgroup`; `None` where it is itself to be looked at.
    pub(crate) fn of_mount(&self, point: &Path) -> Option<PathBuf> {
        let rest = point.strip_prefix(CUSTOMARY_CGROUP_ROOT).ok()?;
        let is_moved = self.cgroup_root != Path::new(CUSTOMARY_CGROUP_ROOT);
        // Joined to nothing, it would end in a slash.
        is_moved.then(|| self.cgroup_root.components().chain(rest.components()).collect())
    }
}
