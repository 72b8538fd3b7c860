//! What jobs use: samples of the process table.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::time::{Duration, Instant};

use procfs::process::{all_processes, Process};

use crate::job::{Cost, Serial};

/// What a job was seen to use.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Zombies count as processes: they do for the limit as well.
    pub(crate) cost: Cost,
    /// Whether a process of it is more than a zombie.
    pub(crate) alive: bool,
}

/// What there was, by process, and by process group.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    groups: HashMap<u32, Usage>,
    processes: HashMap<u32, (u32, Usage)>,
    /// The children of this process, shells and what was handed to it.
    pub(crate) children: Vec<Child>,
}

/// A child of this process.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: u32,
    pub(crate) alive: bool,
    /// Which start of a job it comes from, as its environment says.
    pub(crate) job: Option<Serial>,
}

impl Sample {
    /// The usage of a job: of its process group, and of what it has started outside of that.
    pub(crate) fn of_job(&self, group: u32, below: &[u32]) -> Usage {
        let of_group = self.groups.get(&group).copied().unwrap_or_default();
        let elsewhere = below.iter().filter_map(|pid| self.processes.get(pid)).filter(|(of, _)| *of != group);
        elsewhere.fold(of_group, |usage, (_, more)| usage.and(*more))
    }
}

impl Usage {
    fn and(self, other: Usage) -> Usage {
        let cost = Cost {
            processes: self.cost.processes + other.cost.processes,
            memory_bytes: self.cost.memory_bytes + other.cost.memory_bytes,
        };
        Usage { cost, alive: self.alive || other.alive }
    }
}

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
    let mut sample = Sample::default();
    // A process that vanishes between being listed and being read is normal.
    for process in all_processes()?.flatten() {
        let Ok(stat) = process.stat() else { continue };
        let cost = Cost { processes: 1, memory_bytes: stat.rss * page_size };
        let usage = Usage { cost, alive: stat.state != 'Z' };
        let (pid, group) = (stat.pid as u32, stat.pgrp as u32);
        let of_group = sample.groups.entry(group).or_default();
        *of_group = of_group.and(usage);
        sample.processes.insert(pid, (group, usage));
        if stat.ppid as u32 == std::process::id() {
            sample.children.push(Child { pid, alive: usage.alive, job: job_of(&process) });
        }
    }
    Ok(sample)
}

fn job_of(process: &Process) -> Option<Serial> {
    let environment = process.environ().ok()?;
    Serial::from_mark(environment.get(OsStr::new(Serial::MARK))?.to_str()?)
}
