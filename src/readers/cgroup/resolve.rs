//! From a membership and the mounts to the folders of the own group and of those above it.

use std::path::{Component, Path, PathBuf};

use super::membership::{Membership, Version};
use super::mounts;
use crate::readers::roots::CUSTOMARY_CGROUP_ROOT;
use crate::readers::Roots;

/// More levels than this are nobody's doing.
const MOST_LEVELS: usize = 64;

/// The folders of every group from the own one up to the highest that can be seen.
pub(crate) fn resolve(membership: Membership<'_>, controller: &str, mountinfo: &[u8], roots: &Roots) -> Vec<PathBuf> {
    if membership.is_outside() {
        return Vec::new();
    }
    // Of several mounts the one that shows the most; of equals the last, which is on top.
    let seen = mounts::of_hierarchy(mountinfo, membership.version, controller)
        .filter_map(|mount| Some((below(membership.path, &mount.root)?.to_owned(), mount)))
        .max_by_key(|(below, mount)| (!is_above_namespace(&mount.root), below.components().count()));
    let Some((below, mount)) = seen else { return Vec::new() };
    let point = match mount.point.strip_prefix(CUSTOMARY_CGROUP_ROOT) {
        Ok(rest) => joined(&roots.cgroup_root, rest),
        Err(_) => mount.point,
    };
    below.ancestors().take(MOST_LEVELS).map(|group| joined(&point, group)).collect()
}

/// The way from the mounted group down to that of the process; `None` when it is not below it.
fn below<'a>(path: &'a Path, root: &Path) -> Option<&'a Path> {
    if is_above_namespace(root) {
        // The way down has names that cannot be seen; the mounted group itself can.
        Some(Path::new(""))
    } else {
        path.strip_prefix(root).ok()
    }
}

/// Whether a group that was mounted is one above the root of the cgroup namespace: `/../..`.
fn is_above_namespace(root: &Path) -> bool {
    let mut parents = root.components().skip_while(|component| *component == Component::RootDir).peekable();
    parents.peek().is_some() && parents.all(|component| component == Component::ParentDir)
}

/// Without a slash at the end.
fn joined(folder: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() {
        folder.to_owned()
    } else {
        folder.join(rest)
    }
}

/// The files of one controller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    pub(crate) limit: &'static str,
    pub(crate) usage: &'static str,
    pub(crate) stat: Option<&'static str>,
}

impl Names {
    pub(crate) fn of_memory(version: Version) -> Names {
        let stat = Some("memory.stat");
        match version {
            Version::V1 => Names { limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", stat },
            Version::V2 => Names { limit: "memory.max", usage: "memory.current", stat },
        }
    }

    pub(crate) fn of_pids() -> Names {
        Names { limit: "pids.max", usage: "pids.current", stat: None }
    }
}

#[cfg(test)]
mod tests {
    use super::super::membership::of_controller;
    use super::*;

    fn levels(cgroup: &str, mountinfo: &str) -> Vec<String> {
        let roots = Roots { cgroup_root: "/laid/out".into(), ..Roots::default() };
        let membership = of_controller(cgroup.as_bytes(), "memory").unwrap();
        let folders = resolve(membership, "memory", mountinfo.as_bytes(), &roots);
        folders.into_iter().map(|folder| folder.display().to_string()).collect()
    }

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn every_level_that_can_be_seen_is_listed_from_the_own_one_up() {
        assert_eq!(
            levels("0::/a.slice/b.scope\n", V2),
            ["/laid/out/a.slice/b.scope", "/laid/out/a.slice", "/laid/out"]
        );
        assert_eq!(levels("0::/\n", V2), ["/laid/out"]);
    }

    #[test]
    fn a_part_of_the_hierarchy_shows_what_is_below_it() {
        let docker = "41 31 0:38 /docker/4f6c /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        assert_eq!(levels("4:memory:/docker/4f6c\n", docker), ["/laid/out/memory"]);
        assert_eq!(levels("4:memory:/docker/4f6c/in\n", docker), ["/laid/out/memory/in", "/laid/out/memory"]);
        assert!(levels("4:memory:/docker/4f6cc\n", docker).is_empty(), "a name that only begins alike");
        assert!(levels("4:memory:/user.slice\n", docker).is_empty());
    }

    #[test]
    fn the_mount_that_shows_most_is_used_and_one_elsewhere_is_where_it_says() {
        let twice =
            "41 31 0:38 /box /sys/fs/cgroup rw - cgroup2 cgroup rw\n42 31 0:38 / /mnt/all rw - cgroup2 cgroup rw\n";
        assert_eq!(levels("0::/box\n", twice), ["/mnt/all/box", "/mnt/all"]);
    }

    #[test]
    fn a_group_outside_of_the_namespace_cannot_be_seen() {
        assert!(levels("0::/../other\n", V2).is_empty());
    }

    #[test]
    fn of_a_mount_from_above_the_namespace_the_mounted_group_is_seen() {
        let outer = "57 47 0:38 /../.. /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n".to_owned();
        assert_eq!(levels("0::/in\n", &outer), ["/laid/out"]);
        let inner = "63 43 0:38 / /mnt rw,relatime - cgroup2 none rw\n";
        assert_eq!(levels("0::/\n", &(outer + inner)), ["/mnt"], "another mount shows more");
    }
}
