//! The running jobs, and what the monitor may do to them.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater::{BoxError, JobManager, ProcessGroupManager, Readiness, Resource, SystemProbe};
use nix::sys::signal::Signal;
use parking_lot::Mutex;

use crate::job::{Cancel, Cost, Job, Outcome, RunningJob, GRACE};
use crate::sample::Sample;

/// The running jobs, in the order of their start. The runner adds, measures and removes them; the monitor pauses and
/// cancels them from its own thread. The lock is only ever held for moments, and never while the monitor is asked.
#[derive(Debug)]
pub(crate) struct Jobs {
    running: Mutex<Vec<RunningJob>>,
    readiness: Readiness,
    processes: Arc<ProcessGroupManager>,
    probe: SystemProbe,
    leftovers: Mutex<Vec<Leftover>>,
}

/// What a job that has ended left behind, and was seen too late to keep it from ending.
#[derive(Debug)]
struct Leftover {
    pid: u32,
    kill_at: Instant,
}

impl Jobs {
    pub(crate) fn new(readiness: Readiness, processes: Arc<ProcessGroupManager>) -> Jobs {
        let (running, leftovers) = (Mutex::default(), Mutex::default());
        Jobs { running, readiness, processes, probe: SystemProbe::new(), leftovers }
    }

    pub(crate) fn add(&self, job: RunningJob) {
        self.running.lock().push(job);
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

    /// Whether some job needs to be watched closely: it holds its permit, or was told to end.
    pub(crate) fn are_changing(&self) -> bool {
        self.running.lock().iter().any(RunningJob::is_changing)
    }

    /// The most that a running job has been seen to cost.
    pub(crate) fn cost(&self) -> Cost {
        let running = self.running.lock();
        let fit = running.iter().filter(|running| !running.is_too_large());
        fit.fold(Cost::default(), |cost, running| cost.max(running.job.cost))
    }

    /// How long the oldest job has been running.
    pub(crate) fn oldest_age(&self) -> Option<Duration> {
        self.running.lock().first().map(|oldest| oldest.started.elapsed())
    }

    /// Takes note of what every job uses.
    pub(crate) fn observe(&self, sample: &Sample) {
        let mut running = self.running.lock();
        for job in running.iter_mut() {
            job.observe(sample);
        }
        // Whatever else hangs from this process was handed to it: nobody here forks anything but shells.
        let handed_over = sample.children.iter().filter(|child| running.iter().all(|job| job.shell_id() != child.pid));
        for child in handed_over {
            if !child.alive {
                if self.processes.watch_child(child.pid).is_ok() {
                    self.processes.unwatch_child(child.pid);
                }
            } else if child.job.is_some_and(|serial| !running.iter().any(|job| job.is_started_as(serial))) {
                self.end_leftover(child.pid);
            }
        }
        self.leftovers.lock().retain(|leftover| sample.children.iter().any(|child| child.pid == leftover.pid));
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

    /// Gives back the permits of the jobs that have grown to the `expected` cost, or are not going to.
    pub(crate) fn release_permits(&self, expected: Cost) {
        for job in self.running.lock().iter_mut() {
            job.release_permit(expected);
        }
    }

    /// Removes the jobs that have ended, and kills those that were told to and took too long.
    pub(crate) fn take_ended(&self) -> Vec<(Job, Outcome)> {
        let mut running = self.running.lock();
        let mut ended = Vec::new();
        let mut index = 0;
        while index < running.len() {
            match running[index].try_end(&self.probe) {
                Ok(Some(outcome)) => ended.push((running.remove(index).job, outcome)),
                Ok(None) => {
                    complain(running[index].kill_if_due(false), "kill", &running[index].job);
                    index += 1;
                }
                // Its status is lost, so it cannot be called done.
                Err(error) => ended.push((running.remove(index).job, Outcome::Failed(error.to_string()))),
            }
        }
        ended
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
        for job in self.running.lock().iter_mut() {
            complain(job.cancel(Cancel::Interrupted), "terminate", &job.job);
            complain(job.kill_if_due(at_once), "kill", &job.job);
        }
    }
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
        let mut running = self.running.lock();
        if running.len() == 1 {
            return Err("it runs alone: no other job could end and free memory".into());
        }
        Ok(find(&mut running, job_id)?.pause()?)
    }

    fn cancel_job(&self, job_id: &str, critical: Resource) -> Result<(), BoxError> {
        let verdict = self.readiness.verdict();
        let mut running = self.running.lock();
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
