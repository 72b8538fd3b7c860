//! Deadlines, and waiting for a condition: nothing sleeps and hopes.
#![allow(dead_code, unreachable_pub)]

use std::thread;
use std::time::{Duration, Instant};

/// Long enough for a loaded machine, and for a virtual one whose host stops it for most of a minute; reached only by a
/// failure.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Waits for a condition, and fails when it does not come true in time.
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_within(DEADLINE, what, condition);
}

/// The same, for what may take longer or must come sooner.
#[track_caller]
pub fn wait_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        thread::sleep(ms(2));
    }
}

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
