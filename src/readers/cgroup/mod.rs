//! The control groups of the process, of both versions. A file of the kernel's is parsed in the module of its name.

/// One descriptor by which the check thread can be woken, and the meaning of its events.
mod alarm;
/// The alarms that are armed, and the wait for them.
mod alarms;
/// `/proc/cgroups`: bytes to which controllers are switched on.
mod controllers;
/// The groups that the process is in, found again when they change.
mod groups;
/// One group's files: its limit, what is charged to it, and what of that counts.
mod level;
/// Files of one number: a limit, or what is charged. Bytes to numbers.
mod limit;
/// `/proc/self/cgroup`: bytes to the group of the process in each hierarchy.
mod membership;
/// `memory.stat`: bytes to what of the charged memory counts.
mod memory;
/// The open `mountinfo` of the process. Knows lines, not what is in them.
mod mountinfo;
/// A line of `mountinfo`: bytes to a mount.
mod mounts;
/// The file that says which groups the process is in, kept open.
mod own_file;
/// The pressure files of the own group and of the machine.
mod pressure;
/// Pressure files: bytes to averages.
pub(crate) mod psi;
/// The way from a group's name to its folder, through whatever is mounted.
mod resolve;
/// The kernel memory of a group of version 1 that can be given back.
mod slab;
/// The environment's wish as to what is watched. The only module here that writes.
mod watch;
/// The means that the files of all groups share.
mod workspace;

#[cfg(any(test, fuzzing))]
pub(crate) const LAWS: [crate::laws::Law; 8] = [
    ("cgroups", controllers::law),
    ("membership", membership::law),
    ("mounts", mounts::law),
    ("resolve", resolve::law),
    ("limit", limit::law),
    ("memory_stat", memory::law),
    ("psi", psi::law),
    ("base64", watch::law),
];

pub(crate) use self::alarms::Alarms;
pub(crate) use self::groups::Cgroups;
pub(crate) use self::pressure::Growth;
pub(crate) use self::watch::Watch;
