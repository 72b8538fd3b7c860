//! The settings that the host makes once, when it builds the monitor.

use std::time::Duration;

use super::{MemoryScope, PerResource};

/// The settings of one monitor, fixed for its life.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) max_age: Option<Duration>,
    pub(crate) refresh_after: Duration,
    pub(crate) settle: Option<Duration>,
    /// Share of one core, above 0 and at most 1.
    pub(crate) cpu_budget: f64,
    pub(crate) memory_scope: MemoryScope,
    /// The optional resources that are not read.
    pub(crate) ignored: PerResource<bool>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            max_age: None,
            refresh_after: Duration::from_millis(100),
            settle: None,
            cpu_budget: 0.01,
            memory_scope: MemoryScope::Own,
            ignored: PerResource::default(),
        }
    }
}
