//! `/proc`: this process, and those that descend from it. A file of the kernel's is parsed in the module of its name.

/// The lists of children that the kernel keeps for each thread.
mod children;
/// The climb from child to parent, for whatever is passed down from parents. Reads nothing.
pub(crate) mod climb;
/// The descendants that a mount does not show. Never a stranger.
mod concealed;
/// The descendants in a table of processes. Reads nothing.
pub(crate) mod descendants;
/// The readings of one process, and the descriptors and buffers that it keeps for them.
mod files;
/// `meminfo`: bytes to numbers.
pub(crate) mod meminfo;
/// Every process there is, each read anew. Remembers nothing.
pub(crate) mod process_table;
/// The memory of a tree, with shared pages counted once.
mod sharing;
/// `<pid>/smaps_rollup`: bytes to shares of pages.
mod smaps_rollup;
/// The mounted tree that all of this is read from.
mod source;
/// `<pid>/stat`: bytes to a process.
pub(crate) mod stat;
/// `<pid>/statm`: bytes to pages.
pub(crate) mod statm;
/// `<pid>/status`: which numbers mean which processes.
mod status;
/// The usage of some descendants, each with everything below it.
mod subtrees;
/// `<pid>/task`: the threads of a process.
mod tasks;
/// The descendants, read again only where something can have changed. The kernel's own `/proc` alone, never a fixture.
mod tracker;
/// `zoneinfo`: bytes to free pages that no sum of `meminfo` has.
pub(crate) mod zoneinfo;

#[cfg(any(test, fuzzing))]
pub(crate) const LAWS: [crate::laws::Law; 8] = [
    ("stat", stat::law),
    ("statm", statm::law),
    ("status", status::law),
    ("meminfo", meminfo::law),
    ("smaps_rollup", smaps_rollup::law),
    ("zoneinfo", zoneinfo::law),
    ("children", children::law),
    ("hidepid", concealed::law),
];

pub(crate) use self::files::{bytes, ProcFiles};
pub(crate) use self::source::ProcRoot;
pub(crate) use self::stat::Process;
