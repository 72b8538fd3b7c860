//! Which process is meant.

/// A process, told from any other that is given the same number later by when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// In clock ticks since boot.
    pub(crate) start_ticks: u64,
}
