//! Limits that somebody else has set: control groups, the machine, rlimits.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use crate::readers::cgroup::Cgroups;
use crate::readers::procfs::meminfo;
use crate::readers::Roots;
use crate::sys::file::{open_regular, read_at_start};
use crate::sys::rlimit;
use crate::vocabulary::{Error, Origin, Resource, ResourceLimits, ResourceLimitsBuilder};

/// Room for the whole file, of which the first line is the one that matters.
const MEMINFO: usize = 64 << 10;

impl ResourceLimits {
    /// Limits from the surroundings: for a host that was given none.
    ///
    /// - memory: the least limit of a control group, the own one or any above it that can be seen, or else the memory
    ///   of the machine (`MemTotal`);
    /// - processes: the least of `pids.max` in the same way and `RLIMIT_NPROC`, which counts every thread of the user;
    ///   none if neither is set;
    /// - open files: `RLIMIT_NOFILE`;
    /// - memory of the machine: a tenth of it is to stay available, because what others take is gone as well.
    ///
    /// A memory limit of a control group is judged by what is charged to the group ([`CgroupMemory`]), and not by
    /// resident memory, in which pages of mapped files count although the kernel takes them back. So is a limit on
    /// processes that is `pids.max` of a group, by the group's tasks ([`CgroupPids`]). Where the group is not read,
    /// they are judged by resident memory and descendants, as a limit is that the host sets.
    ///
    /// [`CgroupMemory`]: Resource::CgroupMemory
    /// [`CgroupPids`]: Resource::CgroupPids
    ///
    /// They are those of this moment. What changes later is seen by the checks of
    /// [`CgroupMemory`](Resource::CgroupMemory), [`CgroupPids`](Resource::CgroupPids) and
    /// [`OpenFiles`](Resource::OpenFiles), which read their limits each time. Printed, they say where each number comes
    /// from, and which file could not be read and why.
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
    /// [`Read`](crate::ErrorKind::Read) or [`Malformed`](crate::ErrorKind::Malformed), naming the file, when neither
    /// the memory of the machine nor any control group could be read: a limit that cannot be read is left out;
    /// [`InvalidLimit`](crate::ErrorKind::InvalidLimit) for a limit of 0, naming where it was found.
    pub fn detect() -> Result<ResourceLimits, Error> {
        ResourceLimits::builder().detect()?.build()
    }
}

impl ResourceLimitsBuilder {
    /// Sets every limit that is not set yet and that the surroundings have, as [`ResourceLimits::detect`] does.
    ///
    /// # Errors
    /// [`Read`](crate::ErrorKind::Read) or [`Malformed`](crate::ErrorKind::Malformed), naming the file, when neither
    /// the memory of the machine nor any control group could be read.
    pub fn detect(self) -> Result<ResourceLimitsBuilder, Error> {
        self.detect_in(Roots::default())
    }

    /// Recognizes limits that are those of a control group, and the floor that [`detect`](Self::detect) would set. For a
    /// host in C, whose limits are plain numbers: they do not say that they were detected.
    #[cfg(feature = "capi")]
    pub(crate) fn recognize_found(self) -> ResourceLimitsBuilder {
        self.recognize_found_in(Roots::default())
    }

    #[cfg(feature = "capi")]
    fn recognize_found_in(self, roots: Roots) -> ResourceLimitsBuilder {
        let floor = machine_memory(roots.proc_root.join("meminfo")).ok().and_then(MachineTotal::floor);
        let groups = Cgroups::new(roots).least_limits();
        let found =
            [(Resource::Memory, groups.memory), (Resource::Processes, groups.pids), (Resource::MachineMemory, floor)];
        found.into_iter().fold(self, |builder, (resource, found)| match found {
            Some((limit, origin)) => builder.recognizing(resource, limit, origin),
            None => builder,
        })
    }

    fn detect_in(self, roots: Roots) -> Result<ResourceLimitsBuilder, Error> {
        let machine = machine_memory(roots.proc_root.join("meminfo"));
        let groups = Cgroups::new(roots).least_limits();
        let (machine, machine_unread) = match machine {
            Ok(machine) => (Some(machine), None),
            Err(error) => (None, Some(error)),
        };
        let total = machine.as_ref().map(|machine| (machine.total, Origin::new(machine.total_origin.as_str())));
        let floor = machine.and_then(MachineTotal::floor);
        let user = rlimit::user_tasks().map(|limit| (limit, Origin::new("RLIMIT_NPROC")));
        let files = rlimit::open_files().map(|limit| (limit, Origin::new("RLIMIT_NOFILE")));
        let found = [
            (Resource::Memory, [groups.memory, total]),
            (Resource::Processes, [groups.pids, user]),
            (Resource::OpenFiles, [files, None]),
            (Resource::MachineMemory, [floor, None]),
        ];
        let builder = found.into_iter().fold(self, |builder, (resource, limits)| {
            match limits.into_iter().flatten().min_by_key(|(limit, _)| *limit) {
                Some((limit, origin)) => builder.or_found(resource, limit, origin),
                None => builder,
            }
        });
        match machine_unread {
            // The limits of the process alone say nothing of what is around it.
            Some(error) if !groups.any_read => Err(error),
            error => {
                let unread = error.map(Arc::new).into_iter().chain(groups.unread);
                Ok(unread.fold(builder, ResourceLimitsBuilder::or_unread))
            }
        }
    }
}

/// The part of the machine's memory that is to stay available, where nobody has said how much.
const FLOOR_SHARE: u64 = 10;

/// The memory of the machine, as a file of the kernel's tells it.
struct MachineTotal {
    total: u64,
    /// Where it is said.
    total_origin: String,
    tells_available: bool,
}

impl MachineTotal {
    /// The part that is to stay available, if the kernel tells how much is.
    fn floor(self) -> Option<(u64, Origin)> {
        let MachineTotal { total, total_origin, tells_available } = self;
        tells_available.then(|| (total / FLOOR_SHARE, Origin::new(format!("a tenth of {total_origin}"))))
    }
}

fn machine_memory(path: PathBuf) -> Result<MachineTotal, Error> {
    let mut text = vec![0; MEMINFO];
    let length = open_regular(&path).and_then(|file| read_at_start(file.as_fd(), &mut text));
    let length = length.map_err(|error| Error::read(path.clone(), error))?;
    text.truncate(length);
    let total = meminfo::total(&text).map_err(|what| Error::malformed(path.clone(), what))?;
    let total_origin = format!("MemTotal of {}", path.display());
    Ok(MachineTotal { total, total_origin, tells_available: meminfo::available(&text).is_ok() })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::readers::fixture::Machine;
    use crate::vocabulary::ErrorKind;

    const MOUNTS: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

    /// A machine on which the files of the group `a/b` and of `a` say this.
    fn laid_out(files: &[(&str, &str)]) -> Machine {
        let machine = Machine::new("0::/a/b\n", MOUNTS)
            .with("proc/meminfo", "MemTotal:       2097152 kB\nMemFree:        1000 kB\n");
        files.iter().fold(machine, |machine, (path, text)| machine.with(path, text))
    }

    fn detected(files: &[(&str, &str)]) -> (Machine, Result<ResourceLimits, Error>) {
        let machine = laid_out(files);
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
        assert_eq!(limits.group_of(Resource::Memory), Some(&*machine.path().join("cgroup/a")));
        assert_eq!(limits.group_of(Resource::Processes), Some(&*machine.path().join("cgroup/a/b")));
        assert_eq!(limits.group_of(Resource::OpenFiles), None);
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
    fn a_tenth_of_the_machine_is_to_stay_available_where_the_kernel_tells_what_is() {
        let (machine, limits) = detected(&[]);
        assert_eq!(limits.unwrap().min_available_memory_bytes(), None);
        let path = machine.path().join("proc/meminfo");
        let text = "MemTotal: 2097152 kB\nMemAvailable: 1000000 kB\n";
        fs::write(&path, text).unwrap();
        let detected = |builder: ResourceLimitsBuilder| builder.detect_in(machine.roots()).unwrap().build().unwrap();
        let limits = detected(ResourceLimits::builder());
        assert_eq!(limits.min_available_memory_bytes(), Some((2 << 30) / 10));
        let origin = format!("machine memory at least 204.7 MB (a tenth of MemTotal of {})", path.display());
        assert!(limits.to_string().contains(&origin), "{limits}");
        let set = detected(ResourceLimits::builder().min_available_memory_mb(50));
        assert_eq!(set.min_available_memory_bytes(), Some(50 << 20));
    }

    #[test]
    fn a_limit_of_zero_is_an_error_that_says_where_it_stands() {
        let (machine, limits) = detected(&[("cgroup/a/pids.max", "0\n")]);
        let error = limits.unwrap_err().to_string();
        let path = machine.path().join("cgroup/a/pids.max").display().to_string();
        assert!(error.starts_with("process limit 0 (") && error.contains(&path), "{error}");
    }

    /// Puts something where a file is expected.
    type Put = fn(&Path);

    /// Things that may stand in the place of a file, each with a word of the error that it makes.
    const IN_ITS_PLACE: [(Put, &str); 10] = [
        (|_| (), "No such file"),
        (|path| fs::write(path, "").unwrap(), "malformed"),
        (|path| fs::write(path, "MemFree: 1 kB\n").unwrap(), "malformed"),
        (|path| fs::write(path, "MemTotal: 0 kB\n").unwrap(), "malformed"),
        (|path| fs::write(path, "MemTotal: 99999999999999999999999999 kB\n").unwrap(), "malformed"),
        (|path| fs::write(path, "MemTotal ".repeat(1 << 20)).unwrap(), "malformed"),
        (|path| mkfifo(path, Mode::S_IRWXU).unwrap(), "regular"),
        (|path| fs::create_dir(path).unwrap(), "regular"),
        (|path| symlink("/dev/zero", path).unwrap(), "regular"),
        (|path| drop(UnixListener::bind(path).unwrap()), "No such device"),
    ];

    /// Detects with each of these things in the place of a file.
    fn with_things_in_the_place_of(
        place: &str,
        files: &[(&str, &str)],
        check: impl Fn(&str, Result<ResourceLimits, Error>, &str),
    ) {
        for (put, word) in IN_ITS_PLACE {
            let machine = laid_out(files);
            let path = machine.path().join(place);
            let _ = fs::remove_file(&path);
            put(&path);
            let limits = ResourceLimits::builder().detect_in(machine.roots());
            check(&path.display().to_string(), limits.and_then(ResourceLimitsBuilder::build), word);
        }
    }

    #[test]
    fn limits_of_groups_are_found_where_the_memory_of_the_machine_cannot_be_read() {
        let limited = [("cgroup/a/b/memory.max", "268435456\n"), ("cgroup/a/pids.max", "30\n")];
        with_things_in_the_place_of("proc/meminfo", &limited, |path, limits, word| {
            let limits = limits.unwrap();
            assert_eq!((limits.max_memory_mb(), limits.max_processes()), (Some(256), Some(30)));
            let text = limits.to_string();
            let said = text.split_once("critical at 95 %; ").map_or("", |(_, said)| said);
            assert!(said.contains(path) && said.contains(word), "{word}: {text}");
        });
    }

    #[test]
    fn a_group_without_limits_is_an_answer_where_the_memory_of_the_machine_cannot_be_read() {
        with_things_in_the_place_of("proc/meminfo", &[("cgroup/a/b/memory.max", "max\n")], |_, limits, word| {
            let limits = limits.unwrap();
            assert_eq!((limits.max_memory_mb(), limits.max_open_files()), (None, rlimit::open_files()));
            assert!(limits.to_string().contains(word), "{limits}");
        });
    }

    #[test]
    fn the_memory_of_the_machine_is_found_where_groups_cannot_be_read() {
        for place in ["cgroup/a/b/memory.max", "cgroup/a/b/pids.max", "proc/self/cgroup", "proc/self/mountinfo"] {
            let limited = [("cgroup/a/memory.max", "268435456\n"), ("cgroup/a/pids.max", "30\n"), (place, "")];
            with_things_in_the_place_of(place, &limited, |path, limits, word| {
                let limits = limits.unwrap();
                let in_group = place.starts_with("cgroup/");
                assert_eq!(limits.max_memory_mb(), Some(if in_group { 256 } else { 2048 }), "{place} {word}");
                // A group without a limit has no file; what is text names other groups and mounts, or none.
                let is_said = limits.to_string().contains(path);
                assert!(is_said || word == "No such file" || !in_group && word == "malformed", "{word}: {limits}");
            });
        }
    }

    #[cfg(feature = "capi")]
    #[test]
    fn a_number_that_is_a_groups_limit_or_the_floor_that_is_found_is_recognized_as_that() {
        let machine = laid_out(&[("cgroup/a/memory.max", "268435456\n"), ("cgroup/a/pids.max", "30\n")]);
        let recognized = |builder: ResourceLimitsBuilder| builder.recognize_found_in(machine.roots()).build().unwrap();
        let limits = recognized(ResourceLimits::builder().max_memory_bytes(256 << 20).max_processes(31));
        assert_eq!(limits.group_of(Resource::Memory), Some(&*machine.path().join("cgroup/a")));
        assert_eq!((limits.group_of(Resource::Processes), limits.max_processes()), (None, Some(31)));
        assert_eq!(recognized(ResourceLimits::builder()).max_memory_bytes(), None);

        let path = machine.path().join("proc/meminfo");
        fs::write(&path, "MemTotal: 2097152 kB\nMemAvailable: 1000000 kB\n").unwrap();
        let origin = |bytes: u64| {
            let limits = recognized(ResourceLimits::builder().min_available_memory_bytes(bytes));
            limits.origin_of(Resource::MachineMemory).map(ToString::to_string)
        };
        let tenth = (2 << 30) / 10;
        assert_eq!(origin(tenth), Some(format!("a tenth of MemTotal of {}", path.display())));
        assert_eq!(origin(tenth + 1), None);
    }

    #[test]
    fn nothing_that_can_be_read_is_an_error() {
        let machine = Machine::new("", "");
        let error = ResourceLimits::builder().detect_in(machine.roots()).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Read, Some(&*machine.path().join("proc/meminfo"))));
    }
}
