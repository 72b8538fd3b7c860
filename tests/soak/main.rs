//! A process that runs out of everything, again and again, and a monitor in it that must not say yes by mistake.
//!
//! One thread brings a fault after the other: crowds of children, no number left for a process, no descriptor, no address
//! space, no thread, files that cannot be read, stops, clocks that jump, new limits. The others ask all the time and compare
//! each answer with what must be true. All faults in some order are a round, of two seconds; `HIGHWATER_SOAK_SECONDS` says for
//! how long rounds begin.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;

mod faults;
mod host;
mod means;

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

use common::{ensure, ms, wait_until};
use host::{Host, Tally, NUMBERS};
use means::{forked, leave, Random};
use nix::errno::Errno;
use nix::mount::{mount, MsFlags};
use nix::sched::{unshare, CloneFlags};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Uid;
use rusty_fork::rusty_fork_test;

fn entries(folder: &str) -> usize {
    fs::read_dir(folder).unwrap().count()
}

/// The whole of it, in a process that has nothing else to do.
fn soak(seconds: u64, seed: u64) -> Result<(), String> {
    let tally: &'static Tally = Box::leak(Box::default());
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tally.panics.fetch_add(1, SeqCst);
        usual(panic);
    }));
    let (threads, descriptors) = (entries("/proc/self/task"), entries("/proc/self/fd"));
    let host = Host::new(tally);
    let snapshots = host.monitor.snapshots();
    let rounds = thread::scope(|scope| {
        for asker in 1..=3 {
            let host = &host;
            scope.spawn(move || host.ask_for_slots(Random(seed ^ asker)));
        }
        for _ in 0..2 {
            scope.spawn(|| host.look());
        }
        scope.spawn(|| {
            while !host.done.load(SeqCst) {
                tally.checks.fetch_add(u64::from(snapshots.recv_timeout(ms(20)).is_ok()), SeqCst);
            }
        });
        let faults = std::panic::AssertUnwindSafe(|| host.faults(seconds, &mut Random(seed)));
        let rounds = std::panic::catch_unwind(faults);
        // However they end, the other threads do too.
        host.done.store(true, SeqCst);
        rounds.unwrap_or(0)
    });
    tally.checks.fetch_add(snapshots.missed(), SeqCst);
    tally.is(host.referee.load(SeqCst) == 0 && host.monitor.holders().is_empty(), "permits are left");
    drop((snapshots, host));
    wait_until("its threads have ended", || entries("/proc/self/task") == threads);
    tally.is(entries("/proc/self/fd") == descriptors, "descriptors are left");
    tally.is(waitpid(None, Some(WaitPidFlag::WNOHANG)) == Err(Errno::ECHILD), "children are left");

    let number = |number: &AtomicU64| number.load(SeqCst);
    let (wrong, faults) = (tally.wrong.lock().unwrap(), tally.faults.lock().unwrap());
    println!(
        "soak: {rounds} rounds with seed {seed}: {} checks, {} grants, {} refusals, {} answers compared",
        number(&tally.checks),
        number(&tally.grants),
        number(&tally.refusals),
        number(&tally.answers),
    );
    println!("faults: {}: {faults:?}", faults.values().sum::<u64>());
    println!("wrong answers: {}, panics: {}", wrong.len(), number(&tally.panics));
    let some = |least: u64, number: &AtomicU64| number.load(SeqCst) >= least;
    ensure(
        some(10, &tally.checks) && some(10, &tally.grants) && some(10, &tally.refusals),
        "next to nothing was done",
    )?;
    ensure(wrong.is_empty() && number(&tally.panics) == 0, &format!("{wrong:#?}"))
}

/// Numbers of its own for this process, and few of them, where that concerns nobody else: before Linux 6.14 they would be
/// fewer for the whole machine.
fn few_numbers() -> nix::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>)?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) >= (Some(6), Some(14)) {
        let written = fs::write("/proc/sys/kernel/pid_max", NUMBERS.to_string());
        written.unwrap_or_else(|error| println!("skipped: as many processes as there are: {error}"));
    }
    Ok(())
}

/// The first process of a namespace: it waits for whoever is left to it, and sees that nobody remains.
fn first_process(body: impl FnOnce()) {
    few_numbers().unwrap();
    let child = forked(body).unwrap();
    let status = loop {
        match waitpid(None, None).unwrap() {
            status if status.pid() == Some(child) => break status,
            _ => {}
        }
    };
    let is_process = |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
    let others = || fs::read_dir("/proc").unwrap().flatten().filter(is_process).count() - 1;
    wait_until("no process is left", || {
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
        others() == 0
    });
    leave(i32::from(status != WaitStatus::Exited(child, 0)));
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 3_600_000)]

    #[test]
    fn no_answer_is_wrong_while_everything_is_used_up() {
        let seconds = from_environment("HIGHWATER_SOAK_SECONDS").unwrap_or(5);
        let seed = from_environment("HIGHWATER_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 20 | 1);
        let body = || {
            let result = soak(seconds, seed);
            if let Err(message) = &result {
                eprintln!("{message}");
            }
            leave(i32::from(result.is_err()));
        };
        let flags = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
        let child = if Uid::effective().is_root() && unshare(flags).is_ok() {
            forked(|| first_process(body)).unwrap()
        } else {
            println!("skipped: as many processes as there are, without a namespace");
            forked(body).unwrap()
        };
        assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
    }
}
