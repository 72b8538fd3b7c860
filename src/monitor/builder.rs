//! The settings that are fixed once a monitor exists. Limits and hooks can change later, and are set on the monitor
//! itself.

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::Config;
use crate::ledger::Ledger;
use crate::monitor::ResourceMonitor;
#[cfg(feature = "testing")]
use crate::readers::probe::Probe;
use crate::readers::{Roots, SystemProbe};
#[cfg(feature = "testing")]
use crate::sys::{Allocator, Clock};
use crate::vocabulary::{Error, MemoryScope, Overtaking, Resource, ResourceLimits, Settings};

/// The settings of a monitor that is yet to be built; see [`ResourceMonitor::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ResourceMonitorBuilder {
    limits: ResourceLimits,
    settings: Settings,
    proc_root: Option<PathBuf>,
    cgroup_root: Option<PathBuf>,
    ledger: Option<Ledger>,
}

impl ResourceMonitor {
    /// Begins the settings of a monitor; [`build`](ResourceMonitorBuilder::build) makes it.
    pub fn builder(limits: ResourceLimits) -> ResourceMonitorBuilder {
        ResourceMonitorBuilder::new(limits)
    }
}

impl ResourceMonitorBuilder {
    pub(crate) fn new(limits: ResourceLimits) -> ResourceMonitorBuilder {
        ResourceMonitorBuilder {
            limits,
            settings: Settings::default(),
            proc_root: None,
            cgroup_root: None,
            ledger: None,
        }
    }

    /// Replaces all settings but the roots.
    #[cfg(feature = "capi")]
    pub(crate) fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The age beyond which a check is stale and the gate is closed. Default: the larger of 2 s and three times the
    /// larger of the interval and the gap that the CPU budget puts between checks.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.settings.max_age = Some(max_age);
        self
    }

    /// The age beyond which a caller that finds the last check has a fresh one taken. Default: 100 ms. With zero, callers
    /// do so as often as the CPU budget allows.
    pub fn refresh_after(mut self, refresh_after: Duration) -> Self {
        self.settings.refresh_after = refresh_after;
        self
    }

    /// The largest CPU time of a check that a caller of [`is_accepting_work`] takes by itself when it finds the last one
    /// older than `refresh_after`: dearer ones are left to the check thread, and the caller goes on with what there is.
    /// Default: 1 ms. Zero: never on a caller's thread.
    ///
    /// [`is_accepting_work`]: crate::Readiness::is_accepting_work
    pub fn inline_check(mut self, cost: Duration) -> Self {
        self.settings.inline_check = cost;
        self
    }

    /// The bound within which [waiting](crate::Readiness::admit) work that fits is served before work that came earlier
    /// and does not fit: until that was passed so many times, or has waited for so long. Default: 16 times, 5 s. With 0
    /// times the order is strict.
    pub fn overtaking(mut self, times: u32, time: Duration) -> Self {
        self.settings.overtaking = Overtaking { times, time };
        self
    }

    /// The time that a shed is given to take effect, and that a level must have been normal to be logged as such.
    /// Default: one interval.
    pub fn settle(mut self, settle: Duration) -> Self {
        self.settings.settle = Some(settle);
        self
    }

    /// The share of one core that checking may use, above 0 and at most 1. Default: 0.01, so that the gap between a
    /// check and the next is 100 times the CPU time of the first.
    pub fn cpu_budget(mut self, share: f64) -> Self {
        self.settings.cpu_budget = share;
        self
    }

    /// The processes whose memory counts against the memory limit. Default: [`MemoryScope::Own`].
    pub fn memory_scope(mut self, scope: MemoryScope) -> Self {
        self.settings.memory_scope = scope;
        self
    }

    /// Has glibc's allocator give freed memory back to the system at once where it is in blocks of 1 MiB or more, from the
    /// first start on and in the whole process: `mallopt` of `M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD`. Default: `false`,
    /// because it is the host's allocator.
    ///
    /// For servers whose requests take megabytes: without it the allocator keeps freed blocks of up to 32 MiB in the arena
    /// of each thread, where they count as used. The [guide](crate::guide::freed_memory) says what it costs, and what to do
    /// under another allocator, where this does nothing.
    pub fn return_freed_memory(mut self, on: bool) -> Self {
        self.settings.return_freed_memory = on;
        self
    }

    /// Leaves out a resource, which must be an optional one: it is neither read nor judged.
    pub fn ignore(mut self, resource: Resource) -> Self {
        *self.settings.ignored.get_mut(resource) = true;
        self
    }

    /// The mount point of the proc file system. Default: `/proc`.
    pub fn proc_root(mut self, root: impl Into<PathBuf>) -> Self {
        self.proc_root = Some(root.into());
        self
    }

    /// The folder that stands for `/sys/fs/cgroup` wherever `mountinfo` names a mount below that. Default:
    /// `/sys/fs/cgroup`.
    pub fn cgroup_root(mut self, root: impl Into<PathBuf>) -> Self {
        self.cgroup_root = Some(root.into());
        self
    }

    /// The reservations that this process shares with others of its container. Default: none. See the
    /// [guide](crate::guide::several_processes).
    ///
    /// A ledger that cannot be used, because it is full, damaged or closed, keeps the gate closed, and the verdict says why.
    pub fn ledger(mut self, ledger: Ledger) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// Validates and builds. Nothing is opened or started yet.
    ///
    /// # Errors
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting), naming the value: a CPU budget that is not a number above
    /// 0 and at most 1, a `max_age` of zero, a root that is not a directory, a required resource that is to be ignored.
    pub fn build(self) -> Result<ResourceMonitor, Error> {
        self.check()?;
        let default = Roots::default();
        let probe = SystemProbe::with_roots(Roots {
            proc_root: self.proc_root.unwrap_or(default.proc_root),
            cgroup_root: self.cgroup_root.unwrap_or(default.cgroup_root),
        });
        let ledger = self.ledger.as_ref().map(Ledger::shared);
        let config = Config { settings: self.settings, probe: Box::new(probe), ledger, ..Config::default() };
        Ok(ResourceMonitor::with_config(config, self.limits))
    }

    /// As [`build`](Self::build), with the readings and the clock of a test.
    #[cfg(feature = "testing")]
    pub(crate) fn build_scripted(self, probe: Box<dyn Probe>, clock: Clock) -> Result<ResourceMonitor, Error> {
        self.check()?;
        // What the real allocator keeps has no part in readings that a test makes up.
        let allocator = Allocator::default();
        let config = Config { settings: self.settings, probe, clock, allocator, ..Config::default() };
        Ok(ResourceMonitor::with_config(config, self.limits))
    }

    fn check(&self) -> Result<(), Error> {
        let budget = self.settings.cpu_budget;
        if !(budget > 0.0 && budget <= 1.0) {
            return Err(Error::setting(format!("CPU budget {budget} must be above 0 and at most 1")));
        }
        if self.settings.max_age == Some(Duration::ZERO) {
            return Err(Error::setting("max_age 0 s would never accept work"));
        }
        if let Some(resource) = Resource::required().find(|resource| *self.settings.ignored.get(*resource)) {
            return Err(Error::setting(format!("{resource} cannot be ignored: without it no check succeeds")));
        }
        for (name, root) in [("proc_root", &self.proc_root), ("cgroup_root", &self.cgroup_root)] {
            if let Some(root) = root.as_ref().filter(|root| !root.is_dir()) {
                return Err(Error::setting(format!("{name} {} is not a directory", root.display())));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn every_bad_setting_is_refused_with_its_value() {
        let new = || ResourceMonitor::builder(ResourceLimits::builder().build().unwrap());
        let file = tempfile::NamedTempFile::new().unwrap();
        let cases = [
            (new().cpu_budget(0.0), "CPU budget 0 must"),
            (new().cpu_budget(1.5), "CPU budget 1.5 must"),
            (new().cpu_budget(f64::NAN), "CPU budget NaN must"),
            (new().max_age(Duration::ZERO), "max_age 0 s"),
            (new().proc_root("/nonexistent"), "proc_root /nonexistent is not a directory"),
            (new().proc_root(file.path()), "proc_root "),
            (new().ignore(Resource::Processes), "processes cannot be ignored"),
            (new().cgroup_root("/nonexistent"), "cgroup_root /nonexistent is not a directory"),
        ];
        for (builder, expected) in cases {
            let error = builder.build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidSetting);
            assert!(error.to_string().starts_with(expected), "{error} / {expected}");
        }
        assert!(new().cpu_budget(1.0).build().is_ok());
    }
}
