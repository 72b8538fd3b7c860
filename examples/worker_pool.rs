//! A pool of threads that starts processes, each as soon as there is room for it.
//!
//! ```sh
//! cargo run --release --example worker_pool
//! ```

use std::collections::VecDeque;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::Duration;

use highwater::{BoxError, Readiness, ResourceLimits, ResourceMonitor, Work};
use parking_lot::Mutex;

const JOBS: u32 = 100;
const THREADS: u32 = 16;

/// How long a job waits for room before it is given up, with what it waited for.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<(), BoxError> {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("info"));
    let limits = ResourceLimits::builder().max_processes(10).build()?;
    // What the allocator keeps of freed memory would count as used.
    let monitor = ResourceMonitor::builder(limits).return_freed_memory(true).build()?;
    monitor.start(Duration::from_secs(15))?;

    let queue: Mutex<VecDeque<u32>> = Mutex::new((1..=JOBS).collect());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| work(&queue, &monitor.readiness()));
        }
    });
    Ok(())
}

/// Does jobs until none is left.
fn work(queue: &Mutex<VecDeque<u32>>, readiness: &Readiness) {
    while let Some(job) = take_first(queue) {
        match run(readiness) {
            Ok(status) => println!("job {job}: {status}"),
            Err(error) => eprintln!("job {job}: {error}"),
        }
    }
}

/// Runs a process once there is room for it, which it holds until it has been waited for.
fn run(readiness: &Readiness) -> Result<ExitStatus, BoxError> {
    let permit = readiness.admit(Work::new().processes(1).label("sleep"), PATIENCE)?;
    let mut child = Command::new("sleep").arg("0.2").spawn()?;
    if let Err(error) = permit.attach(child.id()) {
        log::warn!("process {} counts twice while it runs: {error}", child.id());
    }
    let status = child.wait()?;
    permit.finish();
    Ok(status)
}

/// The lock is not held while a job is done.
fn take_first(queue: &Mutex<VecDeque<u32>>) -> Option<u32> {
    queue.lock().pop_front()
}
