//! What the monitor knows at one moment, in numbers; NaN is what is not known, or is not there.

use std::time::SystemTime;

use highwater::{GaugeReading, RecentPressure, ResourceLimits, ResourceMonitor, ResourceSnapshot};

#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) accepting: bool,
    pub(crate) degraded: bool,
    /// Of the last successful check, in seconds since 1970.
    pub(crate) last_check: f64,
    /// What is left below the warning threshold of whichever resource is nearest to it: 1 is all, 0 and less is nothing.
    pub(crate) headroom: f64,
    snapshot: Option<ResourceSnapshot>,
    limits: ResourceLimits,
}

impl Reading {
    pub(crate) fn of(monitor: &ResourceMonitor) -> Reading {
        let age = monitor.seconds_since_last_check();
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(f64::NAN, |now| now.as_secs_f64());
        Reading {
            accepting: monitor.is_accepting_work(),
            degraded: monitor.is_degraded(),
            last_check: if age.is_finite() { now - age } else { f64::NAN },
            headroom: 1.0 - monitor.readiness().pressure(),
            snapshot: monitor.latest(),
            limits: monitor.limits(),
        }
    }

    pub(crate) fn check_duration(&self) -> f64 {
        self.snapshot.as_ref().map_or(f64::NAN, |snapshot| snapshot.check_duration.as_secs_f64())
    }

    pub(crate) fn memory(&self) -> f64 {
        self.found(|snapshot| snapshot.memory_bytes)
    }

    pub(crate) fn memory_limit(&self) -> f64 {
        number(self.limits.max_memory_bytes())
    }

    pub(crate) fn processes(&self) -> f64 {
        self.found(|snapshot| snapshot.child_process_count.map(|count| count as u64))
    }

    pub(crate) fn processes_limit(&self) -> f64 {
        number(self.limits.max_processes())
    }

    pub(crate) fn zombies(&self) -> f64 {
        // Where the processes could not be read, an empty list says nothing.
        self.found(|snapshot| snapshot.child_process_count.map(|_| snapshot.zombie_pids.len() as u64))
    }

    pub(crate) fn open_files(&self) -> f64 {
        self.found(|snapshot| Some(snapshot.open_files?.count))
    }

    /// The smaller one of the host's and the kernel's, which both hold.
    pub(crate) fn open_files_limit(&self) -> f64 {
        number(self.limits.max_open_files()).min(self.found(|snapshot| snapshot.open_files?.limit))
    }

    pub(crate) fn cgroup_memory(&self) -> f64 {
        self.found(|snapshot| Some(snapshot.cgroup_memory.as_ref()?.usage_bytes))
    }

    pub(crate) fn cgroup_memory_limit(&self) -> f64 {
        self.found(|snapshot| Some(snapshot.cgroup_memory.as_ref()?.limit_bytes))
    }

    pub(crate) fn cgroup_pids(&self) -> f64 {
        self.found(|snapshot| Some(snapshot.cgroup_pids.as_ref()?.count))
    }

    pub(crate) fn cgroup_pids_limit(&self) -> f64 {
        self.found(|snapshot| Some(snapshot.cgroup_pids.as_ref()?.limit))
    }

    pub(crate) fn memory_pressure(&self) -> f64 {
        let pressure = self.snapshot.as_ref().and_then(|snapshot| snapshot.memory_pressure);
        pressure.map_or(f64::NAN, |pressure| pressure.some_avg10 / 100.0)
    }

    pub(crate) fn cpu_pressure(&self) -> f64 {
        self.recent_pressure(|snapshot| snapshot.cpu_pressure)
    }

    pub(crate) fn io_pressure(&self) -> f64 {
        self.recent_pressure(|snapshot| snapshot.io_pressure)
    }

    fn recent_pressure(&self, of: impl Fn(&ResourceSnapshot) -> Option<RecentPressure>) -> f64 {
        self.snapshot.as_ref().and_then(of).map_or(f64::NAN, |pressure| pressure.some_percent / 100.0)
    }

    pub(crate) fn machine_available(&self) -> f64 {
        self.found(|snapshot| Some(snapshot.machine_memory?.available_bytes))
    }

    pub(crate) fn machine_total(&self) -> f64 {
        self.found(|snapshot| Some(snapshot.machine_memory?.total_bytes))
    }

    pub(crate) fn machine_floor(&self) -> f64 {
        number(self.limits.min_available_memory_bytes())
    }

    pub(crate) fn disk_free(&self) -> f64 {
        self.found(|snapshot| Some(snapshot.disk_space.as_ref()?.free_bytes))
    }

    pub(crate) fn disk_total(&self) -> f64 {
        self.found(|snapshot| Some(snapshot.disk_space.as_ref()?.total_bytes))
    }

    pub(crate) fn disk_floor(&self) -> f64 {
        number(self.limits.min_free_disk_bytes())
    }

    /// The host's own numbers.
    pub(crate) fn gauges(&self) -> impl Iterator<Item = GaugeReading> + '_ {
        self.snapshot.iter().flat_map(ResourceSnapshot::gauges)
    }

    fn found(&self, what: impl Fn(&ResourceSnapshot) -> Option<u64>) -> f64 {
        number(self.snapshot.as_ref().and_then(what))
    }
}

fn number(value: Option<u64>) -> f64 {
    value.map_or(f64::NAN, |value| value as f64)
}
