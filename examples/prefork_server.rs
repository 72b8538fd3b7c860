//! A server that forks its workers before it serves: one limit for all of them, which they keep together. Each request takes
//! memory; a worker waits until there is room for it, and answers 503 if there is none in time. A worker that dies is
//! replaced.
//!
//! ```sh
//! cargo run --release --example prefork_server -- --port 7000 --workers 8 --limit-mb 400 --request-mb 60
//! seq 40 | xargs -P 16 -I{} curl -s localhost:7000
//! ```

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use clap::Parser;
use highwater::{BoxError, Ledger, MemoryScope, Readiness, ResourceLimits, ResourceMonitor, Work};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{kill, sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal};
use nix::sys::wait::wait;
use nix::unistd::{fork, getpid, getppid, ForkResult, Pid};

/// How long a request waits for room.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time that the work of a request takes.
const WORK_TIME: Duration = Duration::from_millis(50);

#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 7000)]
    port: u16,
    #[arg(long, default_value_t = 8)]
    workers: usize,
    /// The limit on the parent and its workers together.
    #[arg(long, default_value_t = 400)]
    limit_mb: u64,
    /// The memory that a request takes.
    #[arg(long, default_value_t = 60)]
    request_mb: u64,
}

static IS_ENDING: AtomicBool = AtomicBool::new(false);

extern "C" fn end(_: i32) {
    IS_ENDING.store(true, Relaxed);
}

fn main() -> Result<(), BoxError> {
    let options = Options::parse();
    let limits = ResourceLimits::builder().max_memory_mb(options.limit_mb).build()?;
    let monitor = ResourceMonitor::builder(limits)
        .memory_scope(MemoryScope::Tree)
        .refresh_after(Duration::from_millis(20))
        // Whoever waits is told of room by a check of the parent.
        .cpu_budget(0.2)
        .return_freed_memory(true)
        // Before the first fork.
        .ledger(Ledger::create()?)
        .build()?;
    monitor.start(Duration::from_secs(1))?;
    let listener = TcpListener::bind(("127.0.0.1", options.port))?;
    println!("listening on {}", listener.local_addr()?);

    // Without `SA_RESTART`: a signal ends the wait for a worker.
    on_end(SigHandler::Handler(end))?;
    let start = || start_worker(&monitor, &listener, options.request_mb);
    let mut workers = (0..options.workers).map(|_| start()).collect::<Result<Vec<Pid>, BoxError>>()?;
    while !IS_ENDING.load(Relaxed) {
        match wait() {
            Ok(status) => {
                eprintln!("a worker has ended: {status:?}");
                let ended = workers.iter_mut().find(|worker| status.pid() == Some(**worker));
                if let Some(place) = ended.filter(|_| !IS_ENDING.load(Relaxed)) {
                    *place = start()?;
                }
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for worker in workers {
        kill(worker, Signal::SIGTERM)?;
    }
    while wait().is_ok() {}
    Ok(())
}

fn on_end(handler: SigHandler) -> nix::Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        // SAFETY: the handler stores to an atomic, and does nothing else.
        #[allow(unsafe_code)]
        unsafe {
            sigaction(signal, &SigAction::new(handler, SaFlags::empty(), SigSet::empty()))?
        };
    }
    Ok(())
}

fn start_worker(monitor: &ResourceMonitor, listener: &TcpListener, request_mb: u64) -> Result<Pid, BoxError> {
    let parent = getpid();
    // SAFETY: the child goes on in this thread with code that may allocate, as the libraries that it calls allow.
    #[allow(unsafe_code)]
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let failed = work(monitor, listener, request_mb, parent).err();
            eprintln!("worker: {failed:?}");
            std::process::exit(1)
        }
    }
}

/// The life of a worker.
fn work(monitor: &ResourceMonitor, listener: &TcpListener, request_mb: u64, parent: Pid) -> Result<(), BoxError> {
    on_end(SigHandler::SigDfl)?;
    set_pdeathsig(Signal::SIGTERM)?;
    if getppid() != parent {
        return Err("the parent has ended".into());
    }
    // The worker's own place in the ledger.
    monitor.start(Duration::from_secs(1))?;
    for client in listener.incoming() {
        if let Err(error) = client.and_then(|client| serve(client, &monitor.readiness(), request_mb)) {
            eprintln!("a client has gone: {error}");
        }
    }
    Ok(())
}

fn serve(mut client: TcpStream, readiness: &Readiness, request_mb: u64) -> std::io::Result<()> {
    if client.read(&mut [0; 4096])? == 0 {
        return Ok(());
    }
    let (status, text) = match readiness.admit(Work::new().memory_mb(request_mb), PATIENCE) {
        Ok(permit) => {
            // A black box: else the compiler leaves out what nobody reads.
            let memory = std::hint::black_box(vec![1_u8; (request_mb << 20) as usize]);
            // All of it can be measured from now on: to hold the permit for longer would count it twice.
            drop(permit);
            std::thread::sleep(WORK_TIME);
            drop(memory);
            ("200 OK", "done\n".to_owned())
        }
        Err(verdict) => ("503 Service Unavailable", format!("{verdict}\n")),
    };
    let length = text.len();
    write!(client, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}")
}
