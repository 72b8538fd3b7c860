//! The jobs of a monitor.

use std::sync::Arc;

use crate::jobs::JobsBuilder;
use crate::monitor::ResourceMonitor;

impl ResourceMonitor {
    /// The way to [jobs](crate::Jobs) under the limits of this monitor, before or after its `start`. It replaces the manager
    /// and the process group, so a monitor has one.
    pub fn jobs(&self) -> JobsBuilder {
        JobsBuilder::new(Arc::clone(self.shared()))
    }
}
