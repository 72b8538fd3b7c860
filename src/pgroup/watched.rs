//! A child whose exit status the host has asked for.

use std::path::Path;
use std::process::ExitStatus;

use super::target::PROC;
use crate::readers::procfs::ProcFiles;
use crate::sys::process;
use crate::vocabulary::Identity;

/// While its zombie is there, nobody else can have its number.
#[derive(Debug)]
pub(super) struct Watched {
    child: Identity,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Running,
    Ended(ExitStatus),
    /// Somebody else has taken its status: its number may be that of another child by now.
    Lost,
}

impl Watched {
    pub(super) fn new(child: Identity) -> Watched {
        Watched { child, outcome: Outcome::Running }
    }

    pub(super) fn status(&self) -> Option<ExitStatus> {
        match self.outcome {
            Outcome::Ended(status) => Some(status),
            Outcome::Running | Outcome::Lost => None,
        }
    }

    /// Takes its status if it has ended and is still the one that has its number. Returns the status when it is news.
    pub(super) fn collect(&mut self, files: &ProcFiles) -> Option<ExitStatus> {
        if !matches!(self.outcome, Outcome::Running) {
            return None;
        }
        match files.process(Path::new(PROC), self.child.pid) {
            Ok(Some(process)) if process.identity() == self.child => match process::collect(self.child.pid) {
                Ok(Some(status)) => self.outcome = Outcome::Ended(status),
                Ok(None) => {}
                Err(_) => self.outcome = Outcome::Lost,
            },
            Ok(_) => self.outcome = Outcome::Lost,
            // It could not be looked at: next time.
            Err(_) => {}
        }
        self.status()
    }
}
