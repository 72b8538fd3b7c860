//! Orphans on their way out.

use std::time::{Duration, Instant};

use crate::vocabulary::Identity;

/// Who was told to end, and when.
#[derive(Debug, Default)]
pub(super) struct Endings {
    told: Vec<Told>,
}

#[derive(Debug)]
struct Told {
    process: Identity,
    since: Instant,
    killed: bool,
}

impl Endings {
    /// Whom to send which signal now, of all the orphans that there are.
    pub(super) fn due(&mut self, orphans: &[Identity], grace: Duration) -> Vec<(Identity, i32)> {
        self.told.retain(|told| orphans.contains(&told.process));
        let due = |process: &Identity| match self.told.iter().find(|told| told.process == *process) {
            None => Some((*process, libc::SIGTERM)),
            Some(told) if !told.killed && told.since.elapsed() >= grace => Some((*process, libc::SIGKILL)),
            Some(_) => None,
        };
        orphans.iter().filter_map(due).collect()
    }

    pub(super) fn note(&mut self, process: Identity, signal: i32) {
        let killed = signal == libc::SIGKILL;
        match self.told.iter_mut().find(|told| told.process == process) {
            Some(told) => told.killed |= killed,
            None => self.told.push(Told { process, since: Instant::now(), killed }),
        }
    }
}
