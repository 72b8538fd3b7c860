//! Allocations that are refused, each in its turn: Rust ends the process then, where it does not ask for the answer
//! (`try_reserve`), and that is all that may happen. Each is refused to a child of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::ptr::null_mut;
use std::time::Instant;

use highwater::{MemoryScope, ResourceMonitor, Work};
use nix::sys::resource::{setrlimit, Resource};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::{dup2_stderr, fork, ForkResult};

use crate::common::{ensure, ms, DEADLINE};
use crate::gate::{lean, wide};
use crate::turn::{self, Kind, Refused};

/// More allocations than any operation makes.
const ENDLESS: usize = 2000;
const WRONG: i32 = 1;
const UNREFUSED: i32 = 2;

/// The allocator of the system, which refuses while a trial is armed.
pub struct Refusing;

// SAFETY: what it gives is what the allocator of the system gives, or nothing.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if turn::is_refused(Kind::Allocation, &"alloc") {
            return null_mut();
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if turn::is_refused(Kind::Allocation, &"alloc_zeroed") {
            return null_mut();
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if turn::is_refused(Kind::Allocation, &"realloc") {
            return null_mut();
        }
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// Something that a host does with a running monitor; what it returns ends when nothing is refused any more.
type Operation = fn(&ResourceMonitor) -> Kept;
type Kept = Box<dyn FnOnce()>;

fn nothing() -> Kept {
    // Of no size, and so not allocated.
    Box::new(|| ())
}

/// What a host asks all the time.
const QUIET: [(&str, Operation); 7] = [
    ("is_accepting_work", |monitor| {
        assert!(monitor.is_accepting_work());
        nothing()
    }),
    ("pressure", |monitor| {
        assert!(monitor.readiness().pressure() < 1.0);
        nothing()
    }),
    ("is_degraded", |monitor| {
        assert!(!monitor.is_degraded());
        nothing()
    }),
    ("seconds_since_last_check", |monitor| {
        assert!(monitor.seconds_since_last_check() < DEADLINE.as_secs_f64());
        nothing()
    }),
    ("check_now", |monitor| {
        assert!(!monitor.check_now().probe_failed());
        nothing()
    }),
    ("latest", |monitor| {
        assert!(monitor.latest().is_some());
        nothing()
    }),
    ("try_admit, and the end of the permit", |monitor| {
        monitor.try_admit(Work::new().processes(1).memory_mb(1)).unwrap().finish();
        drop(monitor.try_admit(Work::new().processes(1)).unwrap());
        nothing()
    }),
];

/// What a host does at times. A verdict is one allocation.
const OTHERS: [(&str, Operation); 7] = [
    ("verdict", |monitor| {
        assert!(monitor.verdict().is_accepting());
        nothing()
    }),
    ("try_admit, refused", |monitor| {
        assert!(monitor.try_admit(Work::new().processes(200)).is_err());
        nothing()
    }),
    ("another monitor", |_| {
        let another = lean(wide(), MemoryScope::Tree).build().unwrap();
        another.start(ms(4)).unwrap();
        another.stop();
        Box::new(move || drop(another))
    }),
    ("a restart", |monitor| {
        monitor.stop();
        monitor.start(ms(4)).unwrap();
        nothing()
    }),
    ("admit, in vain", |monitor| {
        let permit = monitor.try_admit(Work::new().processes(70)).unwrap();
        assert!(monitor.admit(Work::new().processes(70), ms(5)).is_err());
        permit.finish();
        nothing()
    }),
    ("new limits", |monitor| {
        monitor.update_limits(wide().max_processes(90).build().unwrap());
        nothing()
    }),
    ("texts", |monitor| {
        let text = monitor.verdict().to_string();
        assert!(text.starts_with("accepting work"), "{text}");
        nothing()
    }),
];

fn monitor() -> ResourceMonitor {
    // Checks come at once when they are asked for, and else not in the middle of it.
    let monitor = lean(wide(), MemoryScope::Own).build().unwrap();
    monitor.start(DEADLINE).unwrap();
    for (_, operation) in QUIET {
        operation(&monitor)();
    }
    monitor
}

/// What is asked all the time allocates nothing, and so nothing of it can be refused.
pub fn nothing_is_allocated_by_asking() {
    let monitor = monitor();
    for (name, operation) in QUIET {
        // What else happens on the machine may make a buffer of the check thread grow.
        let attempts: Vec<usize> = (0..5)
            .map(|_| {
                turn::set(Kind::Allocation, Refused::From(usize::MAX), 0);
                turn::armed(|| operation(&monitor))();
                turn::calls()
            })
            .collect();
        assert!(attempts.contains(&0), "{name}: {attempts:?} allocations");
    }
}

/// A process goes on with a right answer, or ends as Rust has it.
pub fn the_process_goes_on_or_ends() {
    // Where it is asked for, each end would take a tenth of a second to find the names of functions.
    std::env::set_var("RUST_BACKTRACE", "0");
    for (name, operation) in QUIET.into_iter().chain(OTHERS) {
        let (mut number, mut aborted, mut survived) = (1, 0, 0);
        loop {
            match in_a_child(|| refused_once(operation, number)) {
                WaitStatus::Exited(_, UNREFUSED) => break,
                WaitStatus::Exited(_, 0) => survived += 1,
                WaitStatus::Signaled(_, Signal::SIGABRT, _) => aborted += 1,
                status => panic!("{name}, allocation {number} refused: {status:?}"),
            }
            number += 1;
            assert!(number < ENDLESS, "{name} allocates without end");
        }
        println!("{name}: {} allocations refused, {aborted} processes ended, {survived} went on", aborted + survived);
    }
}

/// One trial, whose result is the exit code.
fn refused_once(operation: Operation, number: usize) -> i32 {
    let monitor = monitor();
    turn::set(Kind::Allocation, Refused::One(number), 0);
    turn::armed(|| operation(&monitor))();
    if turn::calls() < number {
        return UNREFUSED;
    }
    let right = || {
        ensure(!monitor.check_now().probe_failed(), "a check has failed")?;
        ensure(monitor.is_accepting_work(), &monitor.verdict().to_string())?;
        ensure(monitor.try_admit(Work::new().processes(1)).is_ok(), "no work is granted")
    };
    let result = right();
    monitor.stop();
    result.map_or_else(
        |wrong| {
            println!("{wrong}");
            WRONG
        },
        |()| 0,
    )
}

fn in_a_child(body: impl FnOnce() -> i32) -> WaitStatus {
    // SAFETY: the child may allocate, which glibc allows after fork, and leaves by `_exit`.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            // Its end by SIGABRT is expected, and said by the standard library each time.
            setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
            dup2_stderr(File::options().write(true).open("/dev/null").unwrap()).unwrap();
            // A panic is none of the ends that are allowed.
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(101);
            // SAFETY: it ends the process and touches nothing.
            unsafe { nix::libc::_exit(code) }
        }
        ForkResult::Parent { child } => {
            let began = Instant::now();
            loop {
                match waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap() {
                    WaitStatus::StillAlive if began.elapsed() > DEADLINE => {
                        kill(child, Signal::SIGKILL).unwrap();
                        waitpid(child, None).unwrap();
                        panic!("the child hangs");
                    }
                    WaitStatus::StillAlive => std::thread::sleep(std::time::Duration::from_micros(300)),
                    status => return status,
                }
            }
        }
    }
}
