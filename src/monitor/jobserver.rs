//! The jobserver of a monitor.

use std::sync::Arc;

use crate::jobserver::JobServerBuilder;
use crate::monitor::ResourceMonitor;

impl ResourceMonitor {
    /// The way to a [jobserver](crate::JobServer) under the limits of this monitor, before or after its `start`: builds
    /// below jobs start no more at once than the limits allow.
    pub fn jobserver(&self) -> JobServerBuilder {
        JobServerBuilder::new(Arc::clone(self.shared()))
    }
}
