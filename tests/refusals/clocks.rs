//! Clocks that are set, stand still, or jump ahead.
//!
//! The time since boot is not turned back: `CLOCK_MONOTONIC` never is, and only a process of one thread can enter a time
//! namespace in which it is another, and so none whose monitor runs.

use std::ffi::{c_int, c_long};
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use highwater::{MemoryScope, ResourceMonitor};
use nix::libc::{clockid_t, timespec, CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_REALTIME};

use crate::common::{ms, wait_until};
use crate::gate::{lean, wide};
use crate::kernel::Real;

const YEAR: i64 = 365 * 24 * 3600;
const MAX_AGE: Duration = Duration::from_secs(60);

/// Seconds that the time of day is set ahead, or back.
static SET_BY: AtomicI64 = AtomicI64::new(0);
/// Seconds that the time since boot has jumped ahead.
static AHEAD: AtomicI64 = AtomicI64::new(0);
/// Nanoseconds at which it stands still; 0: it does not.
static STILL_AT: AtomicI64 = AtomicI64::new(0);

#[no_mangle]
unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    static REAL: Real = Real::new();
    let real = REAL.find("clock_gettime\0");
    // SAFETY: it is the function of this type.
    let real: unsafe extern "C" fn(clockid_t, *mut timespec) -> c_int = unsafe { std::mem::transmute(real) };
    // SAFETY: the caller's business.
    let result = unsafe { real(clock, time) };
    // SAFETY: the caller has passed room for one, which the call has written, or it has failed.
    let Some(time) = (unsafe { time.as_mut() }).filter(|_| result == 0) else { return result };
    match clock {
        CLOCK_REALTIME => time.tv_sec += SET_BY.load(SeqCst),
        CLOCK_MONOTONIC | CLOCK_MONOTONIC_COARSE => {
            time.tv_sec += AHEAD.load(SeqCst);
            let still_at = STILL_AT.load(SeqCst);
            if still_at > 0 {
                time.tv_sec = still_at / 1_000_000_000;
                time.tv_nsec = (still_at % 1_000_000_000) as c_long;
            }
        }
        _ => {}
    }
    result
}

fn now() -> i64 {
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid to write one `timespec` to.
    unsafe { clock_gettime(CLOCK_MONOTONIC, &mut now) };
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// One that is asked on threads which take no check.
fn monitor() -> ResourceMonitor {
    let builder = lean(wide(), MemoryScope::Own).inline_check(Duration::ZERO);
    builder.max_age(MAX_AGE).build().unwrap()
}

/// The time of day has no part in anything.
pub fn set() {
    let monitor = monitor();
    let snapshots = monitor.snapshots();
    monitor.start(ms(2)).unwrap();
    for years in [10, -10, 100, -40, 0] {
        SET_BY.store(years * YEAR, SeqCst);
        for _ in 0..5 {
            let snapshot = snapshots.recv_timeout(MAX_AGE).unwrap();
            assert!(!snapshot.probe_failed(), "{snapshot}");
            assert!(monitor.is_accepting_work() && monitor.verdict().is_accepting(), "{years}: {}", monitor.verdict());
            assert!(monitor.seconds_since_last_check() < MAX_AGE.as_secs_f64());
        }
    }
}

/// Time that stands still makes nothing old, and what is asked is answered.
pub fn still() {
    let monitor = monitor();
    monitor.check_now();
    STILL_AT.store(now(), SeqCst);
    for _ in 0..3 {
        assert!(!monitor.check_now().probe_failed());
        assert!(monitor.is_accepting_work() && monitor.seconds_since_last_check() < 1.0, "{}", monitor.verdict());
    }
    monitor.start(ms(2)).unwrap();
    assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
    monitor.stop();
    assert!(!monitor.is_accepting_work());
    STILL_AT.store(0, SeqCst);
    monitor.start(ms(2)).unwrap();
    wait_until("it opens", || monitor.is_accepting_work());
}

/// A check grows old at once when time jumps ahead, and the next one opens the gate.
pub fn ahead() {
    let (idle, running) = (monitor(), monitor());
    idle.check_now();
    running.start(ms(2)).unwrap();
    let mut ahead = 0;
    for seconds in [3600, YEAR, 100 * YEAR] {
        assert!(idle.is_accepting_work(), "{}", idle.verdict());
        ahead += seconds;
        AHEAD.store(ahead, SeqCst);
        let verdict = idle.verdict();
        assert!(!idle.is_accepting_work() && !verdict.is_accepting(), "after {seconds} s: {verdict}");
        idle.check_now();
        wait_until("its thread has seen the jump", || running.is_accepting_work());
    }
}
