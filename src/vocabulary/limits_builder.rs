//! Limits as the host gives them, or as they are found, until they are known to be right.

use std::path::PathBuf;
use std::sync::Arc;

use super::limits::{Origin, ResourceLimits, Thresholds};
use super::{Error, LimitedBy, PerResource, Resource, Unit, MB};

/// Default percentage of a limit at which the gate closes.
pub(crate) const WARN_PERCENT: u8 = 80;
/// Default distance of the background threshold below the warning one, in percent of a limit.
const BACKGROUND_BELOW_WARN: u8 = 20;
/// Default percentage of a limit at which work is shed.
pub(crate) const HARD_PERCENT: u8 = 95;

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
    /// The warning and the hard threshold of those resources that have others.
    apart: PerResource<Option<(u8, u8)>>,
    disk_path: Option<PathBuf>,
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
    pub(super) fn new() -> ResourceLimitsBuilder {
        ResourceLimitsBuilder {
            limits: PerResource::default(),
            unread: Vec::new(),
            background: None,
            warn: WARN_PERCENT,
            hard: HARD_PERCENT,
            resume: None,
            apart: PerResource::default(),
            disk_path: None,
        }
    }

    /// Limits resident memory, in MB of 1024 x 1024 bytes: of this process, and in scope
    /// [`Tree`](crate::MemoryScope::Tree) of its descendants.
    pub fn max_memory_mb(self, mb: u64) -> Self {
        self.with_mb(Resource::Memory, mb)
    }

    /// Limits resident memory, in bytes; as [`max_memory_mb`](Self::max_memory_mb).
    pub fn max_memory_bytes(self, bytes: u64) -> Self {
        self.with(Resource::Memory, bytes)
    }

    /// Limits the number of descendant processes.
    pub fn max_processes(self, processes: u64) -> Self {
        self.with(Resource::Processes, processes)
    }

    pub(super) fn on_disk(mut self, path: PathBuf) -> Self {
        self.disk_path = Some(path);
        self
    }

    /// Sets a limit on bytes, in MB.
    pub(super) fn with_mb(mut self, resource: Resource, number: u64) -> Self {
        *self.limits.get_mut(resource) = Some(GivenLimit { number, in_mb: true, origin: None });
        self
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

    /// Sets the warning and the hard threshold of one resource apart, in percent of its limit. Its background and its
    /// resume threshold lie as far below the warning one as those of the others do.
    ///
    /// A resource with a floor has no percentages: the floor is the warning threshold, and half of it the hard one.
    pub fn threshold(mut self, resource: Resource, warn: u8, hard: u8) -> Self {
        *self.apart.get_mut(resource) = Some((warn, hard));
        self
    }

    /// Validates and builds.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidLimit`](crate::ErrorKind::InvalidLimit), naming the value: a limit of zero, MB that overflow
    /// bytes, a pressure above 100 %, a warning threshold of 0 % or not below the hard one, a hard one above 100 %, a
    /// resume percentage of 0 or not below the warning threshold, a background one of 0 or above it, percentages of a
    /// resource that has a floor, a path to a file system that is not absolute.
    pub fn build(self) -> Result<ResourceLimits, Error> {
        let mut limits = PerResource::default();
        let mut origins: PerResource<Option<Origin>> = PerResource::default();
        for resource in Resource::ALL {
            if let Some(given) = self.limits.get(resource) {
                *limits.get_mut(resource) = Some(given.validated(resource)?);
                origins.get_mut(resource).clone_from(&given.origin);
            }
        }
        let ResourceLimitsBuilder { unread, background, warn, hard, resume, apart, disk_path, .. } = self;
        if let Some(path) = disk_path.as_ref().filter(|path| !path.is_absolute()) {
            return Err(Error::limit(format!("disk path {} is not absolute", path.display())));
        }
        validate_levels(warn, hard).map_err(Error::limit)?;
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
        let mut thresholds_of = PerResource::from_fn(|_| thresholds);
        for resource in Resource::ALL {
            let Some((warn, hard)) = *apart.get(resource) else { continue };
            if resource.facts().limited_by == LimitedBy::Floor {
                return Err(Error::limit(format!("{resource} has a floor and no thresholds of {warn} % and {hard} %")));
            }
            validate_levels(warn, hard).map_err(|text| Error::limit(format!("{resource}: {text}")))?;
            *thresholds_of.get_mut(resource) = thresholds.moved_to(warn, hard);
        }
        Ok(ResourceLimits {
            limits,
            origins,
            unread: unread.into(),
            thresholds,
            thresholds_of,
            disk_path: disk_path.map(Arc::from),
        })
    }
}

impl Thresholds {
    /// The same at another warning threshold: the lower ones keep their distance.
    fn moved_to(self, warn: u8, hard: u8) -> Thresholds {
        let moved = |percent: u8| warn.saturating_sub(self.warn - percent).max(1);
        Thresholds { background: moved(self.background), warn, hard, resume: self.resume.map(moved) }
    }
}

impl GivenLimit {
    fn validated(&self, resource: Resource) -> Result<u64, Error> {
        let number = self.number;
        let noun = resource.facts().limit_noun;
        let kind = match resource.facts().limited_by {
            LimitedBy::Ceiling => "limit",
            LimitedBy::Floor => "floor",
        };
        match (resource.facts().unit, &self.origin) {
            (Unit::Percent, _) if number == 0 || number > 100 * 100 => {
                let percent = number / 100;
                return Err(Error::limit(format!("{noun} {kind} {percent} % must be above 0 and at most 100 %")));
            }
            (_, Some(Origin { name, .. })) if number == 0 => {
                return Err(Error::limit(format!("{noun} {kind} 0 ({name}) leaves no room for any work")));
            }
            (_, None) if number == 0 => {
                return Err(Error::limit(format!("{noun} {kind} 0 is not a {kind}; leave it unset for unlimited")));
            }
            _ => {}
        }
        if !self.in_mb {
            return Ok(number);
        }
        let bytes = number.checked_mul(MB);
        bytes.ok_or_else(|| Error::limit(format!("{noun} {kind} {number} MB does not fit in 64 bits of bytes")))
    }
}

fn validate_levels(warn: u8, hard: u8) -> Result<(), String> {
    if warn == 0 {
        return Err("warn threshold 0 % would never accept work".to_owned());
    }
    if hard > 100 {
        return Err(format!("hard threshold {hard} % must not be above 100 %"));
    }
    if warn >= hard {
        return Err(format!("hard threshold {hard} % must be above warn threshold {warn} %"));
    }
    Ok(())
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
            (
                new().threshold(Resource::Memory, 90, 80),
                "memory: hard threshold 80 % must be above warn threshold 90 %",
            ),
            (new().min_available_memory_mb(0), "machine memory floor 0 is not a floor"),
            (new().min_available_memory_mb(u64::MAX), "machine memory floor 18446744073709551615 MB does not fit"),
            (new().threshold(Resource::MachineMemory, 80, 95), "machine memory has a floor and no thresholds of 80 %"),
            (new().min_free_disk_mb("/tmp", 0), "disk space floor 0 is not a floor"),
            (new().min_free_disk_mb("data", 10), "disk path data is not absolute"),
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
    fn thresholds_of_one_resource_move_those_below_with_them() {
        let limits = ResourceLimits::builder().resume_percent(75).threshold(Resource::OpenFiles, 40, 50);
        let limits = limits.threshold(Resource::CgroupPids, 10, 90).build().unwrap();
        let of = |resource| limits.thresholds_of(resource);
        assert_eq!(of(Resource::Memory), Thresholds { background: 60, warn: 80, hard: 95, resume: Some(75) });
        assert_eq!(of(Resource::OpenFiles), Thresholds { background: 20, warn: 40, hard: 50, resume: Some(35) });
        assert_eq!(of(Resource::CgroupPids), Thresholds { background: 1, warn: 10, hard: 90, resume: Some(5) });
        let text = limits.to_string();
        assert!(text.ends_with("cgroup pids at 10 % and 90 %, of open files at 40 % and 50 %, normal again below 75 %"));
        assert_ne!(limits, ResourceLimits::builder().resume_percent(75).build().unwrap());
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
}
