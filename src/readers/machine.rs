//! The memory of the machine, whoever uses it.

use std::sync::Arc;

use super::kept_file::{Allowance, Failure, KeptFile};
use super::procfs::meminfo;
use crate::vocabulary::{Error, MachineMemory, ReadOptional};

/// Room for the whole file, of which the first lines are those that matter.
const MEMINFO: usize = 16 << 10;

/// The open `meminfo`.
#[derive(Debug)]
pub(crate) struct MachineFiles {
    meminfo: KeptFile,
    buffer: Box<[u8]>,
}

impl MachineFiles {
    pub(crate) fn new(proc_root: &std::path::Path) -> MachineFiles {
        MachineFiles { meminfo: KeptFile::new(proc_root.join("meminfo")), buffer: vec![0; MEMINFO].into_boxed_slice() }
    }

    /// The memory of the machine now; `None` where there is no such file. Costs some 7 us.
    pub(crate) fn memory(&mut self) -> ReadOptional<MachineMemory> {
        let text = match self.meminfo.read(&mut Allowance(1), &mut self.buffer) {
            Ok(text) => text,
            Err(Failure::Gone) => return Ok(None),
            Err(Failure::Other(error)) => return Err(Arc::new(error)),
        };
        let parsed = meminfo::total(text).and_then(|total| Ok((total, meminfo::available(text)?)));
        match parsed {
            Ok((total_bytes, available)) => {
                // No more than there is, whatever stands in the place of the kernel's file says.
                Ok(Some(MachineMemory { available_bytes: available.min(total_bytes), total_bytes }))
            }
            Err(what) => Err(Arc::new(Error::malformed(self.meminfo.path().to_owned(), what))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: Option<&str>) -> ReadOptional<MachineMemory> {
        let root = tempfile::tempdir().unwrap();
        if let Some(text) = text {
            std::fs::write(root.path().join("meminfo"), text).unwrap();
        }
        MachineFiles::new(root.path()).memory()
    }

    #[test]
    fn what_is_available_is_no_more_than_there_is() {
        let memory = read(Some("MemTotal: 100 kB\nMemFree: 10 kB\nMemAvailable: 60 kB\n")).unwrap();
        assert_eq!(memory, Some(MachineMemory { available_bytes: 60 << 10, total_bytes: 100 << 10 }));
        let odd = read(Some("MemTotal: 100 kB\nMemAvailable: 600 kB\n")).unwrap().unwrap();
        assert_eq!(odd.available_bytes, 100 << 10);
    }

    #[test]
    fn a_kernel_that_does_not_tell_what_is_available_is_an_error_and_no_zero() {
        let error = read(Some("MemTotal: 100 kB\nMemFree: 10 kB\n")).unwrap_err();
        assert!(error.to_string().ends_with("meminfo: it does not say MemAvailable in kB"), "{error}");
        assert_eq!(read(None).unwrap(), None);
    }
}
