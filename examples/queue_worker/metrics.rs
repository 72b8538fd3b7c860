//! What Prometheus is told: of the queue here, and of the monitor as by `readiness_server`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use highwater::{BoxError, ResourceMonitor};
use prometheus::core::Collector;
use prometheus::{Counter, Encoder, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};
use tiny_http::{Header, Response, Server};

use crate::gauges;
use crate::reading::Reading;

pub(crate) struct Metrics {
    registry: Registry,
    entries: IntCounterVec,
    for_room: Counter,
    for_entry: Counter,
    pub(crate) permits_taken: IntCounter,
    pub(crate) permits_returned: IntCounter,
    pub(crate) length: IntGauge,
}

impl Metrics {
    pub(crate) fn new() -> Result<Metrics, BoxError> {
        let registry = Registry::new();
        let entries = Opts::new("queue_entries_total", "Entries that have left this worker, by what became of them.");
        Ok(Metrics {
            entries: added(&registry, IntCounterVec::new(entries, &["end"]))?,
            for_room: added(
                &registry,
                Counter::new("queue_waited_for_room_seconds_total", "Time in which there was no room for an entry."),
            )?,
            for_entry: added(
                &registry,
                Counter::new("queue_waited_for_entry_seconds_total", "Time in which there was no entry for the room."),
            )?,
            permits_taken: added(&registry, IntCounter::new("queue_permits_taken_total", "Permits for an entry."))?,
            permits_returned: added(
                &registry,
                IntCounter::new(
                    "queue_permits_returned_total",
                    "Permits whose entry has ended, as the queue was told.",
                ),
            )?,
            length: added(&registry, IntGauge::new("queue_length", "Entries of the queue that are not done."))?,
            registry,
        })
    }

    pub(crate) fn waited_for_room(&self, time: Duration) {
        self.for_room.inc_by(time.as_secs_f64());
    }

    pub(crate) fn waited_for_entry(&self, time: Duration) {
        self.for_entry.inc_by(time.as_secs_f64());
    }

    /// Counts an entry that has left this worker, and its permit.
    pub(crate) fn end(&self, name: &str) {
        self.entries.with_label_values(&[name]).inc();
        self.permits_returned.inc();
    }

    /// The progress, for people.
    pub(crate) fn line(&self, running: usize) -> String {
        let count = |end| self.entries.with_label_values(&[end]).get();
        let [done, given_back, dead] = ["done", "given_back", "dead"].map(count);
        let length = self.length.get();
        format!("running {running}, done {done}, given back {given_back}, dead {dead}; {length} in the queue")
    }

    fn page(&self, monitor: &ResourceMonitor) -> Result<Vec<u8>, BoxError> {
        let of_monitor = Registry::new();
        gauges::register(&of_monitor, &Reading::of(monitor))?;
        let mut page = Vec::new();
        TextEncoder::new().encode(&[self.registry.gather(), of_monitor.gather()].concat(), &mut page)?;
        Ok(page)
    }

    /// Answers `/metrics`, and says to any other question that it lives.
    pub(crate) fn serve(self: &Arc<Self>, at: SocketAddr, monitor: &Arc<ResourceMonitor>) -> Result<(), BoxError> {
        let server = Server::http(at)?;
        println!("metrics at http://{}/metrics", server.server_addr());
        let (metrics, monitor) = (Arc::clone(self), Arc::clone(monitor));
        let content_type = Header::from_bytes("Content-Type", prometheus::TEXT_FORMAT);
        let content_type = content_type.map_err(|()| "the type of the page is no header")?;
        thread::spawn(move || {
            for request in server.incoming_requests() {
                let page = if request.url() == "/metrics" { metrics.page(&monitor) } else { Ok(Vec::new()) };
                let (status, page) =
                    page.map_or_else(|error| (500, error.to_string().into_bytes()), |page| (200, page));
                // Who has gone away meanwhile needs no answer.
                let answer = Response::from_data(page).with_status_code(status).with_header(content_type.clone());
                let _ = request.respond(answer);
            }
        });
        Ok(())
    }
}

fn added<T: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<T>) -> prometheus::Result<T> {
    let metric = made?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
