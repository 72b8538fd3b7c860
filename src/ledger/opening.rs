//! Files that are ledgers, made and opened by their paths.
//!
//! A process has one descriptor of each, for good: closing any of a file gives back all locks that the process has on it.
//! So what was opened once is kept, and found by the identity of the file when it is opened again.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::table::{Table, BYTES};
use crate::sys::fork::GrowingList;
use crate::sys::shared_memory::{self, FileIdentity};
use crate::vocabulary::Error;

/// The ledgers that were opened, never closed. A list without a lock, because a child may be forked while a thread opens
/// one.
static OPENED: GrowingList<Arc<Table>> = GrowingList::new();

/// The ledger at this path, made now if nothing is there.
pub(super) fn open(path: &Path) -> Result<Arc<Table>, Error> {
    let refused = |what: &'static str| move |error| Error::ledger_refused(Some(path), what, error);
    // Twice, for a file that is made or removed by others meanwhile.
    for _ in 0..2 {
        match fs::metadata(path) {
            Ok(status) => return open_existing(path, &status),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refused("could not open it")(error)),
        }
        if let Some(file) = make(path).map_err(refused("could not make it"))? {
            return Ok(keep(Table::map(file, path)?));
        }
    }
    Err(Error::ledger(Some(path), "it comes and goes"))
}

fn open_existing(path: &Path, status: &Metadata) -> Result<Arc<Table>, Error> {
    if let Some(table) = find(FileIdentity::of(status)) {
        return Ok(table);
    }
    // Before it is opened, because a fifo would wait, and a device might do something.
    check(path, status)?;
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(|error| Error::ledger_refused(Some(path), "could not open it", error))?;
    let opened = file.metadata().map_err(|error| Error::ledger_refused(Some(path), "could not open it", error))?;
    if FileIdentity::of(&opened) != FileIdentity::of(status) {
        // It may be one that is open already, whose locks would go with this descriptor.
        std::mem::forget(file);
        return Err(Error::ledger(Some(path), "it was replaced while it was opened"));
    }
    check(path, &opened)?;
    Ok(keep(Table::map(file, path)?))
}

/// Whether a file can be a ledger that nobody but this user writes.
fn check(path: &Path, status: &Metadata) -> Result<(), Error> {
    let (user, owner) = (shared_memory::user(), status.uid());
    let fault = if !status.is_file() {
        "it is not a regular file".to_owned()
    } else if owner != user {
        format!("it is that of user {owner}, and this process is user {user}")
    } else if status.mode() & 0o022 != 0 {
        format!("others may write it: its mode is {:o}", status.mode() & 0o7777)
    } else if status.len() == 0 {
        "it is empty, and no ledger".to_owned()
    } else if status.len() != BYTES {
        format!("it is {} bytes long, and a ledger {BYTES}", status.len())
    } else {
        return Ok(());
    };
    Err(Error::ledger(Some(path), fault))
}

/// Makes the file whole under another name, so that nobody ever finds half a ledger. `None` if there is one by now.
fn make(path: &Path) -> io::Result<Option<File>> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?.to_owned();
    name.push(format!(".{}.{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)));
    let unfinished = Unfinished(path.with_file_name(name));
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create_new(true).mode(0o600).open(&unfinished.0)?;
    file.write_all(&Table::blank())?;
    match fs::hard_link(&unfinished.0, path) {
        Ok(()) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error),
    }
}

/// The other name of a file that is being made.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Whoever cannot remove what it has made can do no more about it.
        let _ = fs::remove_file(&self.0);
    }
}

fn find(identity: FileIdentity) -> Option<Arc<Table>> {
    OPENED.iter().find(|opened| opened.identity() == identity).map(Arc::clone)
}

/// Keeps a ledger that was opened just now, unless another thread has opened the same file meanwhile.
fn keep(table: Table) -> Arc<Table> {
    let table = Arc::new(table);
    let kept = OPENED.add_unless(Arc::clone(&table), |opened| opened.identity() == table.identity());
    if !Arc::ptr_eq(kept, &table) {
        // To close it would give back the locks of the other.
        std::mem::forget(table);
    }
    Arc::clone(kept)
}
