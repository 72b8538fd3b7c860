//! The numbers that the host sets: limits, and the percentages of them at which something happens.

use crate::error::Error;
use crate::resource::{PerResource, Resource};

/// Bytes in what this crate calls a megabyte: 1024 x 1024, the unit of `free -m` and of container limits.
pub(crate) const MB: u64 = 1024 * 1024;

/// Default percentage of a limit at which the gate closes.
pub(crate) const WARN_PERCENT: u8 = 80;
/// Default percentage of a limit at which work is shed.
pub(crate) const HARD_PERCENT: u8 = 95;

/// Limits and thresholds, validated when built.
///
/// An unset limit means unlimited. Zero is an error, never "unlimited".
///
/// ```
/// use highwater::ResourceLimits;
///
/// let limits = ResourceLimits::builder().max_memory_mb(8192).max_processes(50).build()?;
/// assert_eq!(limits.max_memory_bytes(), Some(8192 * 1024 * 1024));
///
/// let error = ResourceLimits::builder().warn_percent(80).hard_percent(70).build().unwrap_err();
/// assert_eq!(error.to_string(), "hard threshold 70 % must be above warn threshold 80 %");
/// # Ok::<(), highwater::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceLimits {
    limits: PerResource<Option<u64>>,
    thresholds: Thresholds,
}

/// The percentages of a limit at which levels change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thresholds {
    pub(crate) warn: u8,
    pub(crate) hard: u8,
    pub(crate) resume: Option<u8>,
}

impl ResourceLimits {
    /// Starts with no limits, warning at 80 %, shedding at 95 %, without hysteresis.
    pub fn builder() -> ResourceLimitsBuilder {
        ResourceLimitsBuilder { memory: None, processes: None, warn: WARN_PERCENT, hard: HARD_PERCENT, resume: None }
    }

    /// The memory limit in bytes; `None` is unlimited.
    pub fn max_memory_bytes(&self) -> Option<u64> {
        self.limits.memory
    }

    /// The memory limit in whole MB (1024 x 1024 bytes), rounded down; `None` is unlimited.
    pub fn max_memory_mb(&self) -> Option<u64> {
        self.limits.memory.map(|bytes| bytes / MB)
    }

    /// The limit on descendant processes; `None` is unlimited.
    pub fn max_processes(&self) -> Option<u64> {
        self.limits.processes
    }

    /// The percentage of a limit at which the gate closes.
    pub fn warn_percent(&self) -> u8 {
        self.thresholds.warn
    }

    /// The percentage of a limit at which work is shed.
    pub fn hard_percent(&self) -> u8 {
        self.thresholds.hard
    }

    /// The percentage below which a resource that reached the warning threshold is normal again; `None` means the
    /// warning threshold itself.
    pub fn resume_percent(&self) -> Option<u8> {
        self.thresholds.resume
    }

    pub(crate) fn limit(&self, resource: Resource) -> Option<u64> {
        *self.limits.get(resource)
    }

    pub(crate) fn thresholds(&self) -> Thresholds {
        self.thresholds
    }
}

/// Collects limits; see [`ResourceLimits::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ResourceLimitsBuilder {
    memory: Option<MemoryLimit>,
    processes: Option<u64>,
    warn: u8,
    hard: u8,
    resume: Option<u8>,
}

/// A memory limit as it was given, so that an error can name it in the host's own unit.
#[derive(Debug, Clone, Copy)]
enum MemoryLimit {
    Bytes(u64),
    Mb(u64),
}

impl ResourceLimitsBuilder {
    /// Limits resident memory, in MB of 1024 x 1024 bytes.
    pub fn max_memory_mb(mut self, mb: u64) -> Self {
        self.memory = Some(MemoryLimit::Mb(mb));
        self
    }

    /// Limits resident memory, in bytes.
    pub fn max_memory_bytes(mut self, bytes: u64) -> Self {
        self.memory = Some(MemoryLimit::Bytes(bytes));
        self
    }

    /// Limits the number of descendant processes.
    pub fn max_processes(mut self, processes: u64) -> Self {
        self.processes = Some(processes);
        self
    }

    /// Closes the gate at this percentage of a limit (default 80).
    pub fn warn_percent(mut self, percent: u8) -> Self {
        self.warn = percent;
        self
    }

    /// Sheds work at this percentage of a limit (default 95).
    pub fn hard_percent(mut self, percent: u8) -> Self {
        self.hard = percent;
        self
    }

    /// Turns hysteresis on: a resource that reached the warning threshold is normal again only below this percentage.
    pub fn resume_percent(mut self, percent: u8) -> Self {
        self.resume = Some(percent);
        self
    }

    /// Validates and builds.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidLimit`](crate::ErrorKind::InvalidLimit), naming the value: a limit of zero, MB that overflow
    /// bytes, a warning threshold of 0 % or not below the hard one, a hard one above 100 %, a resume percentage of 0 or
    /// not below the warning threshold.
    pub fn build(self) -> Result<ResourceLimits, Error> {
        let memory =
            match self.memory {
                Some(MemoryLimit::Bytes(0) | MemoryLimit::Mb(0)) => {
                    return Err(Error::limit("memory limit 0 is not a limit; leave it unset for unlimited"));
                }
                Some(MemoryLimit::Mb(mb)) => {
                    let bytes = mb.checked_mul(MB);
                    Some(bytes.ok_or_else(|| {
                        Error::limit(format!("memory limit {mb} MB does not fit in 64 bits of bytes"))
                    })?)
                }
                Some(MemoryLimit::Bytes(bytes)) => Some(bytes),
                None => None,
            };
        if self.processes == Some(0) {
            return Err(Error::limit("process limit 0 is not a limit; leave it unset for unlimited"));
        }
        let ResourceLimitsBuilder { warn, hard, resume, .. } = self;
        if warn == 0 {
            return Err(Error::limit("warn threshold 0 % would never accept work"));
        }
        if hard > 100 {
            return Err(Error::limit(format!("hard threshold {hard} % must not be above 100 %")));
        }
        if warn >= hard {
            return Err(Error::limit(format!("hard threshold {hard} % must be above warn threshold {warn} %")));
        }
        match resume {
            Some(0) => return Err(Error::limit("resume threshold 0 % could never be reached")),
            Some(resume) if resume >= warn => {
                return Err(Error::limit(format!("resume threshold {resume} % must be below warn threshold {warn} %")));
            }
            _ => {}
        }
        Ok(ResourceLimits {
            limits: PerResource { memory, processes: self.processes },
            thresholds: Thresholds { warn, hard, resume },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_limit_is_refused_with_its_value() {
        let new = ResourceLimits::builder;
        let cases = [
            (new().max_memory_mb(0), "memory limit 0 is"),
            (new().max_memory_bytes(0), "memory limit 0 is"),
            (new().max_memory_mb(u64::MAX), "memory limit 18446744073709551615 MB does not fit"),
            (new().max_processes(0), "process limit 0 is"),
            (new().warn_percent(0), "warn threshold 0 %"),
            (new().warn_percent(95), "hard threshold 95 % must be above warn threshold 95 %"),
            (new().hard_percent(101), "hard threshold 101 % must not be above 100 %"),
            (new().resume_percent(80), "resume threshold 80 % must be below warn threshold 80 %"),
            (new().resume_percent(0), "resume threshold 0 %"),
        ];
        for (builder, expected) in cases {
            let error = builder.build().unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidLimit);
            assert!(error.to_string().starts_with(expected), "{error} / {expected}");
        }
    }

    #[test]
    fn unset_means_unlimited() {
        let limits = ResourceLimits::builder().build().unwrap();
        assert_eq!((limits.max_memory_mb(), limits.max_processes()), (None, None));
        assert_eq!((limits.warn_percent(), limits.hard_percent(), limits.resume_percent()), (80, 95, None));
    }
}
