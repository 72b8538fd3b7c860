//! What is answered to whom.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use highwater::{Gauge, Permit, ResourceMonitor, Work};
use serde_json::json;
use tiny_http::{Header, Request, Response};

use crate::metrics::Metrics;
use crate::reading::Reading;

/// The most that one request may ask for.
const MAX_MB: u32 = 2048;

/// When somebody who was refused may come again.
const RETRY_AFTER_SECONDS: &str = "1";

type Answer = Response<io::Cursor<Vec<u8>>>;

/// The requests' side of the service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) monitor: ResourceMonitor,
    /// Requests for `/work` that were admitted, judged by the monitor; `None`: as many as there are threads.
    pub(crate) requests: Option<Gauge>,
    pub(crate) metrics: Metrics,
    pub(crate) draining: Arc<AtomicBool>,
    /// Requests for `/work` in progress, and the most that there may be.
    pub(crate) working: AtomicUsize,
    pub(crate) max_working: usize,
    /// The longest that one may take: what took for ever could not be waited for at the end.
    pub(crate) max_ms: u32,
    /// The header `X-Instance`.
    pub(crate) instance: Option<Header>,
}

/// One request's place among those in progress.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // Release: who sees that none is left, and ends the process, comes after the answer has been written.
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// One request among those that were admitted.
struct Admitted<'a>(Option<&'a Gauge>);

impl Admitted<'_> {
    fn new(gauge: Option<&Gauge>) -> Admitted<'_> {
        gauge.into_iter().for_each(|gauge| gauge.add(1));
        Admitted(gauge)
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.0.into_iter().for_each(|gauge| gauge.sub(1));
    }
}

impl Service {
    pub(crate) fn answer(&self, request: Request) {
        let (path, query) = request.url().split_once('?').unwrap_or((request.url(), ""));
        let methods = if path == "/work" { "GET, HEAD, POST" } else { "GET, HEAD" };
        // Held until the answer has been written.
        let place = if path == "/work" { self.place() } else { None };
        let answer = match path {
            _ if !methods.split(", ").any(|method| method == request.method().as_str()) => {
                with_header(text(405, "no such method\n"), "Allow", methods)
            }
            "/work" if place.is_none() => refusal("as many requests are in progress as there may be\n"),
            "/work" => self.work(query),
            "/livez" => text(200, "ok\n"),
            "/readyz" => self.readyz(&request),
            "/metrics" => match self.metrics.page(&Reading::of(&self.monitor), self.working()) {
                Ok(page) => with_header(Response::from_data(page), "Content-Type", Metrics::CONTENT_TYPE),
                Err(error) => text(500, format!("{error}\n")),
            },
            _ => text(404, "no such page\n"),
        };
        self.metrics.count(path, answer.status_code().0);
        let answer = match &self.instance {
            Some(instance) => answer.with_header(instance.clone()),
            None => answer,
        };
        // Who has gone away meanwhile needs no answer.
        let _ = request.respond(answer);
        drop(place);
    }

    fn place(&self) -> Option<Place<'_>> {
        let one_more = |working| (working < self.max_working).then_some(working + 1);
        self.working.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Place(&self.working))
    }

    pub(crate) fn working(&self) -> usize {
        self.working.load(Ordering::Acquire)
    }

    fn work(&self, query: &str) -> Answer {
        let number = |name: &str, most: u32| {
            let value = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
            value.map_or(Some(0), |(_, value)| value.parse().ok()).filter(|number| *number <= most)
        };
        let (Some(mb), Some(ms)) = (number("mb", MAX_MB), number("ms", self.max_ms)) else {
            return text(400, format!("mb is a whole number up to {MAX_MB}, ms one up to {}\n", self.max_ms));
        };
        let requests = self.requests.as_ref();
        let work = Work::new().memory_mb(u64::from(mb)).processes(1);
        let work = requests.map_or(work, |requests| work.gauge(requests, 1));
        let permit = match self.monitor.try_admit(work) {
            Ok(permit) => permit,
            // Not 503: to try again, here or elsewhere, would not help.
            Err(verdict) if verdict.could_never_fit() => return text(422, format!("{verdict}\n")),
            Err(verdict) => return refusal(format!("{verdict}\n")),
        };
        // Declared by the permit until now, and pushed from now on.
        let _admitted = Admitted::new(requests);
        match hold(mb, ms, permit) {
            Ok(status) if status.success() => text(200, format!("held {mb} MB for {ms} ms\n")),
            Ok(status) => text(500, format!("the process did not wait for {ms} ms: {status}\n")),
            Err(error) => refusal(format!("{error}\n")),
        }
    }

    fn readyz(&self, request: &Request) -> Answer {
        let verdict = self.monitor.verdict();
        let (ready, reason) = match self.closed() {
            Some(reason) => (false, reason.to_owned()),
            None => (verdict.is_accepting(), verdict.to_string()),
        };
        let accept = request.headers().iter().filter(|header| header.field.equiv("Accept"));
        let accept: Vec<_> = accept.map(|header| header.value.as_str()).collect();
        let answer = if prefers_json(&accept.join(",")) {
            let resource = verdict.resource().map(|resource| resource.to_string());
            let page = json!({ "ready": ready, "reason": reason, "resource": resource });
            with_header(text(200, format!("{page}\n")), "Content-Type", "application/json")
        } else {
            text(200, format!("{reason}\n"))
        };
        let answer = with_header(answer, "Vary", "Accept");
        if ready {
            answer
        } else {
            with_header(answer.with_status_code(503), "Retry-After", RETRY_AFTER_SECONDS)
        }
    }

    /// Why no work should come here, whatever the monitor says.
    fn closed(&self) -> Option<&'static str> {
        if self.draining.load(Ordering::Relaxed) {
            Some("draining")
        } else if self.working() >= self.max_working {
            Some("as many requests are in progress as there may be")
        } else {
            None
        }
    }

    /// The share of work that should come here, in percent; `None` when nothing should.
    pub(crate) fn weight(&self) -> Option<u8> {
        let reading = Reading::of(&self.monitor);
        let open = reading.accepting && self.closed().is_none();
        open.then_some((reading.headroom * 100.0).clamp(1.0, 100.0) as u8)
    }
}

/// Holds so much memory here, while a process beside waits for so long.
fn hold(mb: u32, ms: u32, permit: Permit) -> io::Result<ExitStatus> {
    // When it is freed, the allocator gives it back, because the monitor was told to see to that. Else it might stay
    // resident, and the gate closed.
    let mut memory = Vec::new();
    memory.try_reserve_exact((mb as usize) << 20).map_err(|_| io::ErrorKind::OutOfMemory)?;
    // A page takes memory once it has been written to.
    memory.resize((mb as usize) << 20, 1_u8);
    let seconds = Duration::from_millis(u64::from(ms)).as_secs_f64().to_string();
    let mut process = Command::new("sleep")
        .arg(seconds)
        .stdin(Stdio::null())
        // Of its own, so that a signal to the service's group, such as that of Ctrl-C, does not end what is in
        // progress.
        .process_group(0)
        .spawn()?;
    // Both are there now, for the next check to see.
    drop(permit);
    let status = process.wait();
    drop(std::hint::black_box(memory));
    status
}

/// Whether a client would rather have JSON than text, by its header `Accept` (RFC 9110, 12.5.1).
fn prefers_json(accept: &str) -> bool {
    let accept = accept.to_ascii_lowercase();
    // The most specific range that is there says it.
    let quality = |ranges: [&str; 3]| {
        let of = |range| {
            accept.split(',').find_map(|item| {
                let (name, mut parameters) = (item.split(';').next()?.trim(), item.split(';').skip(1));
                let q = parameters.find_map(|parameter| parameter.trim().strip_prefix("q="));
                (name == range).then(|| q.map_or(1.0, |q| q.parse().unwrap_or(0.0)))
            })
        };
        ranges.into_iter().find_map(of).unwrap_or(0.0_f32)
    };
    quality(["application/json", "application/*", "*/*"]) > quality(["text/plain", "text/*", "*/*"])
}

fn refusal(reason: impl Into<String>) -> Answer {
    with_header(text(503, reason), "Retry-After", RETRY_AFTER_SECONDS)
}

fn text(status: u16, body: impl Into<String>) -> Answer {
    Response::from_string(body).with_status_code(status)
}

/// With one more header; a value that cannot be one is left out.
fn with_header(answer: Answer, name: &str, value: &str) -> Answer {
    match Header::from_bytes(name, value) {
        Ok(header) => answer.with_header(header),
        Err(()) => answer,
    }
}
