//! The surroundings of the process in a snapshot: limits that somebody else set, and the pressure on memory.

use std::path::Path;
use std::sync::Arc;

use super::Measured;

/// Memory charged to the control group whose limit leaves the least room.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CgroupMemory {
    /// The folder of the group: the own one, or one above it.
    pub path: Arc<Path>,
    /// The bytes that are judged: those charged, without the page cache that the kernel would drop before it refuses
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

impl From<&CgroupMemory> for Measured {
    fn from(memory: &CgroupMemory) -> Measured {
        let group = Some(Arc::clone(&memory.path));
        Measured { limit: Some(memory.limit_bytes), group, ..Measured::of(memory.usage_bytes) }
    }
}

impl From<&CgroupPids> for Measured {
    fn from(pids: &CgroupPids) -> Measured {
        let group = Some(Arc::clone(&pids.path));
        Measured { limit: Some(pids.limit), group, ..Measured::of(pids.count) }
    }
}

impl From<&OpenFiles> for Measured {
    fn from(files: &OpenFiles) -> Measured {
        Measured { limit: files.limit, ..Measured::of(files.count) }
    }
}

impl From<&MemoryPressure> for Measured {
    fn from(pressure: &MemoryPressure) -> Measured {
        // An integer again: the parser made it of two decimals, and it is at most 100.
        Measured::of((pressure.some_avg10 * 100.0).round() as u64)
    }
}
