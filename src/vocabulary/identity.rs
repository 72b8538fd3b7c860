//! Which process is meant.

/// A process, told from any other that is given the same number later by when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// In clock ticks since boot; below zero in a time namespace that is set back to before.
    pub(crate) start_ticks: i64,
}
