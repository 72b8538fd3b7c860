//! One group: its limit, what is charged to it, and what of that counts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::kept_file::{Allowance, Failure, KeptFile};
use super::limit;
use super::membership::Version;
use super::memory;
use super::resolve::Names;
use crate::vocabulary::Error;

/// The readings after which a limit file that is not there is looked for again.
const ABSENT_FOR: u32 = 64;

/// The files of one controller in one group.
#[derive(Debug)]
pub(super) struct GroupFiles {
    pub(super) folder: Arc<Path>,
    pub(super) version: Version,
    pub(super) limit: KeptFile,
    pub(super) usage: KeptFile,
    pub(super) stat: Option<KeptFile>,
    /// Its files were there once: when one is there no more, the group is gone.
    was_there: bool,
    pub(super) is_limited: bool,
    /// Limit and usage as just read, until it is judged.
    charged: Option<(u64, u64)>,
    /// So many readings pass before it is looked whether there is a limit file by now.
    skip: u32,
}

/// The limit of one group, and what is charged to it.
#[derive(Debug)]
pub(super) struct Charge {
    pub(super) folder: Arc<Path>,
    pub(super) limit: u64,
    pub(super) usage: u64,
    pub(super) raw: u64,
}

/// Judges by what can be read; the error of the first level that cannot is beside it.
pub(super) fn least(
    levels: &mut [GroupFiles],
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
    // Reading `memory.stat` is the dear part. Room without it is a lower bound, so levels are visited by that bound and
    // the visit ends when no bound is below the best found.
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

impl GroupFiles {
    pub(super) fn new(folder: PathBuf, version: Version, names: Names) -> GroupFiles {
        GroupFiles {
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
    pub(super) fn read_limit(&mut self, allowance: &mut Allowance, buffer: &mut [u8]) -> Result<Option<u64>, Error> {
        let limit = match self.limit.read(allowance, buffer) {
            Ok(text) => limit::parse(text).map_err(|what| Error::malformed(self.limit.path().into(), what))?,
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
            Ok(text) => limit::parse(text).map_err(|what| self.limit.malformed(what))?,
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
            Ok(text) => limit::parse_amount(text).ok_or_else(|| self.usage.malformed("it is not a number"))?,
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
