//! Reservations that several processes share.
//!
//! - `table`: the shared memory, its header, and who of the processes is where.
//! - `opening`: files that are ledgers, made and opened by their paths.
//!
//! What the words of a slot mean, and how they are added up, is the business of `judgement::shares`.

mod opening;
mod table;

use std::path::Path;
use std::sync::Arc;

use self::table::Table;
use crate::engine::SharedLedger;
use crate::vocabulary::Error;

/// Reservations that several processes of one container share, so that what each of them promises counts in the admission
/// of all.
///
/// Each process hands the ledger to the [builder](crate::ResourceMonitorBuilder::ledger) of its monitor. The processes are
/// those that were forked from the one that has [created](Ledger::create) it, or those that have [opened](Ledger::open)
/// the same file; at most 256 of them at a time. From the first check of its monitor on a process has a place, and what its
/// permits reserve of the memory and the tasks of the control group, and of the memory of the machine, counts against
/// everybody's limits. When the process ends, however it does, its part is free within one check of any other.
///
/// The [guide](crate::guide::several_processes) has the whole picture, and what a ledger does not promise.
#[derive(Debug, Clone)]
pub struct Ledger {
    table: Arc<Table>,
}

impl Ledger {
    /// A new ledger without a name, for this process and those that are forked from it. To be created before the first
    /// fork.
    ///
    /// # Errors
    /// [`Ledger`](crate::ErrorKind::Ledger): the system has no memory or no descriptor for it.
    pub fn create() -> Result<Ledger, Error> {
        Ok(Ledger { table: Arc::new(Table::create()?) })
    }

    /// The ledger at this path, which is made if nothing is there. Its folder should be of a file system in memory, such as
    /// `/run`; on any other its pages are written to the disk from time to time.
    ///
    /// # Errors
    /// [`Ledger`](crate::ErrorKind::Ledger), with the path and the reason: the file is not a ledger, damaged, of another
    /// version, another user's, or one that others can write; or the system refuses to make, open, map or lock it.
    pub fn open(path: impl AsRef<Path>) -> Result<Ledger, Error> {
        Ok(Ledger { table: opening::open(path.as_ref())? })
    }

    pub(crate) fn shared(&self) -> Arc<dyn SharedLedger> {
        Arc::clone(&self.table) as _
    }
}
