//! A forked child starts a monitor while a thread of its parent changes the environment, and so holds its lock at many a
//! fork.
//!
//! Without the harness of other tests. The standard library looks into the environment for the size of the first thread
//! that is given none, and remembers it in the process and its children: here no thread is started without a size, so
//! that it is left to the children, should they ask.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use common::{ensure, in_forked_child, ms, wait_until};
use highwater::{ResourceLimits, ResourceMonitor};

const CHILDREN: usize = 100;

fn main() {
    let monitor = ResourceMonitor::new(ResourceLimits::builder().max_processes(100).build().unwrap());
    let (done, changed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let change = || {
        while !done.load(Ordering::Relaxed) {
            std::env::set_var("HIGHWATER_TEST_CHANGED", changed.fetch_add(1, Ordering::Relaxed).to_string());
        }
    };
    thread::scope(|scope| {
        let changing = thread::Builder::new().stack_size(1 << 20).spawn_scoped(scope, change).unwrap();
        let started = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until("the environment changes", || changed.load(Ordering::Relaxed) > 0);
            for _ in 0..CHILDREN {
                in_forked_child(|| {
                    monitor.start(ms(1000)).map_err(|error| error.to_string())?;
                    ensure(monitor.is_accepting_work(), &monitor.verdict().to_string())
                });
            }
        }));
        // However this ends, the other thread does too, and the failure is seen.
        done.store(true, Ordering::Relaxed);
        changing.join().unwrap();
        started.unwrap();
    });
    println!("{CHILDREN} children have started a monitor");
}
