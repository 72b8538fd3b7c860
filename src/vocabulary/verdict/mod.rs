//! The answer of the gate, with its reason. [`text`] is how people read it.

mod text;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Error, Exhaustion, GaugeName, PerResource, Resource, Waited};

/// Whether more work may be taken on, and why: the answer and its text come from one reading and never disagree.
///
/// Its text begins with `accepting work`, `not accepting work` or `refused`, and names the numbers that were compared,
/// such as `not accepting work: processes 50 of 60 (83.3 %) at or above the warning threshold of 80 %`. Percents
/// and MB are rounded down, so that what is below a threshold is never printed as if it had reached it.
#[derive(Debug, Clone)]
pub struct Verdict {
    // Boxed for the sake of `Result<Permit, Verdict>`, whose good case should not carry room for the bad one.
    parts: Box<Parts>,
}

#[derive(Debug, Clone)]
struct Parts {
    reason: Reason,
    /// `None`: it was not read.
    usages: PerResource<Option<Usage>>,
    /// The optional resources that could not be read.
    unread: Vec<(Resource, Arc<Error>)>,
    unreachable_age: Option<(Duration, Duration)>,
    lateness: Option<Duration>,
    kept_by_allocator: Option<u64>,
    never_fits: bool,
    waited: Option<Waited>,
    exhaustion: Option<Exhaustion>,
}

/// The amounts that stand against one limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    pub(crate) measured: u64,
    /// By other processes too.
    pub(crate) reserved: u64,
    /// Of what is reserved, the part of other processes, and how many they are.
    pub(crate) others: (u64, usize),
    pub(crate) asked: u64,
    /// All that there is, of a resource with a floor.
    pub(crate) limit: Option<u64>,
    pub(crate) floor: Option<Floor>,
    /// The control group, or the folder, that all of this is about.
    pub(crate) place: Option<Arc<Path>>,
    /// Its name, if it is a gauge.
    pub(crate) gauge: Option<GaugeName>,
    /// The resource that its limit is judged by, if it is another.
    pub(crate) judged_as: Option<Resource>,
}

/// The amount of a resource that is to be left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Floor {
    pub(crate) amount: u64,
    /// `None`: the host set it.
    pub(crate) origin: Option<Arc<str>>,
}

/// Why a verdict is what it is.
#[derive(Debug, Clone)]
pub(crate) enum Reason {
    Accepting,
    NeverChecked,
    Forked,
    Stopped,
    Died {
        thread: &'static str,
    },
    Degraded {
        failures: u32,
        error: Arc<Error>,
    },
    Failed {
        error: Arc<Error>,
    },
    Stale {
        age: Duration,
        max_age: Duration,
    },
    Usage {
        resource: Resource,
        threshold: Threshold,
    },
    TooMuch {
        resource: Resource,
        hard: u8,
    },
    /// Work that came earlier waits, and may not be passed any more.
    Behind {
        waiters: usize,
    },
    /// A process that watches over this one has no room.
    Watched(Watched),
    /// The ledger that is shared with other processes cannot be used.
    Ledger {
        error: Arc<Error>,
    },
}

/// A process that watches over this one, and why it has no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watched {
    /// In its own namespace.
    pub(crate) pid: u32,
    pub(crate) why: WatchedWhy,
}

/// Why a process that watches over others has no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WatchedWhy {
    /// Its gate is closed by a resource, whatever is reserved; `None`: by one that is not known here.
    Closed(Option<Resource>),
    /// It has not checked for too long.
    Stale,
    /// Its limit is on all its descendants, whose amounts these are.
    Full { resource: Resource, measured: u64, reserved: u64, asked: u64, limit: u64 },
}

/// A resource at its hard threshold, as measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Critical {
    pub(crate) resource: Resource,
    pub(crate) usage: Usage,
    pub(crate) hard: u8,
}

/// The threshold that closed the gate for a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threshold {
    /// Measured and reserved usage together reached this percentage.
    Warning(u8),
    /// Measured usage reached the warning threshold before and is not yet below this percentage.
    Resume(u8),
    /// Measured and reserved usage together reached this percentage, from which work that can be left for later is
    /// refused.
    Background(u8),
    /// Measured and reserved usage together reached this percentage, from which all work is refused.
    Hard(u8),
}

impl Verdict {
    /// Whether work may be taken on.
    pub fn is_accepting(&self) -> bool {
        matches!(self.parts.reason, Reason::Accepting)
    }

    /// The resource that closed the gate, or that the work asked for would have exhausted; `None` for any other reason.
    pub fn resource(&self) -> Option<Resource> {
        match self.parts.reason {
            Reason::Usage { resource, .. } | Reason::TooMuch { resource, .. } => Some(resource),
            Reason::Watched(Watched { why: WatchedWhy::Full { resource, .. }, .. }) => Some(resource),
            Reason::Watched(Watched { why: WatchedWhy::Closed(resource), .. }) => resource,
            _ => None,
        }
    }

    /// Whether the work asked for is too much for the limits even with nothing else running: waiting will not help.
    pub fn could_never_fit(&self) -> bool {
        self.parts.never_fits
    }

    /// The resource that is used up first if things go on as they do, and when; `None` where nothing grows.
    pub fn exhaustion(&self) -> Option<Exhaustion> {
        self.parts.exhaustion
    }

    pub(crate) fn new(reason: Reason) -> Verdict {
        Verdict {
            parts: Box::new(Parts {
                reason,
                usages: PerResource::default(),
                unread: Vec::new(),
                unreachable_age: None,
                lateness: None,
                kept_by_allocator: None,
                never_fits: false,
                waited: None,
                exhaustion: None,
            }),
        }
    }

    pub(crate) fn with_usages(mut self, usages: PerResource<Option<Usage>>) -> Verdict {
        self.parts.usages = usages;
        self
    }

    /// Notes the optional resources that could not be read and so were not judged.
    pub(crate) fn with_unread(mut self, unread: Vec<(Resource, Arc<Error>)>) -> Verdict {
        self.parts.unread = unread;
        self
    }

    /// Notes an explicit `max_age` that is shorter than the gap which the CPU budget puts between checks.
    pub(crate) fn with_unreachable_age(mut self, ages: Option<(Duration, Duration)>) -> Verdict {
        self.parts.unreachable_age = ages;
        self
    }

    /// Notes that the last check began this long after it was planned.
    pub(crate) fn with_lateness(mut self, lateness: Option<Duration>) -> Verdict {
        self.parts.lateness = lateness;
        self
    }

    /// Notes the bytes that the allocator keeps although they are free.
    pub(crate) fn with_kept_by_allocator(mut self, bytes: Option<u64>) -> Verdict {
        self.parts.kept_by_allocator = bytes;
        self
    }

    pub(crate) fn with_never_fits(mut self, never_fits: bool) -> Verdict {
        self.parts.never_fits = never_fits;
        self
    }

    /// Notes what will be used up first.
    pub(crate) fn with_exhaustion(mut self, exhaustion: Option<Exhaustion>) -> Verdict {
        self.parts.exhaustion = exhaustion;
        self
    }

    /// Notes how long the work waited in vain, and what for.
    pub(crate) fn with_waited(mut self, waited: Waited) -> Verdict {
        self.parts.waited = Some(waited);
        self
    }

    /// The amounts that were compared; `None` where nothing was read.
    #[cfg(feature = "capi")]
    pub(crate) fn usages(&self) -> &PerResource<Option<Usage>> {
        &self.parts.usages
    }

    /// How long the work waited in vain, and behind how many others.
    #[cfg(feature = "capi")]
    pub(crate) fn waited(&self) -> Option<(Duration, usize)> {
        self.parts.waited.as_ref().map(|waited| (waited.waited, waited.ahead))
    }

    fn usage(&self, resource: Resource) -> Usage {
        self.parts.usages.get(resource).clone().unwrap_or_default()
    }
}

impl Usage {
    /// Measured, reserved and asked-for usage together.
    pub(crate) fn total(&self) -> u128 {
        u128::from(self.measured) + u128::from(self.reserved) + u128::from(self.asked)
    }
}

impl std::error::Error for Verdict {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.parts.reason {
            Reason::Degraded { error, .. } | Reason::Failed { error } | Reason::Ledger { error } => Some(&**error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_a_small_error_that_threads_can_hand_over() {
        fn sendable<T: std::error::Error + Send + Sync + 'static>(_: &T) {}
        sendable(&Verdict::new(Reason::Forked));
        assert!(std::mem::size_of::<Verdict>() <= 16);
    }
}
