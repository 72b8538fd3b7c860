//! The settings that the host makes once, when it builds the monitor.

use std::time::Duration;

use super::{MemoryScope, PerResource};

/// The settings of one monitor, fixed for its life.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) max_age: Option<Duration>,
    pub(crate) refresh_after: Duration,
    /// The largest cost of a check that a caller of the gate takes by itself.
    pub(crate) inline_check: Duration,
    pub(crate) settle: Option<Duration>,
    /// Share of one core, above 0 and at most 1.
    pub(crate) cpu_budget: f64,
    pub(crate) memory_scope: MemoryScope,
    /// The optional resources that are not read.
    pub(crate) ignored: PerResource<bool>,
    pub(crate) overtaking: Overtaking,
    /// The age at which a permit that is not attached is logged.
    pub(crate) held_long: Duration,
    /// Whether a start has the C library's allocator give back large blocks when they are freed.
    pub(crate) return_freed_memory: bool,
}

/// The bound within which waiting work that fits is served before work that came earlier and does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overtaking {
    /// The number of times that one waiter is passed.
    pub(crate) times: u32,
    /// The time after which nobody passes it any more.
    pub(crate) time: Duration,
}

impl Default for Overtaking {
    fn default() -> Overtaking {
        Overtaking { times: 16, time: Duration::from_secs(5) }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            max_age: None,
            refresh_after: Duration::from_millis(100),
            inline_check: Duration::from_millis(1),
            settle: None,
            cpu_budget: 0.01,
            memory_scope: MemoryScope::Own,
            ignored: PerResource::default(),
            overtaking: Overtaking::default(),
            held_long: Duration::from_secs(60),
            return_freed_memory: false,
        }
    }
}
