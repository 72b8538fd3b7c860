//! From a membership and the mounts to the folders of the own group and of those above it.
//!
//! Anything may be mounted anywhere: a hierarchy several times and in part (a container sees its own group alone), in a
//! folder that this user may not enter, below a later mount that covers it, or with something else mounted over one of
//! its groups. So a line of `mountinfo` is a hint. Each group is looked at where the line says that it is, and one
//! mount through which it cannot be seen is no reason not to look through the next.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::membership::{Membership, Version};
use super::mounts::Mount;
use crate::sys::mount::mounted_at;

/// More levels than this are nobody's doing.
const MOST_LEVELS: usize = 64;

/// The levels above the root of a cgroup namespace that are looked for. They have no names, only `/..`.
const MOST_ABOVE: usize = 8;

/// The group of the process and those above it, and the folders that they are seen in.
#[derive(Debug)]
pub(crate) struct Levels {
    pub(crate) version: Version,
    levels: Vec<Level>,
    /// A folder in which a group would be seen, if this user might look.
    refused: Option<Sighting>,
}

#[derive(Debug)]
struct Level {
    group: PathBuf,
    seen: Option<Seen>,
}

#[derive(Debug)]
struct Seen {
    folder: PathBuf,
    /// Of the mount through which it is seen.
    point: PathBuf,
    is_certain: bool,
}

/// A group, and a folder that it is seen in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// Its path in the hierarchy, from the root of the cgroup namespace.
    pub(crate) group: PathBuf,
    pub(crate) folder: PathBuf,
}

/// The finding at a folder that is said to be in a mount.
#[derive(Debug)]
pub(crate) enum Look {
    /// The mount, as the kernel says.
    Certain,
    /// Some folder. A kernel before 5.8 does not tell mounts of one file system apart, nor is a tree that is laid out
    /// mounted.
    Likely,
    /// Nothing, or another mount, which covers this one.
    Covered,
    /// An error that tells nothing of what is there: this user may not look, say.
    Refused,
}

impl Levels {
    pub(crate) fn new(membership: Membership<'_>) -> Levels {
        let named =
            membership.path.ancestors().take_while(|group| is_named(group)).take(MOST_LEVELS).map(Path::to_owned);
        // Above the last name there are those of which none is known: `/`, `/..`, `/../..`.
        let ups = membership.path.components().filter(|component| *component == Component::ParentDir).count();
        let above = |ups: usize| Path::new("/").join(vec![".."; ups].join("/"));
        let mut groups: Vec<PathBuf> = named.collect();
        // At least the own one, however far above the namespace it is.
        groups.extend((ups..=ups.max(MOST_ABOVE)).map(above));
        groups.dedup();
        let levels = groups.into_iter().map(|group| Level { group, seen: None }).collect();
        Levels { version: membership.version, levels, refused: None }
    }

    /// Looks for the groups through one mount, at its point or at the folder that stands for that.
    pub(crate) fn look_through(&mut self, mount: &Mount, point: &Path, look: impl Fn(&Path, &Mount) -> Look) {
        for level in &mut self.levels {
            // A later mount at the same place is on top.
            level.seen = level.seen.take().filter(|seen| seen.is_certain || seen.point != point);
            let is_certain = level.seen.as_ref().is_some_and(|seen| seen.is_certain);
            let Some(below) = below(&level.group, &mount.root).filter(|_| !is_certain) else { continue };
            let folder = joined(point, below);
            let is_certain = match look(&folder, mount) {
                Look::Certain => true,
                Look::Likely => false,
                Look::Covered => continue,
                Look::Refused => {
                    let group = level.group.clone();
                    self.refused.get_or_insert(Sighting { group, folder });
                    continue;
                }
            };
            level.seen = Some(Seen { folder, point: point.to_owned(), is_certain });
        }
    }

    /// Returns `true` if another look may show more without any change of mounts: a folder was refused.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// The groups that no mount shows, from the own one up, and that should be seen: that one, and those between two
    /// that are. Groups above all that are seen are hidden from every container, and so are those without a name.
    pub(crate) fn hidden(&self) -> impl Iterator<Item = &Path> {
        let highest = self.levels.iter().rposition(|level| level.seen.is_some());
        // Of one that was refused the error tells more.
        let is_own = move |index: usize| index == 0 && (highest.is_some() || !self.is_refused());
        let is_between = move |index: usize, group: &Path| Some(index) < highest && is_named(group);
        let unseen = self.levels.iter().enumerate().filter(|(_, level)| level.seen.is_none());
        let hidden = unseen.map(|(index, level)| (index, &*level.group));
        hidden.filter(move |(index, group)| is_own(*index) || is_between(*index, group)).map(|(_, group)| group)
    }

    /// The group of the process.
    pub(crate) fn own(&self) -> Option<&Path> {
        self.levels.first().map(|level| &*level.group)
    }

    /// The groups that are seen, from the own one up. When none is, one that was refused, so that its error is told.
    pub(crate) fn seen(self) -> Vec<Sighting> {
        let seen = |level: Level| Some(Sighting { group: level.group, folder: level.seen?.folder });
        let seen: Vec<Sighting> = self.levels.into_iter().filter_map(seen).collect();
        if seen.is_empty() {
            self.refused.into_iter().collect()
        } else {
            seen
        }
    }
}

/// Returns `false` for the groups above the root of the cgroup namespace.
fn is_named(group: &Path) -> bool {
    group.components().next_back() != Some(Component::ParentDir)
}

/// Looks for a mount at a folder, on a kernel that tells which mount that is.
pub(crate) fn look_at_mount(folder: &Path, mount: &Mount) -> Look {
    match mounted_at(folder) {
        Ok(at) => match at.id {
            Some(id) if id == mount.id => Look::Certain,
            None if at.device == mount.device => Look::Likely,
            _ => Look::Covered,
        },
        Err(error) => not_there(&error),
    }
}

/// Looks whether there is a folder, in a tree that is laid out.
pub(crate) fn look_at_folder(folder: &Path, _mount: &Mount) -> Look {
    match folder.metadata() {
        Ok(found) if found.is_dir() => Look::Likely,
        Ok(_) => Look::Covered,
        Err(error) => not_there(&error),
    }
}

fn not_there(error: &io::Error) -> Look {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => Look::Covered,
        _ => Look::Refused,
    }
}

/// The way from the mounted group down to another; `None` when that is not below it, or by names that nobody knows.
fn below<'a>(group: &'a Path, root: &Path) -> Option<&'a Path> {
    let below = group.strip_prefix(root).ok()?;
    let is_known = !below.components().any(|component| component == Component::ParentDir);
    is_known.then_some(below)
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
    /// The stat file tells the least limit of the groups above as well.
    pub(crate) stat_tells_limits_above: bool,
    /// The file that says 0 where the limit does not bind the groups below: of version 1, before Linux 5.11.
    pub(crate) hierarchy: Option<&'static str>,
}

impl Names {
    pub(crate) fn of_memory(version: Version) -> Names {
        let stat = Some("memory.stat");
        match version {
            Version::V1 => Names {
                limit: "memory.limit_in_bytes",
                usage: "memory.usage_in_bytes",
                stat,
                stat_tells_limits_above: true,
                hierarchy: Some("memory.use_hierarchy"),
            },
            Version::V2 => Names {
                limit: "memory.max",
                usage: "memory.current",
                stat,
                stat_tells_limits_above: false,
                hierarchy: None,
            },
        }
    }

    pub(crate) fn of_pids(_: Version) -> Names {
        Names { limit: "pids.max", usage: "pids.current", stat: None, stat_tells_limits_above: false, hierarchy: None }
    }
}

/// Whatever `cgroup` and, after a NUL, `mountinfo` say: a group is seen once, in a mount, and never above its point.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let mut texts = bytes.splitn(2, |byte| *byte == 0);
    let [own, mounts] = [texts.next().unwrap_or_default(), texts.next().unwrap_or_default()];
    let Some(membership) = super::membership::of_controller(own, "memory") else { return };
    let mut levels = Levels::new(membership);
    let mut points = Vec::new();
    for line in mounts.split(|byte| *byte == b'\n') {
        let Some(mount) = super::mounts::parse_line(line, membership.version, "memory") else { continue };
        // Any of them, and the same one for the same place.
        levels.look_through(&mount, &mount.point, |folder, mount| {
            match (folder.as_os_str().len() as u64 ^ mount.id) % 4 {
                0 => Look::Likely,
                1 => Look::Covered,
                2 => Look::Refused,
                _ => Look::Certain,
            }
        });
        points.push(mount.point);
    }
    assert!(levels.levels.len() <= MOST_LEVELS + MOST_ABOVE + 1);
    let hidden: Vec<PathBuf> = levels.hidden().map(Path::to_owned).collect();
    assert!(levels.own().is_some_and(|own| hidden.iter().all(|group| own.starts_with(group))));
    let (is_refused, seen) = (levels.is_refused(), levels.seen());
    for (index, Sighting { group, folder }) in seen.iter().enumerate() {
        assert!(!seen[..index].iter().any(|before| before.group == *group), "{group:?} is seen twice");
        assert!(is_refused || !hidden.contains(group), "{group:?} is seen and hidden");
        let is_in = |point: &PathBuf| {
            let below = folder.strip_prefix(point).ok();
            below.is_some_and(|below| !below.components().any(|component| component == Component::ParentDir))
        };
        assert!(points.iter().any(is_in), "{folder:?} is in no mount");
    }
}

#[cfg(test)]
mod tests {
    use super::super::membership::of_controller;
    use super::super::mounts::parse_line;
    use super::*;
    use crate::readers::Roots;

    /// The folders that are found, where `look` says what is there.
    fn looked_for(cgroup: &str, mountinfo: &str, look: impl Fn(&str) -> Look) -> Vec<String> {
        let roots = Roots { cgroup_root: "/laid/out".into(), ..Roots::default() };
        let mut levels = Levels::new(of_controller(cgroup.as_bytes(), "memory").unwrap());
        for line in mountinfo.lines() {
            if let Some(mount) = parse_line(line.as_bytes(), levels.version, "memory") {
                let point = roots.of_mount(&mount.point).unwrap_or(mount.point.clone());
                levels.look_through(&mount, &point, |folder, _| look(folder.to_str().unwrap()));
            }
        }
        levels.seen().into_iter().map(|seen| seen.folder.display().to_string()).collect()
    }

    fn levels(cgroup: &str, mountinfo: &str) -> Vec<String> {
        looked_for(cgroup, mountinfo, |_| Look::Likely)
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
    fn the_own_group_is_one_however_far_above_the_namespace_it_is() {
        for ups in [1, MOST_ABOVE, MOST_ABOVE + 1, 5000] {
            let own = "/..".repeat(ups);
            let levels = Levels::new(of_controller(format!("0::{own}\n").as_bytes(), "memory").unwrap());
            assert_eq!(levels.own(), Some(Path::new(&own)), "{ups} above");
            assert_eq!(levels.hidden().collect::<Vec<_>>(), [Path::new(&own)], "{ups} above");
        }
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
    fn each_level_is_seen_through_whichever_mount_shows_it_and_one_elsewhere_is_where_it_says() {
        let twice =
            "41 31 0:38 /box /sys/fs/cgroup rw - cgroup2 cgroup rw\n42 31 0:38 / /mnt/all rw - cgroup2 cgroup rw\n";
        assert_eq!(levels("0::/box\n", twice), ["/mnt/all/box", "/mnt/all"]);
        let look = |folder: &str| if folder.starts_with("/mnt") { Look::Covered } else { Look::Likely };
        assert_eq!(looked_for("0::/box\n", twice, look), ["/laid/out"]);
        let look = |folder: &str| if folder == "/mnt/all/box" { Look::Covered } else { Look::Likely };
        assert_eq!(looked_for("0::/box\n", twice, look), ["/laid/out", "/mnt/all"], "a mount over one group");
    }

    #[test]
    fn a_mount_that_may_not_be_entered_is_told_when_no_other_shows_anything() {
        let twice = "41 31 0:38 / /mnt/all rw - cgroup2 cgroup rw\n42 31 0:38 / /home/mine rw - cgroup2 cgroup rw\n";
        let refused = |_: &str| Look::Refused;
        assert_eq!(looked_for("0::/box\n", twice, refused), ["/mnt/all/box"]);
        let refused = |folder: &str| if folder.starts_with("/home") { Look::Certain } else { refused(folder) };
        assert_eq!(looked_for("0::/box\n", twice, refused), ["/home/mine/box", "/home/mine"]);
    }

    #[test]
    fn of_two_mounts_at_one_place_the_later_one_is_on_top_unless_the_kernel_tells() {
        let stacked =
            "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n42 41 0:38 /box /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(levels("0::/box\n", stacked), ["/laid/out"]);
        let mut levels = Levels::new(of_controller(b"0::/box\n", "memory").unwrap());
        for line in stacked.lines() {
            let mount = parse_line(line.as_bytes(), Version::V2, "memory").unwrap();
            let look = |_: &Path, mount: &Mount| if mount.id == 41 { Look::Certain } else { Look::Covered };
            levels.look_through(&mount, &mount.point, look);
        }
        assert_eq!(levels.seen().len(), 2);
    }

    #[test]
    fn groups_below_the_highest_that_is_seen_are_hidden_and_the_own_one_is_wherever_it_is() {
        let hidden = |cgroup: &str, mountinfo: &str, look: &dyn Fn(&str) -> Look| {
            let mut levels = Levels::new(of_controller(cgroup.as_bytes(), "memory").unwrap());
            for line in mountinfo.lines() {
                let mount = parse_line(line.as_bytes(), levels.version, "memory").unwrap();
                levels.look_through(&mount, &mount.point, |folder, _| look(folder.to_str().unwrap()));
            }
            levels.hidden().map(|group| group.display().to_string()).collect::<Vec<_>>()
        };
        let seen = |_: &str| Look::Likely;
        let covered = |folder: &str| if folder.ends_with("/b") { Look::Covered } else { Look::Likely };
        let none: [&str; 0] = [];
        assert_eq!(hidden("0::/a/b/c\n", V2, &seen), none);
        assert_eq!(hidden("0::/a/b/c\n", V2, &covered), ["/a/b"]);
        assert_eq!(hidden("0::/a/b\n", V2, &covered), ["/a/b"]);
        assert_eq!(hidden("0::/a/b\n", "", &seen), ["/a/b"]);
        assert_eq!(hidden("0::/\n", "", &seen), ["/"]);
        assert_eq!(hidden("0::/a\n", V2, &|_| Look::Refused), none);
        // A container sees its own group alone, and one of a namespace that it has not mounted nothing.
        let own = "41 31 0:38 /a/b /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(hidden("0::/a/b\n", own, &seen), none);
        let outer = "41 31 0:38 /../.. /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(hidden("0::/\n", outer, &seen), ["/"]);
        let inner = "63 43 0:38 / /mnt rw - cgroup2 none rw\n".to_owned() + outer;
        assert_eq!(hidden("0::/\n", &inner, &seen), none);
        assert_eq!(hidden("0::/../other\n", V2, &seen), ["/../other"]);
    }

    #[test]
    fn a_group_outside_of_the_namespace_is_seen_through_a_mount_from_there_alone() {
        assert!(levels("0::/../other\n", V2).is_empty());
        let outer = "57 47 0:38 /.. /mnt rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(levels("0::/../other\n", outer), ["/mnt/other", "/mnt"]);
    }

    #[test]
    fn of_a_mount_from_above_the_namespace_the_mounted_group_is_seen() {
        let outer = "57 47 0:38 /../.. /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n".to_owned();
        assert_eq!(levels("0::/in\n", &outer), ["/laid/out"]);
        let inner = "63 43 0:38 / /mnt rw,relatime - cgroup2 none rw\n";
        assert_eq!(levels("0::/\n", &(outer + inner)), ["/mnt", "/laid/out"]);
        let aside = "57 47 0:38 /../aside /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n";
        assert!(levels("0::/in\n", aside).is_empty());
    }
}
