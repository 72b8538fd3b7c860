//! What Prometheus is told. Names and units by its conventions: base units, `_total` for what only grows.

use highwater::{BoxError, Readiness, ResourceLimits, ResourceSnapshot};
use prometheus::{Encoder, Gauge, IntCounterVec, Opts, Registry, TextEncoder};
use tiny_http::Response;

use crate::service::{with_header, Answer};

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    accepting: Gauge,
    degraded: Gauge,
    since_last_check: Gauge,
    check_duration: Gauge,
    memory: Gauge,
    memory_limit: Gauge,
    processes: Gauge,
    processes_limit: Gauge,
    zombies: Gauge,
    open_files: Gauge,
    cgroup_memory: Gauge,
    cgroup_memory_limit: Gauge,
    pressure: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Result<Metrics, BoxError> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| -> Result<Gauge, BoxError> {
            let gauge = Gauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let requests = IntCounterVec::new(Opts::new("http_requests_total", "Requests answered."), &["path", "code"])?;
        registry.register(Box::new(requests.clone()))?;
        Ok(Metrics {
            accepting: gauge("highwater_accepting_work", "Whether new work is accepted: 1 or 0.")?,
            degraded: gauge("highwater_degraded", "Whether five checks in a row have failed: 1 or 0.")?,
            since_last_check: gauge("highwater_since_last_check_seconds", "Time since the last successful check.")?,
            check_duration: gauge("highwater_check_duration_seconds", "How long the last check took.")?,
            memory: gauge("highwater_memory_bytes", "Resident memory.")?,
            memory_limit: gauge("highwater_memory_limit_bytes", "The limit on resident memory; NaN without one.")?,
            processes: gauge("highwater_processes", "Descendant processes.")?,
            processes_limit: gauge("highwater_processes_limit", "The limit on descendants; NaN without one.")?,
            zombies: gauge("highwater_zombies", "Descendants that have ended and that nobody has waited for.")?,
            open_files: gauge("highwater_open_files", "Open file descriptors.")?,
            cgroup_memory: gauge("highwater_cgroup_memory_bytes", "Memory of the control group that binds.")?,
            cgroup_memory_limit: gauge("highwater_cgroup_memory_limit_bytes", "The limit of that control group.")?,
            pressure: gauge(
                "highwater_memory_pressure_ratio",
                "Share of the last 10 s in which a task waited for memory.",
            )?,
            requests,
            registry,
        })
    }

    pub(crate) fn count(&self, path: &str, code: u16) {
        // A label for each path that somebody makes up would be a leak.
        let path = if ["/work", "/livez", "/readyz", "/metrics"].contains(&path) { path } else { "other" };
        self.requests.with_label_values(&[path, &code.to_string()]).inc();
    }

    pub(crate) fn page(
        &self,
        readiness: &Readiness,
        snapshot: Option<&ResourceSnapshot>,
        limits: &ResourceLimits,
    ) -> Answer {
        let number = |value: Option<u64>| value.map_or(f64::NAN, |value| value as f64);
        let count = |value: Option<usize>| value.map_or(f64::NAN, |value| value as f64);
        self.accepting.set(f64::from(u8::from(readiness.is_accepting_work())));
        self.degraded.set(f64::from(u8::from(readiness.is_degraded())));
        self.since_last_check.set(readiness.seconds_since_last_check());
        self.memory_limit.set(number(limits.max_memory_bytes()));
        self.processes_limit.set(number(limits.max_processes()));
        if let Some(snapshot) = snapshot {
            self.check_duration.set(snapshot.check_duration.as_secs_f64());
            self.memory.set(number(snapshot.memory_bytes));
            self.processes.set(count(snapshot.child_process_count));
            self.zombies.set(snapshot.zombie_pids.len() as f64);
            self.open_files.set(number(snapshot.open_files.map(|files| files.count)));
            let group = snapshot.cgroup_memory.as_ref();
            self.cgroup_memory.set(number(group.map(|group| group.usage_bytes)));
            self.cgroup_memory_limit.set(number(group.map(|group| group.limit_bytes)));
            self.pressure.set(snapshot.memory_pressure.map_or(f64::NAN, |pressure| pressure.some_avg10 / 100.0));
        }
        let encoder = TextEncoder::new();
        let mut page = Vec::new();
        match encoder.encode(&self.registry.gather(), &mut page) {
            Ok(()) => with_header(Response::from_data(page), "Content-Type", encoder.format_type()),
            Err(error) => Response::from_string(format!("{error}\n")).with_status_code(500),
        }
    }
}
