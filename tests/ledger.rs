//! Processes that share a ledger: real ones, forked, stopped and killed.
//!
//! Every test has a process of its own, whose children take part.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::groups::{limit_memory, Groups};
use common::{ensure, in_forked_child, ms, wait_until, Forked};
use highwater::{ErrorKind, Ledger, MemoryScope, Permit, Readiness, ResourceLimits, ResourceMonitor, Work};
use nix::sched::{unshare, CloneFlags};
use nix::sys::mman::{mmap_anonymous, MapFlags, ProtFlags};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitid, waitpid, Id, WaitPidFlag, WaitStatus};
use nix::unistd::{fork, ForkResult, Pid};
use rusty_fork::rusty_fork_test;

const MIB: u64 = 1 << 20;
const WORKERS: usize = 8;
/// What four of 100 MB fit below, and five do not.
const LIMIT_MB: u64 = 512;

fn unlimited() -> ResourceLimits {
    ResourceLimits::builder().build().unwrap()
}

/// A monitor of what the control group allows, which shares this ledger.
fn sharing(ledger: &Ledger) -> ResourceMonitor {
    ResourceMonitor::builder(unlimited()).ledger(ledger.clone()).build().unwrap()
}

/// A monitor with a limit on the whole tree, which shares this ledger.
fn watching(ledger: &Ledger) -> ResourceMonitor {
    let limits = ResourceLimits::builder().max_memory_mb(LIMIT_MB).build().unwrap();
    ResourceMonitor::builder(limits)
        .memory_scope(MemoryScope::Tree)
        .cpu_budget(1.0)
        .ledger(ledger.clone())
        .build()
        .unwrap()
}

/// Numbers that this process and those forked from it share.
fn shared_numbers() -> &'static [AtomicU64; 64] {
    let (protection, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
    // SAFETY: a new mapping, which stays to the end of the process, of zeroes, which are valid atomics.
    #[allow(unsafe_code)]
    unsafe {
        let start = mmap_anonymous(None, NonZeroUsize::new(4096).unwrap(), protection, flags).unwrap();
        start.cast::<[AtomicU64; 64]>().as_ref()
    }
}

/// Forks, and has the child end with what came of `body`.
fn start(body: impl FnOnce() -> Result<(), String>) -> Pid {
    // SAFETY: the child runs code that may allocate, which glibc allows after fork; it leaves with `_exit`.
    #[allow(unsafe_code)]
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let code = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
                Ok(Ok(())) => 0,
                Ok(Err(message)) => {
                    eprintln!("forked child: {message}");
                    1
                }
                Err(_) => 2,
            };
            // SAFETY: `_exit` ends the process and touches nothing.
            unsafe { nix::libc::_exit(code) }
        }
        ForkResult::Parent { child } => child,
    }
}

/// 1,000 rounds of a worker, which is counted in `held` while it holds a permit: in one word, since a sum of several would
/// count one that ends and one that begins meanwhile together.
fn ask_in_rounds(readiness: &Readiness, held: &[AtomicU64; 64]) -> Result<(), String> {
    let [alive, most, granted] = [&held[0], &held[40], &held[41]];
    for round in 0..1_000 {
        if let Ok(permit) = readiness.try_admit(Work::new().memory_mb(100)) {
            most.fetch_max(alive.fetch_add(1, SeqCst) + 1, SeqCst);
            granted.fetch_add(1, SeqCst);
            if round % 3 == 0 {
                std::thread::sleep(Duration::from_micros(50));
            }
            alive.fetch_sub(1, SeqCst);
            permit.finish();
        }
    }
    Ok(())
}

fn are_never_more_than_four(ledger: &Ledger) {
    let held = shared_numbers();
    let ready = &held[50];
    let workers: Vec<Pid> = (0..WORKERS)
        .map(|_| {
            start(|| {
                let monitor = sharing(ledger);
                monitor.start(Duration::from_secs(1)).map_err(|error| error.to_string())?;
                ensure(monitor.is_accepting_work(), &monitor.verdict().to_string())?;
                ready.fetch_add(1, SeqCst);
                while ready.load(SeqCst) < WORKERS as u64 {
                    std::thread::yield_now();
                }
                let done = ask_in_rounds(&monitor.readiness(), held);
                drop(monitor);
                done
            })
        })
        .collect();
    let mut failed = 0;
    for worker in workers {
        failed += usize::from(waitpid(worker, None).unwrap() != WaitStatus::Exited(worker, 0));
    }
    let (most, granted) = (held[40].load(SeqCst), held[41].load(SeqCst));
    println!("{granted} granted, at most {most} at once");
    assert_eq!(failed, 0);
    assert!(most <= 4, "{most} were granted 100 MB at once");
    assert!(granted > 1_000, "{granted} granted of 8,000");
}

/// Forks a child that holds a permit for `work` until it is killed.
fn holder(ledger: &Ledger, work: Work) -> Forked {
    let (mut told, mut tells) = UnixStream::pair().unwrap();
    let child = Forked::run(|| {
        let monitor = sharing(ledger);
        monitor.start(Duration::from_secs(1)).map_err(|error| error.to_string())?;
        let permit = monitor.try_admit(work).map_err(|verdict| verdict.to_string())?;
        tells.write_all(b"1").unwrap();
        std::mem::forget((monitor, permit));
        Ok(())
    });
    drop(tells);
    assert_eq!(told.read(&mut [0]).unwrap(), 1, "the child holds a permit");
    child
}

/// This process in a group of [`LIMIT_MB`], with a monitor that rarely checks by itself. `None` where none can be made.
fn in_a_group() -> Option<(Groups, Ledger, ResourceMonitor)> {
    let groups = Groups::new("memory")?;
    limit_memory(&groups.outer, LIMIT_MB * MIB);
    groups.enter();
    let ledger = Ledger::create().unwrap();
    let monitor = sharing(&ledger);
    monitor.start(Duration::from_secs(60)).unwrap();
    Some((groups, ledger, monitor))
}

fn message(monitor: &ResourceMonitor) -> String {
    monitor.verdict().to_string()
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn of_eight_processes_in_a_group_never_more_are_granted_than_fit() {
        let Some(groups) = Groups::new("memory") else { return };
        limit_memory(&groups.outer, LIMIT_MB * MIB);
        groups.enter();
        let ledger = Ledger::create().unwrap();
        are_never_more_than_four(&ledger);
    }

    #[test]
    fn of_eight_processes_below_a_limit_on_their_tree_never_more_are_granted_than_fit() {
        let ledger = Ledger::create().unwrap();
        let monitor = watching(&ledger);
        monitor.start(Duration::from_secs(1)).unwrap();
        are_never_more_than_four(&ledger);
        assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
    }

    #[test]
    fn the_room_of_a_killed_holder_is_back_within_one_check_each_time() {
        let Some((_groups, ledger, monitor)) = in_a_group() else { return };
        let mut seed = 0x9e37_79b9_u64;
        for round in 0..200 {
            let held = shared_numbers_once();
            held[0].store(0, SeqCst);
            let child = start(|| {
                let monitor = sharing(&ledger);
                monitor.start(Duration::from_secs(1)).unwrap();
                loop {
                    if let Ok(permit) = monitor.try_admit(Work::new().memory_mb(380)) {
                        held[0].fetch_add(1, SeqCst);
                        if held[0].load(SeqCst) % 5 != 0 {
                            permit.finish();
                        }
                    }
                }
            });
            wait_until("the child was granted something", || held[0].load(SeqCst) > 0);
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            std::thread::sleep(Duration::from_micros(seed >> 52));
            kill(child, Signal::SIGKILL).unwrap();
            waitpid(child, None).unwrap();
            monitor.check_now();
            match monitor.try_admit(Work::new().memory_mb(380)) {
                Ok(permit) => permit.finish(),
                Err(verdict) => panic!("round {round}: {verdict}"),
            }
        }
    }

    #[test]
    fn what_others_have_reserved_counts_and_is_said_and_a_stopped_holder_still_holds() {
        let Some((_groups, ledger, monitor)) = in_a_group() else { return };
        let holders: Vec<Forked> = (0..3).map(|_| holder(&ledger, Work::new().memory_mb(100))).collect();
        let verdict = message(&monitor);
        assert!(verdict.contains("+ 300.0 MB reserved by 3 others of 512.0 MB"), "{verdict}");
        kill(holders[0].0, Signal::SIGSTOP).unwrap();
        monitor.check_now();
        let refused = monitor.try_admit(Work::new().memory_mb(200)).unwrap_err().to_string();
        assert!(refused.contains("300.0 MB reserved by 3 others + 200.0 MB asked"), "{refused}");
        let own = monitor.try_admit(Work::new().memory_mb(50)).unwrap();
        let verdict = message(&monitor);
        assert!(verdict.contains("+ 50.0 MB reserved + 300.0 MB reserved by 3 others"), "{verdict}");
        drop(holders);
        monitor.check_now();
        assert!(!message(&monitor).contains("others"), "{}", message(&monitor));
        own.finish();
    }

    #[test]
    fn a_waiter_gets_the_room_that_another_process_gives_back() {
        let Some((_groups, ledger, monitor)) = in_a_group() else { return };
        let holder = holder(&ledger, Work::new().memory_mb(380));
        let readiness = monitor.readiness();
        let waiting = std::thread::spawn(move || {
            readiness.admit(Work::new().memory_mb(380), Duration::from_secs(100)).map(|permit| (permit, Instant::now()))
        });
        wait_until("it waits", || monitor.try_admit(Work::new().memory_mb(380)).is_err());
        drop(holder);
        let killed = Instant::now();
        let (permit, granted): (Permit, Instant) = waiting.join().unwrap().unwrap();
        println!("granted {:?} after the end of the holder", granted.saturating_duration_since(killed));
        permit.finish();
    }

    #[test]
    fn a_parent_that_watches_closes_the_gates_below_it_with_its_own() {
        let ledger = Ledger::create().unwrap();
        let monitor = watching(&ledger);
        monitor.start(ms(50)).unwrap();
        let state = shared_numbers();
        let child = start(|| {
            let below = sharing(&ledger);
            below.start(ms(50)).map_err(|error| error.to_string())?;
            ensure(below.is_accepting_work(), &message(&below))?;
            state[0].store(1, SeqCst);
            let closed = || !below.is_accepting_work() && message(&below).contains("which watches over this one");
            wait_until("it is closed", closed);
            ensure(below.try_admit(Work::new()).is_err(), "nothing is granted")?;
            println!("{}", message(&below));
            state[0].store(2, SeqCst);
            wait_until("it is open again", || below.is_accepting_work());
            let too_much = below.try_admit(Work::new().memory_mb(1_000)).err().ok_or("granted")?;
            ensure(too_much.could_never_fit(), &too_much.to_string())
        });
        wait_until("the child accepts", || state[0].load(SeqCst) == 1 || has_ended(child));
        let large = monitor.try_admit(Work::new().memory_mb(440)).unwrap();
        wait_until("the child is closed", || state[0].load(SeqCst) == 2 || has_ended(child));
        large.finish();
        assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        drop(monitor);
    }

    #[test]
    fn whoever_begins_to_take_part_is_watched_over_at_once_however_long_the_interval_is() {
        let hour = Duration::from_secs(3600);
        let ledger = Ledger::create().unwrap();
        let monitor = watching(&ledger);
        monitor.start(hour).unwrap();
        let child = start(|| {
            let below = sharing(&ledger);
            below.start(hour).map_err(|error| error.to_string())?;
            let work = || Work::new().memory_mb(300);
            // Counted until who watches has taken a check.
            drop(below.try_admit(work()).map_err(|verdict| verdict.to_string())?);
            let granted = below.admit(work(), Duration::from_secs(100));
            granted.map(Permit::finish).map_err(|verdict| verdict.to_string())
        });
        assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        drop(monitor);
    }

    #[test]
    fn programs_that_open_the_same_path_share_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let Some(groups) = Groups::new("memory") else { return };
        limit_memory(&groups.outer, LIMIT_MB * MIB);
        groups.enter();
        let (mut told, mut tells) = UnixStream::pair().unwrap();
        let child = Forked::run(|| {
            let monitor = sharing(&Ledger::open(&path).map_err(|error| error.to_string())?);
            monitor.start(Duration::from_secs(1)).map_err(|error| error.to_string())?;
            let permit = monitor.try_admit(Work::new().memory_mb(300)).map_err(|verdict| verdict.to_string())?;
            tells.write_all(b"1").unwrap();
            std::mem::forget((monitor, permit));
            Ok(())
        });
        assert_eq!(told.read(&mut [0]).unwrap(), 1);
        let (first, second) = (Ledger::open(&path).unwrap(), Ledger::open(&path).unwrap());
        let monitor = sharing(&first);
        monitor.check_now();
        drop((first, second));
        monitor.check_now();
        assert!(message(&monitor).contains("300.0 MB reserved by 1 other of"), "{}", message(&monitor));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left there");
        drop(child);
        monitor.check_now();
        assert!(!message(&monitor).contains("other"), "{}", message(&monitor));
    }

    /// A fork copies the memory of a thread in the middle of anything. What the parent has reserved stays its own, and the child
    /// begins with nothing.
    #[test]
    fn forks_while_other_threads_reserve_leave_everybody_with_what_is_theirs() {
        let Some((_groups, ledger, monitor)) = in_a_group() else { return };
        let kept = monitor.try_admit(Work::new().memory_mb(100)).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let reserve = |readiness: Readiness, is_over: Arc<AtomicBool>| {
            while !is_over.load(SeqCst) {
                if let Ok(permit) = readiness.try_admit(Work::new().memory_mb(100)) {
                    permit.finish();
                }
            }
        };
        let threads = [(); 2].map(|()| {
            let (readiness, is_over) = (monitor.readiness(), Arc::clone(&is_over));
            std::thread::spawn(move || reserve(readiness, is_over))
        });
        for _ in 0..100 {
            in_forked_child(|| {
                ensure(!monitor.is_accepting_work(), "open before its first check")?;
                monitor.check_now();
                let own = monitor.try_admit(Work::new().memory_mb(1)).map_err(|verdict| verdict.to_string())?;
                let refused = monitor.try_admit(Work::new().memory_mb(400)).unwrap_err().to_string();
                own.finish();
                ensure(refused.contains("+ 1.0 MB reserved + "), &refused)?;
                ensure(refused.contains("MB reserved by 1 other + 400.0 MB asked"), &refused)
            });
        }
        is_over.store(true, SeqCst);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        monitor.check_now();
        let verdict = message(&monitor);
        assert!(verdict.contains("+ 100.0 MB reserved of 512.0 MB"), "{verdict}");
        kept.finish();
        drop(ledger);
    }

    /// `posix_spawn(3)` and `vfork(2)` start a program in memory, and with descriptors, that it shares with its parent for a
    /// moment, and closes.
    #[test]
    fn programs_that_a_participant_starts_take_nothing_of_its() {
        let Some((_groups, ledger, monitor)) = in_a_group() else { return };
        let (mut told, mut tells) = UnixStream::pair().unwrap();
        let (mut goes, mut go) = UnixStream::pair().unwrap();
        let child = Forked::run(|| {
            let monitor = sharing(&ledger);
            monitor.start(Duration::from_secs(1)).map_err(|error| error.to_string())?;
            let permit = monitor.try_admit(Work::new().memory_mb(100)).map_err(|verdict| verdict.to_string())?;
            for round in 0..40 {
                let mut program = Command::new("true");
                if round % 2 == 0 {
                    // Then it is started by `fork`.
                    // SAFETY: nothing is run in the child.
                    #[allow(unsafe_code)]
                    unsafe { program.pre_exec(|| Ok(())) };
                }
                ensure(program.status().is_ok_and(|status| status.success()), "no program")?;
                tells.write_all(b"1").unwrap();
                goes.read_exact(&mut [0]).unwrap();
            }
            ensure(monitor.is_accepting_work(), &message(&monitor))?;
            std::mem::forget((monitor, permit));
            Ok(())
        });
        drop(tells);
        for _ in 0..40 {
            told.read_exact(&mut [0]).unwrap();
            monitor.check_now();
            assert!(message(&monitor).contains("+ 100.0 MB reserved by 1 other of"), "{}", message(&monitor));
            go.write_all(b"1").unwrap();
        }
        drop(child);
        monitor.check_now();
        assert!(!message(&monitor).contains("other"), "{}", message(&monitor));
    }

    /// Neither can see the number of the other, and both have the number 1 in their own.
    #[test]
    fn participants_in_pid_namespaces_of_their_own_share_it_all_the_same() {
        let Some((_groups, ledger, monitor)) = in_a_group() else { return };
        let in_a_namespace = || {
            let (mut told, mut tells) = UnixStream::pair().unwrap();
            let outer = Forked::run(|| {
                unshare(CloneFlags::CLONE_NEWPID).map_err(|error| error.to_string())?;
                let first = holder(&ledger, Work::new().memory_mb(100));
                tells.write_all(&first.0.as_raw().to_ne_bytes()).unwrap();
                std::mem::forget(first);
                Ok(())
            });
            let mut first = [0; 4];
            told.read_exact(&mut first).unwrap();
            (outer, Pid::from_raw(i32::from_ne_bytes(first)))
        };
        let holders = [in_a_namespace(), in_a_namespace()];
        monitor.check_now();
        assert!(message(&monitor).contains("+ 200.0 MB reserved by 2 others of"), "{}", message(&monitor));
        for (left, (_, first)) in [(1, &holders[0]), (0, &holders[1])] {
            kill(*first, Signal::SIGKILL).unwrap();
            let is_seen = || {
                monitor.check_now();
                let verdict = message(&monitor);
                match left {
                    0 => !verdict.contains("other"),
                    _ => verdict.contains("+ 100.0 MB reserved by 1 other of"),
                }
            };
            wait_until("its room is back", is_seen);
        }
    }

    #[test]
    fn a_descriptor_that_the_host_closes_closes_the_gate_at_the_next_check() {
        let ledger = Ledger::create().unwrap();
        let monitor = sharing(&ledger);
        monitor.check_now();
        assert!(monitor.is_accepting_work(), "{}", message(&monitor));
        let fd = descriptor_of("highwater-ledger");
        nix::unistd::close(fd).unwrap();
        monitor.check_now();
        assert!(!monitor.is_accepting_work());
        assert!(message(&monitor).contains("ledger: it cannot be used any more"), "{}", message(&monitor));
        // The number is another file's, which is left alone.
        let other = fs::File::open("/dev/null").unwrap();
        monitor.check_now();
        assert!(message(&monitor).contains("its descriptor is another file's"), "{}", message(&monitor));
        drop((monitor, ledger));
        other.metadata().unwrap();
    }

    #[test]
    fn a_lock_that_the_host_gives_back_unnoticed_is_taken_again_or_its_loss_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = Ledger::open(&path).unwrap();
        let monitor = sharing(&ledger);
        monitor.check_now();
        // Closing any descriptor of the file gives back the lock.
        drop(fs::File::open(&path).unwrap());
        monitor.check_now();
        assert!(monitor.is_accepting_work(), "{}", message(&monitor));
        drop(fs::File::open(&path).unwrap());
        in_forked_child(|| {
            let other = sharing(&ledger);
            other.check_now();
            ensure(other.is_accepting_work(), &message(&other))
        });
        monitor.check_now();
        assert!(message(&monitor).contains("has lost its place"), "{}", message(&monitor));
    }

    #[test]
    fn a_full_ledger_closes_the_gate_of_the_next() {
        let ledger = Ledger::create().unwrap();
        let monitors: Vec<ResourceMonitor> = (0..256).map(|_| sharing(&ledger)).collect();
        for monitor in &monitors {
            monitor.check_now();
            assert!(monitor.is_accepting_work(), "{}", message(monitor));
        }
        let one_more = sharing(&ledger);
        one_more.check_now();
        assert_eq!(message(&one_more), "not accepting work: ledger: it is full: 256 processes share it");
        drop(monitors);
        one_more.check_now();
        assert!(one_more.is_accepting_work(), "{}", message(&one_more));
    }
}

fn has_ended(child: Pid) -> bool {
    // Looked at alone: it is waited for later.
    let flags = WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG | WaitPidFlag::WEXITED;
    !matches!(waitid(Id::Pid(child), flags), Ok(WaitStatus::StillAlive))
}

fn shared_numbers_once() -> &'static [AtomicU64; 64] {
    static NUMBERS: std::sync::OnceLock<&'static [AtomicU64; 64]> = std::sync::OnceLock::new();
    NUMBERS.get_or_init(shared_numbers)
}

/// The descriptor of this process that leads to a file of this name.
fn descriptor_of(name: &str) -> i32 {
    let mut entries = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let leads = |path: &std::path::PathBuf| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains(name));
    let path = entries.find(leads).unwrap();
    path.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// The refusal of what is at this path, which names the path.
fn refusal(path: &Path) -> String {
    let error = Ledger::open(path).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Ledger, Some(path)), "{error}");
    let text = error.to_string();
    assert!(text.starts_with(&format!("ledger {}: ", path.display())), "{text}");
    text
}

#[test]
fn what_is_no_ledger_of_this_user_and_version_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    drop(Ledger::open(&good).unwrap());
    let bytes = fs::read(&good).unwrap();
    let changed = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let path = folder.path().join(name);
        let mut bytes = bytes.clone();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        refusal(&path)
    };
    for (name, change, said) in [
        ("empty", (&|bytes: &mut Vec<u8>| bytes.clear()) as &dyn Fn(&mut Vec<u8>), "it is empty"),
        ("short", &|bytes| bytes.truncate(4096), "it is 4096 bytes long"),
        ("long", &|bytes| bytes.push(0), "bytes long, and a ledger"),
        ("foreign", &|bytes| bytes.fill(b'x'), "it is not a ledger"),
        ("zeroes", &|bytes| bytes.fill(0), "it is not a ledger"),
        ("later", &|bytes| bytes[8] = 77, "it is of version 77"),
        ("flipped", &|bytes| bytes[16] ^= 1, "it is damaged"),
    ] {
        let refused = changed(name, change);
        assert!(refused.contains(said), "{name}: {refused}");
    }
    assert!(refusal(folder.path()).contains("not a regular file"));
    assert!(refusal(Path::new("/dev/null")).contains("not a regular file"));
    assert!(refusal(&folder.path().join("none/ledger")).contains("could not make it"));
    let open_to_all = folder.path().join("open");
    fs::write(&open_to_all, &bytes).unwrap();
    fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(refusal(&open_to_all).contains("others may write it: its mode is 666"));
    if nix::unistd::geteuid().is_root() {
        fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o600)).unwrap();
        nix::unistd::chown(&open_to_all, Some(65_534.into()), None).unwrap();
        assert!(refusal(&open_to_all).contains("it is that of user 65534, and this process is user 0"));
    } else {
        println!("skipped: not root, so there is no file of another user's");
    }
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn a_file_that_is_damaged_or_cut_while_it_is_shared_closes_the_gate_and_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let monitor = sharing(&Ledger::open(&path).unwrap());
        monitor.check_now();
        assert!(monitor.is_accepting_work(), "{}", message(&monitor));
        let other = holder(&Ledger::open(&path).unwrap(), Work::new().memory_mb(10));
        let mut bytes = fs::read(&path).unwrap();
        let whole = bytes.clone();
        // The counters of the second slot.
        bytes[(32 + 32) * 8..][..48].fill(0xa5);
        bytes[(32 + 32) * 8 + 16] = 0;
        bytes[(32 + 32) * 8 + 23] = 0;
        let write = |bytes: &[u8]| OpenOptions::new().write(true).open(&path).unwrap().write_all(bytes).unwrap();
        in_forked_child(|| { write(&bytes); Ok(()) });
        monitor.check_now();
        let said = format!("ledger {}: it is damaged: slot 1", path.display());
        assert!(message(&monitor).contains(&said), "{}", message(&monitor));
        in_forked_child(|| { write(&whole); Ok(()) });
        drop(other);
        in_forked_child(|| { OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap(); Ok(()) });
        monitor.check_now();
        assert!(message(&monitor).contains("it is 0 bytes long now"), "{}", message(&monitor));
        // What is not there any more is not touched.
        assert!(monitor.try_admit(Work::new().memory_mb(1)).is_err());
        monitor.check_now();
    }
}
