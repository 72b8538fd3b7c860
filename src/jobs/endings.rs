//! The ends of jobs: which have ended and what becomes of them, what they leave behind, and what is due to those that run.
//! On the thread of the jobs.

use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::family::{self, Orphan};
use super::log::call_logger;
use super::outcome::{JobStep, Outcome, Tries};
use super::running::{By, Running, Trouble, Why};
use super::table::{JobTable, State, Told};
use crate::engine::{self, Core};
use crate::host::events;
use crate::vocabulary::WorkUsage;

/// How often those that run are looked at, whatever happens.
const LOOK: Duration = Duration::from_millis(100);

/// How often all that is below the jobs is looked at, if that costs little.
const TERMINAL_LOOK: Duration = Duration::from_secs(1);

/// What is known of the end of a job.
struct End {
    /// `None` if somebody else has taken it, or it has not ended.
    status: Option<ExitStatus>,
    /// Why its end is waited for no longer, if it has not ended.
    lost: Option<&'static str>,
    usage: WorkUsage,
    /// Whether the kernel has killed it for want of memory.
    for_memory: bool,
}

impl JobTable {
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
            for job in running.iter_mut().filter(|job| job.is_paused()) {
                let done = job.note_continuation(now, &self.processes);
                job.complain("continue", done);
            }
            // One a look: each costs one of the process table.
            if let Some(job) = running.iter_mut().find(|job| job.is_to_be_tracked(now)) {
                job.track(&self.processes);
            }
        }
        if any_ended || is_due {
            self.adopt_orphans(&mut state, now);
        }
        state.abandoned.retain(|process| matches!(process.take_status(), Ok(None)));
        let mut told = Vec::new();
        if is_due && !state.running.is_empty() {
            state.kills.look(now, self.memory_group().as_deref());
        }
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
        self.extent();
        self.look_for_terminal(now);
        self.check_closely(now);
        self.follow_growth(now);
        self.look_at_tasks();
    }

    /// Ends jobs of which something is stopped because it wants the terminal, and is no child of this process. All that is below
    /// each job is read for that, once a second, or as much more rarely as keeps that to a hundredth of the time.
    fn look_for_terminal(&self, now: Instant) {
        let mut state = self.state.lock();
        if now < state.next_terminal_look {
            return;
        }
        state.next_terminal_look = now + TERMINAL_LOOK;
        let roots: Vec<(u64, Vec<u32>)> = state
            .running
            .iter()
            .filter(|job| !job.is_ending() && !job.has_ended() && now - job.started >= TERMINAL_LOOK)
            .map(|job| (job.id(), job.roots().collect()))
            .collect();
        drop(state);
        if roots.is_empty() || !family::are_numbers_own() {
            return;
        }
        let is_refused = |roots: &[u32]| roots.iter().any(|root| family::wants_terminal(*root));
        let refused: Vec<u64> = roots.iter().filter(|(_, roots)| is_refused(roots)).map(|(id, _)| *id).collect();
        let mut state = self.state.lock();
        state.next_terminal_look = Instant::now() + TERMINAL_LOOK.max(now.elapsed() * 100);
        for job in state.running.iter_mut().filter(|job| refused.contains(&job.id())) {
            let done = job.end(Why::WantsTerminal, self.settings.grace, &self.processes);
            job.complain("end", done);
        }
    }

    fn adopt_orphans(&self, state: &mut State, now: Instant) {
        // After the ends were looked at: what a job leaves behind is handed over before it can be seen to have ended.
        let Some(orphans) = self.hand_out_orphans(state) else { return };
        let State { running, leftovers, .. } = state;
        let is_anybodys = |orphan: &Orphan| running.iter().any(|job| job.has_started(orphan));
        for orphan in orphans.iter().filter(|orphan| !is_anybodys(orphan)) {
            if orphan.is_zombie {
                if self.settings.is_sole_parent || leftovers.iter().any(|(pid, _)| *pid == orphan.pid) {
                    family::reap(orphan.pid);
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
        let is_closed = state.is_closed;
        while index < state.running.len() {
            let job = &mut state.running[index];
            let mut lost = None;
            let status = match job.try_finish(now, self.settings.grace, &self.processes) {
                Ok(None) => {
                    lost = job.beyond_reach(now, is_closed, &self.processes);
                    if lost.is_none() {
                        index += 1;
                        continue;
                    }
                    None
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
            let learned = job.learned(usage);
            if let Some(channel) = &job.job.channel {
                channel.rest();
            }
            // Nothing of it is left, or no more can be done about it: what goes on is measured as others are.
            engine::finish(&self.engine, &job.grant);
            let for_memory = job.why().is_none()
                && status.filter(|status| !status.success()).is_some_and(|status| {
                    let kills = kills.get_or_insert_with(|| state.kills.recent(self.memory_group().as_deref()));
                    state.kills.explain(*kills, was_killed(status))
                });
            if !job.is_ending() && !for_memory {
                state.costs.note(&job.job.job.kind, learned, job.growth.longest_pause());
            }
            told.push(self.account(state, job, End { status, lost, usage, for_memory }, now));
        }
        if any {
            state.pace.turn_to(state.running.len(), now);
            self.fit_headroom(state);
            if let [last] = state.running.as_mut_slice() {
                // Nothing else is left that could end and so relieve the pressure.
                for by in [By::Monitor, By::Jobs] {
                    let resumed = last.resume(by, &self.processes);
                    last.complain("continue", resumed);
                }
            }
        }
    }

    /// The news of a job that has ended: its outcome, or that it waits again.
    fn account(&self, state: &mut State, mut job: Running, end: End, now: Instant) -> Told {
        let End { status, lost, usage, for_memory } = end;
        let (took, why, trouble) = (now - job.started, job.why(), job.take_trouble());
        let peak = job.peak_with(usage);
        let mut waiting = job.job;
        // Before its end is told.
        waiting.capture = None;
        waiting.ticket.set_usage(usage);
        if lost.is_some() {
            state.abandoned.push(job.handle);
        }
        let critical = match why {
            Some(Why::Shed(critical)) => Some(critical),
            _ => None,
        };
        let tries = Tries { tries: waiting.tried, usage, critical };
        let outcome = match (status, lost, why) {
            // One that has finished before the signal reached it has done its work, and must not be run again.
            (Some(status), ..) if status.success() => Outcome::Ended(status),
            (_, Some(lost), _) => Outcome::lost(lost),
            (.., Some(Why::Cancelled)) => Outcome::Cancelled,
            (.., Some(Why::TimedOut)) => Outcome::TimedOut(waiting.job.timeout.unwrap_or_default()),
            (.., Some(Why::WantsTerminal)) => Outcome::WantsTerminal,
            (.., Some(Why::Shed(_))) => Outcome::Shed(tries.clone()),
            (.., None) if for_memory => Outcome::KilledForMemory(tries.clone()),
            (Some(status), ..) => Outcome::Ended(status),
            (None, ..) => Outcome::lost("somebody else has taken its exit status"),
        };
        let ticket = Arc::clone(&waiting.ticket);
        let has_failed = match &outcome {
            Outcome::Ended(status) => !status.success(),
            outcome => matches!(outcome, Outcome::TimedOut(_)),
        };
        let step = match outcome {
            _ if state.is_closed || ticket.is_cancelled() => JobStep::Ended { outcome, usage, took },
            Outcome::Shed(_) | Outcome::KilledForMemory(_) if waiting.tried - waiting.failed < waiting.job.tries => {
                waiting.is_alone = true;
                waiting.needed = waiting.needed.max(peak.twice());
                JobStep::Requeued { tries }
            }
            outcome if has_failed && waiting.failed < waiting.job.retries => {
                waiting.failed += 1;
                JobStep::Failed { outcome }
            }
            outcome => JobStep::Ended { outcome, usage, took },
        };
        waiting.took += took;
        match step {
            JobStep::Ended { .. } => state.pace.note(&waiting.job.kind, waiting.took, now),
            _ => state.queue.push(waiting),
        }
        Told { ticket, step, trouble }
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

    fn latest_cpu_pressure(&self) -> Option<f64> {
        let latest = Core::of(&self.engine).publisher.lock().latest()?;
        latest.cpu_pressure.map(|pressure| pressure.some_percent)
    }

    pub(super) fn memory_group(&self) -> Option<Arc<Path>> {
        let latest = Core::of(&self.engine).publisher.lock().latest()?;
        latest.cgroup_memory.map(|group| group.path)
    }
}

/// Whether it, or what its shell has waited for, was killed by `SIGKILL`.
fn was_killed(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(libc::SIGKILL) || status.code() == Some(128 + libc::SIGKILL)
}
