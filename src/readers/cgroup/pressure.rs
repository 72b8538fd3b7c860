//! The pressure files of the own group, else of the machine, and the growth of what they count.
//!
//! The averages of the kernel are slow: ten seconds after forty processes began to compete for two CPUs, `avg10` says
//! two thirds of what it is. `total` counts the microseconds themselves, so its growth between two readings says what
//! was between them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::psi::{self, Averages};
use super::resolve::Levels;
use super::workspace::Workspace;
use crate::readers::kept_file::{Failure, KeptFile};
use crate::sys::fine_now;
use crate::sys::fork::Mutex;
use crate::vocabulary::{Error, ReadOptional, RecentPressure};

/// The files of all kinds of pressure that are read.
#[derive(Debug)]
pub(super) struct PressureFiles {
    pub(super) memory: PressureFile,
    pub(super) cpu: PressureFile,
    pub(super) io: PressureFile,
}

/// The file that tells one kind of pressure: that of the own group, else that of the machine.
#[derive(Debug)]
pub(super) struct PressureFile {
    /// The name of the file in a group.
    name: &'static str,
    of_group: Option<KeptFile>,
    of_machine: KeptFile,
}

impl PressureFiles {
    pub(super) fn new(proc_root: &Path) -> PressureFiles {
        let file = |of_machine, name| {
            let of_machine = KeptFile::new(proc_root.join("pressure").join(of_machine));
            PressureFile { name, of_group: None, of_machine }
        };
        PressureFiles {
            memory: file("memory", "memory.pressure"),
            cpu: file("cpu", "cpu.pressure"),
            io: file("io", "io.pressure"),
        }
    }

    fn all(&self) -> impl Iterator<Item = &PressureFile> {
        [&self.memory, &self.cpu, &self.io].into_iter()
    }

    /// Replaces the group by the one that was found now, and returns whether it is another.
    pub(super) fn replace(&mut self, found: Option<Levels>) -> bool {
        let folder = found.and_then(|levels| levels.seen().into_iter().next()).map(|seen| seen.folder);
        // The root group, which has no events, stalls with the machine; and of a file in a group one opening waits for
        // another's closing, with a trigger some 20 ms.
        let folder = folder.filter(|folder| folder.join("cgroup.events").exists());
        let files = [&mut self.memory, &mut self.cpu, &mut self.io];
        let replaced = files.map(|file| {
            let path = folder.as_ref().map(|folder| folder.join(file.name));
            let is_other = path.as_deref() != file.of_group.as_ref().map(KeptFile::path);
            if is_other {
                file.of_group = path.map(KeptFile::new);
            }
            is_other
        });
        replaced.contains(&true)
    }

    pub(super) fn kept_files(&self) -> usize {
        self.all().flat_map(PressureFile::files).filter(|file| file.is_kept()).count()
    }
}

impl PressureFile {
    /// In the order in which they are tried.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files().map(KeptFile::path)
    }

    fn files(&self) -> impl Iterator<Item = &KeptFile> {
        self.of_group.iter().chain([&self.of_machine])
    }

    /// What the first file says that tells anything, and which one that is; `None` where the kernel does not tell.
    pub(super) fn read(&mut self, workspace: &mut Workspace) -> ReadOptional<(Averages, &Path)> {
        for file in self.of_group.iter_mut().chain([&mut self.of_machine]) {
            match workspace.read(file) {
                Ok(text) => {
                    let parsed = psi::parse(text).map_err(|what| Arc::new(Error::malformed(file.path().into(), what)));
                    return parsed.map(|averages| Some((averages, file.path())));
                }
                Err(Failure::Gone) => {}
                // Switched off when the kernel was started, or for this group.
                Err(Failure::Other(error)) if is_unsupported(&error) => {}
                Err(Failure::Other(error)) => return Err(Arc::new(error)),
            }
        }
        Ok(None)
    }

    /// The pressure since an earlier reading; that of the last ten seconds while there is none.
    pub(super) fn read_recent(
        &mut self,
        workspace: &mut Workspace,
        growth: &Mutex<Growth>,
    ) -> ReadOptional<RecentPressure> {
        let Some((averages, path)) = self.read(workspace)? else { return Ok(None) };
        let mut growth = growth.lock();
        let recent = growth.record(path, fine_now(), averages.some_total);
        Ok(Some(recent.unwrap_or(RecentPressure { some_percent: averages.some_avg10, over: AVERAGED })))
    }
}

/// The time that `avg10` is about.
const AVERAGED: Duration = Duration::from_secs(10);

/// The least time that a share is taken of: over less, one stall would count for much.
const LEAST_TIME: Duration = Duration::from_millis(500);

/// The growth of one count of microseconds, whoever reads it: kept apart from the files, so that whoever finds those in
/// use has it all the same.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    /// The file that the samples are of.
    path: PathBuf,
    older: Option<Sample>,
    newer: Option<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Duration,
    micros: u64,
}

impl Growth {
    /// Takes a reading. Returns the share of the time since the newest one that is at least [`LEAST_TIME`] old, and was
    /// taken that long after the one before it.
    fn record(&mut self, path: &Path, now: Duration, micros: u64) -> Option<RecentPressure> {
        let begins_anew = self.path != path || self.newer.is_some_and(|newer| newer.micros > micros);
        if begins_anew {
            *self = Growth { path: path.to_owned(), older: None, newer: None };
        }
        let sample = Sample { at: now, micros };
        match self.newer {
            Some(newer) if now.saturating_sub(newer.at) < LEAST_TIME => {}
            newer => (self.older, self.newer) = (newer, Some(sample)),
        }
        let since = self.older?;
        let over = now.checked_sub(since.at).filter(|over| !over.is_zero())?;
        let stalled = Duration::from_micros(micros.saturating_sub(since.micros));
        let share = stalled.as_secs_f64() / over.as_secs_f64();
        // The kernel adds the time of each CPU at its own pace.
        Some(RecentPressure { some_percent: (share * 100.0).clamp(0.0, 100.0), over })
    }
}

fn is_unsupported(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.and_then(io::Error::raw_os_error) == Some(libc::EOPNOTSUPP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(growth: &mut Growth, path: &str, millis: u64, micros: u64) -> Option<(f64, u64)> {
        let recent = growth.record(Path::new(path), Duration::from_millis(millis), micros)?;
        Some((recent.some_percent, u64::try_from(recent.over.as_millis()).unwrap()))
    }

    #[test]
    fn the_share_is_that_of_the_time_since_a_reading_half_a_second_ago() {
        let mut growth = Growth::default();
        let steps = [
            (1_000, 5_000_000, None),
            (1_100, 5_100_000, None),
            // All of the half second.
            (1_500, 5_500_000, Some((100.0, 500))),
            (1_600, 5_500_000, Some((83.3, 600))),
            (1_999, 5_500_000, Some((50.0, 999))),
            // Nothing since the one at 1,500.
            (2_000, 5_500_000, Some((0.0, 500))),
            (17_000, 8_500_000, Some((20.0, 15_000))),
            // Less than none of the time, and more than all of it.
            (17_500, 8_500_000, Some((0.0, 500))),
            (18_000, 99_000_000, Some((100.0, 500))),
        ];
        for (at, micros, expected) in steps {
            let found =
                record(&mut growth, "/a", at, micros).map(|(share, over)| ((share * 10.0).floor() / 10.0, over));
            assert_eq!(found, expected, "at {at}");
        }
    }

    #[test]
    fn another_group_or_a_count_that_falls_begins_anew() {
        let mut growth = Growth::default();
        record(&mut growth, "/a", 0, 0);
        assert!(record(&mut growth, "/a", 1_000, 500).is_some());
        assert_eq!(record(&mut growth, "/b", 2_000, 1_000), None);
        assert!(record(&mut growth, "/b", 3_000, 1_000).is_some());
        assert_eq!(record(&mut growth, "/b", 4_000, 999), None);
    }

    #[test]
    fn a_clock_that_stands_divides_by_nothing() {
        let mut growth = Growth::default();
        record(&mut growth, "/a", 1_000, 0);
        record(&mut growth, "/a", 2_000, 1);
        assert_eq!(record(&mut growth, "/a", 1_000, 2), None);
        assert_eq!(record(&mut growth, "/a", 900, 2), None);
    }
}
