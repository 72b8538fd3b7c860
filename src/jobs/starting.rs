//! The starts of jobs: which of those that wait may run, and the room that is reserved for it. On the thread of the jobs.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::SendError;

use super::cost::Cost;
use super::family::{self, MARK};
use super::held_back::HeldBack;
use super::job::Waiting;
use super::limiter::Limiter;
use super::log::call_logger;
use super::outcome::{JobStep, Outcome};
use super::output::{Capture, JobOutput};
use super::permit::{Admitted, Open};
use super::running::{Running, Why};
use super::table::{JobTable, Settings, State, Told};
use crate::engine::{self, Core, Grant};
use crate::host::events;
use crate::sys::process::Handle;
use crate::sys::signal;
use crate::vocabulary::{Resource, Work};

/// How long the first job of a kind is watched at most before others of its kind are started beside it.
pub(super) const LEARNING: Duration = Duration::from_secs(10);

/// What is reserved for the one of all running jobs that is larger than typical.
#[derive(Debug, Default)]
pub(super) struct Headroom {
    cost: Cost,
    grants: Vec<Grant>,
}

enum Admission {
    Granted(Grant),
    NotNow(HeldBack),
    Never(HeldBack),
}

impl JobTable {
    /// Starts jobs until one may not be started yet.
    pub(super) fn start_waiting(&self) {
        loop {
            let mut state = self.state.lock();
            let (beside, now) = (state.beside(), Instant::now());
            if let Some(Admitted { waiting, grant }) = state.admitted.pop_front() {
                state.starting = Some(Arc::clone(&waiting.ticket));
                if state.running.is_empty() {
                    state.kills.begin(now, self.memory_group().as_deref());
                }
                drop(state);
                self.launch(0, waiting, grant);
                continue;
            }
            let State { queue, running, open, costs, width, starting, kills, held_by_host, .. } = &mut *state;
            let is_learning = |kind: &str| {
                let is_first = |job: &Running| job.job.job.kind == kind && now - job.started < LEARNING;
                let is_tried = running.iter().any(is_first) || open.iter().any(|open| open.kind == kind);
                costs.typical(kind).is_none() && is_tried
            };
            if queue.len() == 0 || held_by_host.is_some() {
                let reason = held_by_host.map(HeldBack::Host);
                state.hold_back(reason);
                return;
            }
            if self.settings.output.as_ref().is_some_and(JobOutput::is_behind) {
                state.hold_back(Some(HeldBack::Output));
                return;
            }
            if !width.has_room(beside) {
                let refusal = width.refusal(beside);
                state.hold_back(Some(refusal));
                return;
            }
            let (place, waiting) = match queue.take(beside, is_learning) {
                Ok(taken) => taken,
                Err(held_back) => {
                    state.hold_back(held_back);
                    return;
                }
            };
            *starting = waiting.asker.is_none().then(|| Arc::clone(&waiting.ticket));
            if beside == 0 {
                kills.begin(now, self.memory_group().as_deref());
            }
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
            Admission::NotNow(reason) if self.is_host_too_large(&reason) => {
                self.give_up(&waiting, Outcome::NeverFits(reason));
                return false;
            }
            Admission::NotNow(reason) => {
                self.put_back(place, waiting, reason);
                return true;
            }
        };
        if let Some(asker) = waiting.asker.take() {
            let open = Open { id: waiting.ticket.id, kind: waiting.job.kind.clone() };
            let mut state = self.state.lock();
            state.open.push(open);
            state.crowded_since = None;
            state.hold_back(None);
            drop(state);
            engine::expect_long(&self.engine, &grant);
            if let Err(SendError(Ok(admitted))) = asker.send(Ok(Admitted { waiting, grant })) {
                // Nobody asks any more.
                self.give_back(&admitted);
            }
            return false;
        }
        self.launch(place, waiting, grant)
    }

    /// Starts a job in the room that was granted, or puts it back to its place. Returns `true` if no other is to be tried now.
    fn launch(&self, place: usize, mut waiting: Waiting, grant: Grant) -> bool {
        let serial = self.family.next();
        let command = &mut waiting.job.command;
        command.stdin(Stdio::null()).process_group(0).env(MARK, serial.mark());
        let mask = self.settings.mask;
        if !std::mem::replace(&mut waiting.is_prepared, true) && !mask.is_empty() {
            signal::unblock_in(command);
        }
        // Else under the mask of the host, which is empty: this thread is deaf, and a job inherits what it blocks. To unblock
        // here what the host blocks would hand a signal to this thread that the host waits for in another.
        let spawn =
            |command: &mut Command| if mask.is_empty() { mask.with(|| command.spawn()) } else { command.spawn() };
        let prepared = self.open_channel(&mut waiting).and_then(|()| self.capture(&mut waiting));
        let child = prepared.and_then(|()| spawn(&mut waiting.job.command));
        if waiting.capture.is_some() {
            Capture::release(&mut waiting.job.command);
        }
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                engine::finish(&self.engine, &grant);
                if let Some(channel) = &waiting.channel {
                    channel.rest();
                }
                waiting.capture = None;
                let mut state = self.state.lock();
                state.close(waiting.ticket.id);
                let running = state.running.len();
                drop(state);
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
        if let Some(channel) = &waiting.channel {
            // An error: it has ended by now.
            let _ = channel.serve(pid);
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
            if ticket.is_killed() {
                running.hurry();
            }
        }
        state.starting = None;
        state.crowded_since = None;
        state.close(ticket.id);
        state.running.push(running);
        let beside = state.running.len();
        state.pace.turn_to(beside, Instant::now());
        state.hold_back(None);
        drop(state);
        ticket.set_started(pid);
        self.tell([Told { ticket, step: JobStep::Started { pid }, trouble: None }]);
        false
    }

    /// Makes the channel of a job that has a jobserver, unless it was made for an earlier try.
    fn open_channel(&self, waiting: &mut Waiting) -> io::Result<()> {
        let Waiting { job, channel, .. } = waiting;
        let Some(server) = job.jobserver.as_ref().or(self.settings.jobserver.as_ref()) else { return Ok(()) };
        let opened = match channel {
            Some(channel) => channel.reserve_slot(),
            None => server
                .attach_as(&mut job.command, job.kind.clone())
                .and_then(|made| channel.insert(made).reserve_slot()),
        };
        opened.map_err(|error| match error.os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(io::ErrorKind::Other, error),
        })
    }

    /// Has what this try writes read, if it is to be.
    fn capture(&self, waiting: &mut Waiting) -> io::Result<()> {
        if let Some(output) = &self.settings.output {
            waiting.capture = Some(output.capture(waiting.ticket.id, &mut waiting.job.command)?);
        }
        Ok(())
    }

    /// Puts a job back that cannot be started yet, unless it was cancelled meanwhile: then it has ended.
    fn put_back(&self, place: usize, waiting: Waiting, reason: HeldBack) {
        if let (HeldBack::Verdict(_), Some(server)) = (&reason, self.settings.jobserver.as_ref()) {
            server.make_room();
        }
        let mut state = self.state.lock();
        // Under the lock: who cancels marks the job first, and then looks for it in the queue.
        if !waiting.ticket.is_cancelled() {
            state.starting = None;
            state.queue.put_back(place, waiting);
            state.hold_back(Some(reason));
            return;
        }
        drop(state);
        self.give_up(&waiting, Outcome::Cancelled);
    }

    /// Tells the end of the one that was to be started, which waits no more by then.
    fn give_up(&self, waiting: &Waiting, outcome: Outcome) {
        self.state.lock().starting = None;
        match (&waiting.asker, outcome) {
            (None, outcome) => self.tell([Told::never_started(waiting, outcome)]),
            (Some(asker), Outcome::NeverFits(reason)) => drop(asker.send(Err(reason))),
            // Nobody asks any more.
            (Some(_), _) => {}
        }
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

    /// Whether the host alone has been too large for any job for as long as it may be. Others may leave what they fill: only
    /// what nobody but the host and its jobs uses is judged.
    fn is_host_too_large(&self, reason: &HeldBack) -> bool {
        let Some(patience) = self.settings.patience else { return false };
        let is_of_host =
            matches!(reason.limiter(), Limiter::Resource(Resource::Memory | Resource::Processes | Resource::OpenFiles));
        let mut state = self.state.lock();
        let is_crowded = is_of_host && state.running.is_empty();
        let since = state.crowded_since.take().unwrap_or_else(Instant::now);
        state.crowded_since = is_crowded.then_some(since);
        is_crowded && since.elapsed() >= patience
    }

    fn admit(&self, waiting: &Waiting) -> Admission {
        self.look_at_tasks();
        let state = self.state.lock();
        let kind = &waiting.job.kind;
        let beside = state.beside();
        let known = state.costs.typical(kind).unwrap_or_else(|| {
            // Unknown, but one has been running for long.
            let peaks = state
                .running
                .iter()
                .filter(|job| job.job.job.kind == *kind)
                .map(|job| job.learned(engine::usage(&self.engine, &job.grant).unwrap_or_default()));
            peaks.fold(Cost::UNKNOWN, Cost::max)
        });
        let headroom = state.headroom_needed(Some(kind));
        let more = if beside == 0 { Cost::default() } else { headroom.beyond(state.headroom.cost) };
        let to_come = tasks_to_come(&state, if beside == 0 { 0 } else { headroom.tasks });
        let unseen = self.unseen_descriptors(&state);
        drop(state);

        let declared = waiting.job.declared;
        let asked = known.max(waiting.needed).max(Cost::declared(&declared)).tasks;
        let least = Cost::declared(&declared).max(Cost::UNKNOWN).tasks;
        if let Some(lacking) = self.lacking_tasks(asked, least, to_come, beside) {
            return lacking;
        }
        if beside > 0 {
            match engine::try_admit(&self.engine, &Work::new().open_files(unseen)) {
                Ok(grant) => engine::finish(&self.engine, &grant),
                Err(verdict) => return Admission::NotNow(HeldBack::Verdict(verdict)),
            }
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

    /// The descriptors that this process will have, once another job runs, beyond those that the last check has seen.
    fn unseen_descriptors(&self, state: &State) -> u64 {
        let Settings { output, jobserver, .. } = &self.settings;
        // That which tells its end, two pipes, and a channel (`JobServer`).
        let each = 1 + if output.is_some() { 2 } else { 0 } + if jobserver.is_some() { 5 } else { 0 };
        let checked = Core::of(&self.engine).publisher.lock().latest().map(|latest| latest.timestamp);
        let is_unseen = |job: &&Running| checked.map_or(true, |checked| job.started >= checked);
        each * (state.running.iter().filter(is_unseen).count() + state.open.len() + 1) as u64
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
    pub(super) fn look_at_tasks(&self) {
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
    pub(super) fn fit_headroom(&self, state: &mut State) {
        let needed = state.headroom_needed(None);
        let is_needed = state.beside() > 1 && needed.max(state.headroom.cost) == needed;
        if !is_needed {
            // That of the next job is reserved with it.
            for grant in std::mem::take(&mut state.headroom).grants {
                engine::finish(&self.engine, &grant);
            }
        }
    }
}

impl State {
    /// The headroom for those that run and this one: of each kind what the largest takes beyond typical, less what one that
    /// runs has taken of that already.
    fn headroom_needed(&self, next: Option<&String>) -> Cost {
        let mut outgrown: BTreeMap<&str, Cost> =
            self.kinds_beside().chain(next).map(|kind| (&**kind, Cost::default())).collect();
        for job in &self.running {
            if let Some(most) = outgrown.get_mut(job.kind()) {
                *most = most.max(job.outgrown);
            }
        }
        let needed = outgrown.into_iter().map(|(kind, outgrown)| self.costs.headroom(kind).beyond(outgrown));
        needed.fold(Cost::default(), Cost::max)
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
        .chain(state.open.iter().map(|open| (state.costs.typical(&open.kind).unwrap_or(Cost::UNKNOWN).tasks, 0)))
        .fold((0u64, 0), |(to_come, most_beyond), (more, beyond)| {
            (to_come.saturating_add(more), most_beyond.max(beyond))
        });
    to_come.saturating_add(headroom.saturating_sub(beyond))
}
