//! The optional resources as the host sees them: their numbers in a snapshot, and the limits that it can set.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{GaugeReading, Measured, Resource, ResourceLimits, ResourceLimitsBuilder};

/// Memory charged to the control group whose limit leaves the least room.
///
/// The kernel charges a group for memory that it would give back before it refuses more, and then kills. So what is
/// judged is what cannot be given back: new work can have all the rest without a kill.
///
/// | what is charged | counts | why |
/// | --- | --- | --- |
/// | anonymous memory: heaps, stacks | yes | without swap it cannot go anywhere, and swapping is no room for more work |
/// | the same marked `MADV_FREE`, and then written again | yes | the kernel lists it with files, and it is none |
/// | files in memory: `tmpfs`, `/dev/shm`, `memfd` | yes | there is no disk to read them from again |
/// | page cache of files that were read, once or often, mapped or not | no | it is dropped, and read again when needed |
/// | page cache that is still to be written | no | it is written first; whoever needs the room waits for the disk |
/// | locked memory (`mlock`), also of files | yes | that is what locking means |
/// | directory entries and inodes (reclaimable slab) | no | they are dropped: a million names that were looked up in vain are 200 MB |
/// | other memory of the kernel: pipes, sockets, page tables, kernel stacks | yes | it lives as long as what it is for |
/// | huge pages (`hugetlb`) | where the kernel charges them here | they are set aside, and never given back |
/// | memory that was swapped out | of version 1, where a limit on memory and swap together is nearer | such a limit kills as well |
///
/// Version 1 does not tell how much of the kernel's memory is reclaimable slab. It is taken to be the part that is more
/// than the machine has of memory that is neither free, page cache, anonymous, nor reclaimable slab; where the machine
/// has much of that, slab counts.
///
/// A limit is one that kills: `memory.max`, not `memory.high`, above which the group is slowed down, which shows as
/// pressure. The limits of groups that cannot be seen, above that of a container, are known of version 1, whose
/// `memory.stat` tells the least of them; version 2 does not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CgroupMemory {
    /// The folder of the group: the own one, or one above it.
    pub path: Arc<Path>,
    /// The bytes that are judged: those charged that cannot be given back. At most all that are charged.
    pub usage_bytes: u64,
    /// All that is charged, in bytes: `memory.current`, or `memory.usage_in_bytes` of version 1.
    pub raw_bytes: u64,
    /// The limit in bytes: `memory.max`, or `memory.limit_in_bytes` of version 1; the least one above the group, where
    /// that is told and less.
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

/// Memory of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MachineMemory {
    /// `MemAvailable` of `/proc/meminfo`, in bytes: the kernel's estimate of what new programs can have without swapping.
    pub available_bytes: u64,
    /// `MemTotal`, in bytes.
    pub total_bytes: u64,
}

/// The room in the file system that has a floor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskSpace {
    /// The path that leads to it.
    pub path: Arc<Path>,
    /// The bytes that a user without privileges can still have: `f_bavail` of statvfs(3). None where it is mounted
    /// read-only or has no inode left.
    pub free_bytes: u64,
    /// All of it, in bytes: `f_blocks`.
    pub total_bytes: u64,
}

/// How much of the time since an earlier check, at least half a second ago, some task spent waiting: that of the own
/// control group, else of the machine. In the first check it is that of the last ten seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RecentPressure {
    /// The share in percent: the growth of `total` in the line `some`.
    pub some_percent: f64,
    /// The time that it is a share of.
    pub over: Duration,
}

impl From<&CgroupMemory> for Measured {
    fn from(memory: &CgroupMemory) -> Measured {
        let place = Some(Arc::clone(&memory.path));
        Measured { limit: Some(memory.limit_bytes), place, ..Measured::of(memory.usage_bytes) }
    }
}

impl From<&CgroupPids> for Measured {
    fn from(pids: &CgroupPids) -> Measured {
        let place = Some(Arc::clone(&pids.path));
        Measured { limit: Some(pids.limit), place, ..Measured::of(pids.count) }
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

impl From<&MachineMemory> for Measured {
    fn from(memory: &MachineMemory) -> Measured {
        let used = memory.total_bytes.saturating_sub(memory.available_bytes);
        Measured { limit: Some(memory.total_bytes), ..Measured::of(used) }
    }
}

impl From<&DiskSpace> for Measured {
    fn from(disk: &DiskSpace) -> Measured {
        let place = Some(Arc::clone(&disk.path));
        let used = disk.total_bytes.saturating_sub(disk.free_bytes);
        Measured { limit: Some(disk.total_bytes), place, ..Measured::of(used) }
    }
}

impl From<&GaugeReading> for Measured {
    fn from(gauge: &GaugeReading) -> Measured {
        Measured { limit: Some(gauge.limit), ..Measured::of(gauge.value) }
    }
}

impl From<&RecentPressure> for Measured {
    fn from(pressure: &RecentPressure) -> Measured {
        // Between 0 and 10,000.
        Measured::of((pressure.some_percent * 100.0) as u64)
    }
}

/// A limit in hundredths of a percent, as the host gave it.
fn whole_percent(hundredths: u64) -> Option<u8> {
    u8::try_from(hundredths / 100).ok()
}

impl ResourceLimits {
    /// The limit on open file descriptors; `None` leaves it to `RLIMIT_NOFILE`, which holds in any case.
    pub fn max_open_files(&self) -> Option<u64> {
        self.limit(Resource::OpenFiles)
    }

    /// The limit on memory pressure, in percent; `None` is unlimited.
    pub fn max_memory_pressure_percent(&self) -> Option<u8> {
        self.limit(Resource::MemoryPressure).and_then(whole_percent)
    }

    /// The limit on pressure on the CPUs, in percent; `None` is unlimited.
    pub fn max_cpu_pressure_percent(&self) -> Option<u8> {
        self.limit(Resource::CpuPressure).and_then(whole_percent)
    }

    /// The memory of the machine that is to stay available, in bytes; `None`: that is not judged.
    pub fn min_available_memory_bytes(&self) -> Option<u64> {
        self.limit(Resource::MachineMemory)
    }

    /// The bytes that are to stay free in the file system of [`disk_path`](Self::disk_path); `None`: that is not read.
    pub fn min_free_disk_bytes(&self) -> Option<u64> {
        self.limit(Resource::DiskSpace)
    }

    /// The limit on pressure on disks, in percent; `None` is unlimited.
    pub fn max_io_pressure_percent(&self) -> Option<u8> {
        self.limit(Resource::IoPressure).and_then(whole_percent)
    }
}

impl ResourceLimitsBuilder {
    /// Limits the number of open file descriptors of this process. Whatever it is, `RLIMIT_NOFILE` holds as well.
    pub fn max_open_files(self, open_files: u64) -> Self {
        self.with(Resource::OpenFiles, open_files)
    }

    /// Limits memory pressure: the percentage of the last ten seconds in which some task waited for memory (`some
    /// avg10` of the kernel's pressure stall information), of the own control group, else of the machine.
    pub fn max_memory_pressure_percent(self, percent: u8) -> Self {
        self.with(Resource::MemoryPressure, u64::from(percent) * 100)
    }

    /// Limits pressure on the CPUs: the percentage of the time since an earlier check, at least half a second ago, in
    /// which some task that could run waited for a CPU (the growth of `some total` in `cpu.pressure` of the own control
    /// group, else of the machine).
    pub fn max_cpu_pressure_percent(self, percent: u8) -> Self {
        self.with(Resource::CpuPressure, u64::from(percent) * 100)
    }

    /// Keeps this much memory of the machine available (`MemAvailable` of proc_meminfo(5)), in MB of 1024 x 1024 bytes,
    /// whoever uses the rest: at or below it the gate is closed, at or below half of it work is shed.
    pub fn min_available_memory_mb(self, mb: u64) -> Self {
        self.with_mb(Resource::MachineMemory, mb)
    }

    /// As [`min_available_memory_mb`](Self::min_available_memory_mb), in bytes.
    pub fn min_available_memory_bytes(self, bytes: u64) -> Self {
        self.with(Resource::MachineMemory, bytes)
    }

    /// Keeps this much of the file system free that the path leads to, in MB of 1024 x 1024 bytes, for a user without
    /// privileges (`f_bavail` of statvfs(3)): at or below it the gate is closed, at or below half of it work is shed. The
    /// path must be absolute. One file system has a floor; the last call counts.
    ///
    /// It is whatever the path leads to at each check: after an unmount, the file system below. One that is mounted
    /// read-only, or has no inode left, has no room. A quota is not seen unless `statvfs` tells it, as that of an XFS
    /// project does. A file system that does not answer delays no check: it is asked on a thread of its own
    /// (`highwater-disk`), and not judged, which the verdict and the log say, once its last answer is 2 s old.
    pub fn min_free_disk_mb(self, path: impl Into<PathBuf>, mb: u64) -> Self {
        self.on_disk(path.into()).with_mb(Resource::DiskSpace, mb)
    }

    /// As [`min_free_disk_mb`](Self::min_free_disk_mb), in bytes.
    pub fn min_free_disk_bytes(self, path: impl Into<PathBuf>, bytes: u64) -> Self {
        self.on_disk(path.into()).with(Resource::DiskSpace, bytes)
    }

    /// Limits pressure on disks: as [`max_cpu_pressure_percent`](Self::max_cpu_pressure_percent), of tasks that waited
    /// for a block device (`io.pressure`).
    pub fn max_io_pressure_percent(self, percent: u8) -> Self {
        self.with(Resource::IoPressure, u64::from(percent) * 100)
    }
}
