//! The groups that the process is in, from the own one up to the highest that can be seen.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::alarms::{Alarms, Watch};
use super::kept_file::{Allowance, Failure, KeptFile};
use super::level::{least, Charge, GroupFiles};
use super::membership::{of_controller, unified, Version};
use super::psi::{self, Averages};
use super::resolve::{resolve, Names};
use crate::readers::Roots;
use crate::vocabulary::{CgroupMemory, CgroupPids, Error, MemoryPressure, ReadOptional, ReadPart};

/// At most so many of the groups' files are kept open, those that are read first.
const KEPT_FILES: usize = 7;

/// Room for the longest of the files, `memory.stat`, and some.
const BUFFER: usize = 16 << 10;

/// A machine with more mounts than fit is one whose control groups are not found.
const MOST_MOUNTINFO: u64 = 1 << 20;

/// The groups that the process was last seen in, and their files.
#[derive(Debug)]
pub(crate) struct Cgroups {
    roots: Roots,
    buffer: Box<[u8]>,
    own: KeptFile,
    /// What `own` said when the rest was looked up.
    membership: Option<Vec<u8>>,
    lookups: u64,
    allowance: Allowance,
    memory: Vec<GroupFiles>,
    pids: Vec<GroupFiles>,
    pressure: PressureFile,
}

/// Of each controller, the smallest limit and where it stands.
#[derive(Debug)]
pub(crate) struct LeastLimits {
    pub(crate) memory: Option<(u64, String)>,
    pub(crate) pids: Option<(u64, String)>,
}

/// The file that tells the pressure on memory: that of the own group, else that of the machine.
#[derive(Debug)]
struct PressureFile {
    of_group: Option<KeptFile>,
    of_machine: KeptFile,
}

impl Cgroups {
    pub(crate) fn new(roots: Roots) -> Cgroups {
        let own = KeptFile::new(roots.proc_root.join("self/cgroup"));
        let of_machine = KeptFile::new(roots.proc_root.join("pressure/memory"));
        Cgroups {
            roots,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            own,
            membership: None,
            lookups: 0,
            allowance: Allowance(0),
            memory: Vec::new(),
            pids: Vec::new(),
            pressure: PressureFile { of_group: None, of_machine },
        }
    }

    /// Looks up the groups if the process has been moved since. To be called before the others.
    pub(crate) fn refresh(&mut self) -> Result<(), Error> {
        let text = match self.own.read(&mut Allowance(1), &mut self.buffer) {
            Ok(text) => text,
            // A kernel without control groups.
            Err(Failure::Gone) => &[],
            Err(Failure::Other(error)) => return Err(error),
        };
        if self.membership.as_deref() == Some(text) {
            return Ok(());
        }
        self.membership = Some(text.to_vec());
        self.look_up()
    }

    /// Differs when the groups have been looked up since, or others are limited: what was armed before may be that of
    /// another group, or not all.
    pub(crate) fn fingerprint(&self) -> u64 {
        let limited = self.memory.iter().filter(|level| level.is_limited && level.version == Version::V2).count();
        (self.lookups << 8) | limited as u64
    }

    fn look_up(&mut self) -> Result<(), Error> {
        self.lookups += 1;
        self.allowance = Allowance(KEPT_FILES);
        (self.memory, self.pids) = (Vec::new(), Vec::new());
        self.pressure.of_group = None;
        let Some(membership) = self.membership.as_ref().filter(|text| !text.is_empty()) else { return Ok(()) };
        let mountinfo = match read_mountinfo(&self.roots.proc_root) {
            Ok(mountinfo) => mountinfo,
            Err(error) => {
                // Looked up again next time.
                self.membership = None;
                return Err(error);
            }
        };
        let levels = |controller: &str, names: fn(Version) -> Names| -> Vec<GroupFiles> {
            let Some(of) = of_controller(membership, controller) else { return Vec::new() };
            let folders = resolve(of, controller, &mountinfo, &self.roots);
            folders.into_iter().map(|folder| GroupFiles::new(folder, of.version, names(of.version))).collect()
        };
        self.memory = levels("memory", Names::of_memory);
        self.pids = levels("pids", |_| Names::of_pids());
        let unified = unified(membership).map(|of| resolve(of, "", &mountinfo, &self.roots));
        let folder = unified.and_then(|folders| folders.into_iter().next());
        // The root group, which has no events, stalls with the machine; and of a file in a group one opening waits for
        // another's closing, with a trigger some 20 ms.
        let folder = folder.filter(|folder| folder.join("cgroup.events").exists());
        self.pressure.of_group = folder.map(|folder| KeptFile::new(folder.join("memory.pressure")));
        Ok(())
    }

    /// Memory of the group, of all that limit it, whose limit leaves the least room; and the error of one that could
    /// not be read beside it.
    pub(crate) fn memory(&mut self) -> ReadPart<CgroupMemory> {
        let (found, unread) =
            self.least(|cgroups| (&mut cgroups.memory, &mut cgroups.allowance, &mut cgroups.buffer))?;
        let found = found.map(|Charge { folder, limit, usage, raw }| CgroupMemory {
            path: folder,
            usage_bytes: usage,
            raw_bytes: raw,
            limit_bytes: limit,
        });
        Ok((found, unread))
    }

    /// The same of tasks.
    pub(crate) fn pids(&mut self) -> ReadPart<CgroupPids> {
        let (found, unread) = self.least(|cgroups| (&mut cgroups.pids, &mut cgroups.allowance, &mut cgroups.buffer))?;
        Ok((found.map(|Charge { folder, limit, usage, .. }| CgroupPids { path: folder, count: usage, limit }), unread))
    }

    /// The smallest limits of any group that can be seen, and the files that say so.
    pub(crate) fn least_limits(&mut self) -> Result<LeastLimits, Error> {
        self.refresh()?;
        let Cgroups { memory, pids, allowance, buffer, .. } = self;
        let mut least = |levels: &mut [GroupFiles]| {
            let mut least: Option<(u64, String)> = None;
            for level in levels {
                let limit = level.read_limit(allowance, buffer)?;
                if let Some(limit) = limit.filter(|limit| least.as_ref().map_or(true, |(least, _)| limit < least)) {
                    least = Some((limit, level.limit.path().display().to_string()));
                }
            }
            Ok(least)
        };
        Ok(LeastLimits { memory: least(memory)?, pids: least(pids)? })
    }

    /// Asks the kernel to wake whoever waits for what comes back.
    pub(crate) fn arm(&mut self, watch: &Watch, pressure: bool, memory: bool) -> Alarms {
        let mut alarms = Alarms::default();
        // What cannot be read is for checks to report.
        let _ = self.refresh();

        if pressure {
            let PressureFile { of_group, of_machine } = &self.pressure;
            alarms.arm_pressure(watch, of_group.iter().chain([of_machine]).map(KeptFile::path));
        }
        if memory {
            let Cgroups { memory, allowance, buffer, .. } = self;
            for level in memory.iter_mut().filter(|level| level.version == Version::V2) {
                if let Ok(Some(_)) = level.read_limit(allowance, buffer) {
                    alarms.arm_events(&level.folder.join("memory.events"));
                }
            }
        }
        alarms.fingerprint = self.fingerprint();
        alarms
    }

    /// A group that has vanished under the process is looked up once more. One that cannot be found any more, although
    /// the process is in it still, is out of sight (of a changed root, say), and not without a limit.
    fn least(
        &mut self,
        parts: impl Fn(&mut Cgroups) -> (&mut Vec<GroupFiles>, &mut Allowance, &mut Box<[u8]>),
    ) -> ReadPart<Charge> {
        let (levels, allowance, buffer) = parts(self);
        match least(levels, allowance, buffer) {
            Ok(found) => return Ok(found),
            Err(Failure::Other(error)) => return Err(Arc::new(error)),
            Err(Failure::Gone) => {}
        }
        let before = self.membership.take();
        let levels_before = std::mem::take(parts(self).0);
        let limited = levels_before.iter().find(|level| level.is_limited).map(|level| level.limit.path().to_owned());
        self.refresh().map_err(Arc::new)?;
        let (levels, allowance, buffer) = parts(self);
        let found = match least(levels, allowance, buffer) {
            Err(Failure::Other(error)) => return Err(Arc::new(error)),
            Err(Failure::Gone) => (None, None),
            Ok(found) => found,
        };
        match (limited, &found) {
            (Some(path), (None, _)) if self.membership == before => {
                // Said again each time, until it is found again.
                *parts(self).0 = levels_before;
                Err(Arc::new(Error::read(path, io::Error::from_raw_os_error(libc::ENOENT))))
            }
            _ => Ok(found),
        }
    }

    /// The pressure on memory of the own group, else of the machine; `None` where the kernel does not tell.
    pub(crate) fn pressure(&mut self) -> ReadOptional<MemoryPressure> {
        let PressureFile { of_group, of_machine } = &mut self.pressure;
        for file in of_group.iter_mut().chain([of_machine]) {
            match file.read(&mut self.allowance, &mut self.buffer) {
                Ok(text) => {
                    let parsed = psi::parse(text).map_err(|what| Arc::new(Error::malformed(file.path().into(), what)));
                    return parsed.map(|averages| Some(averages.into()));
                }
                Err(Failure::Gone) => {}
                // Switched off when the kernel was started, or for this group.
                Err(Failure::Other(error)) if is_unsupported(&error) => {}
                Err(Failure::Other(error)) => return Err(Arc::new(error)),
            }
        }
        Ok(None)
    }
}

impl From<Averages> for MemoryPressure {
    fn from(averages: Averages) -> MemoryPressure {
        MemoryPressure { some_avg10: averages.some_avg10, full_avg10: averages.full_avg10 }
    }
}

fn is_unsupported(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.and_then(io::Error::raw_os_error) == Some(libc::EOPNOTSUPP)
}

fn read_mountinfo(proc_root: &Path) -> Result<Vec<u8>, Error> {
    let path = proc_root.join("self/mountinfo");
    let mut text = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(MOST_MOUNTINFO).read_to_end(&mut text));
    read.map(|_| text).map_err(|error| Error::read(path, error))
}

#[cfg(test)]
mod tests;
