//! The host's own numbers.

use std::fmt;
use std::sync::Arc;

use crate::engine::PushedGauge;
use crate::monitor::ResourceMonitor;
use crate::vocabulary::{Error, Resource, Work};

/// A quantity that only the host knows, such as connections, bytes on a GPU, or licences: the host pushes it, and it is
/// judged like what is read, by the thresholds of all resources.
///
/// Made by [`ResourceMonitor::gauge`]. It is cheap to clone, and all clones are one gauge, which leaves the judgement when
/// the last of them is dropped. Any thread may update it; an update is one atomic operation (and a look whether somebody
/// waits for what was taken off), is seen by the gate at once, and is in the next snapshot. It may outlive its monitor. In
/// a forked child it counts for nothing: make another there.
///
/// Work declares what it will add to it ([`Work::gauge`]). What is declared stays reserved while the permit lives,
/// attached or not, so a host either holds permits (a licence for as long as the job runs) or adds what it has
/// declared and then drops the permit (a connection that is open).
///
/// ```
/// use highwater::{ResourceLimits, ResourceMonitor, Work};
///
/// let monitor = ResourceMonitor::new(ResourceLimits::builder().build()?);
/// monitor.check_now();
/// let connections = monitor.gauge("connections", 100)?;
/// connections.add(79);
/// assert!(monitor.is_accepting_work());
/// assert!(monitor.try_admit(Work::new().gauge(&connections, 20)).is_err());
/// connections.add(1);
/// assert_eq!(
///     monitor.verdict().to_string(),
///     "not accepting work: connections 80 of 100 (80.0 %) at or above the warning threshold of 80 %",
/// );
/// # Ok::<(), highwater::Error>(())
/// ```
#[derive(Clone)]
pub struct Gauge(Arc<PushedGauge>);

impl ResourceMonitor {
    /// Makes a gauge with a limit. It begins at 0.
    ///
    /// # Errors
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) if the name is not of 1 to 63 lower-case letters, digits and
    /// underscores, is another gauge's or a resource's, or is that of a ninth gauge. A gauge that was dropped keeps its
    /// place for as long as permits that declare it live. [`InvalidLimit`](crate::ErrorKind::InvalidLimit) if the limit
    /// is 0.
    pub fn gauge(&self, name: &'static str, limit: u64) -> Result<Gauge, Error> {
        PushedGauge::new(self.shared(), name, limit).map(|gauge| Gauge(Arc::new(gauge)))
    }
}

impl Gauge {
    /// Adds to it. It may go beyond its limit.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.add(amount);
    }

    /// Takes off what was added. If that is more than there was, the value is 0 until as much was added again: of two
    /// threads, either may come first.
    #[inline]
    pub fn sub(&self, amount: u64) {
        self.0.sub(amount);
    }

    /// Replaces the value, at most 2^48 - 1.
    pub fn set(&self, value: u64) {
        self.0.set(value);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.get()
    }

    /// Its limit.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// The resource as which verdicts and the log name it.
    pub fn resource(&self) -> Resource {
        Resource::Gauge(self.0.name)
    }
}

impl Work {
    /// The amount that it will add to a gauge. That of a gauge which was dropped, or is another monitor's, counts for
    /// nothing.
    pub fn gauge(self, gauge: &Gauge, amount: u64) -> Work {
        gauge.0.declared_by(self, amount)
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauge").field("name", &self.0.name.name()).field("value", &self.get()).finish_non_exhaustive()
    }
}
