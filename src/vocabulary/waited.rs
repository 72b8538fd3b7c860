//! The history of work that waited for room in vain.

use std::fmt;
use std::time::Duration;

use super::{Resource, Shown};

/// The largest number of permits that are named.
pub(crate) const NAMED: usize = 3;

/// What is said of work that waited in vain: how long, behind how many, and who holds the room.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waited {
    pub(crate) waited: Duration,
    /// The waiters that would have been served before it.
    pub(crate) ahead: usize,
    /// The permits that hold most of the room, the largest first, at most [`NAMED`].
    pub(crate) holdings: Vec<Holding>,
    /// The permit whose end alone would make enough room.
    pub(crate) fits_once_ended: Option<Holding>,
}

/// The part of the room that one permit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) resource: Resource,
    pub(crate) amount: u64,
    pub(crate) label: Option<&'static str>,
    pub(crate) pid: Option<u32>,
    pub(crate) held_for: Duration,
}

impl fmt::Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waited {}", seconds(self.waited))?;
        match self.ahead {
            0 => {}
            1 => f.write_str(" behind 1 other")?,
            ahead => write!(f, " behind {ahead} others")?,
        }
        let mut separator = "; held by ";
        for holding in &self.holdings {
            let Holding { resource, amount, held_for, .. } = *holding;
            let held_for = seconds(held_for);
            write!(f, "{separator}{}: {} for {held_for}", Name(holding), Shown(resource, amount))?;
            separator = ", ";
        }
        match &self.fits_once_ended {
            Some(holding) => write!(f, "; would fit once {} ends", Name(holding)),
            None => Ok(()),
        }
    }
}

struct Name<'a>(&'a Holding);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.label, self.0.pid) {
            (Some(label), _) => f.write_str(label),
            (None, Some(pid)) => write!(f, "process {pid}"),
            (None, None) => f.write_str("a permit without a label"),
        }
    }
}

/// With one decimal, rounded down.
fn seconds(time: Duration) -> String {
    format!("{}.{} s", time.as_secs(), time.subsec_millis() / 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::MB;

    #[test]
    fn it_says_how_long_behind_how_many_and_who_holds_the_room() {
        let holding = |mb, label, pid| Holding {
            resource: Resource::Memory,
            amount: mb * MB,
            label,
            pid,
            held_for: Duration::from_millis(12_390),
        };
        let import = holding(60, Some("import"), Some(7));
        let mut waited = Waited { waited: Duration::from_millis(2099), ..Waited::default() };
        assert_eq!(waited.to_string(), "waited 2.0 s");
        waited.ahead = 1;
        assert_eq!(waited.to_string(), "waited 2.0 s behind 1 other");
        waited.ahead = 3;
        waited.holdings = vec![import, holding(30, None, Some(4242)), holding(1, None, None)];
        waited.fits_once_ended = Some(import);
        assert_eq!(
            waited.to_string(),
            "waited 2.0 s behind 3 others; held by import: 60.0 MB for 12.3 s, process 4242: 30.0 MB for 12.3 s, \
             a permit without a label: 1.0 MB for 12.3 s; would fit once import ends"
        );
    }
}
