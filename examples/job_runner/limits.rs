//! The limits: what the options say, overridden by what the limits file says; those of the surroundings when neither
//! says anything.
//!
//! ```text
//! # at night
//! max_processes = 20
//! max_memory_mb = 1000
//! ```

use std::fs;
use std::num::NonZeroU64;

use highwater::{BoxError, ResourceLimits};

use crate::options::Options;

/// The limits of a run.
pub(crate) struct Limits {
    pub(crate) limits: ResourceLimits,
    /// Whether somebody has said how many processes there may be, and so how many jobs.
    pub(crate) is_width_given: bool,
}

/// Reads the limits anew. An error is one line that names the file and its line.
pub(crate) fn load(options: &Options) -> Result<Limits, BoxError> {
    let mut processes = options.max_processes;
    let mut memory_mb = options.max_memory_mb;

    if let Some(path) = &options.limits {
        let text = fs::read_to_string(path).map_err(|error| format!("could not read {}: {error}", path.display()))?;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = format!("{}, line {}", path.display(), index + 1);
            let (key, value) = line.split_once('=').ok_or_else(|| format!("{at}: expected `name = number`"))?;
            let (key, value) = (key.trim(), value.trim());
            let limit = match key {
                "max_processes" => &mut processes,
                "max_memory_mb" => &mut memory_mb,
                _ => return Err(format!("{at}: unknown limit `{key}`").into()),
            };
            let number: NonZeroU64 =
                value.parse().map_err(|_| format!("{at}: {key} is not a whole number above 0: `{value}`"))?;
            *limit = Some(number.get());
        }
    }

    let mut limits = ResourceLimits::builder();
    if processes.is_none() && memory_mb.is_none() {
        limits = limits.detect()?;
    }
    if let Some(processes) = processes {
        limits = limits.max_processes(processes);
    }
    if let Some(mb) = memory_mb {
        limits = limits.max_memory_mb(mb);
    }
    if let Some(mb) = options.min_free_mb {
        limits = limits.min_available_memory_mb(mb);
    }
    if let Some(mb) = options.min_free_disk_mb {
        limits = limits.min_free_disk_mb(".", mb);
    }
    Ok(Limits { limits: limits.build()?, is_width_given: processes.is_some() })
}
