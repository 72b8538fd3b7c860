//! The worker: has room first, then takes an entry, runs it, and tells the queue how it has ended. It has one thread.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use highwater::{BoxError, Job, JobEvent, JobHandle, JobPermit, JobStep, Jobs, Outcome, Work};
use signal_hook::iterator::Signals;

use crate::metrics::Metrics;
use crate::queue::{Entry, Queue, QueueError};

/// The longest that the worker waits for one thing, while another may happen.
const WAIT: Duration = Duration::from_millis(100);

/// An entry is taken without knowing what it is, so all are of one kind.
const KIND: &str = "entry";

pub(crate) struct Worker {
    queue: Queue,
    jobs: Jobs,
    events: Receiver<JobEvent>,
    metrics: Arc<Metrics>,
    signals: Signals,
    /// Whether to end once nothing is left to do.
    once: bool,
    /// How long jobs may go on after the first signal.
    finish: Duration,
    /// Room for the next entry.
    permit: Option<JobPermit>,
    /// An entry, and its room, that waits for all others to end.
    alone: Option<(Entry, JobPermit)>,
    /// The entries that run, by the numbers of their jobs.
    running: HashMap<u64, (Entry, JobHandle)>,
    /// The entries that have ended, as the queue is still to be told.
    ended: Vec<(Entry, End)>,
    kept: Instant,
    /// When jobs that still run are given back, once a signal has come.
    stop_at: Option<Instant>,
    shown: (Instant, String),
}

/// What becomes of an entry.
#[derive(Debug)]
enum End {
    Done,
    /// Given back, as delivered so many times.
    GivenBack(u64),
    /// Given up, for this reason.
    Dead(String),
}

impl Worker {
    pub(crate) fn new(
        queue: Queue,
        jobs: Jobs,
        metrics: Arc<Metrics>,
        signals: Signals,
        once: bool,
        finish: Duration,
    ) -> Worker {
        let (events, now) = (jobs.events(), Instant::now());
        Worker {
            queue,
            jobs,
            events,
            metrics,
            signals,
            once,
            finish,
            permit: None,
            alone: None,
            running: HashMap::new(),
            ended: Vec::new(),
            kept: now,
            stop_at: None,
            shown: (now, String::new()),
        }
    }

    /// Works until it is told to stop, or `once` there is nothing left to do.
    pub(crate) fn run(mut self) -> Result<(), BoxError> {
        loop {
            self.obey_signals();
            match self.step() {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(QueueError::Refused(error)) => return Err(format!("Redis refuses: {error}").into()),
                Err(QueueError::Away) if self.is_late() && self.running.is_empty() => {
                    let untold = self.ended.len();
                    return Err(format!("Redis is away, and was not told of {untold} ends: these are run again").into());
                }
                // Jobs go on, and the queue is told of their ends when it is there again.
                Err(QueueError::Away) => self.wait_for_event(WAIT),
            }
            self.show();
        }
    }

    /// Does what is to be done now; `true` when that was all.
    fn step(&mut self) -> Result<bool, QueueError> {
        self.tell_ends()?;
        if self.kept.elapsed() >= self.queue.lease / 4 {
            self.keep()?;
        }
        self.start_alone();
        if self.stop_at.is_some() {
            let is_over = self.running.is_empty() && self.ended.is_empty();
            self.wait_for_event(if is_over { Duration::ZERO } else { WAIT });
            return Ok(is_over);
        }
        let is_one_alone = self.alone.is_some() || self.running.values().any(|(entry, _)| entry.deliveries > 1);
        if is_one_alone || !self.has_room() {
            self.wait_for_event(if is_one_alone { WAIT } else { Duration::ZERO });
            return Ok(false);
        }
        // What has ended while this waited for room is told first: then no more is pending than there are permits.
        self.tell_ends()?;
        let wait = if self.running.is_empty() { WAIT * 5 } else { WAIT }.min(self.queue.lease / 8);
        let began = Instant::now();
        let taken = self.queue.take(wait);
        self.metrics.waited_for_entry(began.elapsed());
        match taken? {
            Some(entry) => self.begin(entry),
            None => return Ok(self.once && self.running.is_empty() && self.queue.len()? == 0),
        }
        Ok(false)
    }

    /// Asks for room, if there is none yet.
    fn has_room(&mut self) -> bool {
        if self.permit.is_none() {
            let began = Instant::now();
            self.permit = self.jobs.admit(KIND, Work::new().processes(1), WAIT).ok();
            self.metrics.waited_for_room(began.elapsed());
            self.metrics.permits_taken.inc_by(u64::from(self.permit.is_some()));
        }
        self.permit.is_some()
    }

    fn begin(&mut self, entry: Entry) {
        let Some(permit) = self.permit.take() else { return };
        if entry.deliveries > 2 {
            let last = entry.taken_from.as_deref().unwrap_or("nobody");
            let reason =
                format!("delivered {} times, and ended by no worker; the last was {last}", entry.deliveries - 1);
            self.end(entry, End::Dead(reason));
        } else if entry.deliveries > 1 {
            self.alone = Some((entry, permit));
        } else {
            self.start(entry, permit);
        }
    }

    /// An entry that has ended a worker, or had too little room, has all of it the second time.
    fn start_alone(&mut self) {
        if self.running.is_empty() {
            if let Some((entry, permit)) = self.alone.take() {
                self.start(entry, permit);
            }
        }
    }

    fn start(&mut self, entry: Entry, permit: JobPermit) {
        let Some(command) = entry.field("command") else {
            return self.end(entry, End::Dead("it has no field `command`".to_owned()));
        };
        let mut sh = Command::new("/bin/sh");
        sh.args(["-c", "--"]).arg(OsStr::from_bytes(command)).env("QUEUE_ENTRY", &entry.id);
        // The next try is another delivery, perhaps to a worker with more room.
        match permit.start(Job::new(sh).tries(1)) {
            Ok(job) => drop(self.running.insert(job.id(), (entry, job))),
            Err(error) => self.end(entry, End::Dead(error.to_string())),
        }
    }

    fn wait_for_event(&mut self, wait: Duration) {
        let first = self.events.recv_timeout(wait).ok();
        let events: Vec<JobEvent> = first.into_iter().chain(self.events.try_iter()).collect();
        for JobEvent { id, what, .. } in events {
            let JobStep::Ended { outcome, .. } = what else { continue };
            let Some((entry, _)) = self.running.remove(&id) else { continue };
            let end = match outcome {
                outcome if outcome.is_success() => End::Done,
                // It was no fault of the entry's.
                Outcome::Cancelled => End::GivenBack(entry.deliveries - 1),
                Outcome::Shed(_) | Outcome::KilledForMemory(_) if entry.deliveries == 1 => End::GivenBack(1),
                outcome => End::Dead(outcome.to_string()),
            };
            self.end(entry, end);
        }
    }

    fn end(&mut self, entry: Entry, end: End) {
        match &end {
            End::Dead(reason) => log::error!("entry {} is dead: {reason}", entry.id),
            End::GivenBack(_) => log::warn!("entry {} is given back", entry.id),
            End::Done => {}
        }
        self.ended.push((entry, end));
    }

    /// Tells the queue what has ended. What it could not be told is told the next time.
    fn tell_ends(&mut self) -> Result<(), QueueError> {
        self.wait_for_event(Duration::ZERO);
        while let Some((entry, end)) = self.ended.last() {
            let (name, was_own) = match end {
                End::Done => ("done", self.queue.remove(entry)?),
                End::GivenBack(deliveries) => ("given_back", self.queue.give_back(&entry.id, *deliveries)?),
                End::Dead(reason) => ("dead", self.queue.bury(entry, reason)?),
            };
            self.metrics.end(if was_own { name } else { "lost" });
            self.ended.pop();
        }
        Ok(())
    }

    /// Says of each entry in hand that it is worked on. One that another has meanwhile is ended here.
    fn keep(&mut self) -> Result<(), QueueError> {
        let alone = self.alone.iter().map(|(entry, _)| &entry.id);
        let in_hand: Vec<String> = self.running.values().map(|(entry, _)| &entry.id).chain(alone).cloned().collect();
        for id in &in_hand {
            if !self.queue.keep(id)? {
                log::error!("entry {id} was taken by another worker, and is ended here");
                self.running.values().filter(|(entry, _)| entry.id == *id).for_each(|(_, job)| job.cancel());
                self.alone = self.alone.take().filter(|(entry, _)| entry.id != *id);
            }
        }
        self.queue.give_back_unknown(|id| in_hand.iter().any(|known| known == id))?;
        self.kept = Instant::now();
        Ok(())
    }

    /// By the first signal it takes no more, and lets jobs finish; by the second, or when they take too long, it ends them.
    fn obey_signals(&mut self) {
        let mut signals = self.signals.pending().count();
        if signals > 0 && self.stop_at.is_none() {
            self.stop_at = Some(Instant::now() + self.finish);
            signals -= 1;
            self.metrics.permits_returned.inc_by(u64::from(self.permit.take().is_some()));
            if let Some((entry, _)) = self.alone.take() {
                let before = entry.deliveries - 1;
                self.end(entry, End::GivenBack(before));
            }
        }
        if signals > 0 || self.is_late() {
            self.jobs.cancel_all();
        }
    }

    /// Whether it was told to stop, and should have by now.
    fn is_late(&self) -> bool {
        self.stop_at.is_some_and(|at| Instant::now() >= at)
    }

    /// Shows how things stand, once a second if anything has changed.
    fn show(&mut self) {
        if self.shown.0.elapsed() < Duration::from_secs(1) {
            return;
        }
        if let Ok(length) = self.queue.len() {
            self.metrics.length.set(length as i64);
        }
        let mut line = self.metrics.line(self.running.len());
        match self.jobs.held_back() {
            _ if self.stop_at.is_some() => line += "; told to stop, and a second signal ends what still runs",
            Some(reason) => line += &format!("; waits: {reason}"),
            None => {}
        }
        if line != self.shown.1 {
            eprintln!("{line}");
        }
        self.shown = (Instant::now(), line);
    }
}
