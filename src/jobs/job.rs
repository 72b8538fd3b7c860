//! A job that is to be started.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

use super::cost::Cost;
use super::handle::Ticket;
use super::held_back::HeldBack;
use super::output::Capture;
use super::permit::Admitted;
use crate::jobserver::{JobChannel, JobServer};
use crate::vocabulary::Work;

/// A program to be run as a job: a command, its kind, and what is known of its cost beforehand.
///
/// ```
/// use std::process::Command;
/// use highwater::{Job, Work};
///
/// let mut cc = Command::new("cc");
/// cc.args(["-c", "big.c"]);
/// let job = Job::new(cc).kind("cc of generated code").work(Work::new().memory_mb(500));
/// ```
#[must_use]
pub struct Job {
    pub(super) command: Command,
    pub(super) kind: String,
    pub(super) declared: Work,
    pub(super) tries: u32,
    pub(super) retries: u32,
    pub(super) timeout: Option<Duration>,
    pub(super) jobserver: Option<JobServer>,
}

impl Job {
    /// Runs this command. Where its output goes, its folder and its environment are as the command says; its input is
    /// `/dev/null`, and it leads a process group of its own. It may be started more than once
    /// ([`tries`](Self::tries)): a file that it writes to then has what an earlier try wrote.
    pub fn new(command: Command) -> Job {
        let kind = Path::new(command.get_program()).file_name().unwrap_or(OsStr::new(""));
        let kind = kind.to_string_lossy().into_owned();
        Job { command, kind, declared: Work::new().processes(1), tries: 3, retries: 0, timeout: None, jobserver: None }
    }

    /// The jobs that it is like: what those have cost is what this one is taken to cost. Default: the name of the
    /// program, without its folder.
    pub fn kind(mut self, kind: impl Into<String>) -> Job {
        self.kind = kind.into();
        self
    }

    /// What it is known to cost at its peak, its own process included. It is admitted by this or by what its kind was
    /// seen to cost, whichever is more. Default: one process.
    pub fn work(mut self, work: Work) -> Job {
        self.declared = work;
        self
    }

    /// How often it is started at most, if it is shed or killed for want of memory: from the second time on alone, with
    /// twice its peak declared. Default: 3; 0 means 1.
    pub fn tries(mut self, tries: u32) -> Job {
        self.tries = tries.max(1);
        self
    }

    /// How often it is run again if it fails by itself: it ends with another status than 0, or takes too long. Default: 0.
    pub fn retries(mut self, retries: u32) -> Job {
        self.retries = retries;
        self
    }

    /// Gives it a channel of a [jobserver](JobServer), if it is a build: what it starts at once is up to the limits. Then the cost of
    /// its kind is that of one slot. Default: that of [`JobsBuilder::jobserver`](super::JobsBuilder::jobserver).
    pub fn jobserver(mut self, server: &JobServer) -> Job {
        self.jobserver = Some(server.clone());
        self
    }

    /// The longest that one try may take; then it is ended. The time in which it is paused counts. Default: no limit.
    pub fn timeout(mut self, timeout: Duration) -> Job {
        self.timeout = Some(timeout);
        self
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Job { command, kind, declared, tries, retries, timeout, jobserver } = self;
        let mut shown = f.debug_struct("Job");
        shown.field("command", command).field("kind", kind).field("work", declared);
        shown
            .field("tries", tries)
            .field("retries", retries)
            .field("timeout", timeout)
            .field("jobserver", jobserver)
            .finish()
    }
}

/// A job that waits to be started, for the first time or again.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) job: Job,
    pub(super) ticket: Arc<Ticket>,
    /// What it must have, because it had too little before.
    pub(super) needed: Cost,
    /// The times that it was started, and of those the times that it has failed by itself.
    pub(super) tried: u32,
    pub(super) failed: u32,
    /// The time that its tries took.
    pub(super) took: Duration,
    /// Whether it is to run without others beside it.
    pub(super) is_alone: bool,
    /// Whether its command has been made ready, which is done once however often it cannot be started.
    pub(super) is_prepared: bool,
    /// For its tokens, if it has a jobserver; made once, too.
    pub(super) channel: Option<JobChannel>,
    /// What its try writes, if that is read.
    pub(super) capture: Option<Capture>,
    /// Where it is told that it is admitted, while its command is not known yet: then it is only that, and not started.
    pub(super) asker: Option<Sender<Result<Admitted, HeldBack>>>,
}

impl Waiting {
    pub(super) fn new(job: Job, ticket: Arc<Ticket>) -> Waiting {
        Waiting {
            job,
            ticket,
            needed: Cost::default(),
            tried: 0,
            failed: 0,
            took: Duration::ZERO,
            is_alone: false,
            is_prepared: false,
            channel: None,
            capture: None,
            asker: None,
        }
    }
}

/// The jobs that wait, in their order.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The kind of each.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &str> {
        self.waiting.iter().map(|waiting| waiting.job.kind.as_str())
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.waiting.push_back(waiting);
    }

    /// Puts one back that was taken and could not be started yet.
    pub(super) fn put_back(&mut self, index: usize, waiting: Waiting) {
        self.waiting.insert(index.min(self.waiting.len()), waiting);
    }

    /// Takes the first that may run beside `running` others, and its place. Those of a kind that is being learned are
    /// passed, one that is to run alone is not: it would wait for ever. If none may, says why.
    pub(super) fn take(
        &mut self,
        running: usize,
        is_learning: impl Fn(&str) -> bool,
    ) -> Result<(usize, Waiting), Option<HeldBack>> {
        let mut held_back = None;
        for index in 0..self.waiting.len() {
            let waiting = &self.waiting[index];
            if waiting.is_alone && running > 0 {
                return Err(Some(HeldBack::Alone));
            }
            if !is_learning(&waiting.job.kind) {
                return self.waiting.remove(index).map(|waiting| (index, waiting)).ok_or(None);
            }
            held_back.get_or_insert_with(|| HeldBack::Learning(waiting.job.kind.clone()));
        }
        Err(held_back)
    }

    /// Removes one that is cancelled.
    pub(super) fn remove(&mut self, id: u64) -> Option<Waiting> {
        let index = self.waiting.iter().position(|waiting| waiting.ticket.id == id)?;
        self.waiting.remove(index)
    }

    /// Removes every job. Those of which nothing is known but that room is asked for stay.
    pub(super) fn remove_all(&mut self) -> Vec<Waiting> {
        let (asking, jobs): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(|waiting| waiting.asker.is_some());
        self.waiting = asking.into();
        jobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(id: u64, kind: &str, is_alone: bool) -> Waiting {
        let ticket = Arc::new(Ticket::new(id));
        Waiting { is_alone, ..Waiting::new(Job::new(Command::new("true")).kind(kind), ticket) }
    }

    fn taken(queue: &mut Queue, running: usize, learning: &str) -> Option<u64> {
        queue.take(running, |kind| kind == learning).ok().map(|(_, waiting)| waiting.ticket.id)
    }

    #[test]
    fn a_kind_is_the_name_of_the_program_unless_told() {
        assert_eq!(Job::new(Command::new("/usr/bin/cc")).kind, "cc");
        assert_eq!(Job::new(Command::new("/")).kind, "");
        assert_eq!(Job::new(Command::new("cc")).kind("c++").kind, "c++");
    }

    #[test]
    fn jobs_are_taken_in_their_order_but_for_kinds_that_are_being_learned() {
        let mut queue = Queue::default();
        for (id, kind) in [(1, "cc"), (2, "cc"), (3, "ld"), (4, "cc")] {
            queue.push(waiting(id, kind, false));
        }
        assert_eq!(taken(&mut queue, 1, "cc"), Some(3));
        assert_eq!(taken(&mut queue, 1, "cc"), None);
        assert_eq!(taken(&mut queue, 1, ""), Some(1));
        let (place, second) = queue.take(1, |_| false).unwrap();
        queue.put_back(place, second);
        assert_eq!(taken(&mut queue, 1, ""), Some(2));
        assert!(queue.remove(4).is_some());
        assert!(queue.remove(4).is_none());
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn nobody_passes_a_job_that_is_to_run_alone_and_it_waits_for_all_others() {
        let mut queue = Queue::default();
        queue.push(waiting(1, "cc", true));
        queue.push(waiting(2, "cc", false));
        assert_eq!(taken(&mut queue, 1, ""), None);
        assert_eq!(taken(&mut queue, 0, ""), Some(1));
        assert_eq!(taken(&mut queue, 1, ""), Some(2));
    }
}
