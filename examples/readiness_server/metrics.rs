//! What Prometheus is told.

use highwater::BoxError;
use prometheus::{Encoder, Gauge, IntCounterVec, Opts, Registry, TextEncoder};

use crate::gauges;
use crate::reading::Reading;

/// What is counted, and not read.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
}

impl Metrics {
    pub(crate) const CONTENT_TYPE: &'static str = prometheus::TEXT_FORMAT;

    pub(crate) fn new() -> Result<Metrics, BoxError> {
        let requests = Opts::new("http_requests_total", "Requests answered.");
        Ok(Metrics { requests: IntCounterVec::new(requests, &["path", "code"])? })
    }

    pub(crate) fn count(&self, path: &str, code: u16) {
        // A label for each path that somebody makes up would be a leak.
        let path = if ["/work", "/livez", "/readyz", "/metrics"].contains(&path) { path } else { "other" };
        self.requests.with_label_values(&[path, &code.to_string()]).inc();
    }

    pub(crate) fn page(&self, reading: &Reading, working: usize) -> Result<Vec<u8>, BoxError> {
        let registry = Registry::new();
        registry.register(Box::new(self.requests.clone()))?;
        let in_progress = Gauge::new("work_in_progress", "Requests for /work that are being answered.")?;
        in_progress.set(working as f64);
        registry.register(Box::new(in_progress))?;
        gauges::register(&registry, reading)?;
        let mut page = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut page)?;
        Ok(page)
    }
}
