//! The means that the files of all groups share.

use std::path::PathBuf;
use std::time::Duration;

use crate::readers::kept_file::{Allowance, Failure, KeptFile};

/// The means that the files of all groups share: the time of the reading, a buffer, and the descriptors that may still
/// be kept.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) now: Duration,
    pub(crate) allowance: Allowance,
    pub(crate) buffer: Box<[u8]>,
    pub(crate) proc_root: PathBuf,
    /// The memory of the machine, by which the kernel's memory of a group is judged.
    pub(crate) meminfo: KeptFile,
    pub(crate) zoneinfo: KeptFile,
}

impl Workspace {
    /// The text of a file now, which may be kept open.
    pub(crate) fn read(&mut self, file: &mut KeptFile) -> Result<&[u8], Failure> {
        file.read(&mut self.allowance, &mut self.buffer)
    }
}
