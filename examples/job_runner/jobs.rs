//! The running jobs, and what the monitor may do to them.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater::{BoxError, JobManager, Permit, ProcessGroupManager, Readiness, Resource};
use nix::sys::signal::{raise, Signal};
use parking_lot::{Mutex, MutexGuard};

use crate::damped::Damped;
use crate::job::{Cancel, Cost, Job, Outcome, RunningJob, GRACE};
use crate::orphans::{self, Orphan};
use crate::output::Outputs;

/// The running jobs, in the order of their start. The runner adds, measures and removes them; the monitor pauses and
/// cancels them from its own thread. The lock is only ever held for moments, and never while a job is started.
#[derive(Debug)]
pub(crate) struct Jobs {
    running: Mutex<Vec<RunningJob>>,
    readiness: Readiness,
    processes: Arc<ProcessGroupManager>,
    outputs: Arc<Outputs>,
    leftovers: Mutex<Vec<Leftover>>,
    unattached: Damped,
    unlisted: Damped,
}

/// What a job that has ended left behind, and was seen too late to keep it from ending.
#[derive(Debug)]
struct Leftover {
    pid: u32,
    kill_at: Instant,
}

impl Jobs {
    pub(crate) fn new(readiness: Readiness, processes: Arc<ProcessGroupManager>, outputs: Arc<Outputs>) -> Jobs {
        Jobs {
            running: Mutex::default(),
            readiness,
            processes,
            outputs,
            leftovers: Mutex::default(),
            unattached: Damped::default(),
            unlisted: Damped::default(),
        }
    }

    /// Starts a job. It comes back with the error when that failed.
    pub(crate) fn start(&self, job: Job, permit: Permit) -> Result<(), (Job, io::Error)> {
        let job = job.start(permit, &self.processes, &self.outputs)?;
        if let Err(error) = job.attach() {
            self.unattached.warn(format_args!("job {} counts twice while it runs: {error}", job.job.id));
        }
        self.running.lock().push(job);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.running.lock().is_empty()
    }

    /// How many run, and how many are paused.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let running = self.running.lock();
        let paused = running.iter().filter(|job| job.is_paused()).count();
        (running.len() - paused, paused)
    }

    /// The most that a running job has been seen to cost.
    pub(crate) fn cost(&self) -> Cost {
        let running = self.running.lock();
        let fit = running.iter().filter(|running| !running.is_too_large());
        fit.fold(Cost::default(), |cost, running| cost.max(running.job.cost))
    }

    /// The most tasks that a running job is taken to need.
    pub(crate) fn tasks(&self) -> u64 {
        let running = self.running.lock();
        let fit = running.iter().filter(|running| !running.is_too_large());
        fit.map(|running| running.job.tasks()).max().unwrap_or_default()
    }

    /// Counts the tasks of every job.
    pub(crate) fn note_tasks(&self) {
        self.running.lock().iter_mut().for_each(RunningJob::note_tasks);
    }

    /// The tasks that all of them are still to start, if each is like the largest.
    pub(crate) fn tasks_to_come(&self, of_largest: u64) -> u64 {
        self.running.lock().iter().map(|running| running.tasks_to_come(of_largest)).sum()
    }

    /// How long the oldest job has been running.
    pub(crate) fn oldest_age(&self) -> Option<Duration> {
        self.running.lock().first().map(|oldest| oldest.started.elapsed())
    }

    /// Takes note of what checks have measured of every job.
    pub(crate) fn note_costs(&self) {
        self.running.lock().iter_mut().for_each(RunningJob::note_cost);
    }

    /// Takes note of what orphans use, and has the manager take charge of one more job. Costs as much as a check or more.
    pub(crate) fn look_around(&self) {
        let mut running = self.running.lock();
        running.iter_mut().for_each(RunningJob::note_orphans);
        if let Some(job) = running.iter_mut().find(|job| job.is_to_be_tracked()) {
            job.track();
        }
    }

    /// Ends what jobs that are not running any more have left behind.
    fn end_leftovers(&self, running: &[RunningJob], orphans: &[Orphan]) {
        for orphan in orphans.iter().filter(|orphan| orphan.job.is_some()) {
            if !running.iter().any(|job| job.has_started(orphan)) {
                self.end_leftover(orphan.pid);
            }
        }
        self.leftovers.lock().retain(|leftover| orphans.iter().any(|orphan| orphan.pid == leftover.pid));
    }

    /// Tells it to end, and kills it when it has had its time.
    fn end_leftover(&self, pid: u32) {
        let mut leftovers = self.leftovers.lock();
        let known = leftovers.iter().find(|leftover| leftover.pid == pid);
        let signal = match known {
            None => Signal::SIGTERM,
            Some(leftover) if Instant::now() >= leftover.kill_at => Signal::SIGKILL,
            Some(_) => return,
        };
        let told =
            self.processes.track_backend_pid(pid).and_then(|()| self.processes.signal_backend(pid, signal as i32));
        match told {
            Ok(_) if known.is_none() => leftovers.push(Leftover { pid, kill_at: Instant::now() + GRACE }),
            Ok(_) => {}
            Err(error) => log::debug!("process {pid}, which a job left behind, has ended meanwhile: {error}"),
        }
    }

    /// Removes the jobs that have ended, and kills those that were told to and took too long.
    pub(crate) fn take_ended(&self) -> Vec<(Job, Outcome)> {
        let mut running = self.running.lock();
        running.iter_mut().for_each(RunningJob::look_at_shell);
        // After that: what a shell leaves behind is handed over before it can be seen to have ended.
        let orphans = self.known(orphans::collect(&shells(&running)));
        running.iter_mut().for_each(|job| job.adopt(&orphans));
        self.end_leftovers(&running, &orphans);
        for job in running.iter_mut().filter(|job| job.is_to_be_refused_the_terminal()) {
            complain(job.cancel(Cancel::WantsTerminal), "end", &job.job);
        }

        let mut ended = Vec::new();
        let mut index = 0;
        while index < running.len() {
            let outcome = match running[index].try_end() {
                Ok(Some(outcome)) => outcome,
                Ok(None) => {
                    complain(running[index].kill_if_due(false), "kill", &running[index].job);
                    running[index].watch_output();
                    index += 1;
                    continue;
                }
                // Its status is lost, so it cannot be called done.
                Err(error) => Outcome::Failed(error.to_string()),
            };
            ended.push((running.remove(index), outcome));
        }
        drop(running);
        ended.into_iter().map(|(job, outcome)| (job.finish(), outcome)).collect()
    }

    /// Continues the last job if it is paused. Nothing else is left that could end and so relieve the pressure, and a
    /// job that cannot run alone is one that is given up.
    pub(crate) fn resume_if_alone(&self) {
        if let [last] = self.running.lock().as_mut_slice() {
            complain(last.resume(), "continue", &last.job);
        }
    }

    /// Tells every job to end, without running it again; `at_once` leaves it no time for that.
    pub(crate) fn interrupt(&self, at_once: bool) {
        for job in self.lock_with_orphans().iter_mut() {
            complain(job.cancel(Cancel::Interrupted), "terminate", &job.job);
            complain(job.kill_if_due(at_once), "kill", &job.job);
        }
    }

    /// Stops every job and this process, until somebody continues it, which continues the jobs too. The lock is held for so
    /// long, or the monitor might continue one in between.
    pub(crate) fn stop_with_runner(&self) {
        let mut running = self.lock_with_orphans();
        for job in running.iter_mut() {
            complain(job.stop(), "stop", &job.job);
        }
        let stopped = Instant::now();
        // To this thread: by the time that this returns, it has been continued.
        if let Err(error) = raise(Signal::SIGSTOP) {
            log::warn!("could not stop: {error}");
        }
        for job in running.iter_mut() {
            complain(job.go_on(stopped.elapsed()), "continue", &job.job);
        }
    }

    /// The orphans that could be listed. Where the kernel lists no children there are none, and the manager alone ends what
    /// jobs leave behind.
    fn known(&self, listed: io::Result<Vec<Orphan>>) -> Vec<Orphan> {
        listed.unwrap_or_else(|error| {
            self.unlisted.warn(format_args!("what jobs leave behind is seen late: {error}"));
            Vec::new()
        })
    }

    /// The running jobs, each knowing its orphans as they are now: before they are signalled.
    fn lock_with_orphans(&self) -> MutexGuard<'_, Vec<RunningJob>> {
        let mut running = self.running.lock();
        let orphans = self.known(orphans::list(&shells(&running)));
        running.iter_mut().for_each(|job| job.adopt(&orphans));
        running
    }
}

fn shells(running: &[RunningJob]) -> HashSet<u32> {
    running.iter().map(RunningJob::shell_id).collect()
}

impl JobManager for Jobs {
    fn running_count(&self) -> usize {
        self.running.lock().len()
    }

    fn active_job_count(&self) -> usize {
        self.counts().0
    }

    fn oldest_running_job(&self) -> Option<String> {
        self.running.lock().iter().find(|job| !job.is_cancelled()).map(|running| running.job.id.clone())
    }

    fn pause_job(&self, job_id: &str, critical: Resource) -> Result<(), BoxError> {
        // A stopped job keeps its memory, but takes no more and waits for none. What it has of the rest, it keeps.
        if !matches!(critical, Resource::Memory | Resource::CgroupMemory | Resource::MemoryPressure) {
            return Err(format!("a stopped job frees no {critical}").into());
        }
        let mut running = self.lock_with_orphans();
        if running.len() == 1 {
            return Err("it runs alone: no other job could end and free memory".into());
        }
        Ok(find(&mut running, job_id)?.pause()?)
    }

    fn cancel_job(&self, job_id: &str, critical: Resource) -> Result<(), BoxError> {
        let verdict = self.readiness.verdict();
        let mut running = self.lock_with_orphans();
        let why = match running.len() {
            1 => Cancel::TooLarge(format!("{critical} too much for it alone: {verdict}")),
            _ => Cancel::Shed,
        };
        Ok(find(&mut running, job_id)?.cancel(why)?)
    }

    fn pressure_cleared(&self) {
        for job in self.running.lock().iter_mut() {
            complain(job.resume(), "continue", &job.job);
        }
    }
}

fn find<'a>(running: &'a mut [RunningJob], job_id: &str) -> Result<&'a mut RunningJob, BoxError> {
    let job = running.iter_mut().find(|running| running.job.id == job_id && !running.is_cancelled());
    job.ok_or_else(|| "it has just ended, or was just told to".into())
}

/// Logs what could not be done to a job: its end, seen a moment later, settles the matter.
fn complain(result: io::Result<()>, what: &str, job: &Job) {
    if let Err(error) = result {
        log::warn!("could not {what} job {}: {error}", job.id);
    }
}
