//! How much of a group's kernel memory can be given back, for version 1, which does not say.
//!
//! A million look-ups of names that do not exist leave 200 MB of directory entries, which the kernel gives back before
//! it refuses anything. Version 2 tells them in `memory.stat`. Version 1 tells the kernel's memory of the group, but
//! not how much of it is reclaimable slab. What is not can be bounded: it is no more than the machine has of memory
//! that is neither free, nor on a list of pages, nor reclaimable slab. So the rest of the group's kernel memory can be
//! given back. Where the machine has much of it, that is an underestimate, and the gate closes early.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::limit;
use super::workspace::Workspace;
use crate::readers::kept_file::{Allowance, KeptFile};
use crate::readers::procfs::{bytes, meminfo, zoneinfo};

/// Reading three more files at each check would make it dearer by a third. What has been reclaimed meanwhile is seen at
/// once, since there is less then.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Less than this share of the limit is not worth asking for.
const LEAST_SHARE: u64 = 16;

/// The kernel memory of one group of version 1.
#[derive(Debug)]
pub(super) struct KernelMemory {
    usage: KeptFile,
    reclaimable: u64,
    read_again_at: Duration,
}

impl KernelMemory {
    pub(super) fn new(folder: &Path) -> KernelMemory {
        let usage = KeptFile::new(folder.join("memory.kmem.usage_in_bytes"));
        KernelMemory { usage, reclaimable: 0, read_again_at: Duration::ZERO }
    }

    /// The bytes that can be given back, of those that are charged for the kernel.
    pub(super) fn reclaimable(&mut self, limit: u64, charged: u64, workspace: &mut Workspace) -> u64 {
        if charged < limit / LEAST_SHARE {
            return 0;
        }
        if workspace.now >= self.read_again_at {
            self.read_again_at = workspace.now + READ_AGAIN;
            self.reclaimable = self.read(charged, workspace).unwrap_or(0);
        }
        self.reclaimable
    }

    fn read(&mut self, charged: u64, workspace: &mut Workspace) -> Option<u64> {
        let no_more = &mut Allowance(0);
        let usage = limit::parse_charge(self.usage.read(no_more, &mut workspace.buffer).ok()?)?;
        // What stands there for a container (lxcfs) is of the container, and this bound is of the machine.
        if workspace.meminfo.path().metadata().ok()?.dev() != workspace.proc_root.metadata().ok()?.dev() {
            return None;
        }
        let bound = meminfo::beyond_reclaim(workspace.meminfo.read(no_more, &mut workspace.buffer).ok()?)?;
        // Not told in every container; the bound is higher then.
        let waiting = workspace.zoneinfo.read_beginning(&mut workspace.buffer).map_or(0, zoneinfo::waiting_pages);
        Some(usage.min(charged).saturating_sub(bound.saturating_sub(bytes(waiting))))
    }
}
