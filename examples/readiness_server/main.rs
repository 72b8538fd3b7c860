//! A blocking HTTP service behind a load balancer: it does real work for each request, says whether it can take more in
//! the ways that load balancers and metrics servers ask, and drains before it stops.
//!
//! ```sh
//! cargo run --release --example readiness_server -- --listen 127.0.0.1:8080 --agent 127.0.0.1:8081 --max-memory-mb 256
//! curl '127.0.0.1:8080/work?mb=16&ms=100'
//! curl -H 'Accept: application/json' 127.0.0.1:8080/readyz
//! ```
//!
//! | path | answer |
//! | --- | --- |
//! | `/work?mb=M&ms=T` | holds M MB (up to 2048) for T ms (up to `--max-ms`), and has a process that waits as long; 503 with the reason when that is too much now, 422 when it always would be |
//! | `/livez` | 200 for as long as it serves; never asks the monitor: a full service is not a dead one |
//! | `/readyz` | 200, or 503 with `Retry-After`; the verdict as text, or as JSON by `Accept` |
//! | `/metrics` | for Prometheus |
//!
//! The agent port speaks HAProxy's agent-check: `ready up 75%`, or `drain`. On SIGTERM `/readyz` and the agent say no,
//! while requests are served as before; it stops when the drain time has passed and no work is in progress. A second
//! signal stops it at once.

mod agent;
mod gauges;
mod metrics;
mod reading;
mod service;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use crossbeam_channel::Receiver;
use highwater::{BoxError, ResourceLimits, ResourceMonitor};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use tiny_http::{Header, Server};

use crate::metrics::Metrics;
use crate::service::Service;

/// Threads that are never at work, so that a probe finds one.
const THREADS_FOR_PROBES: u16 = 4;

/// A blocking HTTP service that says how much more work it can take
#[derive(Debug, Parser)]
struct Options {
    /// Where to serve; port 0 is any free one, which is printed
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Where to answer HAProxy's agent-check
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    agent: SocketAddr,

    /// The most memory that this process may have resident, in MB; detected if not given
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..=u64::MAX >> 20))]
    max_memory_mb: Option<u64>,

    /// The most processes that requests may have running; detected if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_processes: Option<u64>,

    /// The most requests for /work at once, judged like memory: the gate closes at 80 % of it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_requests: Option<u64>,

    /// The memory of the machine that is to stay available, in MB; a tenth of it if not given
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..=u64::MAX >> 20))]
    min_available_mb: Option<u64>,

    /// The room that is to stay free in the file system of --disk, in MB
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..=u64::MAX >> 20))]
    min_free_disk_mb: Option<u64>,

    /// An absolute path into the file system of --min-free-disk-mb
    #[arg(long, value_name = "PATH", default_value = "/var/tmp")]
    disk: PathBuf,

    /// The most of the time, in percent, in which some task may wait for a CPU
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    max_cpu_pressure: Option<u8>,

    /// The most of the time, in percent, in which some task may wait for a disk
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    max_io_pressure: Option<u8>,

    /// Threads that serve; all but four may be at work
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(5..))]
    threads: u16,

    /// The longest that a request may take; --stop-ms should be more
    #[arg(long, value_name = "MS", default_value_t = 60_000)]
    max_ms: u32,

    /// How long to say no before serving ends
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    drain_ms: u64,

    /// How long after the signal to stop, whatever work is still in progress
    #[arg(long, value_name = "MS", default_value_t = 65_000)]
    stop_ms: u64,

    /// A name for the header X-Instance of each answer
    #[arg(long, value_name = "NAME", value_parser = x_instance)]
    name: Option<Header>,
}

fn x_instance(name: &str) -> Result<Header, String> {
    let printable = name.bytes().all(|byte| byte.is_ascii_graphic());
    let header = Header::from_bytes("X-Instance", name).ok().filter(|_| printable);
    header.ok_or_else(|| "must be printable ASCII".to_owned())
}

impl Options {
    fn limits(&self) -> Result<ResourceLimits, BoxError> {
        let mut limits = ResourceLimits::builder();
        if let Some(mb) = self.max_memory_mb {
            limits = limits.max_memory_mb(mb);
        }
        if let Some(processes) = self.max_processes {
            limits = limits.max_processes(processes);
        }
        if let Some(mb) = self.min_available_mb {
            limits = limits.min_available_memory_mb(mb);
        }
        if let Some(mb) = self.min_free_disk_mb {
            limits = limits.min_free_disk_mb(&self.disk, mb);
        }
        if let Some(percent) = self.max_cpu_pressure {
            limits = limits.max_cpu_pressure_percent(percent);
        }
        if let Some(percent) = self.max_io_pressure {
            limits = limits.max_io_pressure_percent(percent);
        }
        Ok(limits.detect()?.build()?)
    }
}

fn main() -> Result<(), BoxError> {
    let options = Options::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();

    let (end, ended) = crossbeam_channel::bounded(1);
    let draining = Arc::new(AtomicBool::new(false));
    // Before anything is served: a signal is to drain, and not to end, from the first request on.
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal raises the flag, which the second one finds raised.
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&draining))?;
        flag::register(signal, Arc::clone(&draining))?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let signalled = end.clone();
    thread::spawn(move || {
        signals.forever().next();
        let _ = signalled.try_send(Ok(()));
    });

    let monitor = ResourceMonitor::builder(options.limits()?).return_freed_memory(true).build()?;
    monitor.start(Duration::from_secs(1))?;
    log::info!("limits: {}", monitor.limits());

    let server = Arc::new(Server::http(options.listen)?);
    let agent = TcpListener::bind(options.agent)?;
    println!("listening on {}, agent on {}", server.server_addr(), agent.local_addr()?);

    let service = Arc::new(Service {
        requests: options.max_requests.map(|limit| monitor.gauge("requests", limit)).transpose()?,
        monitor,
        metrics: Metrics::new()?,
        draining,
        working: AtomicUsize::new(0),
        max_working: usize::from(options.threads - THREADS_FOR_PROBES),
        max_ms: options.max_ms,
        instance: options.name,
    });
    for _ in 0..options.threads {
        let (server, service, end) = (Arc::clone(&server), Arc::clone(&service), end.clone());
        thread::spawn(move || loop {
            match server.recv() {
                Ok(request) => service.answer(request),
                // Said once, to one of the threads; the others go on with what is connected.
                Err(error) => drop(end.try_send(Err(BoxError::from(error)))),
            }
        });
    }
    let answering = Arc::clone(&service);
    thread::spawn(move || agent::answer(&agent, &answering));

    let reason = wait_for_end(&ended, server.server_addr().to_ip());
    if let Err(error) = &reason {
        log::error!("no more connections are accepted: {error}");
    }
    service.draining.store(true, Ordering::Relaxed);
    let (since, drain) = (Instant::now(), Duration::from_millis(options.drain_ms));
    let stop = Duration::from_millis(options.stop_ms);
    while since.elapsed() < drain || (service.working() > 0 && since.elapsed() < stop) {
        thread::sleep(Duration::from_millis(10));
    }
    service.monitor.stop();
    match service.working() {
        0 => reason,
        working => Err(format!("{working} requests were still in progress after {} ms", options.stop_ms).into()),
    }
}

/// Waits for a signal, or until no connection can be accepted any more.
fn wait_for_end(ended: &Receiver<Result<(), BoxError>>, address: Option<SocketAddr>) -> Result<(), BoxError> {
    loop {
        if let Ok(reason) = ended.recv_timeout(Duration::from_secs(1)) {
            return reason;
        }
        // The server's own thread that accepts may panic where descriptors or threads run out, and `recv` does not
        // tell. Without a descriptor for this connection none could be accepted either; a full backlog, or no free
        // port, says nothing.
        match address.map(|address| TcpStream::connect_timeout(&address, Duration::from_secs(1))) {
            Some(Err(error)) if !matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::AddrNotAvailable) => {
                return Err(error.into());
            }
            _ => {}
        }
    }
}
