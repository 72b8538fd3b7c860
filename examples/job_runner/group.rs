//! Process groups: one per job, so that a job can be measured and signalled with everything it started.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;
use procfs::process::all_processes;

use crate::job::Cost;

/// A job's process group. Its id is its leader's pid, which nobody else can be given until the leader is waited for:
/// signal a group only while its leader's `Child` has not been.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    id: Pid,
}

impl Group {
    /// The group that a child leads.
    pub(crate) fn led_by(child_id: u32) -> Group {
        Group { id: Pid::from_raw(child_id as i32) }
    }

    /// Sends a signal to every process in the group.
    pub(crate) fn signal(self, signal: Signal) -> io::Result<()> {
        killpg(self.id, signal).map_err(io::Error::from)
    }

    /// What a sample says about this group.
    pub(crate) fn usage(self, sample: &Sample) -> Usage {
        sample.get(&self.id.as_raw()).copied().unwrap_or_default()
    }
}

/// What a group was seen to use.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Zombies count as processes: they do for the limit as well.
    pub(crate) cost: Cost,
    /// Whether a process in it is more than a zombie.
    pub(crate) alive: bool,
}

/// The usage of every process group.
pub(crate) type Sample = HashMap<i32, Usage>;

/// Takes samples, each in one pass over the process table.
#[derive(Debug)]
pub(crate) struct Sampler {
    ended: Option<Instant>,
    took: Duration,
}

impl Sampler {
    /// Shorter than a job of a few processes takes to start them all (some 20 ms), so that its growth is seen.
    pub(crate) const SHORTEST_GAP: Duration = Duration::from_millis(5);

    pub(crate) fn new() -> Sampler {
        Sampler { ended: None, took: Duration::ZERO }
    }

    /// A sample, unless the last one is recent. Sampling takes a tenth of one core at most, however long the table is,
    /// unless something must be watched `closely`.
    pub(crate) fn sample_if_due(&mut self, closely: bool) -> Option<Sample> {
        let gap = if closely { Sampler::SHORTEST_GAP } else { Sampler::SHORTEST_GAP.max(self.took * 10) };
        if self.ended.is_some_and(|ended| ended.elapsed() < gap) {
            return None;
        }
        let began = Instant::now();
        let sample = sample();
        self.took = began.elapsed();
        self.ended = Some(Instant::now());
        sample.ok()
    }
}

fn sample() -> procfs::ProcResult<Sample> {
    let page_size = procfs::page_size();
    let mut sample = Sample::new();
    // A process that vanishes between being listed and being read is normal.
    for stat in all_processes()?.flatten().filter_map(|process| process.stat().ok()) {
        let usage = sample.entry(stat.pgrp).or_default();
        usage.cost.processes += 1;
        usage.cost.memory_bytes += stat.rss * page_size;
        usage.alive |= stat.state != 'Z';
    }
    Ok(sample)
}
