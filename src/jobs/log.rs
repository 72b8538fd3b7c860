//! The log, which is the host's.

use crate::host::contained;

/// Writes a line. The logger is code of the host's, which may panic: a line lost is all that comes of it. To be called
/// under no lock.
pub(super) fn call_logger(line: impl FnOnce()) {
    drop(contained(line));
}
