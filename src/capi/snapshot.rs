//! `hw_snapshot`.

use std::mem::size_of;

use super::border::Versioned;
use super::reason::number_of;
use crate::vocabulary::ResourceSnapshot;

/// `HW_NONE`.
pub(super) const NONE: u64 = u64::MAX;

/// `hw_snapshot`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Snapshot {
    pub(super) size: usize,
    pub(super) memory_bytes: u64,
    pub(super) processes: u64,
    pub(super) zombies: u64,
    pub(super) running_jobs: u64,
    pub(super) active_jobs: u64,
    pub(super) threads: u64,
    pub(super) cgroup_memory_bytes: u64,
    pub(super) cgroup_memory_raw_bytes: u64,
    pub(super) cgroup_memory_limit_bytes: u64,
    pub(super) cgroup_pids: u64,
    pub(super) cgroup_pids_limit: u64,
    pub(super) open_files: u64,
    pub(super) open_files_limit: u64,
    pub(super) pressure_some_avg10: f64,
    pub(super) pressure_full_avg10: f64,
    pub(super) age_ns: u64,
    pub(super) check_duration_ns: u64,
    pub(super) lateness_ns: u64,
    pub(super) cpu_pressure_percent: f64,
    pub(super) io_pressure_percent: f64,
    pub(super) machine_available_bytes: u64,
    pub(super) machine_total_bytes: u64,
    pub(super) disk_free_bytes: u64,
    pub(super) disk_total_bytes: u64,
    pub(super) full_resource: i64,
    pub(super) full_soonest_ns: u64,
    pub(super) full_at_mean_ns: u64,
}

// SAFETY: `repr(C)`, a `usize` first, integers and floating-point numbers.
unsafe impl Versioned for Snapshot {
    const NAME: &'static str = "hw_snapshot";
    // On x86 of 32 bits numbers of 64 bits need not lie at a multiple of eight.
    const FIRST_SIZE: usize = size_of::<usize>() + 144;
}

impl From<&ResourceSnapshot> for Snapshot {
    fn from(snapshot: &ResourceSnapshot) -> Snapshot {
        let count = |count: usize| u64::try_from(count).unwrap_or(NONE);
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(NONE);
        // Without a `..`: a field that is new there is asked for here.
        let ResourceSnapshot {
            timestamp,
            memory_bytes,
            child_process_count,
            running_jobs,
            active_sheets,
            ref zombie_pids,
            thread_count,
            cgroup_memory: ref memory,
            cgroup_pids: ref pids,
            open_files: files,
            memory_pressure: pressure,
            machine_memory: machine,
            disk_space: ref disk,
            cpu_pressure,
            io_pressure,
            check_duration,
            lateness,
            // Asked for one by one: `hw_gauge_get`.
            gauges: _,
            exhaustion,
        } = *snapshot;
        let (memory, pids) = (memory.as_ref(), pids.as_ref());
        Snapshot {
            size: size_of::<Snapshot>(),
            memory_bytes: memory_bytes.unwrap_or(NONE),
            processes: child_process_count.map_or(NONE, count),
            zombies: count(zombie_pids.len()),
            running_jobs: count(running_jobs),
            active_jobs: count(active_sheets),
            threads: thread_count.map_or(NONE, count),
            cgroup_memory_bytes: memory.map_or(NONE, |memory| memory.usage_bytes),
            cgroup_memory_raw_bytes: memory.map_or(NONE, |memory| memory.raw_bytes),
            cgroup_memory_limit_bytes: memory.map_or(NONE, |memory| memory.limit_bytes),
            cgroup_pids: pids.map_or(NONE, |pids| pids.count),
            cgroup_pids_limit: pids.map_or(NONE, |pids| pids.limit),
            open_files: files.map_or(NONE, |files| files.count),
            open_files_limit: files.and_then(|files| files.limit).unwrap_or(NONE),
            pressure_some_avg10: pressure.map_or(-1.0, |pressure| pressure.some_avg10),
            pressure_full_avg10: pressure.map_or(-1.0, |pressure| pressure.full_avg10),
            age_ns: nanos(timestamp.elapsed()),
            check_duration_ns: nanos(check_duration),
            lateness_ns: nanos(lateness),
            cpu_pressure_percent: cpu_pressure.map_or(-1.0, |pressure| pressure.some_percent),
            io_pressure_percent: io_pressure.map_or(-1.0, |pressure| pressure.some_percent),
            machine_available_bytes: machine.map_or(NONE, |memory| memory.available_bytes),
            machine_total_bytes: machine.map_or(NONE, |memory| memory.total_bytes),
            disk_free_bytes: disk.as_ref().map_or(NONE, |disk| disk.free_bytes),
            disk_total_bytes: disk.as_ref().map_or(NONE, |disk| disk.total_bytes),
            full_resource: exhaustion.map_or(-1, |exhaustion| number_of(exhaustion.resource) as i64),
            full_soonest_ns: exhaustion.map_or(NONE, |exhaustion| nanos(exhaustion.soonest)),
            full_at_mean_ns: exhaustion.map_or(NONE, |exhaustion| nanos(exhaustion.at_mean_rate)),
        }
    }
}
