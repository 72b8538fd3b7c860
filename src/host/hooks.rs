//! The traits that a host implements.

use crate::vocabulary::Resource;

/// An error of the host's own.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The host's jobs. A started monitor sheds them when measured usage reaches the hard threshold (95 %) of a limit.
///
/// First the host is asked to give back what it can spare ([`reclaim`](Self::reclaim)). Then the oldest job is paused. It
/// is cancelled if it could not be paused, or if one settle time later it is still the oldest and usage still critical;
/// then the next, one settle time apart. When every resource is below its warning threshold again,
/// [`pressure_cleared`](Self::pressure_cleared) is called. The two counts serve for snapshots only.
///
/// After each shed `monitor.shed_effect` is logged: by how much usage of the critical resource has fallen within the
/// settle time. Less than a hundredth of the limit (or of the floor) is no effect. After three sheds in a row without
/// one, the jobs are not what uses it: that is said once (`monitor.shed_ineffective`), and until every resource is below
/// its warning threshold again no job is paused or cancelled for this resource, but for one that was told to end before
/// and is still the oldest.
///
/// The methods are called from the monitor's action thread, one at a time, under the signal mask of the thread that
/// called [`start`](crate::ResourceMonitor::start) or [`set_manager`](crate::ResourceMonitor::set_manager); the two
/// counts also on the thread that calls `start` or [`check_now`](crate::ResourceMonitor::check_now), which must
/// therefore not hold a lock that they take. They may block, panic, or call back into the monitor; a slow one delays
/// no check.
pub trait JobManager: Send + Sync {
    /// The number of jobs that are running.
    fn running_count(&self) -> usize;

    /// The number of units of work in progress inside the running jobs, whatever a job consists of: `active_sheets` in
    /// a snapshot.
    fn active_job_count(&self) -> usize;

    /// The job to shed first. A paused job still counts, until it was cancelled or has ended.
    fn oldest_running_job(&self) -> Option<String>;

    /// Keeps a job from using more of the critical resource, by `SIGSTOP` for example. An error, or a panic, makes the
    /// monitor cancel the job instead.
    ///
    /// # Errors
    /// Any reason why pausing this job would not help.
    fn pause_job(&self, job_id: &str, critical: Resource) -> Result<(), BoxError>;

    /// Ends a job.
    ///
    /// # Errors
    /// Any reason why it could not be ended. It is logged, and the oldest job is asked for again after the settle time.
    fn cancel_job(&self, job_id: &str, critical: Resource) -> Result<(), BoxError>;

    /// Gives back what the host can spare of the critical resource: caches, idle connections, memory that an allocator
    /// keeps. Asked once for each resource before the first job is shed for it, until every resource is below its
    /// warning threshold again. `true` means that it takes effect: nothing is shed for one settle time. The
    /// [guide](crate::guide::freed_memory) has it for other allocators than glibc's.
    fn reclaim(&self, critical: Resource) -> bool {
        let _ = critical;
        false
    }

    /// Called once when every resource is back at its normal level after a shed: paused jobs may go on.
    fn pressure_cleared(&self) {}

    /// Forgets stale records of jobs, about once per interval. Three failures in a row switch it off until the manager
    /// is set anew or the monitor restarts.
    ///
    /// # Errors
    /// Any reason; it is logged.
    fn prune_stale(&self) -> Result<(), BoxError> {
        Ok(())
    }
}

/// The host's processes, which are kept together and cleaned up after, about once per interval.
///
/// The methods are called from the monitor's action thread, one at a time, under the signal mask of the thread that
/// called [`start`](crate::ResourceMonitor::start) or
/// [`set_process_group`](crate::ResourceMonitor::set_process_group).
pub trait ProcessGroup: Send + Sync {
    /// Ends processes whose parents are gone, and returns their pids.
    ///
    /// # Errors
    /// The system's error; it is logged.
    fn cleanup_orphans(&self) -> std::io::Result<Vec<u32>>;

    /// Collects the status of adopted processes that have ended, and returns their pids.
    ///
    /// # Errors
    /// The system's error; it is logged.
    fn reap_orphaned_backends(&self) -> std::io::Result<Vec<u32>> {
        Ok(Vec::new())
    }

    /// Notes the processes that exist now.
    ///
    /// It is called after checks, far more often than the other two: the system no longer says whose child an orphan
    /// was, so that has to be known from before.
    ///
    /// # Errors
    /// The system's error; the first of several in a row is logged.
    fn observe(&self) -> std::io::Result<()> {
        Ok(())
    }
}
