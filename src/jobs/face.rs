//! What the host holds of all its jobs.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{unbounded, Receiver};

use super::cost::Costs;
use super::driver;
use super::handle::JobHandle;
use super::held_back::HeldBack;
use super::job::Job;
use super::limiter::Limiters;
use super::log::call_logger;
use super::outcome::JobEvent;
use super::output::JobOutput;
use super::permit::JobPermit;
use super::remaining::Remaining;
use super::report::{Extent, Progress, Summary};
use super::table::{JobTable, Settings};
use super::tally::Tally;
use super::terminal;
use crate::engine::{Core, Shared};
use crate::host::events;
use crate::jobserver::JobServer;
use crate::pgroup::ProcessGroupManager;
use crate::sys::{process, SignalMask};
use crate::vocabulary::{Error, Work};

/// Runs programs under the limits of a monitor: as many at a time as fit, each under a permit that follows its processes.
///
/// Made by [`ResourceMonitor::jobs`](crate::ResourceMonitor::jobs). It is the manager and the process group of that
/// monitor, and has one thread of its own (`highwater-jobs`), whatever the number of jobs. All methods take `&self` and may
/// be called from any thread.
///
/// - **Admission**: a job is started when what it will cost fits beside what is measured and reserved: what it declares, or
///   what jobs of its [kind](Job::kind) were seen to cost, whichever is more. The first job of a kind runs without others of
///   its kind until it is known. Jobs are started in their order; those of a kind that is being learned are passed.
/// - **CPUs**: without a [`width`](JobsBuilder::width), as many run at once as there are CPUs, and more while CPUs are idle
///   although so many run.
/// - **Pressure**: near the hard threshold the oldest job is paused, then ended. A job that was ended to make room, or killed
///   by the kernel for want of memory, is run again, alone: it has not failed.
/// - **Ends**: a job has ended when nothing of it is left. What its first process leaves behind, in whatever session, is told
///   to end and then killed. This process becomes a child subreaper for it
///   ([what that changes](ProcessGroupManager#what-a-subreaper-changes)).
/// - **Manners**: a job gets `/dev/null` as its input, a process group of its own, an empty signal mask and the default
///   disposition of each signal that is not ignored; `HIGHWATER_JOB` in its environment says whose it is.
///
/// Dropping it ends the jobs, and waits until nothing of them is left: for the grace at most and a moment, and 5 s more if
/// something does not end although it was killed. The thread of the jobs, which calls the host's logger, does not wait for
/// itself there. In a forked child it does nothing, and has no jobs.
///
/// ```
/// use std::process::Command;
/// use std::time::Duration;
/// use highwater::{Job, MemoryScope, ResourceLimits, ResourceMonitor};
///
/// let limits = ResourceLimits::builder().max_processes(20).build()?;
/// let monitor = ResourceMonitor::builder(limits).memory_scope(MemoryScope::Tree).build()?;
/// let jobs = monitor.jobs().build()?;
/// monitor.start(Duration::from_secs(1))?;
///
/// let handles: Vec<_> = (0..10).map(|_| jobs.submit(Job::new(Command::new("true")))).collect::<Result<_, _>>()?;
/// assert!(handles.iter().all(|job| job.wait().is_success()));
/// println!("{}", jobs.costs());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Jobs {
    table: Arc<JobTable>,
    thread: Option<JoinHandle<()>>,
}

/// A grace that nobody lives to see the end of: added to a time, it is still one that the clock can name.
const ENDLESS: Duration = Duration::from_secs(1 << 32);

/// The settings of [`Jobs`].
#[derive(Debug)]
#[must_use]
pub struct JobsBuilder {
    engine: Arc<Shared>,
    settings: Settings,
}

impl JobsBuilder {
    pub(crate) fn new(engine: Arc<Shared>) -> JobsBuilder {
        let settings = Settings {
            grace: Duration::from_secs(5),
            width: None,
            is_sole_parent: false,
            patience: None,
            mask: SignalMask::current(),
            jobserver: None,
            output: None,
            costs_file: None,
        };
        JobsBuilder { engine, settings }
    }

    /// The time that a job has between `SIGTERM` and `SIGKILL`. Default: 5 s.
    pub fn grace(mut self, grace: Duration) -> JobsBuilder {
        self.settings.grace = grace.min(ENDLESS);
        self
    }

    /// The most jobs that run at once, whatever the CPUs do; `usize::MAX` leaves it to the limits. Default: as many as there
    /// are CPUs, and more while CPUs are idle.
    pub fn width(mut self, width: usize) -> JobsBuilder {
        self.settings.width = Some(width);
        self
    }

    /// Gives every job a channel of this [jobserver](JobServer), which is one of the same monitor. Default: none.
    pub fn jobserver(mut self, server: &JobServer) -> JobsBuilder {
        self.settings.jobserver = Some(server.clone());
        self
    }

    /// Has this read what jobs write to their standard output and standard error, whatever their commands say of these. Default:
    /// none, and they write where their commands say.
    pub fn output(mut self, output: &JobOutput) -> JobsBuilder {
        self.settings.output = Some(output.clone());
        self
    }

    /// Says that every child of this process is a job, or was left behind by one: then all orphans that have ended are
    /// reaped, also those that were never seen alive. Default: `false`, and those are left to the host, whose they may be.
    pub fn sole_parent(mut self, is_sole_parent: bool) -> JobsBuilder {
        self.settings.is_sole_parent = is_sole_parent;
        self
    }

    /// How long the host itself may use so much memory, or so many processes or open files, that no job may be started although
    /// none runs; then jobs that wait [never fit](crate::Outcome::NeverFits). Default: for ever, as it may use less one day.
    pub fn patience(mut self, patience: Duration) -> JobsBuilder {
        self.settings.patience = Some(patience);
        self
    }

    /// Keeps what is known of the kinds in a small text file: it is read now and written when the jobs are dropped. A file
    /// that is not there is empty; one that cannot be read is logged (`jobs.costs_unreadable`), ignored, and replaced.
    pub fn costs_file(mut self, path: impl Into<PathBuf>) -> JobsBuilder {
        self.settings.costs_file = Some(path.into());
        self
    }

    /// Becomes a child subreaper, starts the thread, and sets manager and process group of the monitor.
    ///
    /// # Errors
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) if the width is 0; [`Process`](crate::ErrorKind::Process) if the
    /// process could not become a subreaper, or has no descriptor left; [`Thread`](crate::ErrorKind::Thread) if the thread
    /// could not be created. Then it is a subreaper only if it was one before.
    pub fn build(self) -> Result<Jobs, Error> {
        let JobsBuilder { engine, mut settings } = self;
        settings.mask = SignalMask::current();
        if settings.width == Some(0) {
            return Err(Error::setting("a width of 0 jobs starts none"));
        }
        let processes = ProcessGroupManager::new().with_own_group(false).with_grace(settings.grace);
        processes.setup()?;
        let processes = Arc::new(processes);
        let costs = settings.costs_file.as_ref().map(read_costs).unwrap_or_default();
        let started = JobTable::new(Arc::clone(&engine), Arc::clone(&processes), settings, costs)
            .map_err(|error| Error::system("could not wait for jobs", error))
            .and_then(|table| {
                let table = Arc::new(table);
                Ok((Arc::clone(&table), driver::start(table)?))
            });
        let (table, thread) = started.map_err(|error| {
            // Where there are no jobs, nobody looks after those who would be adopted.
            let _ = processes.restore();
            error
        })?;
        let core = Core::of(&engine);
        core.hooks.set_manager(Some(table.clone()));
        core.hooks.set_process_group(Some(processes));
        Ok(Jobs { table, thread: Some(thread) })
    }
}

fn read_costs(path: &PathBuf) -> Costs {
    let costs = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Costs::default()),
        text => text.and_then(|text| Costs::parse(&text)),
    };
    costs.unwrap_or_else(|error| {
        call_logger(|| events::costs_unreadable(path, &error));
        Costs::default()
    })
}

impl Jobs {
    /// Has a job run as soon as there is room for it, and returns at once.
    ///
    /// # Errors
    /// [`Process`](crate::ErrorKind::Process) if this process was forked since the jobs were made.
    pub fn submit(&self, job: Job) -> Result<JobHandle, Error> {
        if self.table.is_inherited() {
            return Err(Error::process("this process was forked since the jobs were made, which are its parent's"));
        }
        let ticket = self.table.submit(job);
        Ok(JobHandle::new(ticket, Arc::clone(&self.table)))
    }

    /// As [`submit`](Self::submit), but returns once the job was started, or cannot be: so whoever makes jobs makes them no
    /// faster than they are run.
    ///
    /// # Errors
    /// As `submit`. That the job could not be started is its [outcome](JobHandle::wait).
    pub fn spawn(&self, job: Job) -> Result<JobHandle, Error> {
        if self.table.is_inherited() {
            return self.submit(job);
        }
        let ticket = self.table.submit(job);
        ticket.wait_until_started();
        Ok(JobHandle::new(ticket, Arc::clone(&self.table)))
    }

    /// Waits until a job of this kind may be started, for `timeout` at most, and holds the room for it: for a worker that takes
    /// work from a queue which others share, and must take none that it cannot run. The job is waited for in its place
    /// among those that were submitted; its cost is what its kind was seen to cost, or this work if that is more.
    ///
    /// # Errors
    /// The reason why no such job may be started now; see [`Verdict::could_never_fit`](crate::Verdict::could_never_fit). At
    /// once if none could be started ever, even alone, or if this process was forked since the jobs were made.
    ///
    /// ```
    /// # use std::process::Command;
    /// # use std::time::Duration;
    /// # use highwater::{Job, ResourceLimits, ResourceMonitor, Work};
    /// # let monitor = ResourceMonitor::new(ResourceLimits::builder().max_processes(20).build()?);
    /// # monitor.start(Duration::from_secs(1))?;
    /// # let take_from_queue = || Command::new("true");
    /// let jobs = monitor.jobs().build()?;
    /// let permit = jobs.admit("entry", Work::new().processes(1), Duration::from_secs(60))?;
    /// let job = permit.start(Job::new(take_from_queue()))?;
    /// assert!(job.wait().is_success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn admit(&self, kind: impl Into<String>, work: Work, timeout: Duration) -> Result<JobPermit, HeldBack> {
        self.table.admit_unknown(kind.into(), work, timeout)
    }

    /// What happens to jobs from now on, in its order, until the jobs are dropped. Each end is told once. A reader that does not read holds back nobody:
    /// the events wait in memory.
    pub fn events(&self) -> Receiver<JobEvent> {
        let (sender, receiver) = unbounded();
        if !self.table.is_inherited() {
            self.table.subscribe(sender);
        }
        receiver
    }

    /// The number of jobs that wait to be started.
    pub fn waiting(&self) -> usize {
        self.tally().waiting
    }

    /// The number of jobs that run, paused ones included.
    pub fn running(&self) -> usize {
        self.tally().running
    }

    /// The number of jobs that are paused until there is memory for them.
    pub fn paused(&self) -> usize {
        self.tally().paused
    }

    /// What the next job waits for, as it was when it was last tried, some 20 ms ago; `None` if none waits.
    pub fn held_back(&self) -> Option<HeldBack> {
        if self.table.is_inherited() {
            return None;
        }
        self.table.held_back()
    }

    /// The time that each limiter has kept jobs from their start since they were built: what has limited a run, in shares of
    /// its time. Every moment is counted once, exactly; those in which the host was stopped ([`stop_with`](Self::stop_with))
    /// are not.
    pub fn limiters(&self) -> Limiters {
        if self.table.is_inherited() {
            return Limiters::default();
        }
        self.table.limiters()
    }

    /// The time until all jobs have ended that were submitted and so many more, as far as it can be told from how long jobs of
    /// their kinds took; `None` while too few have ended, and if none is left. It costs a look at each job that waits.
    pub fn remaining(&self, more: usize) -> Option<Remaining> {
        if self.table.is_inherited() {
            return None;
        }
        self.table.remaining(more)
    }

    /// How things stand, for people, where so many more jobs are to come. It costs what [`remaining`](Self::remaining) does.
    pub fn progress(&self, more: usize) -> Progress {
        let extent = if self.table.is_inherited() { Extent::default() } else { self.table.extent().0 };
        Progress { tally: self.tally(), extent, remaining: self.remaining(more), held_back: self.held_back() }
    }

    /// What came of the run so far, for people.
    pub fn summary(&self) -> Summary {
        let is_inherited = self.table.is_inherited();
        let peak = if is_inherited { Extent::default() } else { self.table.extent().1 };
        let jobserver = self.table.settings.jobserver.as_ref().filter(|_| !is_inherited);
        let tokens = jobserver.map(JobServer::tally);
        Summary { tally: self.tally(), limiters: self.limiters(), peak, tokens }
    }

    /// What is known of the cost of each kind, for people: one line a kind.
    pub fn costs(&self) -> impl fmt::Display {
        if self.table.is_inherited() {
            return Costs::default();
        }
        self.table.costs()
    }

    /// The numbers of jobs that wait, run, and have ended.
    pub fn tally(&self) -> Tally {
        if self.table.is_inherited() {
            return Tally::default();
        }
        self.table.tally()
    }

    /// Starts no job for as long as the host has a reason not to, as that nobody reads what jobs write. Those that run go on.
    pub fn hold(&self, reason: Option<&'static str>) {
        if !self.table.is_inherited() {
            self.table.hold(reason);
        }
    }

    /// Says that no jobs will be submitted but those that the host counts already ([`remaining`](Self::remaining)): then the host
    /// is not what [limits](Self::limiters) the rest of the run, and the time is known that it takes at most.
    pub fn expect_no_more(&self) {
        if !self.table.is_inherited() {
            self.table.expect_no_more();
        }
    }

    /// Ends every job, those that wait as well. This does not wait for it, and jobs that come later are run.
    pub fn cancel_all(&self) {
        self.end_all(false);
    }

    /// As [`cancel_all`](Self::cancel_all), but with `SIGKILL` at once.
    pub fn kill_all(&self) {
        self.end_all(true);
    }

    fn end_all(&self, at_once: bool) {
        if !self.table.is_inherited() {
            self.table.cancel_all(at_once);
        }
    }

    /// Stops every job, runs `stop_host`, and continues the jobs: for a host that is told to stop (`SIGTSTP`) and sends itself
    /// `SIGSTOP`. Meanwhile nothing is started or ended, and whoever calls the jobs waits: `stop_host` must not.
    pub fn stop_with(&self, stop_host: impl FnOnce()) {
        if self.table.is_inherited() {
            return stop_host();
        }
        self.table.stop_with(stop_host);
    }

    /// Stops with every job, if this process is told to by a signal that would stop it if it did not handle that: `SIGTSTP`,
    /// `SIGTTIN` or `SIGTTOU`, where a shell could continue it. Returns once it has done so, as
    /// [`stop_with`](Self::stop_with) does. For any other signal it does nothing.
    ///
    /// # Errors
    /// [`Process`](crate::ErrorKind::Process) if this process could not stop.
    pub fn stop_on(&self, signal: i32) -> Result<(), Error> {
        let mut stopped = Ok(());
        if terminal::stops(signal) {
            self.stop_with(|| stopped = process::stop_self());
        }
        stopped.map_err(|error| Error::system("could not stop", error))
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        if self.table.is_inherited() {
            return;
        }
        self.table.close();
        // The thread of the jobs drops them where the host's logger does, and cannot wait for itself.
        let others = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id());
        if let Some(thread) = others {
            // A panic of the thread was printed already.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { waiting, running, paused, .. } = self.tally();
        let mut shown = f.debug_struct("Jobs");
        shown.field("waiting", &waiting).field("running", &running).field("paused", &paused).finish_non_exhaustive()
    }
}
