//! Limits that somebody else has set: control groups, the machine, rlimits.

use std::fs::File;
use std::io::Read;

use crate::readers::cgroup::Cgroups;
use crate::readers::procfs::meminfo;
use crate::readers::Roots;
use crate::sys::rlimit;
use crate::vocabulary::{Error, Resource, ResourceLimits, ResourceLimitsBuilder};

/// A machine tells its memory in the first line.
const MEMINFO: u64 = 64 << 10;

impl ResourceLimits {
    /// Limits from the surroundings: for a host that was given none.
    ///
    /// - memory: the least limit of a control group, the own one or any above it that can be seen, or else the memory
    ///   of the machine (`MemTotal`);
    /// - processes: the least of `pids.max` in the same way and `RLIMIT_NPROC`, which counts every thread of the user;
    ///   none if neither is set;
    /// - open files: `RLIMIT_NOFILE`.
    ///
    /// They are those of this moment. What changes later is seen by the checks of
    /// [`CgroupMemory`](Resource::CgroupMemory), [`CgroupPids`](Resource::CgroupPids) and
    /// [`OpenFiles`](Resource::OpenFiles), which read their limits each time. Printed, they say where each number comes
    /// from.
    ///
    /// ```
    /// let limits = highwater::ResourceLimits::detect()?;
    /// println!("{limits}");
    /// // memory 256.0 MB (/sys/fs/cgroup/box/memory.max), processes 100 (/sys/fs/cgroup/box/pids.max), open files 1024
    /// // (RLIMIT_NOFILE); warning at 80 %, critical at 95 %
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Read`](crate::ErrorKind::Read) or [`Malformed`](crate::ErrorKind::Malformed), naming the file;
    /// [`InvalidLimit`](crate::ErrorKind::InvalidLimit) for a limit of 0, naming where it was found.
    pub fn detect() -> Result<ResourceLimits, Error> {
        ResourceLimits::builder().detect()?.build()
    }
}

impl ResourceLimitsBuilder {
    /// Sets every limit that is not set yet and that the surroundings have, as [`ResourceLimits::detect`] does.
    ///
    /// # Errors
    /// [`Read`](crate::ErrorKind::Read) or [`Malformed`](crate::ErrorKind::Malformed), naming the file.
    pub fn detect(self) -> Result<ResourceLimitsBuilder, Error> {
        self.detect_in(Roots::default())
    }

    fn detect_in(self, roots: Roots) -> Result<ResourceLimitsBuilder, Error> {
        let machine_path = roots.proc_root.join("meminfo");
        let mut text = Vec::new();
        File::open(&machine_path)
            .and_then(|file| file.take(MEMINFO).read_to_end(&mut text))
            .map_err(|error| Error::read(machine_path.clone(), error))?;
        let machine = meminfo::total(&text).map_err(|what| Error::malformed(machine_path.clone(), what))?;

        let mut cgroups = Cgroups::new(roots);
        let groups = cgroups.least_limits()?;
        let machine = (machine, format!("MemTotal of {}", machine_path.display()));
        let user = rlimit::user_tasks().map(|limit| (limit, "RLIMIT_NPROC".to_owned()));
        let files = rlimit::open_files().map(|limit| (limit, "RLIMIT_NOFILE".to_owned()));
        let found = [
            (Resource::Memory, [groups.memory, Some(machine)]),
            (Resource::Processes, [groups.pids, user]),
            (Resource::OpenFiles, [files, None]),
        ];
        Ok(found.into_iter().fold(self, |builder, (resource, limits)| {
            match limits.into_iter().flatten().min_by_key(|(limit, _)| *limit) {
                Some((limit, origin)) => builder.or_found(resource, limit, origin),
                None => builder,
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::fixture::Machine;

    const MOUNTS: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

    /// What is found where the files of the group `a/b` and of `a` say this.
    fn detected(files: &[(&str, &str)]) -> (Machine, Result<ResourceLimits, Error>) {
        let machine = Machine::new("0::/a/b\n", MOUNTS)
            .with("proc/meminfo", "MemTotal:       2097152 kB\nMemFree:        1000 kB\n");
        let machine = files.iter().fold(machine, |machine, (path, text)| machine.with(path, text));
        let limits = ResourceLimits::builder().detect_in(machine.roots());
        let limits = limits.and_then(ResourceLimitsBuilder::build);
        (machine, limits)
    }

    #[test]
    fn the_least_limit_of_any_level_is_found_with_its_file() {
        let (machine, limits) = detected(&[
            ("cgroup/a/b/memory.max", "536870912\n"),
            ("cgroup/a/memory.max", "268435456\n"),
            ("cgroup/a/b/pids.max", "30\n"),
            ("cgroup/a/pids.max", "max\n"),
        ]);
        let limits = limits.unwrap();
        assert_eq!((limits.max_memory_mb(), limits.max_processes()), (Some(256), Some(30)));
        assert_eq!(limits.max_open_files(), rlimit::open_files());
        let folder = machine.path().display();
        let text = limits.to_string();
        assert!(text.starts_with(&format!(
            "memory 256.0 MB ({folder}/cgroup/a/memory.max), processes 30 ({folder}/cgroup/a/b/pids.max), open files "
        )));
        assert!(text.ends_with(" (RLIMIT_NOFILE); warning at 80 %, critical at 95 %"), "{text}");
    }

    #[test]
    fn without_a_groups_limit_it_is_the_machine_and_the_user() {
        let (machine, limits) = detected(&[("cgroup/a/b/memory.max", "max\n")]);
        let limits = limits.unwrap();
        assert_eq!((limits.max_memory_mb(), limits.max_processes()), (Some(2048), rlimit::user_tasks()));
        let origin = format!("(MemTotal of {}/proc/meminfo)", machine.path().display());
        assert!(limits.to_string().contains(&origin), "{limits}");
        // A limit above what the machine has does not bind.
        let (_machine, limits) = detected(&[("cgroup/a/b/memory.max", "99999999999999\n")]);
        assert_eq!(limits.unwrap().max_memory_mb(), Some(2048));
    }

    #[test]
    fn what_cannot_be_a_limit_is_an_error_that_says_where_it_stands() {
        let cases = [
            ("cgroup/a/pids.max", "0\n", "process limit 0 ("),
            ("cgroup/a/memory.max", "some\n", "malformed "),
            ("proc/meminfo", "MemFree: 1 kB\n", "malformed "),
        ];
        for (path, text, begins) in cases {
            let (machine, limits) = detected(&[(path, text)]);
            let error = limits.unwrap_err().to_string();
            let path = machine.path().join(path).display().to_string();
            assert!(error.starts_with(begins) && error.contains(&path), "{error}");
        }
    }
}
