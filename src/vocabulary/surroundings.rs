//! What a check found around the process: the limits that somebody else set, and the pressure on memory.

use std::path::Path;
use std::sync::Arc;

use super::{Amount, Error, Optional};

/// Memory charged to the control group whose limit leaves the least room.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CgroupMemory {
    /// The folder of the group: the own one, or one above it.
    pub path: Arc<Path>,
    /// What is judged, in bytes: what is charged, without the page cache that the kernel would drop before it refuses
    /// more. Never less than the anonymous and shared memory.
    pub usage_bytes: u64,
    /// All that is charged, in bytes: `memory.current`, or `memory.usage_in_bytes` of version 1.
    pub raw_bytes: u64,
    /// `memory.max`, or `memory.limit_in_bytes` of version 1, in bytes.
    pub limit_bytes: u64,
}

/// Tasks, which are threads, in the control group whose limit leaves the least room.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CgroupPids {
    /// The folder of the group: the own one, or one above it.
    pub path: Arc<Path>,
    /// `pids.current`.
    pub count: u64,
    /// `pids.max`.
    pub limit: u64,
}

/// File descriptors of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenFiles {
    /// How many are open.
    pub count: u64,
    /// `RLIMIT_NOFILE`, the soft one; `None` is unlimited.
    pub limit: Option<u64>,
}

/// How much of the last ten seconds was spent waiting for memory, in percent: that of the own control group, else of
/// the machine.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct MemoryPressure {
    /// By at least one task: `some avg10`.
    pub some_avg10: f64,
    /// By every task that had anything to do: `full avg10`.
    pub full_avg10: f64,
}

/// All that is optional of a reading.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) cgroup_memory: Optional<CgroupMemory>,
    /// Of a group above or below, which was not judged.
    pub(crate) memory_unread: Option<Arc<Error>>,
    pub(crate) cgroup_pids: Optional<CgroupPids>,
    pub(crate) pids_unread: Option<Arc<Error>>,
    pub(crate) open_files: Optional<OpenFiles>,
    pub(crate) memory_pressure: Optional<MemoryPressure>,
    pub(crate) threads: Option<u64>,
}

impl Default for Surroundings {
    fn default() -> Surroundings {
        Surroundings {
            cgroup_memory: Ok(None),
            memory_unread: None,
            cgroup_pids: Ok(None),
            pids_unread: None,
            open_files: Ok(None),
            memory_pressure: Ok(None),
            threads: None,
        }
    }
}

impl From<&CgroupMemory> for Amount {
    fn from(memory: &CgroupMemory) -> Amount {
        let group = Some(Arc::clone(&memory.path));
        Amount { limit: Some(memory.limit_bytes), group, ..Amount::of(memory.usage_bytes) }
    }
}

impl From<&CgroupPids> for Amount {
    fn from(pids: &CgroupPids) -> Amount {
        let group = Some(Arc::clone(&pids.path));
        Amount { limit: Some(pids.limit), group, ..Amount::of(pids.count) }
    }
}

impl From<&OpenFiles> for Amount {
    fn from(files: &OpenFiles) -> Amount {
        Amount { limit: files.limit, ..Amount::of(files.count) }
    }
}

impl From<&MemoryPressure> for Amount {
    fn from(pressure: &MemoryPressure) -> Amount {
        // At most 100 x 100, and made of two decimals.
        Amount::of((pressure.some_avg10 * 100.0).round() as u64)
    }
}
