//! Where the kernel is read: parsers take bytes, readers take roots, so that any kernel's files can be laid out. Judges
//! nothing.

pub(crate) mod cgroup;
mod detect;
pub(crate) mod number;
pub(crate) mod probe;
pub(crate) mod procfs;

pub use self::probe::SystemProbe;
