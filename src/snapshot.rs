//! What one check found.

use std::fmt;
use std::time::{Duration, Instant};

use crate::limits::MB;

/// What one check found.
///
/// Absent (`None`) means that it could not be read; it is never a zero.
#[derive(Debug)]
#[non_exhaustive]
pub struct ResourceSnapshot {
    /// When the reading was complete.
    pub timestamp: Instant,
    /// Resident memory in bytes, in the chosen [`MemoryScope`](crate::MemoryScope); `None` when it could not be read.
    pub memory_bytes: Option<u64>,
    /// Descendant processes at any depth, zombies included; `None` when they could not be counted.
    pub child_process_count: Option<usize>,
    /// What [`JobManager::running_count`](crate::JobManager::running_count) said; 0 without a manager.
    pub running_jobs: usize,
    /// Units of work in progress inside the running jobs, as
    /// [`JobManager::active_job_count`](crate::JobManager::active_job_count) said; 0 without a manager.
    pub active_sheets: usize,
    /// Descendants that have ended and that nobody has waited for, in ascending order.
    pub zombie_pids: Vec<u32>,
    /// How long the reading took, by the clock on the wall.
    pub check_duration: Duration,
    /// How long after its time the check began, with the resolution of the coarse clock (1 to 10 ms): zero unless the
    /// check thread had planned it.
    pub lateness: Duration,
}

impl ResourceSnapshot {
    /// Resident memory in MB of 1024 x 1024 bytes; 0.0 when it could not be read.
    pub fn memory_usage_mb(&self) -> f64 {
        self.memory_bytes.map_or(0.0, |bytes| bytes as f64 / MB as f64)
    }

    /// Whether a required resource could not be read: the gate is closed until the next good check.
    pub fn probe_failed(&self) -> bool {
        self.memory_bytes.is_none() || self.child_process_count.is_none()
    }
}

// Written out for `clone_from`, which keeps the list's buffer: a check in the steady state allocates nothing, with
// zombies about or without.
impl Clone for ResourceSnapshot {
    fn clone(&self) -> Self {
        ResourceSnapshot { zombie_pids: self.zombie_pids.clone(), ..*self }
    }

    fn clone_from(&mut self, source: &Self) {
        let mut zombie_pids = std::mem::take(&mut self.zombie_pids);
        zombie_pids.clone_from(&source.zombie_pids);
        *self = ResourceSnapshot { zombie_pids, ..*source };
    }
}

/// One line, such as `memory 12.3 MB, processes 4, zombies 0, jobs 2, active 3`.
impl fmt::Display for ResourceSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.memory_bytes {
            Some(_) => write!(f, "memory {:.1} MB", self.memory_usage_mb())?,
            None => f.write_str("memory unread")?,
        }
        match self.child_process_count {
            Some(count) => write!(f, ", processes {count}")?,
            None => f.write_str(", processes unread")?,
        }
        let zombies = self.zombie_pids.len();
        write!(f, ", zombies {zombies}, jobs {}, active {}", self.running_jobs, self.active_sheets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unread_resource_is_said_and_is_no_zero() {
        let mut snapshot = ResourceSnapshot {
            timestamp: Instant::now(),
            memory_bytes: Some(3 * MB / 2),
            child_process_count: Some(4),
            running_jobs: 2,
            active_sheets: 3,
            zombie_pids: vec![7],
            check_duration: Duration::ZERO,
            lateness: Duration::ZERO,
        };
        assert_eq!(snapshot.to_string(), "memory 1.5 MB, processes 4, zombies 1, jobs 2, active 3");
        assert!(!snapshot.probe_failed());
        snapshot.memory_bytes = None;
        assert_eq!(snapshot.to_string(), "memory unread, processes 4, zombies 1, jobs 2, active 3");
        assert!(snapshot.probe_failed());
        assert_eq!(snapshot.memory_usage_mb(), 0.0);
    }
}
