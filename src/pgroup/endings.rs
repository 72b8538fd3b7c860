//! Orphans between the two signals that end them.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::individual::Individual;

/// The orphans that were told to end, and when.
#[derive(Debug, Default)]
pub(super) struct Endings {
    told: HashMap<Individual, Told>,
}

#[derive(Debug)]
struct Told {
    since: Instant,
    is_killed: bool,
}

impl Endings {
    /// The signals that are due now, given all the orphans that there are.
    pub(super) fn due(&mut self, orphans: &[Individual], grace: Duration) -> Vec<(Individual, i32)> {
        let alive: HashSet<_> = orphans.iter().collect();
        self.told.retain(|told, _| alive.contains(told));
        let due = |orphan: &Individual| match self.told.get(orphan) {
            None => Some((*orphan, libc::SIGTERM)),
            Some(told) if !told.is_killed && told.since.elapsed() >= grace => Some((*orphan, libc::SIGKILL)),
            Some(_) => None,
        };
        orphans.iter().filter_map(due).collect()
    }

    pub(super) fn note(&mut self, orphan: Individual, signal: i32) {
        let told = self.told.entry(orphan).or_insert_with(|| Told { since: Instant::now(), is_killed: false });
        told.is_killed |= signal == libc::SIGKILL;
    }
}
