//! A blocking HTTP service behind a load balancer: it does real work for each request, says whether it can take more in the
//! ways that load balancers and metrics servers ask, and drains before it stops.
//!
//! ```sh
//! cargo run --release --example readiness_server -- --listen 127.0.0.1:8080 --agent 127.0.0.1:8081 --max-memory-mb 256
//! curl '127.0.0.1:8080/work?mb=16&ms=100'
//! curl -H 'Accept: application/json' 127.0.0.1:8080/readyz
//! ```
//!
//! | path | answer |
//! | --- | --- |
//! | `/work?mb=M&ms=T` | holds M MB for T ms in a process of its own and in this one; 503 with the reason when that would be too much |
//! | `/livez` | 200 for as long as it serves; never asks the monitor: a full service is not a dead one |
//! | `/readyz` | 200, or 503 with `Retry-After`; the verdict as text, or as JSON by `Accept` |
//! | `/metrics` | for Prometheus |
//!
//! The agent port speaks HAProxy's agent-check: `ready up 75%`, or `drain`. On SIGTERM `/readyz` and the agent say no for
//! the drain time, while requests are served as before; then it stops.

mod agent;
mod metrics;
mod service;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Parser;
use highwater::{BoxError, ResourceLimits, ResourceMonitor};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tiny_http::Server;

use crate::metrics::Metrics;
use crate::service::Service;

/// A blocking HTTP service that says how much more work it can take
#[derive(Debug, Parser)]
struct Options {
    /// Where to serve; port 0 is any free one, which is printed
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Where to answer HAProxy's agent-check
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    agent: SocketAddr,

    /// The most memory that this process may have resident, in MB; detected if neither limit is given
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..=u64::MAX >> 20))]
    max_memory_mb: Option<u64>,

    /// The most processes that requests may have running
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_processes: Option<u64>,

    /// Threads that serve
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,

    /// How long to say no before serving ends
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    drain_ms: u64,

    /// The name in the header `X-Instance` of each answer
    #[arg(long, value_name = "NAME", default_value = "", value_parser = ascii)]
    name: String,
}

fn ascii(name: &str) -> Result<String, String> {
    let printable = name.bytes().all(|byte| byte.is_ascii_graphic());
    printable.then(|| name.to_owned()).ok_or_else(|| "must be printable ASCII".to_owned())
}

impl Options {
    fn limits(&self) -> Result<ResourceLimits, BoxError> {
        if self.max_memory_mb.is_none() && self.max_processes.is_none() {
            return Ok(ResourceLimits::detect()?);
        }
        let mut limits = ResourceLimits::builder();
        if let Some(mb) = self.max_memory_mb {
            limits = limits.max_memory_mb(mb);
        }
        if let Some(processes) = self.max_processes {
            limits = limits.max_processes(processes);
        }
        Ok(limits.build()?)
    }
}

fn main() -> Result<(), BoxError> {
    let options = Options::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    // Before anything is served: a signal is to drain, and not to end, from the first request on.
    let mut signals = Signals::new([SIGTERM, SIGINT])?;

    let monitor = ResourceMonitor::new(options.limits()?);
    monitor.start(Duration::from_secs(1))?;
    log::info!("limits: {}", monitor.limits());

    let server = Arc::new(Server::http(options.listen)?);
    let agent = TcpListener::bind(options.agent)?;
    println!("listening on {}, agent on {}", server.server_addr(), agent.local_addr()?);

    let draining = Arc::new(AtomicBool::new(false));
    let service = Arc::new(Service::new(&monitor, Metrics::new()?, Arc::clone(&draining), options.name));
    let serving: Vec<_> = (0..options.threads)
        .map(|_| {
            let (server, service) = (Arc::clone(&server), Arc::clone(&service));
            thread::spawn(move || {
                while let Ok(request) = server.recv() {
                    service.answer(request);
                }
            })
        })
        .collect();
    let answering = Arc::clone(&service);
    thread::spawn(move || agent::answer(&agent, &answering));

    let signal = signals.forever().next();
    log::info!("signal {signal:?}: draining for {} ms", options.drain_ms);
    draining.store(true, Ordering::Relaxed);
    thread::sleep(Duration::from_millis(options.drain_ms));
    // Each call ends one thread's wait, after the request that it is at.
    serving.iter().for_each(|_| server.unblock());
    for thread in serving {
        let _ = thread.join();
    }
    Ok(())
}
