//! Where the kernel's trees are looked for.

use std::path::PathBuf;

/// Where control groups are mounted by custom: what [`Roots::cgroup_root`] stands for.
pub(crate) const CUSTOMARY_CGROUP_ROOT: &str = "/sys/fs/cgroup";

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
