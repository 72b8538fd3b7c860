//! The numbers that the host sets: limits, and the percentages of them at which something happens.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::{Error, PerResource, Resource, Shown, Unit, MB};

/// Default percentage of a limit at which the gate closes.
pub(crate) const WARN_PERCENT: u8 = 80;
/// Default distance of the background threshold below the warning one, in percent of a limit.
const BACKGROUND_BELOW_WARN: u8 = 20;
/// Default percentage of a limit at which work is shed.
pub(crate) const HARD_PERCENT: u8 = 95;

/// Limits and thresholds, validated when built.
///
/// An unset limit means unlimited. Zero is an error, never "unlimited". Two are equal when their numbers are, wherever
/// those came from.
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
#[derive(Debug, Clone)]
pub struct ResourceLimits {
    limits: PerResource<Option<u64>>,
    origins: PerResource<Option<Origin>>,
    /// The places where a limit was looked for and could not be read.
    unread: Arc<[Arc<Error>]>,
    thresholds: Thresholds,
}

/// The place where a limit was found.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// Its name in texts, such as the path of a file.
    name: Arc<str>,
    /// The control group, if it is the limit of one.
    group: Option<Arc<Path>>,
}

/// The percentages of a limit at which levels change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thresholds {
    pub(crate) background: u8,
    pub(crate) warn: u8,
    pub(crate) hard: u8,
    pub(crate) resume: Option<u8>,
}

impl ResourceLimits {
    /// Starts with no limits, warning at 80 %, shedding at 95 %, without hysteresis.
    pub fn builder() -> ResourceLimitsBuilder {
        let limits = PerResource::default();
        let unread = Vec::new();
        ResourceLimitsBuilder { limits, unread, background: None, warn: WARN_PERCENT, hard: HARD_PERCENT, resume: None }
    }

    /// The memory limit in bytes; `None` is unlimited.
    pub fn max_memory_bytes(&self) -> Option<u64> {
        self.limit(Resource::Memory)
    }

    /// The memory limit in whole MB (1024 x 1024 bytes), rounded down; `None` is unlimited.
    pub fn max_memory_mb(&self) -> Option<u64> {
        self.max_memory_bytes().map(|bytes| bytes / MB)
    }

    /// The limit on descendant processes; `None` is unlimited.
    pub fn max_processes(&self) -> Option<u64> {
        self.limit(Resource::Processes)
    }

    /// The percentage of a limit at which work of class [`Background`](crate::Class::Background) is refused.
    pub fn background_percent(&self) -> u8 {
        self.thresholds.background
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

    /// The control group that the limit was found in, if it was.
    pub(crate) fn group_of(&self, resource: Resource) -> Option<&Path> {
        self.origins.get(resource).as_ref()?.group.as_deref()
    }

    pub(crate) fn thresholds(&self) -> Thresholds {
        self.thresholds
    }
}

impl PartialEq for ResourceLimits {
    fn eq(&self, other: &ResourceLimits) -> bool {
        (self.limits, self.thresholds) == (other.limits, other.thresholds)
    }
}

impl Eq for ResourceLimits {}

impl Origin {
    pub(crate) fn new(name: impl Into<Arc<str>>) -> Origin {
        Origin { name: name.into(), group: None }
    }

    pub(crate) fn in_group(name: impl Into<Arc<str>>, group: Arc<Path>) -> Origin {
        Origin { name: name.into(), group: Some(group) }
    }
}

/// One line: each limit and where it came from, such as `memory 256.0 MB (/sys/fs/cgroup/box/memory.max), processes
/// unlimited, open files 1024 (RLIMIT_NOFILE); warning at 80 %, critical at 95 %`. After that, the places where
/// [`detect`](ResourceLimits::detect) could not read a limit, and why.
impl fmt::Display for ResourceLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for resource in Resource::ALL {
            match (self.limit(resource), self.origins.get(resource)) {
                (Some(limit), origin) => {
                    let origin = origin.as_ref().map_or("set by the host", |origin| &*origin.name);
                    write!(f, "{separator}{resource} {} ({origin})", Shown(resource, limit))?;
                }
                (None, _) if resource.facts().required => write!(f, "{separator}{resource} unlimited")?,
                (None, _) => continue,
            }
            separator = ", ";
        }
        let Thresholds { warn, hard, resume, .. } = self.thresholds;
        write!(f, "; warning at {warn} %, critical at {hard} %")?;
        if let Some(resume) = resume {
            write!(f, ", normal again below {resume} %")?;
        }
        self.unread.iter().try_for_each(|error| write!(f, "; {error}"))
    }
}

/// Collects limits; see [`ResourceLimits::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ResourceLimitsBuilder {
    limits: PerResource<Option<GivenLimit>>,
    unread: Vec<Arc<Error>>,
    /// `None`: 20 below `warn`.
    background: Option<u8>,
    warn: u8,
    hard: u8,
    resume: Option<u8>,
}

/// A limit as it was given, so that an error can name it in the giver's own unit.
#[derive(Debug, Clone)]
struct GivenLimit {
    number: u64,
    in_mb: bool,
    /// `None`: the host set it.
    origin: Option<Origin>,
}

impl ResourceLimitsBuilder {
    /// Limits resident memory, in MB of 1024 x 1024 bytes: of this process, and in scope
    /// [`Tree`](crate::MemoryScope::Tree) of its descendants.
    pub fn max_memory_mb(mut self, mb: u64) -> Self {
        *self.limits.get_mut(Resource::Memory) = Some(GivenLimit { number: mb, in_mb: true, origin: None });
        self
    }

    /// Limits resident memory, in bytes; as [`max_memory_mb`](Self::max_memory_mb).
    pub fn max_memory_bytes(self, bytes: u64) -> Self {
        self.with(Resource::Memory, bytes)
    }

    /// Limits the number of descendant processes.
    pub fn max_processes(self, processes: u64) -> Self {
        self.with(Resource::Processes, processes)
    }

    /// Sets a limit, in the unit of the resource.
    pub(super) fn with(mut self, resource: Resource, number: u64) -> Self {
        *self.limits.get_mut(resource) = Some(GivenLimit { number, in_mb: false, origin: None });
        self
    }

    /// Sets a limit that was found in the surroundings, unless the host has set one.
    pub(crate) fn or_found(mut self, resource: Resource, number: u64, origin: Origin) -> Self {
        let found = GivenLimit { number, in_mb: false, origin: Some(origin) };
        self.limits.get_mut(resource).get_or_insert(found);
        self
    }

    /// Takes the host's limit for the one that was found in the surroundings, if the two are equal.
    #[cfg(feature = "capi")]
    pub(crate) fn recognizing(mut self, resource: Resource, number: u64, origin: Origin) -> Self {
        match self.limits.get_mut(resource) {
            Some(given) if given.number == number && !given.in_mb => given.origin = Some(origin),
            _ => {}
        }
        self
    }

    /// Notes that a limit might have been found, had this been readable.
    pub(crate) fn or_unread(mut self, error: Arc<Error>) -> Self {
        self.unread.push(error);
        self
    }

    /// Refuses work of class [`Background`](crate::Class::Background) at this percentage of a limit (default: 20 below
    /// [`warn_percent`](Self::warn_percent), and at least 1).
    pub fn background_percent(mut self, percent: u8) -> Self {
        self.background = Some(percent);
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
    /// bytes, a pressure above 100 %, a warning threshold of 0 % or not below the hard one, a hard one above 100 %, a
    /// resume percentage of 0 or not below the warning threshold, a background one of 0 or above it.
    pub fn build(self) -> Result<ResourceLimits, Error> {
        let mut limits = PerResource::default();
        let mut origins: PerResource<Option<Origin>> = PerResource::default();
        for resource in Resource::ALL {
            if let Some(given) = self.limits.get(resource) {
                *limits.get_mut(resource) = Some(given.validated(resource)?);
                origins.get_mut(resource).clone_from(&given.origin);
            }
        }
        let ResourceLimitsBuilder { unread, background, warn, hard, resume, .. } = self;
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
        match background {
            Some(0) => return Err(Error::limit("background threshold 0 % would never accept work of that class")),
            Some(background) if background > warn => {
                let text = format!("background threshold {background} % must not be above warn threshold {warn} %");
                return Err(Error::limit(text));
            }
            _ => {}
        }
        let background = background.unwrap_or(warn.saturating_sub(BACKGROUND_BELOW_WARN).max(1));
        let thresholds = Thresholds { background, warn, hard, resume };
        Ok(ResourceLimits { limits, origins, unread: unread.into(), thresholds })
    }
}

impl GivenLimit {
    fn validated(&self, resource: Resource) -> Result<u64, Error> {
        let number = self.number;
        let noun = resource.facts().limit_noun;
        match (resource.facts().unit, &self.origin) {
            (Unit::Percent, _) if number == 0 || number > 100 * 100 => {
                let percent = number / 100;
                return Err(Error::limit(format!("{noun} limit {percent} % must be above 0 and at most 100 %")));
            }
            (_, Some(Origin { name, .. })) if number == 0 => {
                return Err(Error::limit(format!("{noun} limit 0 ({name}) leaves no room for any work")));
            }
            (_, None) if number == 0 => {
                return Err(Error::limit(format!("{noun} limit 0 is not a limit; leave it unset for unlimited")));
            }
            _ => {}
        }
        if !self.in_mb {
            return Ok(number);
        }
        let bytes = number.checked_mul(MB);
        bytes.ok_or_else(|| Error::limit(format!("{noun} limit {number} MB does not fit in 64 bits of bytes")))
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
            (new().max_open_files(0), "open file limit 0 is"),
            (new().max_memory_pressure_percent(0), "memory pressure limit 0 % must"),
            (new().max_memory_pressure_percent(101), "memory pressure limit 101 % must"),
            (
                new().or_found(Resource::Processes, 0, Origin::new("pids.max of /box")),
                "process limit 0 (pids.max of /box) leaves no",
            ),
            (new().warn_percent(0), "warn threshold 0 %"),
            (new().warn_percent(95), "hard threshold 95 % must be above warn threshold 95 %"),
            (new().hard_percent(101), "hard threshold 101 % must not be above 100 %"),
            (new().resume_percent(80), "resume threshold 80 % must be below warn threshold 80 %"),
            (new().resume_percent(0), "resume threshold 0 %"),
            (new().background_percent(0), "background threshold 0 %"),
            (new().background_percent(81), "background threshold 81 % must not be above warn threshold 80 %"),
        ];
        for (builder, expected) in cases {
            let error = builder.build().unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidLimit);
            assert!(error.to_string().starts_with(expected), "{error} / {expected}");
        }
    }

    #[test]
    fn the_background_threshold_is_20_below_the_warning_one_and_never_0() {
        let background = |builder: ResourceLimitsBuilder| builder.build().unwrap().background_percent();
        let new = ResourceLimits::builder;
        assert_eq!(background(new()), 60);
        assert_eq!(background(new().warn_percent(21)), 1);
        assert_eq!(background(new().warn_percent(5)), 1);
        assert_eq!(background(new().background_percent(80)), 80);
    }

    #[test]
    fn unset_means_unlimited() {
        let limits = ResourceLimits::builder().build().unwrap();
        assert_eq!((limits.max_memory_mb(), limits.max_processes()), (None, None));
        assert_eq!((limits.max_open_files(), limits.max_memory_pressure_percent()), (None, None));
        assert_eq!((limits.warn_percent(), limits.hard_percent(), limits.resume_percent()), (80, 95, None));
        assert_eq!(limits.to_string(), "memory unlimited, processes unlimited; warning at 80 %, critical at 95 %");
    }

    #[test]
    fn each_number_is_shown_with_where_it_came_from_and_what_the_host_set_wins() {
        let limits = ResourceLimits::builder()
            .max_processes(50)
            .max_memory_pressure_percent(20)
            .resume_percent(75)
            .or_found(Resource::Memory, 256 * MB, Origin::new("memory.max of /box"))
            .or_found(Resource::Processes, 7, Origin::new("pids.max of /box"))
            .or_unread(Arc::new(Error::setting("could not read /proc/meminfo")))
            .build()
            .unwrap();
        assert_eq!(
            limits.to_string(),
            "memory 256.0 MB (memory.max of /box), processes 50 (set by the host), memory pressure 20.00 % (set by the \
             host); warning at 80 %, critical at 95 %, normal again below 75 %; could not read /proc/meminfo"
        );
        let set = ResourceLimits::builder().max_memory_mb(256).max_processes(50).max_memory_pressure_percent(20);
        assert_eq!(set.resume_percent(75).build().unwrap(), limits);
    }
}
