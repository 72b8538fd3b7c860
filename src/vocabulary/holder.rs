//! Permits that live, and the usage of the work that they stand for.

use std::time::Duration;

use super::Work;

/// A permit that lives, as [`ResourceMonitor::holders`](crate::ResourceMonitor::holders) lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The label of the work, if it has one.
    pub label: Option<&'static str>,
    /// The work that was admitted.
    pub work: Work,
    /// How long ago it was admitted, with the resolution of the coarse clock (1 to 10 ms).
    pub held_for: Duration,
    /// The process that the permit is [attached](crate::Permit::attach) to, if it is.
    pub pid: Option<u32>,
}

/// The usage of one process and everything below it, as the last check saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WorkUsage {
    /// Resident memory in bytes: the sum over the processes, in which pages that they share count more than once.
    pub memory_bytes: u64,
    /// Processes, zombies included; 0 once there are none left.
    pub processes: u64,
    /// The largest `memory_bytes` that a check saw.
    pub peak_memory_bytes: u64,
    /// The largest `processes` that a check saw.
    pub peak_processes: u64,
}
