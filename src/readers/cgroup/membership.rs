//! `/proc/self/cgroup`, cgroups(7): the group of the process in each hierarchy.
//!
//! ```text
//! 4:memory:/docker/4f6c
//! 3:cpu,cpuacct:/docker/4f6c
//! 0::/system.slice/containerd.service
//! ```
//!
//! The surprise: a machine may have hierarchies of both versions, and then version 2, which is number 0, need not have
//! the controller. A path is that within the cgroup namespace, and begins with `/..` when the group is outside of it.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Of control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// The group of the process in one hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Membership<'a> {
    pub(crate) version: Version,
    pub(crate) path: &'a Path,
}

/// The group in the hierarchy that has the controller: one of version 1 if there is such a one, else that of version 2.
pub(crate) fn of_controller<'a>(text: &'a [u8], controller: &str) -> Option<Membership<'a>> {
    let of_v1 = lines(text)
        .find(|(controllers, _)| controllers.split(|byte| *byte == b',').any(|name| name == controller.as_bytes()));
    match of_v1 {
        Some((_, path)) => Some(Membership { version: Version::V1, path }),
        None => unified(text),
    }
}

/// The group in the hierarchy of version 2.
pub(crate) fn unified(text: &[u8]) -> Option<Membership<'_>> {
    lines(text)
        .find(|(controllers, _)| controllers.is_empty())
        .map(|(_, path)| Membership { version: Version::V2, path })
}

/// Controllers and path of each line that has both.
fn lines(text: &[u8]) -> impl Iterator<Item = (&[u8], &Path)> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (_number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        path.starts_with(b"/").then(|| (controllers, Path::new(std::ffi::OsStr::from_bytes(path))))
    })
}

/// A group is an absolute path, of version 1 where a line names the controller.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let found = of_controller(bytes, "memory");
    assert!(found.iter().chain(&unified(bytes)).all(|found| found.path.is_absolute()));
    let is_named = lines(bytes).any(|(controllers, _)| controllers.windows(6).any(|name| name == b"memory"));
    match found.map(|found| found.version) {
        Some(Version::V1) => assert!(is_named),
        _ => assert_eq!(found, unified(bytes)),
    }
    let first = crate::laws::after_a_line("4:cpu,memory:/box", bytes);
    let first = of_controller(&first, "memory");
    assert_eq!(first, Some(Membership { version: Version::V1, path: Path::new("/box") }));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str, controller: &str) -> Option<(Version, String)> {
        let found = of_controller(text.as_bytes(), controller)?;
        Some((found.version, found.path.display().to_string()))
    }

    #[test]
    fn the_hierarchy_that_has_the_controller_is_the_one() {
        let hybrid = "9:name=systemd:/user.slice\n8:pids:/user.slice\n4:cpu,memory:/box\n0::/user.slice/a:b\n";
        assert_eq!(found(hybrid, "memory"), Some((Version::V1, "/box".into())));
        assert_eq!(found(hybrid, "pids"), Some((Version::V1, "/user.slice".into())));
        assert_eq!(found(hybrid, "hugetlb"), Some((Version::V2, "/user.slice/a:b".into())));
        assert_eq!(found("0::/\n", "memory"), Some((Version::V2, "/".into())));
        assert_eq!(found("4:memory:/box\n", "pids"), None);
    }

    #[test]
    fn what_is_no_line_is_none() {
        for text in ["", "\n\n", "0:", "0::", "0::box", "memory", "4:memory"] {
            assert_eq!(found(text, "memory"), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_law_holds(bytes: Vec<u8>, text in "[0-9a-z:/.,\n]{0,60}") {
            law(&bytes);
            law(text.as_bytes());
        }
    }
}
