//! The identity of a process.

/// A process, told from any other that is given the same number in a later clock tick by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// In clock ticks since boot; below zero in a time namespace that is set back to before.
    pub(crate) start_ticks: i64,
}
