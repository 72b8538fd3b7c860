//! A judgement stepped by hand, through every kind of check.

mod explored;
mod gate;
mod optional;
mod record;
mod retained;
mod schedule;

use super::*;
use crate::judgement::word::Publication;
use crate::vocabulary::{Class, ErrorKind, Identity, MemoryScope, Origin, Settings, Verdict, Work, MB};

const INTERVAL: Duration = Duration::from_secs(15);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// 100 MB and 100 processes.
fn limits() -> ResourceLimits {
    ResourceLimits::builder().max_memory_mb(100).max_processes(100).build().unwrap()
}

fn held() -> ResourceLimits {
    ResourceLimits::builder().max_memory_mb(100).max_processes(100).resume_percent(75).build().unwrap()
}

/// A judgement with what goes with it, stepped by hand.
struct Bench {
    judgement: Judgement,
    limits: ResourceLimits,
    number: u64,
    now: Duration,
}

impl Bench {
    fn new() -> Bench {
        let judgement = Judgement::new(Settings::default(), false, None);
        Bench { judgement, limits: limits(), number: 0, now: s(1000) }
    }

    fn running() -> Bench {
        let mut bench = Bench::new();
        bench.judgement.begin(INTERVAL);
        bench
    }

    fn record(&mut self, memory: Option<u64>, processes: Option<u64>, zombies: &[Identity]) -> Option<Report> {
        self.record_found(&found(memory, processes), zombies)
    }

    fn record_found(&mut self, found: &Found, zombies: &[Identity]) -> Option<Report> {
        self.record_check(found, |check| Observation { zombies, ..check })
    }

    fn record_check<'a>(
        &mut self,
        found: &'a Found,
        with: impl FnOnce(Observation<'a>) -> Observation<'a>,
    ) -> Option<Report> {
        let released = self.begin_check();
        self.finish_check(found, released, with)
    }

    /// The reservations that a check which begins now will have seen.
    fn begin_check(&mut self) -> Released {
        self.number += 1;
        self.judgement.admission.room.take_released()
    }

    fn finish_check<'a>(
        &mut self,
        found: &'a Found,
        released: Released,
        with: impl FnOnce(Observation<'a>) -> Observation<'a>,
    ) -> Option<Report> {
        let check = Observation {
            number: self.number,
            now: self.now,
            began: self.now,
            ended: self.now,
            cpu: Duration::ZERO,
            cpu_between: Duration::ZERO,
            planned: None,
            found,
            zombies: &[],
            subtrees: &[],
            released,
        };
        let report = self.judgement.record(&with(check), &self.limits);
        self.judgement.publish_check(&self.limits);
        report
    }

    fn good(&mut self, processes: u64) -> Report {
        self.record(Some(MB), Some(processes), &[]).unwrap()
    }

    fn fail(&mut self) -> Report {
        self.record(Some(MB), None, &[]).unwrap()
    }

    fn costing(&mut self, cpu: Duration) {
        self.record_check(&found(Some(0), Some(0)), |check| Observation { cpu, ..check }).unwrap();
    }

    fn verdict(&self) -> Verdict {
        self.judgement.verdict(self.now, &self.limits)
    }

    fn text(&self) -> String {
        self.verdict().to_string()
    }

    fn admit(&self, work: Work) -> Result<(), Verdict> {
        self.judgement.admit(&work, self.now, &self.limits)
    }

    /// The permit was dropped.
    fn release(&self, work: &Work) {
        self.judgement.admission.room.release(work);
    }

    fn publication(&self) -> Publication {
        self.judgement.publication()
    }

    /// The gate as readers without a lock see it.
    fn is_open(&mut self) -> bool {
        self.judgement.publish_check(&self.limits);
        self.judgement.admission.is_open(self.now)
    }
}

/// A reading of the required resources; what is `None` could not be read.
fn found(memory: Option<u64>, processes: Option<u64>) -> Found {
    let required = |read: Option<u64>| match read {
        Some(usage) => Ok(Some(Measured::of(usage))),
        None => Err(Arc::new(Error::new(ErrorKind::Panicked, "the probe panicked"))),
    };
    PerResource::from_fn(|resource| match resource {
        Resource::Memory => required(memory),
        Resource::Processes => required(processes),
        _ => Ok(None),
    })
}

fn names(report: &Report) -> Vec<String> {
    let name = |event: &Event| match event {
        Event::LevelEntered { resource, level, changes, .. } => format!("{resource} {level:?} {changes}"),
        Event::Unread { resource, .. } => format!("{resource} unread"),
        Event::ReadAgain { resource } => format!("{resource} read again"),
        Event::Zombies { pids } => format!("zombies {pids:?}"),
        Event::CheckFailed { failures, .. } => format!("failed {failures}"),
        Event::Degraded { failures, .. } => format!("degraded {failures}"),
        Event::LedgerUnusable { .. } => "ledger unusable".to_owned(),
        Event::LedgerUsable => "ledger usable".to_owned(),
        Event::RunningLate(planned) => format!("late {:?}", planned.lateness),
        Event::Recovered { after_failures } => format!("recovered {after_failures}"),
        Event::DegradedCleared { after_failures } => format!("cleared {after_failures}"),
    };
    report.events.iter().map(name).collect()
}
