//! The readings of the kernel: parsers take bytes, readers take roots, so that any kernel's files can be laid out.
//! Judges nothing.

/// Control groups: memory, tasks, pressure.
pub(crate) mod cgroup;
/// Limits that somebody else has set.
mod detect;
/// The room in a file system, which may not answer.
mod disk;
/// Trees like those of the kernel, for unit tests.
#[cfg(test)]
pub(crate) mod fixture;
/// Files that are read again and again, of which a handful stays open.
pub(crate) mod kept_file;
/// The memory of the machine.
mod machine;
/// Numbers as the kernel writes them.
pub(crate) mod number;
/// One reading of every resource: what the engine asks for.
pub(crate) mod probe;
/// Processes and their memory.
pub(crate) mod procfs;
/// The folders that all of this is looked for in.
mod roots;
/// All of these readers behind the probe.
mod system_probe;

#[cfg(any(test, fuzzing))]
pub(crate) const LAWS: [crate::laws::Law; 1] = [("number", number::law)];

pub(crate) use self::procfs::stat::{parse as parse_stat, stopped_by};
pub(crate) use self::roots::Roots;
pub use self::system_probe::SystemProbe;
