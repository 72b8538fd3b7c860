//! Where the host is called: its hooks, its logger, its subscriptions. None is called under a lock of ours.

mod contain;
pub(crate) mod events;
mod hooks;
mod subscription;

pub(crate) use self::contain::contained;
pub use self::hooks::{BoxError, JobManager, ProcessGroup};
pub(crate) use self::subscription::Publisher;
pub use self::subscription::Snapshots;
