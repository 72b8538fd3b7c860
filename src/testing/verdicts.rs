//! Verdicts for tests of whoever reads them.
//!
//! They say what those of a monitor say. A monitor in that state is a better test of everything else.

use std::sync::Arc;
use std::time::Duration;

use crate::vocabulary::{
    Error, ErrorKind, PerResource, Reason, Resource, Threshold, Usage, Verdict, HARD_PERCENT, WARN_PERCENT,
};

/// The gate is open.
pub fn accepting() -> Verdict {
    Verdict::new(Reason::Accepting)
}

/// The gate is closed because so much of a limit is used, in the unit of the resource.
pub fn closed(resource: Resource, usage: u64, limit: u64) -> Verdict {
    let reason = Reason::Usage { resource, threshold: Threshold::Warning(WARN_PERCENT) };
    with_usage(reason, resource, Usage { measured: usage, limit: Some(limit), ..Usage::default() })
}

/// The gate is open, and the work asked for too much on top of what is used.
pub fn too_much(resource: Resource, usage: u64, asked: u64, limit: u64) -> Verdict {
    let reason = Reason::TooMuch { resource, hard: HARD_PERCENT };
    with_usage(reason, resource, Usage { measured: usage, asked, limit: Some(limit), ..Usage::default() })
}

/// The work asked for is too much for the limit even with nothing else running.
pub fn never_fits(resource: Resource, asked: u64, limit: u64) -> Verdict {
    too_much(resource, 0, asked, limit).with_never_fits(true)
}

/// The last check is too old.
pub fn stale(age: Duration, max_age: Duration) -> Verdict {
    Verdict::new(Reason::Stale { age, max_age })
}

/// The last check failed, for this reason.
pub fn failed(reason: &str) -> Verdict {
    Verdict::new(Reason::Failed { error: unread(reason) })
}

/// So many checks in a row failed, the last one for this reason.
pub fn degraded(failures: u32, reason: &str) -> Verdict {
    Verdict::new(Reason::Degraded { failures, error: unread(reason) })
}

/// The monitor is stopped.
pub fn stopped() -> Verdict {
    Verdict::new(Reason::Stopped)
}

fn unread(reason: &str) -> Arc<Error> {
    Arc::new(Error::new(ErrorKind::Read, reason))
}

fn with_usage(reason: Reason, resource: Resource, usage: Usage) -> Verdict {
    let usages = PerResource::from_fn(|other| (other == resource).then(|| usage.clone()));
    Verdict::new(reason).with_usages(usages)
}
