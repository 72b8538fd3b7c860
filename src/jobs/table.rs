//! The table of jobs: those that wait, those that run, and what is known of their kinds. The thread of the jobs starts
//! them ([`starting`](super::starting)) and sees their ends ([`endings`](super::endings)); the monitor pauses and ends
//! them from its own thread ([`manager`](super::manager)).
//!
//! Its lock is held for moments, to signal a job at most, and never while a job is admitted or started.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::cost::Costs;
use super::family::{self, Family, Orphan};
use super::handle::Ticket;
use super::held_back::HeldBack;
use super::job::{Queue, Waiting};
use super::limiter::{Account, Limiter, Limiters};
use super::log::{call_logger, Damped};
use super::oom::OomKills;
use super::outcome::{JobEvent, JobStep, Outcome};
use super::output::JobOutput;
use super::permit::{Admitted, Open};
use super::remaining::{Pace, Remaining};
use super::report::Extent;
use super::running::{Running, Trouble, Why, DYING};
use super::starting::Headroom;
use super::tally::Tally;
use super::tasks::Tasks;
use super::width::Width;
use crate::engine::{self, Core, Shared};
use crate::host::events;
use crate::jobserver::JobServer;
use crate::pgroup::ProcessGroupManager;
use crate::sys::epoll::Epoll;
use crate::sys::fork::Mutex;
use crate::sys::poll::EventFd;
use crate::sys::process::Handle;
use crate::sys::{ProcessMark, SignalMask};
use crate::vocabulary::WorkUsage;

/// How often a check is taken while the first job of a kind is watched: less than a job of a few processes takes to start
/// them all (some 20 ms), so that its growth is seen. At most a tenth of the time goes into that.
pub(super) const CLOSELY: Duration = Duration::from_millis(5);

/// How often a job that was refused is asked for again.
pub(super) const AGAIN: Duration = Duration::from_millis(20);

/// How long the thread sleeps when there is nothing to do.
const IDLE: Duration = Duration::from_secs(3600);

/// How long the end of a job is waited for where no descriptor tells it.
const UNTOLD: Duration = Duration::from_millis(5);

/// The number of the bell among the descriptors that are waited for. Jobs are numbered from 1.
pub(super) const BELL: u64 = 0;

/// The settings of the jobs of a monitor.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) grace: Duration,
    pub(super) width: Option<usize>,
    /// Whether every child of this process is a job, or was left by one.
    pub(super) is_sole_parent: bool,
    pub(super) patience: Option<Duration>,
    /// That of the host's thread that made the jobs.
    pub(super) mask: SignalMask,
    /// That of jobs which have none of their own.
    pub(super) jobserver: Option<JobServer>,
    /// Where what they write goes.
    pub(super) output: Option<JobOutput>,
    /// Where the costs are written at the end.
    pub(super) costs_file: Option<PathBuf>,
}

#[derive(Debug)]
pub(super) struct JobTable {
    pub(super) engine: Arc<Shared>,
    pub(super) processes: Arc<ProcessGroupManager>,
    pub(super) epoll: Epoll,
    pub(super) bell: EventFd,
    mark: ProcessMark,
    pub(super) family: Family,
    pub(super) settings: Settings,
    /// Locked by the thread of the jobs alone, which reads many files under it.
    pub(super) tasks: Mutex<Tasks>,
    pub(super) state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) queue: Queue,
    /// In the order of their start.
    pub(super) running: Vec<Running>,
    /// The room that was given for jobs which are not started yet.
    pub(super) open: Vec<Open>,
    /// Those of them that are to be started now.
    pub(super) admitted: VecDeque<Admitted>,
    /// The one that is being started, which is in none of these.
    pub(super) starting: Option<Arc<Ticket>>,
    pub(super) costs: Costs,
    pub(super) width: Width,
    pub(super) headroom: Headroom,
    pub(super) kills: OomKills,
    pub(super) last_id: u64,
    pub(super) is_closed: bool,
    /// Why the next job is not started. Set by [`hold_back`](State::hold_back).
    pub(super) held_back: Option<HeldBack>,
    account: Account,
    /// The reason for which the host has jobs wait.
    pub(super) held_by_host: Option<&'static str>,
    /// Whether the host will submit no more jobs.
    is_last_known: bool,
    tally: Tally,
    peak: Extent,
    pub(super) pace: Pace,
    /// What jobs that have ended left behind, and was seen too late to keep them from ending; when to kill it.
    pub(super) leftovers: Vec<(u32, Instant)>,
    /// The first processes of jobs whose end was waited for no longer. Each is a child, whose status is taken one day.
    pub(super) abandoned: Vec<Handle>,
    /// Since when the host alone has been too large for any job.
    pub(super) crowded_since: Option<Instant>,
    pub(super) next_look: Instant,
    /// When to take the next check of those that are taken closely.
    pub(super) next_check: Option<Instant>,
    /// The time of the last check from which the growth of jobs was noted.
    pub(super) growth_seen: Option<Instant>,
    pub(super) next_terminal_look: Instant,
    pub(super) subscribers: Vec<Sender<JobEvent>>,
    pub(super) unattached: Damped,
    pub(super) unlisted: Damped,
    /// The last error of a list of orphans that is to be said.
    pub(super) unlisted_why: Option<(io::Error, u64)>,
}

/// News of a job, to be told once no lock is held.
pub(super) struct Told {
    pub(super) ticket: Arc<Ticket>,
    pub(super) step: JobStep,
    pub(super) trouble: Option<Trouble>,
}

impl JobTable {
    pub(super) fn new(
        engine: Arc<Shared>,
        processes: Arc<ProcessGroupManager>,
        settings: Settings,
        costs: Costs,
    ) -> io::Result<JobTable> {
        let (epoll, bell) = (Epoll::new()?, EventFd::new()?);
        epoll.add(std::os::fd::AsFd::as_fd(&bell), BELL, false)?;
        let now = Instant::now();
        let state = State {
            queue: Queue::default(),
            running: Vec::new(),
            open: Vec::new(),
            admitted: VecDeque::new(),
            starting: None,
            costs,
            width: Width::new(settings.width),
            headroom: Headroom::default(),
            kills: OomKills::default(),
            last_id: 0,
            is_closed: false,
            held_back: None,
            account: Account::new(now),
            held_by_host: None,
            is_last_known: false,
            tally: Tally::default(),
            peak: Extent::default(),
            pace: Pace::new(now),
            leftovers: Vec::new(),
            abandoned: Vec::new(),
            crowded_since: None,
            next_look: now,
            next_check: None,
            growth_seen: None,
            next_terminal_look: now,
            subscribers: Vec::new(),
            unattached: Damped::default(),
            unlisted: Damped::default(),
            unlisted_why: None,
        };
        let (family, tasks, state) = (Family::new(), Mutex::new(Tasks::new()), Mutex::new(state));
        Ok(JobTable { engine, processes, epoll, bell, mark: ProcessMark::here(), family, settings, tasks, state })
    }

    /// Whether this process was forked since the jobs were made, which are its parent's. Then no lock may be taken: the thread
    /// that had it need not be here.
    pub(super) fn is_inherited(&self) -> bool {
        self.mark.is_inherited()
    }

    /// Puts a job into the queue.
    pub(super) fn submit(&self, job: super::Job) -> Arc<Ticket> {
        let mut state = self.state.lock();
        state.last_id += 1;
        let ticket = Arc::new(Ticket::new(state.last_id));
        state.queue.push(Waiting::new(job, Arc::clone(&ticket)));
        if state.held_back.is_none() {
            state.hold_back(None);
        }
        drop(state);
        self.bell.signal();
        ticket
    }

    pub(super) fn subscribe(&self, sender: Sender<JobEvent>) {
        self.state.lock().subscribers.push(sender);
    }

    /// Ends every subscription, and writes down what is known of the kinds. The last that is done to the jobs.
    pub(super) fn conclude(&self) {
        self.state.lock().subscribers.clear();
        if let Some(path) = &self.settings.costs_file {
            if let Err(error) = fs::write(path, self.costs().to_text()) {
                call_logger(|| events::costs_unwritable(path, &error));
            }
        }
    }

    pub(super) fn tally(&self) -> Tally {
        let state = self.state.lock();
        let waiting = state.queue.len() + state.admitted.len() + usize::from(state.starting.is_some());
        let paused = state.running.iter().filter(|job| job.is_paused()).count();
        Tally { waiting, running: state.running.len(), paused, ..state.tally }
    }

    /// Starts no job for as long as the host has a reason not to.
    pub(super) fn hold(&self, reason: Option<&'static str>) {
        let mut state = self.state.lock();
        if reason != state.held_by_host {
            state.held_by_host = reason;
            state.hold_back(reason.map(HeldBack::Host));
            drop(state);
            self.bell.signal();
        }
    }

    pub(super) fn expect_no_more(&self) {
        let mut state = self.state.lock();
        state.is_last_known = true;
        if state.held_back.is_none() {
            state.hold_back(None);
        }
    }

    pub(super) fn costs(&self) -> Costs {
        self.state.lock().costs.clone()
    }

    pub(super) fn held_back(&self) -> Option<HeldBack> {
        self.state.lock().held_back.clone()
    }

    /// The time that each limiter has kept jobs from their start.
    pub(super) fn limiters(&self) -> Limiters {
        self.state.lock().account.times(Instant::now())
    }

    /// The time that all jobs will take that are not over, and so many more.
    pub(super) fn remaining(&self, more: usize) -> Option<Remaining> {
        let now = Instant::now();
        let state = self.state.lock();
        let running = state.running.iter().map(|job| (job.kind(), now.saturating_duration_since(job.started)));
        let mut remaining = state.pace.remaining(now, running, state.queue.kinds(), more)?;
        remaining.at_most = remaining.at_most.filter(|_| state.is_last_known);
        Some(remaining)
    }

    /// What is used now, by the last check, and the most that was.
    pub(super) fn extent(&self) -> (Extent, Extent) {
        let latest = Core::of(&self.engine).publisher.lock().latest();
        let now = latest.map(|latest| Extent::of(&latest)).unwrap_or_default();
        let mut state = self.state.lock();
        state.peak = state.peak.max(now);
        (now, state.peak)
    }

    pub(super) fn usage_of(&self, ticket: &Ticket) -> WorkUsage {
        let state = self.state.lock();
        let running = state.running.iter().find(|job| job.id() == ticket.id);
        running.and_then(|job| engine::usage(&self.engine, &job.grant)).unwrap_or_else(|| ticket.usage())
    }

    pub(super) fn cancel(&self, ticket: &Arc<Ticket>) {
        ticket.set_cancelled();
        let mut state = self.state.lock();
        let told = state.queue.remove(ticket.id).map(|waiting| Told::never_started(&waiting, Outcome::Cancelled));
        if let Some(job) = state.running.iter_mut().find(|job| job.id() == ticket.id) {
            let done = job.end(Why::Cancelled, self.settings.grace, &self.processes);
            job.complain("end", done);
        }
        drop(state);
        self.tell(told);
        self.bell.signal();
    }

    /// Cancels every job, those that wait as well; `at_once` leaves those that run no time.
    pub(super) fn cancel_all(&self, at_once: bool) {
        let mut state = self.lock_with_orphans();
        let mut waiting = state.queue.remove_all();
        for admitted in std::mem::take(&mut state.admitted) {
            state.close(admitted.waiting.ticket.id);
            engine::finish(&self.engine, &admitted.grant);
            waiting.push(admitted.waiting);
        }
        // The one that is being started is in neither list: it is ended, or not put back, once it is.
        if let Some(ticket) = &state.starting {
            ticket.set_cancelled();
            if at_once {
                ticket.set_killed();
            }
        }
        for job in &mut state.running {
            // One that is being ended for another reason is not to be run again either.
            job.job.ticket.set_cancelled();
            let done = job.end(Why::Cancelled, self.settings.grace, &self.processes);
            job.complain("end", done);
            if at_once {
                job.hurry();
            }
        }
        if at_once {
            let now = Instant::now();
            state.leftovers.iter_mut().for_each(|(_, kill_at)| *kill_at = now);
        }
        drop(state);
        self.tell(waiting.iter().map(|waiting| Told::never_started(waiting, Outcome::Cancelled)));
        self.bell.signal();
    }

    /// No job is started any more, and the thread ends with the last that runs.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.cancel_all(false);
    }

    /// Stops every job, runs `host`, which stops the host until it is continued, and continues the jobs. The lock is held
    /// for so long, or the monitor might continue one in between.
    pub(super) fn stop_with(&self, host: impl FnOnce()) {
        let mut state = self.lock_with_orphans();
        for job in &mut state.running {
            let done = job.stop(&self.processes);
            job.complain("stop", done);
        }
        let stopped = Instant::now();
        host();
        let stopped = stopped.elapsed();
        state.account.leave_out(stopped);
        state.pace.leave_out(stopped);
        state.crowded_since = state.crowded_since.map(|since| since + stopped);
        for job in &mut state.running {
            let done = job.go_on(stopped, &self.processes);
            job.complain("continue", done);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        let state = self.state.lock();
        let (now, mut leftovers) = (Instant::now(), state.leftovers.iter());
        state.is_closed
            && state.running.is_empty()
            && state.starting.is_none()
            && state.queue.len() == 0
            && leftovers.all(|(_, kill_at)| *kill_at + DYING <= now)
    }

    pub(super) fn hear_bell(&self) {
        self.bell.clear();
    }

    /// How long to sleep, if nothing happens.
    pub(super) fn next_timeout(&self) -> Duration {
        let state = self.state.lock();
        let now = Instant::now();
        let deadlines =
            state.running.iter().filter_map(Running::next_deadline).map(|at| at.saturating_duration_since(now));
        let mut timeout = deadlines.min().unwrap_or(IDLE);
        if !state.running.is_empty() || !state.leftovers.is_empty() {
            timeout = timeout.min(state.next_look.saturating_duration_since(now));
        }
        if state.running.iter().any(|job| job.handle.descriptor().is_none()) {
            timeout = timeout.min(UNTOLD);
        }
        if state.queue.len() > 0 {
            timeout = timeout.min(AGAIN);
        }
        if let Some(next_check) = state.next_check {
            timeout = timeout.min(next_check.saturating_duration_since(now));
        }
        timeout
    }

    /// The state, in which each job knows its orphans as they are now: before they are signalled.
    pub(super) fn lock_with_orphans(&self) -> std::sync::MutexGuard<'_, State> {
        let mut state = self.state.lock();
        self.hand_out_orphans(&mut state);
        state
    }

    /// Has each job know its orphans. `None` if there is no list: where the kernel has none, none are known, and the process
    /// group manager alone ends what is left; where there is no descriptor to read it with, those known before remain.
    pub(super) fn hand_out_orphans(&self, state: &mut State) -> Option<Vec<Orphan>> {
        match self.processes.with_room(family::orphans) {
            Ok(mut orphans) => {
                orphans.retain(|orphan| !state.running.iter().any(|job| job.pid == orphan.pid));
                state.running.iter_mut().for_each(|job| job.adopt(&orphans, &self.processes));
                Some(orphans)
            }
            Err(error) => {
                let left_out = state.unlisted.say(Instant::now());
                state.unlisted_why = left_out.map(|left_out| (error, left_out)).or(state.unlisted_why.take());
                state.running.iter_mut().for_each(Running::keep_orphans);
                None
            }
        }
    }

    /// Tells what has happened to jobs: those that wait for it, those that have subscribed, and the log.
    pub(super) fn tell(&self, told: impl IntoIterator<Item = Told>) {
        for Told { ticket, step, trouble } in told {
            trouble.into_iter().for_each(Trouble::log);
            if let JobStep::Requeued { tries } = &step {
                call_logger(|| events::job_requeued(ticket.id, tries));
            }
            let outcome = match &step {
                JobStep::Ended { outcome, .. } => Some(outcome.clone()),
                _ => None,
            };
            let event = JobEvent { id: ticket.id, what: step };
            let mut state = self.state.lock();
            state.tally.note(&event.what);
            state.subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
            drop(state);
            if let Some(outcome) = outcome {
                ticket.set_outcome(outcome);
            }
        }
    }
}

impl State {
    /// The number of jobs that run, or for which room is held.
    pub(super) fn beside(&self) -> usize {
        self.running.len() + self.open.len()
    }

    /// The kind of each of these.
    pub(super) fn kinds_beside(&self) -> impl Iterator<Item = &String> {
        self.running.iter().map(|job| &job.job.job.kind).chain(self.open.iter().map(|open| &open.kind))
    }

    /// Notes that room which was held for a job is its own now, or nobody's.
    pub(super) fn close(&mut self, id: u64) {
        self.open.retain(|open| open.id != id);
    }

    /// Notes why the next job is not started; `None` if none waits, or one is about to be.
    pub(super) fn hold_back(&mut self, reason: Option<HeldBack>) {
        let limiter = match &reason {
            Some(reason) => reason.limiter(),
            None if self.queue.len() > 0 || self.starting.is_some() => Limiter::Starting,
            None if self.is_last_known => Limiter::LastJobs,
            None => Limiter::NoJob,
        };
        self.account.turn_to(limiter, Instant::now());
        self.held_back = reason;
    }
}

impl Told {
    pub(super) fn never_started(waiting: &Waiting, outcome: Outcome) -> Told {
        let (usage, took) = (waiting.ticket.usage(), Duration::ZERO);
        Told { ticket: Arc::clone(&waiting.ticket), step: JobStep::Ended { outcome, usage, took }, trouble: None }
    }
}
