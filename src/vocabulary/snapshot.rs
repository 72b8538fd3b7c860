//! The findings of one check.

use std::fmt;
use std::time::{Duration, Instant};

use super::{
    CgroupMemory, CgroupPids, DiskSpace, Exhaustion, GaugeReading, GaugeReadings, MachineMemory, Measured,
    MemoryPressure, OpenFiles, RecentPressure, Resource, Shown, MB,
};

/// The findings of one check.
///
/// Absent (`None`) means that it could not be read; it is never a zero.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ResourceSnapshot {
    /// When the reading was complete.
    pub timestamp: Instant,
    /// Resident memory in bytes, in the chosen [`MemoryScope`](crate::MemoryScope); `None` when it could not be read.
    pub memory_bytes: Option<u64>,
    /// Descendant processes at any depth, zombies included; `None` when they could not be counted.
    pub child_process_count: Option<usize>,
    /// The answer of [`JobManager::running_count`](crate::JobManager::running_count); 0 without a manager.
    pub running_jobs: usize,
    /// Units of work in progress inside the running jobs, as
    /// [`JobManager::active_job_count`](crate::JobManager::active_job_count) said; 0 without a manager.
    pub active_sheets: usize,
    /// Descendants that have ended and that nobody has waited for, in ascending order.
    pub zombie_pids: Vec<u32>,
    /// Threads of this process; `None` when they could not be counted.
    pub thread_count: Option<usize>,
    /// `None` when no control group that can be seen limits memory, or it could not be read, or is ignored.
    pub cgroup_memory: Option<CgroupMemory>,
    /// `None` when no control group that can be seen limits tasks, or it could not be read, or is ignored.
    pub cgroup_pids: Option<CgroupPids>,
    /// `None` when they could not be counted, or are ignored.
    pub open_files: Option<OpenFiles>,
    /// `None` where the kernel does not tell, or it could not be read, or is ignored.
    pub memory_pressure: Option<MemoryPressure>,
    /// `None` when it could not be read, or is ignored.
    pub machine_memory: Option<MachineMemory>,
    /// `None` without a floor, or when it could not be read, or is ignored.
    pub disk_space: Option<DiskSpace>,
    /// `None` where the kernel does not tell, or it could not be read, or is ignored.
    pub cpu_pressure: Option<RecentPressure>,
    /// `None` where the kernel does not tell, or it could not be read, or is ignored.
    pub io_pressure: Option<RecentPressure>,
    pub(crate) gauges: GaugeReadings,
    /// The resource that is used up first, and when; `None` where nothing grows, or not so that it would be full within an
    /// hour. Of a check that was not published, because a later one was, it is not known.
    pub exhaustion: Option<Exhaustion>,
    /// How long the reading took, in elapsed time, not CPU time.
    pub check_duration: Duration,
    /// How long after its time the check began, with the resolution of the coarse clock (1 to 10 ms): zero unless the
    /// check thread had planned it.
    pub lateness: Duration,
}

impl ResourceSnapshot {
    /// Resident memory in MB of 1024 x 1024 bytes; 0.0 when it could not be read.
    pub fn memory_usage_mb(&self) -> f64 {
        self.memory_bytes.map_or(0.0, |bytes| bytes as f64 / MB as f64)
    }

    /// The gauges of the host, as they stood.
    pub fn gauges(&self) -> impl Iterator<Item = GaugeReading> + '_ {
        self.gauges.iter().flatten().copied()
    }

    /// Whether a required resource could not be read: the gate is closed until the next good check.
    pub fn probe_failed(&self) -> bool {
        Resource::required().any(|resource| self.measured(resource).is_none())
    }

    /// A snapshot in which nothing has been read.
    pub(crate) fn unread() -> ResourceSnapshot {
        ResourceSnapshot {
            timestamp: Instant::now(),
            memory_bytes: None,
            child_process_count: None,
            running_jobs: 0,
            active_sheets: 0,
            zombie_pids: Vec::new(),
            thread_count: None,
            cgroup_memory: None,
            cgroup_pids: None,
            open_files: None,
            memory_pressure: None,
            machine_memory: None,
            disk_space: None,
            cpu_pressure: None,
            io_pressure: None,
            gauges: GaugeReadings::default(),
            exhaustion: None,
            check_duration: Duration::ZERO,
            lateness: Duration::ZERO,
        }
    }

    /// Becomes one in which nothing has been read, but keeps the list's buffer.
    pub(crate) fn clear(&mut self) {
        let mut zombie_pids = std::mem::take(&mut self.zombie_pids);
        zombie_pids.clear();
        *self = ResourceSnapshot { zombie_pids, ..ResourceSnapshot::unread() };
    }

    /// Becomes a copy in the same buffer: a check in the steady state allocates nothing, zombies or not.
    pub(crate) fn copy_from(&mut self, source: &ResourceSnapshot) {
        let mut zombie_pids = std::mem::take(&mut self.zombie_pids);
        zombie_pids.clone_from(&source.zombie_pids);
        let (cgroup_memory, cgroup_pids) = (source.cgroup_memory.clone(), source.cgroup_pids.clone());
        let disk_space = source.disk_space.clone();
        *self = ResourceSnapshot { zombie_pids, cgroup_memory, cgroup_pids, disk_space, ..*source };
    }

    /// The numbers of one resource; `None` when it was not read.
    pub(crate) fn measured(&self, resource: Resource) -> Option<Measured> {
        match resource {
            Resource::Memory => self.memory_bytes.map(Measured::of),
            Resource::Processes => self.child_process_count.map(|count| Measured::of(count as u64)),
            Resource::CgroupMemory => self.cgroup_memory.as_ref().map(Measured::from),
            Resource::CgroupPids => self.cgroup_pids.as_ref().map(Measured::from),
            Resource::OpenFiles => self.open_files.as_ref().map(Measured::from),
            Resource::MemoryPressure => self.memory_pressure.as_ref().map(Measured::from),
            Resource::MachineMemory => self.machine_memory.as_ref().map(Measured::from),
            Resource::DiskSpace => self.disk_space.as_ref().map(Measured::from),
            Resource::Gauge(gauge) => self.gauges[gauge.place()].as_ref().map(Measured::from),
            Resource::CpuPressure => self.cpu_pressure.as_ref().map(Measured::from),
            Resource::IoPressure => self.io_pressure.as_ref().map(Measured::from),
        }
    }
}

/// One line, such as `memory 12.3 MB, processes 4, zombies 0, jobs 2, active 3, threads 5, cgroup memory 80.1 MB of
/// 256.0 MB, open files 12 of 1024, memory pressure 0.00 %`. An optional resource is listed if it was read.
impl fmt::Display for ResourceSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for resource in Resource::required() {
            match self.measured(resource) {
                Some(measured) => write!(f, "{separator}{resource} {}", Shown(resource, measured.usage))?,
                None => write!(f, "{separator}{resource} unread")?,
            }
            separator = ", ";
        }
        let zombies = self.zombie_pids.len();
        write!(f, ", zombies {zombies}, jobs {}, active {}", self.running_jobs, self.active_sheets)?;
        if let Some(threads) = self.thread_count {
            write!(f, ", threads {threads}")?;
        }
        for resource in Resource::ALL.into_iter().filter(|resource| !resource.facts().required) {
            let Some(measured) = self.measured(resource) else { continue };
            let resource = match resource {
                Resource::Gauge(gauge) => {
                    self.gauges[gauge.place()].map_or(resource, |gauge| Resource::Gauge(gauge.name))
                }
                _ => resource,
            };
            write!(f, ", {resource} {}", Shown(resource, measured.usage))?;
            if let Some(limit) = measured.limit {
                write!(f, " of {}", Shown(resource, limit))?;
            }
        }
        self.exhaustion.iter().try_for_each(|exhaustion| write!(f, ", {exhaustion}"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn an_unread_resource_is_said_and_is_no_zero() {
        let mut snapshot = ResourceSnapshot {
            memory_bytes: Some(3 * MB / 2),
            child_process_count: Some(4),
            running_jobs: 2,
            active_sheets: 3,
            zombie_pids: vec![7],
            ..ResourceSnapshot::unread()
        };
        assert_eq!(snapshot.to_string(), "memory 1.5 MB, processes 4, zombies 1, jobs 2, active 3");
        assert!(!snapshot.probe_failed());
        snapshot.memory_bytes = None;
        assert_eq!(snapshot.to_string(), "memory unread, processes 4, zombies 1, jobs 2, active 3");
        assert!(snapshot.probe_failed());
        assert_eq!(snapshot.memory_usage_mb(), 0.0);
    }

    #[test]
    fn what_is_optional_is_shown_where_it_was_read() {
        let snapshot = ResourceSnapshot {
            thread_count: Some(5),
            cgroup_memory: Some(CgroupMemory {
                path: Path::new("/box").into(),
                usage_bytes: MB,
                raw_bytes: 2 * MB,
                limit_bytes: 4 * MB,
            }),
            open_files: Some(OpenFiles { count: 12, limit: None }),
            memory_pressure: Some(MemoryPressure { some_avg10: 1.5, full_avg10: 0.0 }),
            ..ResourceSnapshot::unread()
        };
        let text =
            "memory unread, processes unread, zombies 0, jobs 0, active 0, threads 5, cgroup memory 1.0 MB of 4.0 MB, \
                    open files 12, memory pressure 1.50 %";
        assert_eq!(snapshot.to_string(), text);
        let mut copy = ResourceSnapshot { zombie_pids: vec![1], ..ResourceSnapshot::unread() };
        copy.copy_from(&snapshot);
        assert_eq!((copy.to_string(), copy.zombie_pids), (text.to_owned(), vec![]));
    }
}
