//! What Prometheus is told of the monitor, here and by `queue_worker`. Names and units by its conventions: base units, the time
//! at which something happened and not how long ago that was.

use prometheus::{Gauge, GaugeVec, Opts, Registry};

use crate::reading::Reading;

type Table = [(&'static str, &'static str, fn(&Reading) -> f64); 25];

#[rustfmt::skip]
const GAUGES: Table = [
    ("highwater_accepting_work", "Whether new work is accepted: 1 or 0.", |reading| f64::from(reading.accepting)),
    ("highwater_degraded", "Whether five checks in a row have failed: 1 or 0.", |reading| f64::from(reading.degraded)),
    ("highwater_last_check_timestamp_seconds", "When the last check succeeded; NaN before the first.", |reading| reading.last_check),
    ("highwater_check_duration_seconds", "How long the last check took; NaN before the first.", Reading::check_duration),
    ("highwater_memory_bytes", "Resident memory; NaN if unread.", Reading::memory),
    ("highwater_memory_limit_bytes", "The limit on resident memory; NaN without one.", Reading::memory_limit),
    ("highwater_processes", "Descendant processes; NaN if unread.", Reading::processes),
    ("highwater_processes_limit", "The limit on descendant processes; NaN without one.", Reading::processes_limit),
    ("highwater_zombies", "Descendants that have ended and that nobody has waited for; NaN if unread.", Reading::zombies),
    ("highwater_open_files", "Open file descriptors; NaN if unread.", Reading::open_files),
    ("highwater_open_files_limit", "The limit on open file descriptors; NaN without one.", Reading::open_files_limit),
    ("highwater_cgroup_memory_bytes", "Memory of the control group with the least room; NaN if unread or unlimited.", Reading::cgroup_memory),
    ("highwater_cgroup_memory_limit_bytes", "The limit on memory of that control group; NaN without one.", Reading::cgroup_memory_limit),
    ("highwater_cgroup_pids", "Tasks of the control group with the least room; NaN if unread or unlimited.", Reading::cgroup_pids),
    ("highwater_cgroup_pids_limit", "The limit on tasks of that control group; NaN without one.", Reading::cgroup_pids_limit),
    ("highwater_memory_pressure_ratio", "Share of the last 10 s in which a task waited for memory; NaN if unread.", Reading::memory_pressure),
    ("highwater_cpu_pressure_ratio", "Share of the time since an earlier check in which a task waited for a CPU; NaN if unread.", Reading::cpu_pressure),
    ("highwater_io_pressure_ratio", "Share of the time since an earlier check in which a task waited for a disk; NaN if unread.", Reading::io_pressure),
    ("highwater_machine_memory_available_bytes", "Memory of the machine that new programs can have; NaN if unread.", Reading::machine_available),
    ("highwater_machine_memory_total_bytes", "Memory of the machine; NaN if unread.", Reading::machine_total),
    ("highwater_machine_memory_floor_bytes", "The memory of the machine that is to stay available; NaN without a floor.", Reading::machine_floor),
    ("highwater_disk_free_bytes", "Room in the file system with a floor; NaN without one, or if unread.", Reading::disk_free),
    ("highwater_disk_total_bytes", "Size of the file system with a floor; NaN without one, or if unread.", Reading::disk_total),
    ("highwater_disk_floor_bytes", "The room that is to stay free; NaN without a floor.", Reading::disk_floor),
    ("highwater_headroom_ratio", "What is left below the warning threshold of the nearest resource; 0 or less: nothing.", |reading| reading.headroom),
];

/// Adds all that the monitor knows.
pub(crate) fn register(registry: &Registry, reading: &Reading) -> Result<(), prometheus::Error> {
    for (name, help, value) in GAUGES {
        let gauge = Gauge::new(name, help)?;
        gauge.set(value(reading));
        registry.register(Box::new(gauge))?;
    }
    let by_name = |name: &str, help: &str| {
        let gauges = GaugeVec::new(Opts::new(name, help), &["name"])?;
        registry.register(Box::new(gauges.clone()))?;
        Ok::<_, prometheus::Error>(gauges)
    };
    let values = by_name("highwater_gauge", "A number of this service's own that is judged.")?;
    let limits = by_name("highwater_gauge_limit", "The limit on it.")?;
    for gauge in reading.gauges() {
        let name = [gauge.name.name()];
        values.with_label_values(&name).set(gauge.value as f64);
        limits.with_label_values(&name).set(gauge.limit as f64);
    }
    Ok(())
}
