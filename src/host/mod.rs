//! The border to the host: the traits that it implements, its logger, and the channels that it reads.
//!
//! Nothing of the host's is called, or dropped, under a lock of ours: it may block, panic, or call back into the
//! monitor.
//!
//! - `hooks`: the traits that a host implements.
//! - `contain`: the one way in which code of the host's is called.
//! - `events`: the log events, one function each.
//! - `subscription`: snapshots on their way to readers in the host.

mod contain;
pub(crate) mod events;
mod hooks;
mod subscription;

pub(crate) use self::contain::contained;
pub use self::hooks::{BoxError, JobManager, ProcessGroup};
pub(crate) use self::subscription::Publisher;
pub use self::subscription::Snapshots;
