//! A worker on a queue that machines share: it takes an entry from a stream of Redis when it has room for one, and runs the
//! shell command in it.
//!
//! ```sh
//! redis-cli XADD jobs '*' command 'gzip -9 big.tar'
//! cargo run --release --example queue_worker -- --url redis://127.0.0.1/ --stream jobs --consumer a --once
//! ```
//!
//! `worker.rs` is where to look for what a worker has to do, `queue.rs` for what it says to Redis. The guide "several
//! machines" has a picture of both, and what they do not promise.
//!
//! Ends with 0 when it was told to stop and has left nothing undone that it had taken, or with `--once` when nothing was
//! left to do; with 1 when Redis refuses it (the key is no stream, say). On SIGTERM it takes no more and lets jobs finish for
//! the time of `--finish`; those that still run then, or at a second signal, are ended and given back.

#[path = "../readiness_server/gauges.rs"]
mod gauges;
mod metrics;
mod queue;
#[path = "../readiness_server/reading.rs"]
mod reading;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::{value_parser, Parser};
use highwater::{BoxError, MemoryScope, ResourceLimits, ResourceMonitor};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::worker::Worker;

/// Runs the shell commands of a queue, as many at a time as the limits allow
#[derive(Debug, Parser)]
struct Options {
    /// Where Redis is: redis://HOST:PORT/, or unix:///PATH of its socket
    #[arg(long, value_name = "URL", default_value = "redis://127.0.0.1:6379/")]
    url: String,

    /// The stream whose entries have a field `command`; what is given up goes to the stream NAME:dead
    #[arg(long, value_name = "NAME", default_value = "jobs")]
    stream: String,

    /// The group of consumers, which is made if it is not there
    #[arg(long, value_name = "NAME", default_value = "workers")]
    group: String,

    /// The name of this worker, which no other has
    #[arg(long, value_name = "NAME")]
    consumer: String,

    /// How long nothing may be heard of a worker before others take its entries
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = value_parser!(u64).range(1..=86_400))]
    lease: u64,

    /// How long jobs may go on after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = value_parser!(u64).range(..=86_400))]
    finish: u64,

    /// End when the stream is empty and nobody works on it any more
    #[arg(long)]
    once: bool,

    /// Where to answer Prometheus; port 0 is any free one, which is printed
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,

    /// The most memory that the worker and its jobs may use, in MB; detected if not given
    #[arg(long, value_name = "MB", value_parser = value_parser!(u64).range(1..=u64::MAX >> 20))]
    max_memory_mb: Option<u64>,

    /// The most processes that jobs may have; detected if not given
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    max_processes: Option<u64>,
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
        Ok(limits.detect()?.build()?)
    }
}

fn main() -> Result<(), BoxError> {
    let options = Options::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    // Before anything is taken: a signal is to stop the worker, and not to end it.
    let signals = Signals::new([SIGTERM, SIGINT])?;
    let monitor = ResourceMonitor::builder(options.limits()?).memory_scope(MemoryScope::Tree).build()?;
    // Every child is a job, or was left behind by one.
    let jobs = monitor.jobs().sole_parent(true).build()?;
    monitor.start(Duration::from_secs(1))?;
    log::info!("limits: {}", monitor.limits());

    let (monitor, metrics) = (Arc::new(monitor), Arc::new(Metrics::new()?));
    if let Some(address) = options.metrics {
        metrics.serve(address, &monitor)?;
    }
    let Options { url, stream, group, consumer, .. } = &options;
    let client = redis::Client::open(url.as_str())?;
    let queue = Queue::new(client, [stream, group, consumer], Duration::from_secs(options.lease));
    Worker::new(queue, jobs, metrics, signals, options.once, Duration::from_secs(options.finish)).run()
}
