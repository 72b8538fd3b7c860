//! Tells a blocking Linux program how much more work it can take.

// 1. vocabulary
mod error;
mod identity;
mod limits;
mod resource;
mod snapshot;
mod verdict;
mod work;

// 2. judgement
mod judgement;
mod readiness_word;

// 3. the outside
mod fork_cell;
mod lock;
mod procfs;
mod sys;

// 4. seams
mod events;
mod host;
mod probe;
mod subscription;

pub use crate::{
    error::{Error, ErrorKind},
    host::{BoxError, JobManager, ProcessGroup},
    limits::{ResourceLimits, ResourceLimitsBuilder},
    probe::SystemProbe,
    resource::{MemoryScope, Resource},
    snapshot::ResourceSnapshot,
    subscription::Snapshots,
    verdict::Verdict,
    work::Work,
};
