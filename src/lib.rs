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

pub use crate::{
    error::{Error, ErrorKind},
    limits::{ResourceLimits, ResourceLimitsBuilder},
    resource::{MemoryScope, Resource},
    snapshot::ResourceSnapshot,
    verdict::Verdict,
    work::Work,
};
