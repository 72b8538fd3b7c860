//! The control groups of the process, of both versions: what is used, what limits it, and the pressure on memory.

mod alarms;
mod kept_file;
mod levels;
mod membership;
mod memory;
mod mounts;
pub(crate) mod psi;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use self::alarms::{Alarms, Watch};
use self::kept_file::{Allowance, Failure, KeptFile};
pub(crate) use self::levels::Places;
use self::levels::{resolve, Names};
use self::membership::{of_controller, unified, Version};
use crate::vocabulary::{CgroupMemory, CgroupPids, Error, MemoryPressure, Optional, Partly};

/// At most so many of the groups' files are kept open, those that are read first.
const KEPT_FILES: usize = 7;

/// A limit file that is not there is looked for again after so many readings.
const ABSENT_FOR: u32 = 64;

/// Room for the longest of the files, `memory.stat`, and some.
const BUFFER: usize = 16 << 10;

/// A machine with more mounts than fit is one whose control groups are not found.
const MOST_MOUNTINFO: u64 = 1 << 20;

/// The groups that the process was last seen in, and their files.
#[derive(Debug)]
pub(crate) struct Cgroups {
    places: Places,
    buffer: Box<[u8]>,
    own: KeptFile,
    /// What `own` said when the rest was looked up.
    membership: Option<Vec<u8>>,
    lookups: u64,
    allowance: Allowance,
    memory: Vec<Level>,
    pids: Vec<Level>,
    pressure: PressureFile,
}

/// The files of one controller in one group.
#[derive(Debug)]
struct Level {
    folder: Arc<Path>,
    version: Version,
    limit: KeptFile,
    usage: KeptFile,
    stat: Option<KeptFile>,
    /// Its files were there once: when one is there no more, the group is gone.
    was_there: bool,
    is_limited: bool,
    /// Limit and usage as just read, until it is judged.
    charged: Option<(u64, u64)>,
    /// So many readings pass before it is looked whether there is a limit file by now.
    skip: u32,
}

/// What is charged to one group, and its limit.
#[derive(Debug)]
struct Charge {
    folder: Arc<Path>,
    limit: u64,
    usage: u64,
    raw: u64,
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
    pub(crate) fn new(places: Places) -> Cgroups {
        let own = KeptFile::new(places.proc_root.join("self/cgroup"));
        let of_machine = KeptFile::new(places.proc_root.join("pressure/memory"));
        Cgroups {
            places,
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
        let mountinfo = match read_mountinfo(&self.places.proc_root) {
            Ok(mountinfo) => mountinfo,
            Err(error) => {
                // Looked up again next time.
                self.membership = None;
                return Err(error);
            }
        };
        let levels = |controller: &str, names: fn(Version) -> Names| -> Vec<Level> {
            let Some(of) = of_controller(membership, controller) else { return Vec::new() };
            let folders = resolve(of, controller, &mountinfo, &self.places);
            folders.into_iter().map(|folder| Level::new(folder, of.version, names(of.version))).collect()
        };
        self.memory = levels("memory", Names::of_memory);
        self.pids = levels("pids", |_| Names::of_pids());
        let unified = unified(membership).map(|of| resolve(of, "", &mountinfo, &self.places));
        let folder = unified.and_then(|folders| folders.into_iter().next());
        // The root group, which has no events, stalls with the machine; and of a file in a group one opening waits for
        // another's closing, with a trigger some 20 ms.
        let folder = folder.filter(|folder| folder.join("cgroup.events").exists());
        self.pressure.of_group = folder.map(|folder| KeptFile::new(folder.join("memory.pressure")));
        Ok(())
    }

    /// Memory of the group, of all that limit it, whose limit leaves the least room; and the error of one that could
    /// not be read beside it.
    pub(crate) fn memory(&mut self) -> Partly<CgroupMemory> {
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
    pub(crate) fn pids(&mut self) -> Partly<CgroupPids> {
        let (found, unread) = self.least(|cgroups| (&mut cgroups.pids, &mut cgroups.allowance, &mut cgroups.buffer))?;
        Ok((found.map(|Charge { folder, limit, usage, .. }| CgroupPids { path: folder, count: usage, limit }), unread))
    }

    /// The smallest limits of any group that can be seen, and the files that say so.
    pub(crate) fn least_limits(&mut self) -> Result<LeastLimits, Error> {
        self.refresh()?;
        let Cgroups { memory, pids, allowance, buffer, .. } = self;
        let mut least = |levels: &mut [Level]| {
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
        parts: impl Fn(&mut Cgroups) -> (&mut Vec<Level>, &mut Allowance, &mut Box<[u8]>),
    ) -> Partly<Charge> {
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
    pub(crate) fn pressure(&mut self) -> Optional<MemoryPressure> {
        let PressureFile { of_group, of_machine } = &mut self.pressure;
        for file in of_group.iter_mut().chain([of_machine]) {
            match file.read(&mut self.allowance, &mut self.buffer) {
                Ok(text) => {
                    let parsed = psi::parse(text).map_err(|what| Arc::new(Error::malformed(file.path().into(), what)));
                    return parsed.map(|pressure| Some(pressure.averages));
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

/// Judges by what can be read; the error of the first level that cannot is beside it.
fn least(
    levels: &mut [Level],
    allowance: &mut Allowance,
    buffer: &mut [u8],
) -> Result<(Option<Charge>, Option<Arc<Error>>), Failure> {
    let mut failure = None;
    for level in levels.iter_mut() {
        match level.charge(allowance, buffer) {
            Ok(()) => {}
            Err(Failure::Gone) => return Err(Failure::Gone),
            Err(Failure::Other(error)) => failure = failure.or(Some(error)),
        }
    }
    // What can be dropped makes room: a level has as much as without, or more. So whichever has more than the least
    // without need not be asked what can be dropped, and that costs more than all the rest.
    let mut least: Option<Charge> = None;
    while let Some(level) =
        levels.iter_mut().filter(|level| level.charged.is_some()).min_by_key(|level| level.raw_room())
    {
        if least.as_ref().is_some_and(|least| least.room() <= level.raw_room()) {
            break;
        }
        let Some((limit, raw)) = level.charged.take() else { break };
        let charge =
            Charge { folder: Arc::clone(&level.folder), limit, usage: level.judge(raw, allowance, buffer), raw };
        if least.as_ref().map_or(true, |least| charge.room() < least.room()) {
            least = Some(charge);
        }
    }
    match (least, failure) {
        (None, Some(error)) => Err(Failure::Other(error)),
        (least, failure) => Ok((least, failure.map(Arc::new))),
    }
}

impl Level {
    fn new(folder: PathBuf, version: Version, names: Names) -> Level {
        Level {
            limit: KeptFile::new(folder.join(names.limit)),
            usage: KeptFile::new(folder.join(names.usage)),
            stat: names.stat.map(|stat| KeptFile::new(folder.join(stat))),
            folder: folder.into(),
            version,
            was_there: false,
            is_limited: false,
            charged: None,
            skip: 0,
        }
    }

    /// `None`: no limit here, or none any more.
    fn read_limit(&mut self, allowance: &mut Allowance, buffer: &mut [u8]) -> Result<Option<u64>, Error> {
        let limit = match self.limit.read(allowance, buffer) {
            Ok(text) => memory::limit(text).map_err(|what| Error::malformed(self.limit.path().into(), what))?,
            Err(Failure::Gone) => None,
            Err(Failure::Other(error)) => return Err(error),
        };
        self.is_limited = limit.is_some();
        Ok(limit)
    }

    /// Reads the limit, and if there is one what is charged.
    fn charge(&mut self, allowance: &mut Allowance, buffer: &mut [u8]) -> Result<(), Failure> {
        self.charged = None;
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(());
        }
        let limit = match self.limit.read(allowance, buffer) {
            Ok(text) => memory::limit(text).map_err(|what| self.limit.malformed(what))?,
            // The controller is not switched on here, or this is the root, which has no limit: that changes rarely.
            Err(Failure::Gone) if !self.was_there => {
                self.skip = ABSENT_FOR;
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        let was_there = std::mem::replace(&mut self.was_there, true);
        self.is_limited = limit.is_some();
        let Some(limit) = limit else { return Ok(()) };
        let raw = match self.usage.read(allowance, buffer) {
            Ok(text) => memory::amount(text).ok_or_else(|| self.usage.malformed("it is not a number"))?,
            Err(Failure::Gone) if !was_there => return Err(self.usage.malformed("it is not there beside its limit")),
            Err(failure) => return Err(failure),
        };
        self.charged = Some((limit, raw));
        Ok(())
    }

    /// What of that counts.
    fn judge(&mut self, raw: u64, allowance: &mut Allowance, buffer: &mut [u8]) -> u64 {
        match self.stat.as_mut().map(|stat| stat.read(allowance, buffer)) {
            Some(Ok(text)) => memory::judged_usage(raw, text, self.version),
            // All that is charged, then: too much rather than too little.
            Some(Err(_)) | None => raw,
        }
    }

    fn raw_room(&self) -> u64 {
        self.charged.map_or(u64::MAX, |(limit, raw)| limit.saturating_sub(raw))
    }
}

impl Charge {
    fn room(&self) -> u64 {
        self.limit.saturating_sub(self.usage)
    }
}

#[cfg(test)]
mod tests;
