//! Monitors, from their making to their end.

use std::fmt::Display;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;

use highwater::{
    ErrorKind, Ledger, MemoryScope, Resource, ResourceLimits, ResourceLimitsBuilder, ResourceMonitor,
    ResourceMonitorBuilder, ResourceSnapshot, Work,
};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::common::{ensure, ms, touched, wait_until, Forked, QuietJobs};
use crate::trial::{comes_true, Trial};

/// Touched by a child and by a child of that.
const TOUCHED: usize = 8 << 20;
/// No process of this test has as much.
const PLENTY: u64 = 1 << 30;
pub const FAMILY: usize = 2;

/// A child with a child, which end with it.
pub fn family() -> Forked {
    let ends_with_its_parent = || set_pdeathsig(Signal::SIGKILL).unwrap();
    let family = Forked::run(|| {
        ends_with_its_parent();
        let memory = touched(TOUCHED);
        let child = Forked::run(|| {
            ends_with_its_parent();
            let memory = touched(TOUCHED);
            std::mem::forget(memory);
            Ok(())
        });
        std::mem::forget((memory, child));
        Ok(())
    });
    let monitor = lean(wide(), MemoryScope::Tree).build().unwrap();
    wait_until("the family is there", || is_true(&monitor.check_now(), MemoryScope::Tree).is_ok());
    family
}

pub fn wide() -> ResourceLimitsBuilder {
    // The file system is asked by a thread of its own.
    ResourceLimits::builder().max_memory_bytes(PLENTY).max_processes(100).min_free_disk_mb("/", 1)
}

/// Limits that the family alone reaches.
pub fn reached() -> ResourceLimitsBuilder {
    ResourceLimits::builder().max_memory_bytes(PLENTY).max_processes(FAMILY as u64)
}

pub fn builder(limits: ResourceLimitsBuilder, scope: MemoryScope) -> ResourceMonitorBuilder {
    ResourceMonitor::builder(limits.build().unwrap()).memory_scope(scope).cpu_budget(1.0)
}

/// One that reads what it must and nothing else, for the calls of another kind.
pub fn lean(limits: ResourceLimitsBuilder, scope: MemoryScope) -> ResourceMonitorBuilder {
    let optional = [
        Resource::CgroupMemory,
        Resource::CgroupPids,
        Resource::OpenFiles,
        Resource::MemoryPressure,
        Resource::MachineMemory,
        Resource::DiskSpace,
        Resource::CpuPressure,
        Resource::IoPressure,
    ];
    optional.into_iter().fold(builder(limits, scope), ResourceMonitorBuilder::ignore)
}

/// What a check says is true, or it says that it does not know.
pub fn is_true(snapshot: &ResourceSnapshot, scope: MemoryScope) -> Result<(), String> {
    let least = match scope {
        MemoryScope::Tree => (FAMILY * TOUCHED) as u64,
        _ => 1 << 20,
    };
    let is_memory = snapshot.memory_bytes.map_or(true, |bytes| (least..PLENTY / 2).contains(&bytes));
    let is_count = snapshot.child_process_count.map_or(true, |count| count == FAMILY);
    ensure(is_memory && is_count, &format!("a check says what is not true: {snapshot:?}"))
}

/// What any answer must be, whatever was refused.
fn answers_are_right(monitor: &ResourceMonitor, scope: MemoryScope, may_open: bool) -> Result<(), String> {
    if let Some(latest) = monitor.latest() {
        is_true(&latest, scope)?;
    }
    let is_open = monitor.is_accepting_work();
    ensure(may_open || !is_open, "the gate is open, and must be closed")?;
    ensure(!is_open || monitor.latest().is_some(), "the gate is open, and nothing was checked")?;
    let verdict = monitor.verdict();
    let text = verdict.to_string();
    let says = if verdict.is_accepting() { "accepting work" } else { "not accepting work: " };
    ensure(text.starts_with(says) && (may_open || !verdict.is_accepting()), &format!("it says: {text}"))?;
    ensure(may_open || monitor.readiness().pressure() >= 1.0, "there is no pressure, and the gate must be closed")?;
    let granted = monitor.try_admit(Work::new().processes(1));
    ensure(may_open || granted.is_err(), "a grant while the gate must be closed")?;
    let too_much = monitor.try_admit(Work::new().processes(200));
    ensure(too_much.is_err(), "a grant of more than there is")
}

pub fn is(condition: bool, what: impl Display) -> Result<(), String> {
    ensure(condition, &what.to_string())
}

/// A monitor that is made, started, asked, and stopped.
pub fn monitored(
    trial: &Trial,
    scope: MemoryScope,
    may_open: bool,
    made: impl FnOnce() -> Result<ResourceMonitor, highwater::Error>,
    held: impl FnOnce(&ResourceMonitor) -> Result<(), String>,
) -> Result<(), String> {
    let mut right = Ok(());
    let tried = trial.refusing(|| -> Result<_, highwater::Error> {
        let monitor = made()?;
        let started = monitor.start(ms(4));
        right = right.clone().and_then(|()| answers_are_right(&monitor, scope, may_open));
        right = right.clone().and_then(|()| is_true(&monitor.check_now(), scope));
        right = right.clone().and_then(|()| answers_are_right(&monitor, scope, may_open));
        right = right.clone().and_then(|()| held(&monitor));
        Ok((monitor, started))
    });
    right?;
    let (monitor, started) = match tried {
        Ok(tried) => tried,
        Err(error) => return is(!error.to_string().is_empty(), "an error that says nothing"),
    };
    match started {
        Ok(()) if may_open => {
            comes_true(format_args!("it opens by itself: {}", monitor.verdict()), || monitor.is_accepting_work())?;
            comes_true("work is granted again", || monitor.try_admit(Work::new().processes(1)).is_ok())?;
        }
        Ok(()) => comes_true(format_args!("it says why it is closed: {}", monitor.verdict()), || {
            monitor.verdict().resource().is_some()
        })?,
        Err(error) => {
            is(error.kind() == ErrorKind::Thread, &error)?;
            is(!monitor.is_accepting_work(), "it was not started, and is open")?;
        }
    }
    answers_are_right(&monitor, scope, may_open)?;
    is_true(&monitor.check_now(), scope)?;
    trial.refusing(|| monitor.stop());
    is(!monitor.is_accepting_work(), "it was stopped, and is open")?;
    trial.refusing(|| drop(monitor));
    Ok(())
}

/// The same for permits of work that is this child.
pub fn attached(monitor: &ResourceMonitor, child: u32) -> Result<(), String> {
    let Ok(permit) = monitor.try_admit(Work::new().processes(5)) else { return Ok(()) };
    match permit.attach(child) {
        Ok(()) => {
            let snapshot = monitor.check_now();
            let usage = permit.usage();
            let is_right = usage.map_or(true, |usage| usage.processes == FAMILY as u64 || snapshot.probe_failed());
            is(is_right, format_args!("{usage:?} of a family, {snapshot:?}"))
        }
        Err(error) => is(!error.to_string().is_empty(), "an error that says nothing"),
    }
}

/// A manager is told that the limit is reached, sooner or later.
pub fn managed(trial: &Trial) -> Result<(), String> {
    let paused = Arc::new(AtomicUsize::new(0));
    let monitor = lean(reached(), MemoryScope::Own).settle(ms(1)).build().unwrap();
    let count = Arc::clone(&paused);
    let jobs = QuietJobs::new().naming(|| Some("job".to_owned()));
    let jobs = jobs.pausing(move || {
        count.fetch_add(1, SeqCst);
        Ok(())
    });
    let started = trial.refusing(|| {
        monitor.set_manager(jobs.shared());
        let started = monitor.start(ms(4));
        monitor.check_now();
        started
    });
    if let Err(error) = started {
        return is(error.kind() == ErrorKind::Thread, &error);
    }
    comes_true(format_args!("a job is paused: {}", monitor.verdict()), || paused.load(SeqCst) > 0)?;
    trial.refusing(|| monitor.stop());
    trial.refusing(|| drop(monitor));
    Ok(())
}

/// A monitor that shares a ledger, if there is one.
pub fn shared(trial: &Trial, ledger: impl FnOnce() -> Result<Ledger, highwater::Error>) -> Result<bool, String> {
    let mut has_ledger = false;
    monitored(
        trial,
        MemoryScope::Own,
        true,
        || {
            let ledger = ledger().map_err(|error| {
                assert_eq!(error.kind(), ErrorKind::Ledger, "{error}");
                error
            })?;
            has_ledger = true;
            lean(wide(), MemoryScope::Own).ledger(ledger).build()
        },
        |_| Ok(()),
    )?;
    Ok(has_ledger)
}
