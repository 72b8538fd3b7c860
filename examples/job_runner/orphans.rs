//! Orphans: processes that jobs have started and whose parents have ended, which makes them children of this process.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::process;

use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;
use procfs::process::Process;

use crate::job::{Cost, Serial};
use crate::tree;

/// A child of this process that is the shell of no job.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub(crate) pid: u32,
    /// The process group that it is in.
    pub(crate) group: Option<u32>,
    /// The start of a job that it comes from, as its environment says.
    pub(crate) job: Option<Serial>,
}

/// Lists the orphans there are.
pub(crate) fn list(shells: &HashSet<u32>) -> io::Result<Vec<Orphan>> {
    Ok(pids(shells)?.into_iter().map(Orphan::read).collect())
}

/// Takes the status of the orphans that have ended, which nobody else waits for, and lists the others. For the thread
/// that starts the shells alone: a shell that is not known yet would lose its status.
pub(crate) fn collect(shells: &HashSet<u32>) -> io::Result<Vec<Orphan>> {
    loop {
        let pids = pids(shells)?;
        // One that has ended may have left orphans itself since the list was read.
        if pids.iter().all(|pid| is_alive(*pid)) {
            return Ok(pids.into_iter().map(Orphan::read).collect());
        }
    }
}

/// What a process and all that is below it use now.
pub(crate) fn cost(pid: u32) -> Cost {
    // One that has ended meanwhile costs nothing.
    let stats = tree::below(pid).filter_map(|process| process.stat().ok());
    stats.fold(Cost::default(), |cost, stat| {
        cost.and(Cost { processes: 1, memory_bytes: stat.rss * procfs::page_size() })
    })
}

/// Jobs are started by the main thread, and orphans are handed to the first of the threads: all are children of it.
fn pids(shells: &HashSet<u32>) -> io::Result<Vec<u32>> {
    let children = fs::read_to_string(format!("/proc/self/task/{}/children", process::id()))?;
    let pids = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    Ok(pids.filter(|pid| !shells.contains(pid)).collect())
}

/// Whether a child has not ended. The status of one that has is taken.
fn is_alive(pid: u32) -> bool {
    waitpid(Pid::from_raw(pid as i32), Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive)
}

impl Orphan {
    fn read(pid: u32) -> Orphan {
        let process = Process::new(pid as i32).ok();
        let group = process.as_ref().and_then(|process| Some(process.stat().ok()?.pgrp as u32));
        let environment = process.and_then(|process| process.environ().ok()).unwrap_or_default();
        let mark = environment.get(OsStr::new(Serial::MARK)).and_then(|mark| mark.to_str());
        Orphan { pid, group, job: mark.and_then(Serial::from_mark) }
    }
}
