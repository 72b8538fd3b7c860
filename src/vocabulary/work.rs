//! The work that a host is about to take on.

use super::{GaugeName, Resource, MB, MOST_GAUGES};

/// A piece of work that a host asks to be admitted: what it will add to each resource, and how much it matters. The
/// default costs nothing, is of class [`Normal`](Class::Normal), and has no label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct Work {
    pub(super) memory_bytes: u64,
    pub(super) processes: u64,
    pub(super) open_files: u64,
    pub(super) disk_bytes: u64,
    /// By their places: the number of the gauge above, the amount below.
    gauges: [u64; MOST_GAUGES],
    class: Class,
    label: Option<&'static str>,
}

/// The importance of work: which is refused first, and which of those that wait is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Class {
    /// Work that can be left for later: refused from [`background_percent`] of a limit on, and served last.
    ///
    /// [`background_percent`]: crate::ResourceLimitsBuilder::background_percent
    Background,
    /// Work that is refused from the warning threshold on.
    #[default]
    Normal,
    /// Work that keeps the host itself going: refused from the hard threshold on only, and served first.
    Critical,
}

/// Bits for the amount that is declared of a gauge, below its number.
const GAUGE_BITS: u32 = 48;
const MOST_OF_GAUGE: u64 = (1 << GAUGE_BITS) - 1;

impl Work {
    /// Work that costs nothing yet.
    pub fn new() -> Work {
        Work::default()
    }

    /// The number of descendant processes it will have at once. They count in the control group as well, as one task
    /// each.
    pub fn processes(mut self, processes: u64) -> Work {
        self.processes = processes;
        self
    }

    /// The resident memory it will add, in MB of 1024 x 1024 bytes; what does not fit in 64 bits of bytes could never
    /// be admitted and is held as the largest number that does.
    pub fn memory_mb(self, mb: u64) -> Work {
        self.memory_bytes(mb.saturating_mul(MB))
    }

    /// The resident memory it will add, in bytes. It counts in the control group as well.
    pub fn memory_bytes(mut self, bytes: u64) -> Work {
        self.memory_bytes = bytes;
        self
    }

    /// The number of file descriptors that it will have open in this process at once.
    pub fn open_files(mut self, open_files: u64) -> Work {
        self.open_files = open_files;
        self
    }

    /// What it will write to the file system that has a floor ([`min_free_disk_mb`]), in MB of 1024 x 1024 bytes. Whose
    /// files are whose cannot be told, so it stays reserved while the permit lives, attached or not.
    ///
    /// [`min_free_disk_mb`]: crate::ResourceLimitsBuilder::min_free_disk_mb
    pub fn disk_mb(self, mb: u64) -> Work {
        self.disk_bytes(mb.saturating_mul(MB))
    }

    /// As [`disk_mb`](Work::disk_mb), in bytes.
    pub fn disk_bytes(mut self, bytes: u64) -> Work {
        self.disk_bytes = bytes;
        self
    }

    /// Declares an amount of the gauge in this place that has this number.
    pub(crate) fn with_gauge(mut self, gauge: GaugeName, number: u16, amount: u64) -> Work {
        self.gauges[gauge.place()] = (u64::from(number) << GAUGE_BITS) | amount.min(MOST_OF_GAUGE);
        self
    }

    /// Leaves out what is declared of gauges other than those that have these numbers, by their places: they were
    /// dropped, or are another monitor's.
    pub(crate) fn of_gauges(mut self, number: impl Fn(usize) -> u16) -> Work {
        for (place, declared) in self.gauges.iter_mut().enumerate() {
            if *declared >> GAUGE_BITS != u64::from(number(place)) {
                *declared = 0;
            }
        }
        self
    }

    /// Returns `true` if it declares any of a gauge.
    #[inline]
    pub(crate) fn has_gauges(&self) -> bool {
        self.gauges.iter().fold(0, |all, declared| all | declared) != 0
    }

    /// The resources of which it may declare some: those that are read, and the gauges if it declares any of one.
    #[inline]
    pub(crate) fn resources(&self) -> &'static [Resource] {
        if self.has_gauges() {
            &Resource::ALL
        } else {
            &Resource::READ
        }
    }

    /// How much it matters. Default: [`Class::Normal`].
    pub fn class(mut self, class: Class) -> Work {
        self.class = class;
        self
    }

    /// The name of its kind in verdicts, in the log and among the [`holders`](crate::ResourceMonitor::holders), such as
    /// `"thumbnail"`. Default: none.
    pub fn label(mut self, label: &'static str) -> Work {
        self.label = Some(label);
        self
    }

    pub(crate) fn class_of(&self) -> Class {
        self.class
    }

    pub(crate) fn label_of(&self) -> Option<&'static str> {
        self.label
    }

    /// The same with the memory and the processes of `other` on top.
    pub(crate) fn widened(mut self, other: &Work) -> Work {
        self.memory_bytes = self.memory_bytes.saturating_add(other.memory_bytes);
        self.processes = self.processes.saturating_add(other.processes);
        self
    }

    /// The same without the memory and the processes of `other`.
    pub(crate) fn narrowed(mut self, other: &Work) -> Work {
        self.memory_bytes = self.memory_bytes.saturating_sub(other.memory_bytes);
        self.processes = self.processes.saturating_sub(other.processes);
        self
    }

    /// Returns `true` if it adds nothing to any resource, and so takes no room from anybody.
    pub(crate) fn is_free(&self) -> bool {
        self.resources().iter().all(|resource| self.of(*resource) == 0)
    }

    /// Returns `true` if `other` fits wherever this fits: it asks for no more of anything, and matters no less.
    pub(crate) fn is_at_least(&self, other: &Work) -> bool {
        self.class <= other.class && Resource::ALL.into_iter().all(|resource| self.of(resource) >= other.of(resource))
    }

    /// The work of the class of this one that asks for no more of anything than either.
    pub(crate) fn least(&self, other: &Work) -> Work {
        Work {
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
            processes: self.processes.min(other.processes),
            open_files: self.open_files.min(other.open_files),
            disk_bytes: self.disk_bytes.min(other.disk_bytes),
            gauges: std::array::from_fn(|place| self.gauges[place].min(other.gauges[place])),
            ..*self
        }
    }

    /// The part of it that adds to this resource.
    pub(crate) fn of(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Gauge(gauge) => self.gauges[gauge.place()] & MOST_OF_GAUGE,
            _ => (resource.facts().declared)(self),
        }
    }
}
