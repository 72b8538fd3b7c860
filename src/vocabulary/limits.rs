//! The numbers that the host has set: limits, and the percentages of them at which something happens.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::{Error, LimitedBy, PerResource, Resource, ResourceLimitsBuilder, Shown, MB};

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
    pub(super) limits: PerResource<Option<u64>>,
    pub(super) origins: PerResource<Option<Origin>>,
    /// The places where a limit was looked for and could not be read.
    pub(super) unread: Arc<[Arc<Error>]>,
    pub(super) thresholds: Thresholds,
    /// Those of each resource, which the host may have set apart.
    pub(super) thresholds_of: PerResource<Thresholds>,
    pub(super) disk_path: Option<Arc<Path>>,
}

/// The place where a limit was found.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// Its name in texts, such as the path of a file.
    pub(super) name: Arc<str>,
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
        ResourceLimitsBuilder::new()
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

/// The origin of a limit that was not found, in texts.
pub(crate) const SET_BY_HOST: &str = "set by the host";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_a_part_of_its_floor() {
        let floor = |path: &str| ResourceLimits::builder().min_free_disk_mb(path, 10).build().unwrap();
        assert_eq!(floor("/data").disk_path(), Some(Path::new("/data")));
        assert_eq!(floor("/data").min_free_disk_bytes(), Some(10 * MB));
        assert!(floor("/data").to_string().contains(", disk space at least 10.0 MB in /data (set by the host); "));
        assert!(floor("/data") == floor("/data") && floor("/data") != floor("/other"));
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
