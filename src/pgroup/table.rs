//! One look at the process table: who is there.

use super::individual::Individual;
use crate::readers::procfs::descendants::index_of;
use crate::readers::procfs::stat::Process;

/// The processes of one look, ascending by process id, and who each of them is.
#[derive(Debug)]
pub(super) struct Table {
    own: u32,
    processes: Vec<Process>,
    who: Vec<Individual>,
}

impl Table {
    /// The processes that `identify` knows; the others are left out.
    pub(super) fn new<E>(
        own: u32,
        mut processes: Vec<Process>,
        mut identify: impl FnMut(&Process) -> Result<Option<Individual>, E>,
    ) -> Result<Table, E> {
        let mut who = Vec::with_capacity(processes.len());
        let mut failure = None;
        processes.retain(|process| match identify(process) {
            _ if failure.is_some() => false,
            Ok(individual) => {
                who.extend(individual);
                individual.is_some()
            }
            Err(error) => {
                failure = Some(error);
                false
            }
        });
        failure.map_or(Ok(Table { own, processes, who }), Err)
    }

    /// The number of this process.
    pub(super) fn own(&self) -> u32 {
        self.own
    }

    pub(super) fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// The process at this index of `processes`.
    pub(super) fn who(&self, index: usize) -> Individual {
        self.who[index]
    }

    /// The process that has this number.
    pub(super) fn holder(&self, pid: u32) -> Option<Individual> {
        self.who.get(index_of(&self.processes, pid)?).copied()
    }

    /// A process, if it is still listed.
    pub(super) fn find(&self, individual: Individual) -> Option<&Process> {
        let index = index_of(&self.processes, individual.identity.pid)?;
        self.processes.get(index).filter(|_| self.who.get(index) == Some(&individual))
    }

    /// Returns `true` if a process that may not be looked at has this number, and lives.
    pub(super) fn has_concealed(&self, pid: u32) -> bool {
        let holder = index_of(&self.processes, pid).and_then(|index| self.processes.get(index));
        holder.is_some_and(|holder| holder.is_concealed() && !holder.is_zombie())
    }

    /// The children of this process.
    pub(super) fn children(&self) -> impl Iterator<Item = (&Process, Individual)> {
        self.processes.iter().zip(self.who.iter().copied()).filter(|(process, _)| process.parent == self.own)
    }
}
