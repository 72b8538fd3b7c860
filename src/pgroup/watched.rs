//! A child whose exit status the host has asked for.

use std::process::ExitStatus;

use super::individual::Individual;
use super::registry::Registry;
use crate::sys::child::{self, Child};

/// One child, and its status once that was taken.
#[derive(Debug)]
pub(super) struct Watched {
    child: Individual,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Running,
    Ended(ExitStatus),
    /// Its status was taken by others: its number may be that of another child by now.
    Lost,
}

impl Watched {
    pub(super) fn new(child: Individual) -> Watched {
        Watched { child, outcome: Outcome::Running }
    }

    pub(super) fn status(&self) -> Option<ExitStatus> {
        match self.outcome {
            Outcome::Ended(status) => Some(status),
            Outcome::Running | Outcome::Lost => None,
        }
    }

    /// Takes its status if it has ended. Returns the status when it is news.
    pub(super) fn collect(&mut self, registry: &Registry) -> Option<ExitStatus> {
        // A child of its number that lives leaves nothing to take, whichever it is, and costs one system call.
        if !matches!(self.outcome, Outcome::Running) || child::find(self.child.pid()) == Child::Alive {
            return None;
        }
        match registry.take_status(self.child) {
            Ok(Some(status)) => self.outcome = Outcome::Ended(status),
            Ok(None) => {}
            Err(error) if matches!(error.os_error(), Some(libc::ECHILD | libc::ESRCH)) => self.outcome = Outcome::Lost,
            // No descriptor for a handle, for one: next time.
            Err(_) => {}
        }
        self.status()
    }
}
