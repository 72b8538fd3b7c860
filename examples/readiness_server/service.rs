//! What is answered to whom.

use std::io;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use highwater::{Readiness, ResourceMonitor, ResourceSnapshot, Snapshots, Verdict, Work};
use parking_lot::Mutex;
use serde_json::json;
use tiny_http::{Header, Request, Response};

use crate::metrics::Metrics;

/// When somebody who was refused may come again.
const RETRY_AFTER_SECONDS: &str = "1";

pub(crate) type Answer = Response<io::Cursor<Vec<u8>>>;

/// The requests' side of the service.
#[derive(Debug)]
pub(crate) struct Service {
    readiness: Readiness,
    metrics: Metrics,
    /// The newest snapshot, of those that have come since.
    latest: Mutex<(Snapshots, Option<ResourceSnapshot>)>,
    limits: highwater::ResourceLimits,
    draining: Arc<AtomicBool>,
    name: String,
}

impl Service {
    pub(crate) fn new(monitor: &ResourceMonitor, metrics: Metrics, draining: Arc<AtomicBool>, name: String) -> Service {
        Service {
            readiness: monitor.readiness(),
            metrics,
            latest: Mutex::new((monitor.snapshots(), monitor.latest())),
            limits: monitor.limits(),
            draining,
            name,
        }
    }

    pub(crate) fn answer(&self, request: Request) {
        let (path, query) = request.url().split_once('?').unwrap_or((request.url(), ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let answer = match path.as_str() {
            "/work" => self.work(&query),
            "/livez" => text(200, "ok\n".into()),
            "/readyz" => self.readyz(&request),
            "/metrics" => self.metrics.page(&self.readiness, self.snapshot().as_ref(), &self.limits),
            _ => text(404, "no such page\n".into()),
        };
        self.metrics.count(&path, answer.status_code().0);
        // Who has gone away meanwhile needs no answer.
        let _ = request.respond(with_header(answer, "X-Instance", &self.name));
    }

    /// Holds memory here and a process beside, both declared, and admitted or refused.
    fn work(&self, query: &str) -> Answer {
        let parameter = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.into_iter().find(|(key, _)| *key == name).map_or(Ok(0), |(_, value)| value.parse::<u64>())
        };
        let (Ok(mb), Ok(ms)) = (parameter("mb"), parameter("ms")) else {
            return text(400, "mb and ms are whole numbers\n".into());
        };
        let permit = match self.readiness.try_admit(Work::new().memory_mb(mb).processes(1)) {
            Ok(permit) => permit,
            Err(verdict) => return refusal(verdict.to_string()),
        };
        let seconds = Duration::from_millis(ms).as_secs_f64().to_string();
        let process = Command::new("sleep").arg(seconds).stdin(Stdio::null()).spawn();
        let held = vec![1_u8; usize::try_from(mb << 20).unwrap_or_default()];
        // Both are there now, for the next check to see.
        drop(permit);
        match process.and_then(|mut process| process.wait()) {
            Ok(_) => text(200, format!("held {} MB for {ms} ms\n", held.len() >> 20)),
            Err(error) => text(500, format!("{error}\n")),
        }
    }

    fn readyz(&self, request: &Request) -> Answer {
        let verdict = self.readiness.verdict();
        let ready = verdict.is_accepting() && !self.is_draining();
        let reason = if self.is_draining() { "draining".to_owned() } else { verdict.to_string() };
        let accepts_json = request
            .headers()
            .iter()
            .any(|header| header.field.equiv("Accept") && header.value.as_str().contains("application/json"));
        let answer = if accepts_json {
            let page = json!({ "ready": ready, "reason": reason, "resource": resource(&verdict) });
            with_header(text(200, format!("{page}\n")), "Content-Type", "application/json")
        } else {
            text(200, format!("{reason}\n"))
        };
        if ready {
            answer
        } else {
            with_header(answer.with_status_code(503), "Retry-After", RETRY_AFTER_SECONDS)
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The share of work that should come here, in percent: what is left below the warning threshold of whichever resource is
    /// nearest to it. `None` when nothing should.
    pub(crate) fn weight(&self) -> Option<u64> {
        if self.is_draining() || !self.readiness.is_accepting_work() {
            return None;
        }
        let snapshot = self.snapshot();
        let share = |usage: Option<u64>, limit: Option<u64>| {
            let threshold = limit? as f64 * f64::from(self.limits.warn_percent()) / 100.0;
            Some(1.0 - usage? as f64 / threshold)
        };
        let memory = snapshot.as_ref().and_then(|snapshot| snapshot.memory_bytes);
        let processes = snapshot.as_ref().and_then(|snapshot| snapshot.child_process_count).map(|count| count as u64);
        let shares = [share(memory, self.limits.max_memory_bytes()), share(processes, self.limits.max_processes())];
        let least = shares.into_iter().flatten().fold(1.0, f64::min);
        Some(((least * 100.0) as u64).clamp(1, 100))
    }

    fn snapshot(&self) -> Option<ResourceSnapshot> {
        let mut latest = self.latest.lock();
        while let Ok(snapshot) = latest.0.try_recv() {
            latest.1 = Some(snapshot);
        }
        latest.1.clone()
    }
}

fn resource(verdict: &Verdict) -> Option<String> {
    verdict.resource().map(|resource| resource.to_string())
}

fn refusal(reason: String) -> Answer {
    with_header(text(503, format!("{reason}\n")), "Retry-After", RETRY_AFTER_SECONDS)
}

fn text(status: u16, body: String) -> Answer {
    Response::from_string(body).with_status_code(status)
}

/// With one more header; a value that cannot be one is left out.
pub(crate) fn with_header(answer: Answer, name: &str, value: &str) -> Answer {
    match Header::from_bytes(name, value) {
        Ok(header) => answer.with_header(header),
        Err(()) => answer,
    }
}
