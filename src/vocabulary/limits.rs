//! The numbers that the host sets: limits, and the percentages of them at which something happens.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Error, LimitedBy, PerResource, Resource, Shown, Unit, MB};

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
    /// Those of each resource, which the host may have set apart.
    thresholds_of: PerResource<Thresholds>,
    disk_path: Option<Arc<Path>>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
        let (unread, apart) = (Vec::new(), PerResource::default());
        let (warn, hard) = (WARN_PERCENT, HARD_PERCENT);
        ResourceLimitsBuilder { limits, unread, background: None, warn, hard, resume: None, apart, disk_path: None }
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

    /// The path to the file system of which some is to stay free; `None`: there is none.
    pub fn disk_path(&self) -> Option<&Path> {
        self.disk_path.as_deref()
    }

    /// The same, to be kept.
    pub(crate) fn shared_disk_path(&self) -> Option<&Arc<Path>> {
        self.disk_path.as_ref()
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

    /// The amount that is to be left of a resource that is limited from below.
    pub(crate) fn floor(&self, resource: Resource) -> Option<u64> {
        self.limit(resource).filter(|_| resource.facts().limited_by == LimitedBy::Floor)
    }

    /// The place where a limit was found; `None` if the host has set it.
    pub(crate) fn origin_of(&self, resource: Resource) -> Option<&Arc<str>> {
        self.origins.get(resource).as_ref().map(|origin| &origin.name)
    }

    pub(crate) fn thresholds_of(&self, resource: Resource) -> Thresholds {
        *self.thresholds_of.get(resource)
    }
}

impl PartialEq for ResourceLimits {
    fn eq(&self, other: &ResourceLimits) -> bool {
        (self.limits, self.thresholds, self.thresholds_of, self.disk_path())
            == (other.limits, other.thresholds, other.thresholds_of, other.disk_path())
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
            match self.limit(resource) {
                Some(limit) => {
                    let origin = self.origin_of(resource).map_or(SET_BY_HOST, |origin| origin);
                    let at_least = if self.floor(resource).is_some() { "at least " } else { "" };
                    write!(f, "{separator}{resource} {at_least}{}", Shown(resource, limit))?;
                    if let Some(path) = self.disk_path().filter(|_| resource == Resource::DiskSpace) {
                        write!(f, " in {}", path.display())?;
                    }
                    write!(f, " ({origin})")?;
                }
                None if resource.facts().required => write!(f, "{separator}{resource} unlimited")?,
                None => continue,
            }
            separator = ", ";
        }
        let Thresholds { warn, hard, resume, .. } = self.thresholds;
        write!(f, "; warning at {warn} %, critical at {hard} %")?;
        for resource in Resource::ALL {
            let apart = self.thresholds_of(resource);
            if apart != self.thresholds {
                write!(f, ", of {resource} at {} % and {} %", apart.warn, apart.hard)?;
            }
        }
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

/// The origin of a limit that was not found, in texts.
pub(crate) const SET_BY_HOST: &str = "set by the host";

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
    fn the_file_system_is_a_part_of_its_floor() {
        let floor = |path: &str| ResourceLimits::builder().min_free_disk_mb(path, 10).build().unwrap();
        assert_eq!(floor("/data").disk_path(), Some(Path::new("/data")));
        assert_eq!(floor("/data").min_free_disk_bytes(), Some(10 * MB));
        assert!(floor("/data").to_string().contains(", disk space at least 10.0 MB in /data (set by the host); "));
        assert!(floor("/data") == floor("/data") && floor("/data") != floor("/other"));
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
