//! `/proc/self/mountinfo`, proc_pid_mountinfo(5): where the hierarchies of control groups can be seen.
//!
//! ```text
//! 35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
//! 41 31 0:38 /docker/4f6c /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate
//! ```
//!
//! The surprise: the fourth field, what part of the hierarchy is mounted, decides which groups can be seen at all; and
//! a blank in a path is written as `\040`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::membership::Version;
use crate::readers::number::parse_u64;

/// One mount of a hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) id: u64,
    /// The device number of the hierarchy, which all mounts of it share.
    pub(crate) device: (u32, u32),
    /// The group that is seen at the mount point.
    pub(crate) root: PathBuf,
    pub(crate) point: PathBuf,
}

/// The mount in a line, if it is one of the hierarchy that has the controller.
pub(crate) fn parse_line(line: &[u8], version: Version, controller: &str) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (id, _parent, device) = (fields.next()?, fields.next()?, fields.next()?);
    let (root, point) = (fields.next()?, fields.next()?);
    // Optional fields, as many as there are, end with a dash.
    let mut after = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, _source, options) = (after.next()?, after.next()?, after.next()?);
    let is_it = match version {
        Version::V2 => kind == b"cgroup2",
        Version::V1 => {
            kind == b"cgroup" && options.split(|byte| *byte == b',').any(|name| name == controller.as_bytes())
        }
    };
    if !is_it {
        return None;
    }
    if !root.starts_with(b"/") || !point.starts_with(b"/") {
        return None;
    }
    let mut device = device.splitn(2, |byte| *byte == b':').map(|number| u32::try_from(parse_u64(number)?).ok());
    let device = (device.next()??, device.next()??);
    Some(Mount { id: parse_u64(id)?, device, root: unescaped(root), point: unescaped(point) })
}

/// A path in which the kernel has written blanks, tabs, newlines and backslashes as three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                path.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            _ => {
                path.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(path).into()
}

/// A line is a mount of one version at most, whatever optional fields it has, and a path that was escaped is itself again.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let escaped = bytes.iter().flat_map(|byte| match byte {
        b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
        _ => vec![*byte],
    });
    assert_eq!(unescaped(&escaped.collect::<Vec<u8>>()).into_os_string().into_vec(), bytes);
    assert!(unescaped(bytes).as_os_str().len() <= bytes.len());

    let [v1, v2] = [Version::V1, Version::V2].map(|version| parse_line(bytes, version, "memory"));
    assert!(v1.is_none() || v2.is_none());
    let mut fields: Vec<_> = bytes.split(|byte| *byte == b' ').collect();
    fields.insert(fields.len().min(5), b"shared:7");
    let tagged = fields.join(&b' ');
    assert_eq!([Version::V1, Version::V2].map(|version| parse_line(&tagged, version, "memory")), [v1, v2]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str, version: Version) -> Vec<(String, String)> {
        let shown = |mount: Mount| (mount.root.display().to_string(), mount.point.display().to_string());
        text.lines().filter_map(|line| parse_line(line.as_bytes(), version, "memory")).map(shown).collect()
    }

    #[test]
    fn mounts_are_told_by_kind_and_controller() {
        let text = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 master:2 - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
37 31 0:34 /box /mnt/with\\040blank\\134 rw - cgroup cgroup rw,memory
38 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
39 31 0:39 / /cut/off - cgroup2
40 31 0:40  /no/root rw - cgroup2 cgroup2 rw
41 31 0:41 / no/point rw - cgroup cgroup rw,memory\n";
        let pair = |root: &str, point: &str| (root.to_owned(), point.to_owned());
        assert_eq!(found(text, Version::V1), [pair("/", "/sys/fs/cgroup/memory"), pair("/box", "/mnt/with blank\\")]);
        assert_eq!(found(text, Version::V2), [pair("/", "/sys/fs/cgroup/unified")]);
    }

    proptest! {
        #[test]
        fn the_law_holds(bytes: Vec<u8>, text in "[0-9a-z \\\\/\n-]{0,80}") {
            law(&bytes);
            law(text.as_bytes());
        }
    }
}
