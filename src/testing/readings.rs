//! The readings of a script, as a probe finds them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, Weak};

use crate::engine::{Core, Shared};
use crate::readers::cgroup::{Alarms, Watch};
use crate::readers::probe::Probe;
use crate::vocabulary::{
    CgroupMemory, CgroupPids, DiskSpace, Error, ErrorKind, Found, Identity, MachineMemory, MemoryPressure, MemoryScope,
    OpenFiles, PerResource, Reading, RecentPressure, Resource, Settings,
};

/// The folder of the control group that usage and limits are said to be those of.
const GROUP: &str = "/sys/fs/cgroup/script";

/// The numbers of one resource: what is used, and the kernel's limit, where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) usage: u64,
    pub(super) limit: Option<u64>,
}

/// What a reading finds.
#[derive(Debug)]
pub(super) struct Readings {
    /// What each resource reads as: nothing, or an error of this text, or its numbers.
    pub(super) resources: PerResource<Option<Result<Amount, String>>>,
    /// The memory in bytes, and the number, of a process and everything below it.
    pub(super) subtrees: BTreeMap<u32, (u64, u64)>,
    /// Whether readings of the check thread hang.
    pub(super) hang: bool,
}

impl Default for Readings {
    /// The required resources read as unused, the others are not there.
    fn default() -> Readings {
        let unused = Amount { usage: 0, limit: None };
        let resources = PerResource::from_fn(|resource| resource.facts().required.then_some(Ok(unused)));
        Readings { resources, subtrees: BTreeMap::new(), hang: false }
    }
}

impl Readings {
    /// Stores what this resource reads as.
    fn read(&self, resource: Resource, into: &mut Reading) {
        match self.resources.get(resource) {
            None => {}
            Some(Ok(amount)) => store(resource, *amount, into),
            Some(Err(reason)) => {
                let error = Error::new(ErrorKind::Read, reason.clone());
                *into.unread.get_mut(resource) = Some(Arc::new(error));
            }
        }
    }

    fn read_subtrees(&self, into: &mut Reading) {
        for subtree in &mut into.subtrees {
            if let Some((memory_bytes, processes)) = self.subtrees.get(&subtree.root.pid) {
                (subtree.memory_bytes, subtree.processes) = (*memory_bytes, *processes);
                subtree.is_alive = *processes > 0;
            }
        }
    }
}

/// Stores the numbers of a resource in the field of the snapshot that is its own.
fn store(resource: Resource, Amount { usage, limit }: Amount, into: &mut Reading) {
    let path = || Arc::from(Path::new(GROUP));
    let snapshot = &mut into.snapshot;
    // Of those with a floor, the limit is all that there is.
    let limit_or_usage = limit.unwrap_or(usage);
    let left = limit_or_usage.saturating_sub(usage);
    let percent = usage as f64 / 100.0;
    let recent = RecentPressure { some_percent: percent, over: std::time::Duration::from_secs(1) };
    match resource {
        Resource::Memory => snapshot.memory_bytes = Some(usage),
        Resource::Processes => snapshot.child_process_count = Some(usize::try_from(usage).unwrap_or(usize::MAX)),
        Resource::CgroupMemory => {
            snapshot.cgroup_memory =
                Some(CgroupMemory { path: path(), usage_bytes: usage, raw_bytes: usage, limit_bytes: limit_or_usage });
        }
        Resource::CgroupPids => {
            snapshot.cgroup_pids = Some(CgroupPids { path: path(), count: usage, limit: limit_or_usage });
        }
        Resource::OpenFiles => snapshot.open_files = Some(OpenFiles { count: usage, limit }),
        Resource::MemoryPressure => {
            snapshot.memory_pressure = Some(MemoryPressure { some_avg10: percent, full_avg10: 0.0 });
        }
        Resource::CpuPressure => snapshot.cpu_pressure = Some(recent),
        Resource::IoPressure => snapshot.io_pressure = Some(recent),
        Resource::MachineMemory => {
            snapshot.machine_memory = Some(MachineMemory { available_bytes: left, total_bytes: limit_or_usage });
        }
        Resource::DiskSpace => {
            snapshot.disk_space =
                into.disk.clone().map(|path| DiskSpace { path, free_bytes: left, total_bytes: limit_or_usage });
        }
        // They are pushed by the host.
        Resource::Gauge(_) => {}
    }
}

/// The readings, and the monitor that reads them.
#[derive(Debug, Default)]
pub(super) struct Scripted {
    readings: std::sync::Mutex<Readings>,
    /// Set when the monitor is there. It has the probe, and the probe this.
    pub(super) monitor: std::sync::OnceLock<Weak<Shared>>,
}

impl Scripted {
    pub(super) fn with_readings<R>(&self, look: impl FnOnce(&mut Readings) -> R) -> R {
        look(&mut self.readings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Calls this with the core of the monitor, if that is still there.
    pub(super) fn with_core<R>(&self, look: impl FnOnce(&Core) -> R) -> Option<R> {
        let shared = self.monitor.get()?.upgrade()?;
        shared.current().map(look)
    }
}

/// The probe that finds whatever the script says.
#[derive(Debug)]
pub(super) struct ScriptedProbe(pub(super) Arc<Scripted>);

impl Probe for ScriptedProbe {
    fn read(&self, settings: &Settings, into: &mut Reading) {
        into.clear();
        self.0.with_core(|core| core.hang_while(|| self.0.with_readings(|readings| readings.hang)));
        self.0.with_readings(|readings| {
            for resource in Resource::READ.into_iter().filter(|resource| !*settings.ignored.get(*resource)) {
                readings.read(resource, into);
            }
            readings.read_subtrees(into);
        });
    }

    fn read_memory(&self, settings: &Settings) -> Found {
        let is_read = |resource: &Resource| match resource {
            Resource::Memory => settings.memory_scope == MemoryScope::Own,
            resource => !*settings.ignored.get(*resource),
        };
        let mut reading = Reading::default();
        self.0.with_readings(|readings| {
            Resource::read_alone().filter(is_read).for_each(|resource| readings.read(resource, &mut reading));
        });
        reading.found()
    }

    fn own_memory(&self) -> Result<u64, Error> {
        let mut reading = Reading::default();
        self.0.with_readings(|readings| readings.read(Resource::Memory, &mut reading));
        reading.snapshot.memory_bytes.ok_or_else(|| Error::new(ErrorKind::Read, "the script has no memory to read"))
    }

    fn descendant(&self, pid: u32) -> Result<(Identity, bool), Error> {
        let is_alive =
            |readings: &mut Readings| readings.subtrees.get(&pid).is_some_and(|(_, processes)| *processes > 0);
        if self.0.with_readings(is_alive) {
            // No child: the kernel is not asked whether it has ended.
            Ok((Identity { pid, start_ticks: 1 }, false))
        } else {
            Err(Error::process(format!("process {pid} is not in the script")))
        }
    }

    fn arm(&self, _: &Settings, _: &Watch) -> Alarms {
        Alarms::default()
    }

    fn is_outdated(&self, _: &Alarms) -> bool {
        false
    }
}
