//! What the summary says.

use std::fmt;
use std::time::Instant;

use highwater::{ResourceSnapshot, WorkUsage};

/// What has happened so far.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) done: usize,
    pub(crate) failed: usize,
    /// How often a job was shed and put back into the queue.
    pub(crate) shed: usize,
    /// How often the gate was found closed after it had been open.
    pub(crate) closed: usize,
    /// How many an earlier run has done.
    pub(crate) done_before: usize,
    /// The most that a job has been seen to cost.
    largest: Largest,
    /// When the cost of one job was known, from which on there may be more than one.
    known_since: Option<Instant>,
    began: Instant,
    peak: Peak,
    peak_since_known: Peak,
}

/// The largest job, resource by resource.
#[derive(Debug, Default)]
struct Largest {
    processes: u64,
    memory_bytes: u64,
}

/// The most that any snapshot showed.
#[derive(Debug, Default)]
struct Peak {
    processes: usize,
    memory_mb: f64,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally {
            done: 0,
            failed: 0,
            shed: 0,
            closed: 0,
            done_before: 0,
            largest: Largest::default(),
            known_since: None,
            began: Instant::now(),
            peak: Peak::default(),
            peak_since_known: Peak::default(),
        }
    }

    /// Takes note of what a job has cost that has ended.
    pub(crate) fn learn(&mut self, usage: WorkUsage) {
        let Largest { processes, memory_bytes } = &mut self.largest;
        *processes = usage.peak_processes.max(*processes).max(1);
        *memory_bytes = usage.peak_memory_bytes.max(*memory_bytes);
        self.known_since.get_or_insert_with(Instant::now);
    }

    pub(crate) fn record(&mut self, snapshot: &ResourceSnapshot) {
        self.peak.record(snapshot);
        if self.known_since.is_some_and(|since| snapshot.timestamp > since) {
            self.peak_since_known.record(snapshot);
        }
    }
}

impl Peak {
    fn record(&mut self, snapshot: &ResourceSnapshot) {
        self.processes = self.processes.max(snapshot.child_process_count.unwrap_or_default());
        self.memory_mb = self.memory_mb.max(snapshot.memory_usage_mb());
    }
}

impl fmt::Display for Peak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} processes, {:.1} MB", self.processes, self.memory_mb)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { done, failed, shed, closed, largest, peak, peak_since_known, .. } = self;
        let seconds = self.began.elapsed().as_secs_f64();
        writeln!(f, "{done} done, {failed} failed, {shed} shed and queued again, in {seconds:.1} s")?;
        if self.done_before > 0 {
            writeln!(f, "done before:        {}", self.done_before)?;
        }
        writeln!(f, "gate closed:        {closed} times")?;
        write!(f, "peak in snapshots:  {peak}")?;
        if self.known_since.is_some() {
            let memory_mb = largest.memory_bytes as f64 / f64::from(1 << 20);
            writeln!(f, "\nlargest job:        {} processes, {memory_mb:.1} MB", largest.processes)?;
            write!(f, "peak once known:    {peak_since_known}")?;
        }
        Ok(())
    }
}
