//! The watched resources and the facts of each.

use std::fmt;

use super::{GaugeName, Work, WorkUsage, MOST_GAUGES};

/// Bytes in what this crate calls a megabyte: 1024 x 1024, the unit of `free -m` and of container limits.
pub(crate) const MB: u64 = 1024 * 1024;

/// The resources: a row each, of its variant and its facts. Whatever must know all resources is made from this table,
/// or is a `match` without a `_`, so that the compiler asks for what a new one lacks.
macro_rules! resources {
    ($($(#[$doc:meta])* $resource:ident => $facts:expr;)+) => {
        /// One watched quantity with a limit.
        ///
        /// [`Memory`](Resource::Memory) and [`Processes`](Resource::Processes) are required: while one cannot be read,
        /// no work is accepted. The others are optional: an absent or unreadable one closes nothing; the verdict and
        /// the log name the unreadable ones.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Resource {
            $($(#[$doc])* $resource,)+
            /// A quantity that only the host knows, such as connections or licences, which it pushes.
            Gauge(GaugeName),
        }

        /// The places of the resources that every monitor has.
        #[derive(Clone, Copy)]
        enum Place {
            $($resource,)+
        }

        impl Resource {
            /// Every resource that is read, in the order in which verdicts list them.
            pub(crate) const READ: [Resource; [$(Place::$resource),+].len()] = [$(Resource::$resource),+];

            /// The facts of this resource.
            pub(crate) const fn facts(self) -> &'static Facts {
                match self {
                    $(Resource::$resource => &$facts,)+
                    Resource::Gauge(_) => &GAUGE,
                }
            }

            /// Its place among [`ALL`](Resource::ALL).
            pub(crate) const fn place(self) -> usize {
                match self {
                    $(Resource::$resource => Place::$resource as usize,)+
                    Resource::Gauge(gauge) => Resource::READ.len() + gauge.place(),
                }
            }
        }
    };
}

/// The facts of one resource: how it is said, how it is logged, and how it is judged.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Its name in texts.
    pub(crate) name: &'static str,
    /// Its name in those of its log events, which are `monitor.<event_key>_warning` and so on.
    pub(crate) event_key: &'static str,
    /// The log key of its usage.
    pub(crate) usage_key: &'static str,
    /// The log key of the host's limit, without `old_` or `new_`; `None`: the host cannot limit it.
    pub(crate) limit_key: Option<&'static str>,
    /// The name of its limit in errors, as in `process limit 0`.
    pub(crate) limit_noun: &'static str,
    pub(crate) unit: Unit,
    pub(crate) limited_by: LimitedBy,
    /// The log key of the control group, or the folder, that it was read of.
    pub(crate) place_key: &'static str,
    /// A check that could not read it has failed.
    pub(crate) required: bool,
    /// A few microseconds read it, so that it is read between two checks as well.
    pub(crate) read_alone: bool,
    /// The part of a piece of work that adds to it.
    pub(crate) declared: fn(&Work) -> u64,
    /// The part of what was measured of another process's work that adds to it; `None` if such work adds nothing.
    pub(crate) of_others: Option<fn(&WorkUsage) -> u64>,
    /// The resource that takes over a limit of this one that was found in a control group: such a limit is one on what
    /// is charged to the group.
    pub(crate) in_group: Option<Resource>,
}

/// The side from which a resource is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitedBy {
    /// The most that may be used. Thresholds are percentages of it.
    Ceiling,
    /// The least that is to be left of what there is. It is the warning threshold, and half of it the hard one.
    Floor,
}

/// The unit that a resource is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Count,
    /// Hundredths of a percent.
    Percent,
}

resources! {
    /// Resident memory, in bytes, of the process or of its whole tree (see [`MemoryScope`]).
    Memory => Facts {
        name: "memory",
        event_key: "memory",
        usage_key: "usage_mb",
        limit_key: Some("max_memory_bytes"),
        limit_noun: "memory",
        unit: Unit::Bytes,
        limited_by: LimitedBy::Ceiling,
        place_key: "cgroup",
        required: true,
        read_alone: true,
        declared: |work| work.memory_bytes,
        of_others: Some(|usage| usage.memory_bytes),
        in_group: Some(Resource::CgroupMemory),
    };
    /// Descendant processes of the process, at any depth, zombies included.
    Processes => Facts {
        name: "processes",
        event_key: "processes",
        usage_key: "count",
        limit_key: Some("max_processes"),
        limit_noun: "process",
        unit: Unit::Count,
        limited_by: LimitedBy::Ceiling,
        place_key: "cgroup",
        required: true,
        read_alone: false,
        declared: |work| work.processes,
        of_others: Some(|usage| usage.processes),
        in_group: Some(Resource::CgroupPids),
    };
    /// Memory that is charged to the control group whose limit leaves the least room, the own one or one above it, in
    /// bytes, without what the kernel would take back before it refuses more.
    CgroupMemory => Facts {
        name: "cgroup memory",
        event_key: "cgroup_memory",
        usage_key: "usage_mb",
        limit_key: None,
        limit_noun: "cgroup memory",
        unit: Unit::Bytes,
        limited_by: LimitedBy::Ceiling,
        place_key: "cgroup",
        required: false,
        read_alone: true,
        declared: |work| work.memory_bytes,
        of_others: Some(|usage| usage.memory_bytes),
        in_group: None,
    };
    /// Tasks, which are threads, in the control group whose limit leaves the least room, the own one or one above it.
    CgroupPids => Facts {
        name: "cgroup pids",
        event_key: "cgroup_pids",
        usage_key: "count",
        limit_key: None,
        limit_noun: "cgroup task",
        unit: Unit::Count,
        limited_by: LimitedBy::Ceiling,
        place_key: "cgroup",
        required: false,
        read_alone: false,
        declared: |work| work.processes,
        of_others: Some(|usage| usage.processes),
        in_group: None,
    };
    /// File descriptors that this process has open.
    OpenFiles => Facts {
        name: "open files",
        event_key: "open_files",
        usage_key: "count",
        limit_key: Some("max_open_files"),
        limit_noun: "open file",
        unit: Unit::Count,
        limited_by: LimitedBy::Ceiling,
        place_key: "cgroup",
        required: false,
        read_alone: false,
        declared: |work| work.open_files,
        of_others: None,
        in_group: None,
    };
    /// The share of the last ten seconds in which some task waited for memory, in hundredths of a percent: that of the
    /// own control group, else of the machine.
    MemoryPressure => Facts {
        name: "memory pressure",
        event_key: "memory_pressure",
        usage_key: "some_avg10",
        limit_key: Some("max_memory_pressure_percent"),
        limit_noun: "memory pressure",
        unit: Unit::Percent,
        limited_by: LimitedBy::Ceiling,
        place_key: "cgroup",
        required: false,
        read_alone: true,
        declared: |_| 0,
        of_others: None,
        in_group: None,
    };
    /// The share of the time since an earlier check in which some task that could run waited for a CPU, in hundredths of
    /// a percent: that of the own control group, else of the machine.
    CpuPressure => Facts {
        name: "CPU pressure",
        event_key: "cpu_pressure",
        usage_key: "some_percent",
        limit_key: Some("max_cpu_pressure_percent"),
        limit_noun: "CPU pressure",
        unit: Unit::Percent,
        limited_by: LimitedBy::Ceiling,
        place_key: "cgroup",
        required: false,
        read_alone: false,
        declared: |_| 0,
        of_others: None,
        in_group: None,
    };
    /// The share of the time since an earlier check in which some task waited for a disk or another block device, in
    /// hundredths of a percent: that of the own control group, else of the machine.
    IoPressure => Facts {
        name: "I/O pressure",
        event_key: "io_pressure",
        usage_key: "some_percent",
        limit_key: Some("max_io_pressure_percent"),
        limit_noun: "I/O pressure",
        unit: Unit::Percent,
        limited_by: LimitedBy::Ceiling,
        place_key: "cgroup",
        required: false,
        read_alone: false,
        declared: |_| 0,
        of_others: None,
        in_group: None,
    };
    /// Memory of the machine that is not available, in bytes: all of it less `MemAvailable`, whoever uses it.
    MachineMemory => Facts {
        name: "machine memory",
        event_key: "machine_memory",
        usage_key: "usage_mb",
        limit_key: Some("min_available_memory_bytes"),
        limit_noun: "machine memory",
        unit: Unit::Bytes,
        limited_by: LimitedBy::Floor,
        place_key: "",
        required: false,
        read_alone: true,
        declared: |work| work.memory_bytes,
        of_others: Some(|usage| usage.memory_bytes),
        in_group: None,
    };
    /// Bytes of a file system that cannot be had by a user without privileges, because they are used or set aside.
    DiskSpace => Facts {
        name: "disk space",
        event_key: "disk_space",
        usage_key: "usage_mb",
        limit_key: Some("min_free_disk_bytes"),
        limit_noun: "disk space",
        unit: Unit::Bytes,
        limited_by: LimitedBy::Floor,
        place_key: "path",
        required: false,
        read_alone: false,
        declared: |work| work.disk_bytes,
        // Nobody tells which files are whose: what is declared stays reserved for as long as the permit lives.
        of_others: Some(|_| 0),
        in_group: None,
    };
}

/// The facts of every gauge.
const GAUGE: Facts = Facts {
    name: "gauge",
    event_key: "gauge",
    usage_key: "value",
    limit_key: None,
    limit_noun: "gauge",
    unit: Unit::Count,
    limited_by: LimitedBy::Ceiling,
    place_key: "",
    required: false,
    // It is never old.
    read_alone: false,
    // By its place: see `Work::of`.
    declared: |_| 0,
    of_others: Some(|_| 0),
    in_group: None,
};

// What is kept for each resource is found by its place: see `PerResource`.
const _: () = {
    let mut place = 0;
    while place < Resource::ALL.len() {
        assert!(Resource::ALL[place].place() == place);
        place += 1;
    }
};

impl Resource {
    /// Every resource, in the order in which verdicts list them; the gauges by their places, since no name is known here.
    pub(crate) const ALL: [Resource; Resource::READ.len() + MOST_GAUGES] = {
        let mut all = [Resource::Memory; Resource::READ.len() + MOST_GAUGES];
        let mut place = 0;
        while place < all.len() {
            all[place] = match place.checked_sub(Resource::READ.len()) {
                None => Resource::READ[place],
                Some(gauge) => Resource::Gauge(GaugeName::of_place(gauge as u8)),
            };
            place += 1;
        }
        all
    };

    /// The resources without which a check has failed.
    pub(crate) fn required() -> impl Iterator<Item = Resource> {
        Resource::ALL.into_iter().filter(|resource| resource.facts().required)
    }

    /// The resources that are read between two checks as well.
    pub(crate) fn read_alone() -> impl Iterator<Item = Resource> {
        Resource::ALL.into_iter().filter(|resource| resource.facts().read_alone)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Gauge(gauge) => gauge.fmt(f),
            _ => f.write_str(self.facts().name),
        }
    }
}

/// Whose resident memory is held against the memory limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum MemoryScope {
    /// The process that links this library, alone.
    #[default]
    Own,
    /// That process and every descendant.
    ///
    /// The sum of what is resident in each of them: pages that they share count once for each, which is never too low.
    /// Where that sum, with what is reserved, would close the gate, shared pages are counted once (`Pss` of
    /// `smaps_rollup`, proc_pid_smaps(5)), the largest process first, as far as it takes. The kernel goes through all
    /// pages of a process for that, 9 ms of CPU for 1 GiB, and holds up `mmap` in it meanwhile. The cost counts towards
    /// the CPU budget, so the next check is later; the result is kept for up to 32 checks, with all that can have been
    /// added since. A process that was seen to share little of what it holds counts in full, which makes the sum too large by
    /// a sixteenth of what would close the gate at most.
    ///
    /// A process of which the shares may not be read (another user's) counts in full, and one that may not be looked at
    /// at all (`hidepid`) as it was last seen, or not. Work that is asked for is judged on the sum as well, while that
    /// closes nothing.
    Tree,
}

/// The level of a resource: how near to its limit it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Level {
    #[default]
    Normal,
    Warning,
    Critical,
}

/// One value for each [`Resource`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PerResource<T>([T; Resource::ALL.len()]);

impl<T> PerResource<T> {
    pub(crate) fn from_fn(value: impl FnMut(Resource) -> T) -> PerResource<T> {
        PerResource(Resource::ALL.map(value))
    }

    pub(crate) fn get(&self, resource: Resource) -> &T {
        &self.0[resource.place()]
    }

    pub(crate) fn get_mut(&mut self, resource: Resource) -> &mut T {
        &mut self.0[resource.place()]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_resource_has_names_of_its_own() {
        for names in [
            Resource::READ.map(|resource| resource.facts().name),
            Resource::READ.map(|resource| resource.facts().event_key),
        ] {
            assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{names:?}");
        }
    }

    #[test]
    fn each_resource_has_a_place_of_its_own() {
        let places = PerResource::from_fn(|resource| resource);
        for resource in Resource::ALL {
            assert_eq!(*places.get(resource), resource);
        }
    }
}
