//! The words that every other layer speaks: no I/O, no clock, no logging, and nothing from above.

mod error;
mod exhaustion;
mod gauge;
mod holder;
mod identity;
mod limits;
mod limits_builder;
mod reading;
mod resource;
mod settings;
mod shown;
mod snapshot;
mod surroundings;
mod verdict;
mod waited;
mod work;

pub use self::error::{Error, ErrorKind};
pub use self::exhaustion::Exhaustion;
pub use self::gauge::{GaugeName, GaugeReading};
pub use self::holder::{Holder, WorkUsage};
pub use self::limits::ResourceLimits;
pub use self::limits_builder::ResourceLimitsBuilder;
pub use self::resource::{MemoryScope, Resource};
pub use self::snapshot::ResourceSnapshot;
pub use self::surroundings::*;
pub use self::verdict::Verdict;
pub use self::work::{Class, Work};

pub(crate) use self::gauge::{GaugeReadings, MOST_GAUGES};
pub(crate) use self::identity::Identity;
pub(crate) use self::limits::{Origin, Thresholds, SET_BY_HOST};
pub(crate) use self::limits_builder::{HARD_PERCENT, WARN_PERCENT};
pub(crate) use self::reading::{Found, Measured, ReadOptional, ReadPart, Reading, Subtree};
pub(crate) use self::resource::{Level, LimitedBy, PerResource, Unit, MB};
pub(crate) use self::settings::{Overtaking, Settings};
pub(crate) use self::shown::{Shown, ShownShare, ShownUp};
pub(crate) use self::verdict::{Critical, Floor, Reason, Threshold, Usage, Watched, WatchedWhy};
pub(crate) use self::waited::{Holding, Waited, NAMED};
