//! A pool of threads that starts processes, and holds back while there is no room for another.
//!
//! ```sh
//! cargo run --release --example worker_pool             # with RUST_LOG=debug, what was waited for
//! ```

use std::collections::VecDeque;
use std::process::Command;
use std::thread;
use std::time::Duration;

use highwater::{BoxError, Readiness, ResourceLimits, ResourceMonitor, Work};
use parking_lot::Mutex;

const JOBS: u32 = 100;
const THREADS: u32 = 16;
const RETRY: Duration = Duration::from_millis(100);

fn main() -> Result<(), BoxError> {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("info"));
    let limits = ResourceLimits::builder().max_processes(10).build()?;
    let monitor = ResourceMonitor::new(limits);
    monitor.start(Duration::from_secs(15))?;

    let queue: Mutex<VecDeque<u32>> = Mutex::new((1..=JOBS).collect());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| work(&queue, &monitor.readiness()));
        }
    });
    Ok(())
}

/// Does jobs until none is left. Each asks for room before it starts, and goes back to its place if there is none.
fn work(queue: &Mutex<VecDeque<u32>>, readiness: &Readiness) {
    while let Some(job) = take_first(queue) {
        match readiness.try_admit(Work::new().processes(1)) {
            Ok(permit) => {
                let child = Command::new("sleep").arg("0.2").spawn();
                drop(permit); // the process is there, where checks count it, or has failed to start
                let ended = child.and_then(|mut child| child.wait());
                ended.map_or_else(|error| eprintln!("job {job}: {error}"), |status| println!("job {job}: {status}"));
            }
            Err(verdict) if verdict.could_never_fit() => eprintln!("job {job}: {verdict}"),
            Err(verdict) => {
                log::debug!("job {job} waits: {verdict}");
                queue.lock().push_front(job);
                thread::sleep(RETRY);
            }
        }
    }
}

/// The lock is not held while a job is done.
fn take_first(queue: &Mutex<VecDeque<u32>>) -> Option<u32> {
    queue.lock().pop_front()
}
