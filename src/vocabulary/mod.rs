//! The words that every other layer speaks: no I/O, no clock, no logging, and nothing from above.

mod error;
mod identity;
mod limits;
mod resource;
mod settings;
mod snapshot;
mod surroundings;
mod verdict;
mod work;

pub use self::error::{Error, ErrorKind};
pub use self::limits::{ResourceLimits, ResourceLimitsBuilder};
pub use self::resource::{MemoryScope, Resource};
pub use self::snapshot::ResourceSnapshot;
pub use self::surroundings::{CgroupMemory, CgroupPids, MemoryPressure, OpenFiles};
pub use self::verdict::Verdict;
pub use self::work::Work;

pub(crate) use self::identity::Identity;
pub(crate) use self::limits::{Thresholds, HARD_PERCENT, WARN_PERCENT};
pub(crate) use self::resource::{Amount, Found, Level, Optional, Partly, PerResource, Quantity, Unit, MB};
pub(crate) use self::settings::Settings;
pub(crate) use self::surroundings::Surroundings;
pub(crate) use self::verdict::{percent_tenths, Critical, Reason, Threshold, Usage};
