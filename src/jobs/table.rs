//! The table of jobs: those that wait, those that run, and what is known of their kinds. The thread of the jobs starts
//! them and sees their ends; the monitor pauses and ends them from its own thread.
//!
//! Its lock is held for moments, to signal a job at most, and never while a job is admitted or started.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::cost::{Cost, Costs};
use super::family::{self, Family, Orphan, MARK};
use super::handle::Ticket;
use super::held_back::HeldBack;
use super::job::{Queue, Waiting};
use super::log::{call_logger, Damped};
use super::oom::OomKills;
use super::outcome::{JobEvent, JobStep, Outcome, Tries};
use super::running::{Running, Trouble, Why};
use super::tasks::Tasks;
use super::width::Width;
use crate::engine::{self, Core, Grant, Shared};
use crate::host::{events, BoxError, JobManager};
use crate::pgroup::ProcessGroupManager;
use crate::sys::epoll::Epoll;
use crate::sys::fork::Mutex;
use crate::sys::poll::EventFd;
use crate::sys::process::Handle;
use crate::sys::{signal, ProcessMark, SignalMask};
use crate::vocabulary::{Resource, WorkUsage};

/// How long the first job of a kind is watched at most before others of its kind are started beside it.
const LEARNING: Duration = Duration::from_secs(10);

/// How often a check is taken while the first job of a kind is watched: less than a job of a few processes takes to start
/// them all (some 20 ms), so that its growth is seen. At most a tenth of the time goes into that.
const CLOSELY: Duration = Duration::from_millis(5);

/// How often a job that was refused is asked for again.
const AGAIN: Duration = Duration::from_millis(20);

/// How often those that run are looked at, whatever happens.
const LOOK: Duration = Duration::from_millis(100);

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
    /// That of the host's thread that made the jobs.
    pub(super) mask: SignalMask,
}

#[derive(Debug)]
pub(super) struct JobTable {
    pub(super) engine: Arc<Shared>,
    pub(super) processes: Arc<ProcessGroupManager>,
    pub(super) epoll: Epoll,
    bell: EventFd,
    mark: ProcessMark,
    family: Family,
    settings: Settings,
    /// Locked by the thread of the jobs alone, which reads many files under it.
    tasks: Mutex<Tasks>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    /// In the order of their start.
    running: Vec<Running>,
    /// The one that is being started, which is in neither.
    starting: Option<Arc<Ticket>>,
    costs: Costs,
    width: Width,
    headroom: Headroom,
    kills: OomKills,
    last_id: u64,
    is_closed: bool,
    /// Why the next job is not started.
    held_back: Option<HeldBack>,
    /// What jobs that have ended left behind, and was seen too late to keep them from ending; when to kill it.
    leftovers: Vec<(u32, Instant)>,
    next_look: Instant,
    next_check: Instant,
    subscribers: Vec<Sender<JobEvent>>,
    unattached: Damped,
    unlisted: Damped,
    /// The last error of a list of orphans that is to be said.
    unlisted_why: Option<(io::Error, u64)>,
}

/// What is reserved for the one of all running jobs that is larger than typical.
#[derive(Debug, Default)]
struct Headroom {
    cost: Cost,
    grants: Vec<Grant>,
}

/// What is known of the end of a job.
struct End {
    /// `None` if somebody else has taken it.
    status: Option<ExitStatus>,
    usage: WorkUsage,
    /// Whether the kernel has killed it for want of memory.
    for_memory: bool,
}

enum Admission {
    Granted(Grant),
    NotNow(HeldBack),
    Never(HeldBack),
}

/// News of a job, to be told once no lock is held.
struct Told {
    ticket: Arc<Ticket>,
    step: JobStep,
    trouble: Option<Trouble>,
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
        let mut kills = OomKills::default();
        // So that those of the past are none of a job's.
        kills.have_grown(None);
        let now = Instant::now();
        let state = State {
            queue: Queue::default(),
            running: Vec::new(),
            starting: None,
            costs,
            width: Width::new(settings.width),
            headroom: Headroom::default(),
            kills,
            last_id: 0,
            is_closed: false,
            held_back: None,
            leftovers: Vec::new(),
            next_look: now,
            next_check: now,
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
        drop(state);
        self.bell.signal();
        ticket
    }

    pub(super) fn subscribe(&self, sender: Sender<JobEvent>) {
        self.state.lock().subscribers.push(sender);
    }

    /// Ends every subscription.
    pub(super) fn end_events(&self) {
        self.state.lock().subscribers.clear();
    }

    /// How many wait, run, and of those are paused.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let state = self.state.lock();
        let paused = state.running.iter().filter(|job| job.is_paused()).count();
        (state.queue.len() + usize::from(state.starting.is_some()), state.running.len(), paused)
    }

    pub(super) fn costs(&self) -> Costs {
        self.state.lock().costs.clone()
    }

    pub(super) fn held_back(&self) -> Option<HeldBack> {
        self.state.lock().held_back.clone()
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
        let waiting = state.queue.remove_all();
        // The one that is being started is in neither list: it is ended, or not put back, once it is.
        if let Some(ticket) = &state.starting {
            ticket.set_cancelled();
        }
        for job in &mut state.running {
            let done = job.end(Why::Cancelled, self.settings.grace, &self.processes);
            job.complain("end", done);
            if at_once {
                job.hurry();
            }
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
        for job in &mut state.running {
            let done = job.go_on(stopped.elapsed(), &self.processes);
            job.complain("continue", done);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.is_closed && state.running.is_empty() && state.starting.is_none() && state.queue.len() == 0
    }

    pub(super) fn hear_bell(&self) {
        self.bell.clear();
    }

    /// Sees which jobs have ended, of those that `readable` names, and does what is due.
    pub(super) fn look(&self, readable: &[u64]) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let State { running, next_look, .. } = &mut *state;
        let is_due = now >= *next_look;
        let mut any_ended = false;
        for job in running.iter_mut() {
            if is_due || job.handle.descriptor().is_none() || readable.contains(&job.id()) {
                job.look();
            }
            any_ended |= job.has_ended();
        }
        if is_due {
            *next_look = now + LOOK;
            running.iter_mut().for_each(|job| job.note_orphans(engine::usage(&self.engine, &job.grant)));
            for job in running.iter_mut().filter(|job| job.wants_terminal()) {
                let done = job.end(Why::WantsTerminal, self.settings.grace, &self.processes);
                job.complain("end", done);
            }
            // One a look: each costs one of the process table.
            if let Some(job) = running.iter_mut().find(|job| job.is_to_be_tracked(now)) {
                job.track(&self.processes);
            }
        }
        if any_ended || is_due {
            self.adopt_orphans(&mut state, now);
        }
        let mut told = Vec::new();
        self.take_ended(&mut state, now, &mut told);
        self.do_what_is_due(&mut state, now);
        let unlisted_why = state.unlisted_why.take();
        let troubles: Vec<Trouble> = state.running.iter_mut().filter_map(Running::take_trouble).collect();
        drop(state);
        troubles.into_iter().for_each(Trouble::log);
        if let Some((error, left_out)) = unlisted_why {
            call_logger(|| events::orphans_unlisted(&error, left_out));
        }
        self.tell(told);
        if is_due {
            let pressure = self.latest_cpu_pressure();
            self.state.lock().width.look(now, pressure);
        }
        self.learn(now);
        self.look_at_tasks();
    }

    fn adopt_orphans(&self, state: &mut State, now: Instant) {
        // After the ends were looked at: what a job leaves behind is handed over before it can be seen to have ended.
        let orphans = self.hand_out_orphans(state);
        let State { running, leftovers, .. } = state;
        let is_anybodys = |orphan: &Orphan| running.iter().any(|job| job.has_started(orphan));
        for orphan in orphans.iter().filter(|orphan| !is_anybodys(orphan)) {
            if orphan.is_zombie {
                if self.settings.is_sole_parent || leftovers.iter().any(|(pid, _)| *pid == orphan.pid) {
                    orphan.reap();
                }
            } else if orphan.serial.is_some_and(|serial| self.family.has(serial)) {
                self.end_leftover(leftovers, orphan.pid, now);
            }
        }
        leftovers.retain(|(pid, _)| orphans.iter().any(|orphan| orphan.pid == *pid && !orphan.is_zombie));
    }

    /// Tells it to end, and kills it when it has had its time.
    fn end_leftover(&self, leftovers: &mut Vec<(u32, Instant)>, pid: u32, now: Instant) {
        let known = leftovers.iter().find(|(known, _)| *known == pid);
        let signal = match known {
            None => libc::SIGTERM,
            Some((_, kill_at)) if now >= *kill_at => libc::SIGKILL,
            Some(_) => return,
        };
        // An error: it has ended meanwhile.
        let told = self.processes.track_backend_pid(pid).and_then(|()| self.processes.signal_backend(pid, signal));
        if told.is_ok() && known.is_none() {
            leftovers.push((pid, now.checked_add(self.settings.grace).unwrap_or(now)));
        }
    }

    /// Removes the jobs that have ended, each of which has an outcome then, or waits again.
    fn take_ended(&self, state: &mut State, now: Instant, told: &mut Vec<Told>) {
        let mut index = 0;
        let mut any = false;
        let mut kills = None;
        while index < state.running.len() {
            let job = &mut state.running[index];
            let status = match job.try_finish(now, self.settings.grace, &self.processes) {
                Ok(None) => {
                    index += 1;
                    continue;
                }
                Ok(Some(status)) => Some(status),
                // Somebody else has taken it.
                Err(error) => {
                    job.complain("wait for", Err(error));
                    None
                }
            };
            any = true;
            let job = state.running.remove(index);
            let usage = engine::usage(&self.engine, &job.grant).unwrap_or_default();
            // Nothing of it is left.
            engine::finish(&self.engine, &job.grant);
            let was_killed = status.is_some_and(was_killed);
            let for_memory = was_killed
                && job.why().is_none()
                && *kills.get_or_insert_with(|| state.kills.have_grown(self.memory_group().as_deref()));
            if !job.is_ending() && !for_memory {
                state.costs.note(&job.job.job.kind, job.peak_with(usage));
            }
            told.push(self.account(state, job, End { status, usage, for_memory }, now));
        }
        if any {
            self.fit_headroom(state);
            if let [last] = state.running.as_mut_slice() {
                // Nothing else is left that could end and so relieve the pressure.
                let resumed = last.resume(&self.processes);
                last.complain("continue", resumed);
            }
        }
    }

    /// The news of a job that has ended: its outcome, or that it waits again.
    fn account(&self, state: &mut State, mut job: Running, end: End, now: Instant) -> Told {
        let End { status, usage, for_memory } = end;
        let (took, why, trouble) = (now - job.started, job.why(), job.take_trouble());
        let peak = job.peak_with(usage);
        let mut waiting = job.job;
        waiting.ticket.set_usage(usage);
        let critical = match why {
            Some(Why::Shed(critical)) => Some(critical),
            _ => None,
        };
        let tries = Tries { tries: waiting.tried, usage, critical };
        let outcome = match (status, why) {
            // One that has finished before the signal reached it has done its work, and must not be run again.
            (Some(status), _) if status.success() => Outcome::Ended(status),
            (_, Some(Why::Cancelled)) => Outcome::Cancelled,
            (_, Some(Why::TimedOut)) => Outcome::TimedOut(waiting.job.timeout.unwrap_or_default()),
            (_, Some(Why::WantsTerminal)) => Outcome::WantsTerminal,
            (_, Some(Why::Shed(_))) => Outcome::Shed(tries.clone()),
            (_, None) if for_memory => Outcome::KilledForMemory(tries.clone()),
            (Some(status), None) => Outcome::Ended(status),
            (None, None) => Outcome::lost("somebody else has taken its exit status"),
        };
        let is_retried = matches!(outcome, Outcome::Shed(_) | Outcome::KilledForMemory(_))
            && waiting.tried < waiting.job.tries
            && !state.is_closed
            && !waiting.ticket.is_cancelled();
        let ticket = Arc::clone(&waiting.ticket);
        if !is_retried {
            return Told { ticket, step: JobStep::Ended { outcome, usage, took }, trouble };
        }
        waiting.needed = waiting.needed.max(peak.twice());
        state.queue.push(waiting);
        Told { ticket, step: JobStep::Requeued { tries }, trouble }
    }

    /// Ends those that take too long, and kills those that were told to and took too long for that.
    fn do_what_is_due(&self, state: &mut State, now: Instant) {
        for job in &mut state.running {
            if !job.is_ending() && job.times_out_at().is_some_and(|at| at <= now) {
                let done = job.end(Why::TimedOut, self.settings.grace, &self.processes);
                job.complain("end", done);
            }
            let done = job.kill_if_due(now, &self.processes);
            job.complain("kill", done);
        }
    }

    /// Takes a check if the first job of a kind runs, so that its cost is seen.
    fn learn(&self, now: Instant) {
        let mut state = self.state.lock();
        let State { running, costs, next_check, .. } = &mut *state;
        let is_first = |job: &Running| costs.typical(&job.job.job.kind).is_none() && now - job.started < LEARNING;
        if now < *next_check || !running.iter().any(is_first) {
            return;
        }
        drop(state);
        engine::check_now(&self.engine);
        let took = now.elapsed();
        self.state.lock().next_check = Instant::now() + CLOSELY.max(took * 10);
    }

    /// Starts jobs until one may not be started yet.
    pub(super) fn start_waiting(&self) {
        loop {
            let mut state = self.state.lock();
            let State { queue, running, costs, width, starting, .. } = &mut *state;
            let beside = running.len();
            let now = Instant::now();
            let is_learning = |kind: &str| {
                let is_first = |job: &Running| job.job.job.kind == kind && now - job.started < LEARNING;
                costs.typical(kind).is_none() && running.iter().any(is_first)
            };
            if queue.len() == 0 {
                state.held_back = None;
                return;
            }
            if !width.has_room(beside) {
                state.held_back = Some(width.refusal(beside));
                return;
            }
            let (place, waiting) = match queue.take(beside, is_learning) {
                Ok(taken) => taken,
                Err(held_back) => {
                    state.held_back = held_back;
                    return;
                }
            };
            *starting = Some(Arc::clone(&waiting.ticket));
            drop(state);
            let is_over = self.start(place, waiting);
            self.state.lock().starting = None;
            if is_over {
                return;
            }
        }
    }

    /// Starts a job, or puts it back to its place. Returns `true` if no other is to be tried now.
    fn start(&self, place: usize, mut waiting: Waiting) -> bool {
        let grant = match self.admit(&waiting) {
            Admission::Granted(grant) => grant,
            Admission::Never(reason) => {
                self.give_up(&waiting, Outcome::NeverFits(reason));
                return false;
            }
            Admission::NotNow(reason) => {
                self.put_back(place, waiting, reason);
                return true;
            }
        };
        let serial = self.family.next();
        let command = &mut waiting.job.command;
        command.stdin(Stdio::null()).process_group(0).env(MARK, serial.mark());
        let mask = self.settings.mask;
        if !std::mem::replace(&mut waiting.is_prepared, true) && !mask.is_empty() {
            signal::unblock_in(command);
        }
        // Else under the mask of the host, which is empty: this thread is deaf, and a job inherits what it blocks. To unblock
        // here what the host blocks would hand a signal to this thread that the host waits for in another.
        let child = match if mask.is_empty() { mask.with(|| command.spawn()) } else { command.spawn() } {
            Ok(child) => child,
            Err(error) => {
                engine::finish(&self.engine, &grant);
                let running = self.state.lock().running.len();
                if self.may_pass(&error, running) {
                    self.put_back(place, waiting, HeldBack::NotStarted(Arc::new(error)));
                    return true;
                }
                self.give_up(&waiting, Outcome::NotStarted(Arc::new(error)));
                return false;
            }
        };
        waiting.tried += 1;
        let pid = child.id();
        if let Err(error) = engine::attach(&self.engine, &grant, pid) {
            let left_out = self.state.lock().unattached.say(Instant::now());
            if let Some(left_out) = left_out {
                call_logger(|| events::job_unattached(waiting.ticket.id, &error, left_out));
            }
        }
        let handle = Handle::open(pid).or_else(|_| Handle::by_number(pid));
        let Ok(handle) = handle else { return false };
        if let Some(descriptor) = handle.descriptor() {
            // An error: its end is seen when all are looked at.
            let _ = self.epoll.add(descriptor, waiting.ticket.id, true);
        }
        let ticket = Arc::clone(&waiting.ticket);
        let mut running = Running::new(waiting, grant, handle, pid, serial);
        let mut state = self.state.lock();
        if state.is_closed || ticket.is_cancelled() {
            let ended = running.end(Why::Cancelled, self.settings.grace, &self.processes);
            running.complain("end", ended);
        }
        state.held_back = None;
        state.starting = None;
        state.running.push(running);
        drop(state);
        ticket.set_started(pid);
        self.tell([Told { ticket, step: JobStep::Started { pid }, trouble: None }]);
        false
    }

    /// Puts a job back that cannot be started yet, unless it was cancelled meanwhile: then it has ended.
    fn put_back(&self, place: usize, waiting: Waiting, reason: HeldBack) {
        let mut state = self.state.lock();
        // Under the lock: who cancels marks the job first, and then looks for it in the queue.
        if !waiting.ticket.is_cancelled() {
            state.held_back = Some(reason);
            state.starting = None;
            state.queue.put_back(place, waiting);
            return;
        }
        drop(state);
        self.give_up(&waiting, Outcome::Cancelled);
    }

    /// Tells the end of the one that was to be started, which waits no more by then.
    fn give_up(&self, waiting: &Waiting, outcome: Outcome) {
        self.state.lock().starting = None;
        self.tell([Told::never_started(waiting, outcome)]);
    }

    /// Whether a job that could not be started for this reason can be a moment later: others may leave what they have,
    /// and jobs that run do.
    fn may_pass(&self, error: &io::Error, running: usize) -> bool {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOMEM | libc::ENFILE) => true,
            Some(libc::EMFILE) => running > 0,
            _ => false,
        }
    }

    fn admit(&self, waiting: &Waiting) -> Admission {
        self.look_at_tasks();
        let state = self.state.lock();
        let kind = &waiting.job.kind;
        let beside = state.running.len();
        let known = state.costs.typical(kind).unwrap_or_else(|| {
            // Unknown, but one has been running for long.
            let peaks = state
                .running
                .iter()
                .filter(|job| job.job.job.kind == *kind)
                .map(|job| job.peak_with(engine::usage(&self.engine, &job.grant).unwrap_or_default()));
            peaks.fold(Cost::UNKNOWN, Cost::max)
        });
        let kinds = state.running.iter().map(|job| &job.job.job.kind).chain([kind]);
        let headroom = kinds.fold(Cost::default(), |headroom, kind| headroom.max(state.costs.headroom(kind)));
        let more = if beside == 0 { Cost::default() } else { headroom.beyond(state.headroom.cost) };
        let to_come = tasks_to_come(&state, if beside == 0 { 0 } else { headroom.tasks });
        drop(state);

        let declared = waiting.job.declared;
        let asked = known.max(waiting.needed).max(Cost::declared(&declared)).tasks;
        let least = Cost::declared(&declared).max(Cost::UNKNOWN).tasks;
        if let Some(lacking) = self.lacking_tasks(asked, least, to_come, beside) {
            return lacking;
        }
        let verdict = match engine::try_admit(&self.engine, &known.max(waiting.needed).at_least_in(declared)) {
            Ok(grant) => return self.with_headroom(grant, more),
            Err(verdict) => verdict,
        };
        if beside > 0 || !verdict.could_never_fit() {
            return Admission::NotNow(HeldBack::Verdict(verdict));
        }
        // What its kind costs does not fit, nor twice what it had. This one may be smaller: it is tried alone.
        match engine::try_admit(&self.engine, &Cost::UNKNOWN.at_least_in(declared)) {
            Ok(grant) => Admission::Granted(grant),
            Err(verdict) if verdict.could_never_fit() => Admission::Never(HeldBack::Verdict(verdict)),
            Err(verdict) => Admission::NotNow(HeldBack::Verdict(verdict)),
        }
    }

    /// Why there are too few tasks left for a job, if there are. One that would run alone and asks for more than the host
    /// leaves is asked for again with the least that it may need: that is all it has a right to wait for.
    fn lacking_tasks(&self, asked: u64, least: u64, to_come: u64, beside: usize) -> Option<Admission> {
        let mut tasks = self.tasks.lock();
        let mut shortage = tasks.shortage(asked, to_come)?;
        if beside == 0 && tasks.are_too_few_beside_host(asked) {
            shortage = tasks.shortage(least, to_come)?;
        }
        let is_never = beside == 0 && shortage.could_never_fit();
        let reason = HeldBack::Tasks(shortage);
        Some(if is_never { Admission::Never(reason) } else { Admission::NotNow(reason) })
    }

    /// Looks at the limits on tasks, if it is time to: the tasks of each job first, and then what there are.
    fn look_at_tasks(&self) {
        let mut tasks = self.tasks.lock();
        let began = Instant::now();
        if !tasks.is_look_due(began) {
            return;
        }
        // Before the first check nothing is admitted.
        let Some(latest) = Core::of(&self.engine).publisher.lock().latest() else { return };
        if tasks.are_near() && family::are_numbers_own() {
            let state = self.state.lock();
            let roots: Vec<Vec<u32>> = state.running.iter().map(|job| job.roots().collect()).collect();
            drop(state);
            let counted: Vec<u64> = roots
                .into_iter()
                .map(|roots| roots.into_iter().map(|root| family::cost_of(root).tasks).sum())
                .collect();
            // They are still the same: only this thread starts and removes jobs.
            for (job, tasks) in self.state.lock().running.iter_mut().zip(counted) {
                job.note_tasks(tasks);
            }
        }
        tasks.look(began, latest.cgroup_pids.as_ref());
    }

    /// Reserves the headroom for a job that was granted its own room.
    fn with_headroom(&self, grant: Grant, more: Cost) -> Admission {
        if more.reserves_nothing() {
            return Admission::Granted(grant);
        }
        match engine::try_admit(&self.engine, &more.work().label("headroom of jobs")) {
            Ok(headroom) => {
                engine::expect_long(&self.engine, &headroom);
                let mut state = self.state.lock();
                state.headroom.cost = state.headroom.cost.and(more);
                state.headroom.grants.push(headroom);
                Admission::Granted(grant)
            }
            Err(verdict) => {
                engine::finish(&self.engine, &grant);
                Admission::NotNow(HeldBack::Verdict(verdict))
            }
        }
    }

    /// Gives back the headroom that the running jobs need no more.
    fn fit_headroom(&self, state: &mut State) {
        let kinds = state.running.iter().map(|job| &job.job.job.kind);
        let needed = kinds.fold(Cost::default(), |needed, kind| needed.max(state.costs.headroom(kind)));
        let is_needed = state.running.len() > 1 && needed.max(state.headroom.cost) == needed;
        if !is_needed {
            // That of the next job is reserved with it.
            for grant in std::mem::take(&mut state.headroom).grants {
                engine::finish(&self.engine, &grant);
            }
        }
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
        if state.running.iter().any(|job| state.costs.typical(&job.job.job.kind).is_none()) {
            timeout = timeout.min(state.next_check.saturating_duration_since(now).max(CLOSELY));
        }
        timeout
    }

    fn latest_cpu_pressure(&self) -> Option<f64> {
        let latest = Core::of(&self.engine).publisher.lock().latest()?;
        latest.cpu_pressure.map(|pressure| pressure.some_percent)
    }

    fn memory_group(&self) -> Option<Arc<Path>> {
        let latest = Core::of(&self.engine).publisher.lock().latest()?;
        latest.cgroup_memory.map(|group| group.path)
    }

    /// The state, in which each job knows its orphans as they are now: before they are signalled.
    fn lock_with_orphans(&self) -> std::sync::MutexGuard<'_, State> {
        let mut state = self.state.lock();
        self.hand_out_orphans(&mut state);
        state
    }

    /// Has each job know its orphans. Where the kernel lists no children there are none, and the process group manager alone
    /// ends what is left.
    fn hand_out_orphans(&self, state: &mut State) -> Vec<Orphan> {
        let orphans = family::orphans().unwrap_or_else(|error| {
            let left_out = state.unlisted.say(Instant::now());
            state.unlisted_why = left_out.map(|left_out| (error, left_out)).or(state.unlisted_why.take());
            Vec::new()
        });
        for job in &mut state.running {
            job.adopt(&orphans, &self.processes);
        }
        orphans
    }

    /// Tells what has happened to jobs: those that wait for it, those that have subscribed, and the log.
    fn tell(&self, told: impl IntoIterator<Item = Told>) {
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
            self.state.lock().subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
            if let Some(outcome) = outcome {
                ticket.set_outcome(outcome);
            }
        }
    }
}

impl Told {
    fn never_started(waiting: &Waiting, outcome: Outcome) -> Told {
        let (usage, took) = (waiting.ticket.usage(), Duration::ZERO);
        Told { ticket: Arc::clone(&waiting.ticket), step: JobStep::Ended { outcome, usage, took }, trouble: None }
    }
}

/// The tasks that the running jobs are still to start: each as many as it is taken to need, and one of all as many more as
/// the headroom says. The one that has outgrown what was expected of it most has used that up.
fn tasks_to_come(state: &State, headroom: u64) -> u64 {
    let needed = |job: &Running| {
        let Waiting { job, needed, .. } = &job.job;
        state.costs.typical(&job.kind).unwrap_or(Cost::UNKNOWN).max(*needed).max(Cost::declared(&job.declared)).tasks
    };
    let (to_come, beyond) = state
        .running
        .iter()
        .map(|job| job.tasks_to_come(needed(job)))
        .fold((0u64, 0), |(to_come, most_beyond), (more, beyond)| {
            (to_come.saturating_add(more), most_beyond.max(beyond))
        });
    to_come.saturating_add(headroom.saturating_sub(beyond))
}

/// Whether it, or what its shell has waited for, was killed by `SIGKILL`.
fn was_killed(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(libc::SIGKILL) || status.code() == Some(128 + libc::SIGKILL)
}

impl JobManager for JobTable {
    fn running_count(&self) -> usize {
        if self.is_inherited() {
            return 0;
        }
        self.state.lock().running.len()
    }

    fn active_job_count(&self) -> usize {
        if self.is_inherited() {
            return 0;
        }
        self.state.lock().running.iter().filter(|job| !job.is_paused()).count()
    }

    fn oldest_running_job(&self) -> Option<String> {
        if self.is_inherited() {
            return None;
        }
        self.state.lock().running.iter().find(|job| !job.is_ending()).map(|job| job.id().to_string())
    }

    fn pause_job(&self, job_id: &str, critical: Resource) -> Result<(), BoxError> {
        // A stopped job keeps its memory, but takes no more and waits for none. What it has of the rest, it keeps.
        if !matches!(critical, Resource::Memory | Resource::CgroupMemory | Resource::MemoryPressure) {
            return Err(format!("a stopped job frees no {critical}").into());
        }
        let mut state = self.lock_with_orphans();
        if state.running.len() == 1 {
            return Err("it runs alone: no other job could end and free memory".into());
        }
        Ok(find(&mut state.running, job_id)?.pause(&self.processes)?)
    }

    fn cancel_job(&self, job_id: &str, critical: Resource) -> Result<(), BoxError> {
        let mut state = self.lock_with_orphans();
        let is_alone = state.running.len() == 1;
        let job = find(&mut state.running, job_id)?;
        if is_alone {
            // It cannot be run within the limits.
            job.job.job.tries = job.job.tried;
        }
        job.end(Why::Shed(critical), self.settings.grace, &self.processes)?;
        drop(state);
        self.bell.signal();
        Ok(())
    }

    fn pressure_cleared(&self) {
        if self.is_inherited() {
            return;
        }
        for job in &mut self.state.lock().running {
            let done = job.resume(&self.processes);
            job.complain("continue", done);
        }
    }
}

fn find<'a>(running: &'a mut [Running], job_id: &str) -> Result<&'a mut Running, BoxError> {
    let job = running.iter_mut().find(|job| job.id().to_string() == job_id && !job.is_ending());
    job.ok_or_else(|| "it has just ended, or was just told to".into())
}
