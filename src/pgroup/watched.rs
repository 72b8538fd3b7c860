//! A child whose exit status the host has asked for.

use std::path::Path;
use std::process::ExitStatus;

use super::target::PROC;
use crate::readers::procfs::ProcFiles;
use crate::sys::process::Handle;
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
        let handle = Handle::open(self.child.pid);
        match files.process(Path::new(PROC), self.child.pid) {
            Ok(Some(process)) if process.identity() == self.child => {
                match handle.and_then(|handle| handle.take_status()) {
                    Ok(Some(status)) => self.outcome = Outcome::Ended(status),
                    Ok(None) => {}
                    Err(error) if matches!(error.raw_os_error(), Some(libc::ECHILD | libc::ESRCH)) => {
                        self.outcome = Outcome::Lost;
                    }
                    // No descriptor for a handle, for one: next time.
                    Err(_) => {}
                }
            }
            Ok(_) => self.outcome = Outcome::Lost,
            // It could not be looked at: next time.
            Err(_) => {}
        }
        self.status()
    }
}
