//! What the engine asks of the readers, so that tests can put a script in their place.

use crate::readers::cgroup::{Alarms, Watch};
use crate::vocabulary::{Error, Found, Identity, Reading, Settings};

/// The source of readings.
pub(crate) trait Probe: Send + Sync {
    /// Does the work that would make the first reading dearer than those after it.
    fn prepare(&self, _settings: &Settings) {}

    /// Reads every resource once, but for those that the settings ignore. `into` may hold an earlier reading; nothing
    /// of it is left.
    fn read(&self, settings: &Settings, into: &mut Reading);

    /// Takes note of how much memory would close the gate: in scope `Tree`, a sum that reaches it is worth the cost of
    /// counting shared pages once.
    fn set_memory_closes_from(&self, _bytes: u64) {}

    /// Reads the resources that are cheap enough to be read between two checks ([`read_alone`]): a few microseconds.
    ///
    /// [`read_alone`]: crate::vocabulary::Facts::read_alone
    fn read_memory(&self, settings: &Settings) -> Found;

    /// The resident memory of this process alone, in bytes.
    fn own_memory(&self) -> Result<u64, Error>;

    /// The identity of a descendant of this process, and whether it is a child.
    fn descendant(&self, pid: u32) -> Result<(Identity, bool), Error>;

    /// Asks the kernel for a wake-up when memory stalls or a group is at its limit. The alarms are to be waited for.
    fn arm(&self, settings: &Settings, watch: &Watch) -> Alarms;

    /// Whether the alarms may be those of a group that the process has left.
    fn is_outdated(&self, alarms: &Alarms) -> bool;
}
