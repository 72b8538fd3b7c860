//! One group: its limit, what is charged to it, and what of that counts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::limit;
use super::membership::Version;
use super::memory::MemoryStat;
use super::resolve::{Names, Sighting};
use super::slab::KernelMemory;
use super::workspace::Workspace;
use crate::readers::kept_file::{Failure, KeptFile};
use crate::vocabulary::Error;

/// A limit that was not there is looked for again after this time, and one of groups that cannot be seen read again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The files of one controller in one group.
#[derive(Debug)]
pub(super) struct GroupFiles {
    /// The group's name in its hierarchy.
    pub(super) group: PathBuf,
    pub(super) folder: Arc<Path>,
    pub(super) version: Version,
    pub(super) limit: KeptFile,
    pub(super) usage: KeptFile,
    pub(super) stat: Option<KeptFile>,
    /// Set for a group that the process is still in, and that cannot be found any more: it is not without a limit.
    pub(super) is_out_of_sight: bool,
    /// Its files were there once: when one is there no more, the group is gone.
    was_there: bool,
    pub(super) is_limited: bool,
    /// Limit and usage as just read, until it is judged.
    charged: Option<(u64, u64)>,
    /// Until then it is not looked whether there is a limit file by now.
    absent_until: Duration,
    above: Above,
    kernel_memory: KernelMemory,
}

/// The least limit of the groups above one of version 1, as its `memory.stat` tells it. Asked of each group of which the
/// next one above cannot be seen: that of a container, say, whose limit stands in a group above.
#[derive(Debug, Default)]
struct Above {
    is_asked: bool,
    limit: Option<u64>,
    read_again_at: Duration,
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
    workspace: &mut Workspace,
) -> Result<(Option<Charge>, Option<Arc<Error>>), Failure> {
    let mut failure = None;
    for level in levels.iter_mut() {
        match level.charge(workspace) {
            Ok(()) => {}
            Err(Failure::Gone) => return Err(Failure::Gone),
            Err(Failure::Other(error)) => failure = failure.or(Some(error)),
        }
    }
    // Reading `memory.stat` is the dear part. Room without it is a lower bound, so levels are visited by that bound and
    // the visit ends when no bound is below the best found.
    let mut least: Option<Charge> = None;
    let mut fixed_below = None;
    while let Some(index) =
        (0..levels.len()).filter(|index| levels[*index].charged.is_some()).min_by_key(|index| levels[*index].raw_room())
    {
        if least.as_ref().is_some_and(|least| least.room() <= levels[index].raw_room()) {
            break;
        }
        let fixed_below = if index == 0 { 0 } else { *fixed_below.get_or_insert_with(|| levels[0].fixed(workspace)) };
        let level = &mut levels[index];
        let Some((limit, raw)) = level.charged.take() else { break };
        let charge = level.judge(limit, raw, fixed_below, workspace);
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
    pub(super) fn new(Sighting { group, folder }: Sighting, version: Version, names: Names) -> GroupFiles {
        GroupFiles {
            group,
            limit: KeptFile::new(folder.join(names.limit)),
            usage: KeptFile::new(folder.join(names.usage)),
            stat: names.stat.map(|stat| KeptFile::new(folder.join(stat))),
            kernel_memory: KernelMemory::new(&folder),
            folder: folder.into(),
            version,
            is_out_of_sight: false,
            was_there: false,
            is_limited: false,
            charged: None,
            absent_until: Duration::ZERO,
            above: Above::default(),
        }
    }

    /// Has the limits of groups above that cannot be seen count as well: the kernel tells them here.
    pub(super) fn ask_for_limits_above(&mut self) {
        self.above.is_asked = true;
    }

    /// Has the group count as one that is still there.
    pub(super) fn out_of_sight(self) -> GroupFiles {
        GroupFiles { is_out_of_sight: true, ..self }
    }

    pub(super) fn kept_files(&self) -> usize {
        let files = [Some(&self.limit), Some(&self.usage), self.stat.as_ref()];
        files.into_iter().flatten().filter(|file| file.is_kept()).count()
    }

    /// The limit with the file that tells it, as it is printed; `None`: no limit here, or none any more.
    pub(super) fn read_limit(&mut self, workspace: &mut Workspace) -> Result<Option<(u64, String)>, Error> {
        let own = match workspace.read(&mut self.limit) {
            Ok(text) => limit::parse(text).map_err(|what| Error::malformed(self.limit.path().into(), what))?,
            Err(Failure::Gone) => None,
            Err(Failure::Other(error)) => return Err(error),
        };
        let above = self.limit_above(workspace).filter(|above| own.map_or(true, |own| *above < own));
        let limit = match (own, above, &self.stat) {
            (_, Some(above), Some(stat)) => {
                Some((above, format!("hierarchical_memory_limit of {}", stat.path().display())))
            }
            (own, ..) => own.map(|own| (own, self.limit.path().display().to_string())),
        };
        self.is_limited = limit.is_some();
        Ok(limit)
    }

    /// Reads the limit, and if there is one what is charged.
    fn charge(&mut self, workspace: &mut Workspace) -> Result<(), Failure> {
        self.charged = None;
        if workspace.now < self.absent_until {
            return Ok(());
        }
        let own = match workspace.read(&mut self.limit) {
            Ok(text) => limit::parse(text).map_err(|what| self.limit.malformed(what))?,
            Err(Failure::Gone) if self.is_out_of_sight => {
                let error = std::io::Error::from_raw_os_error(libc::ENOENT);
                return Err(Failure::Other(Error::read(self.limit.path().to_owned(), error)));
            }
            // The controller is not switched on here, or this is the root, which has no limit: that changes rarely.
            Err(Failure::Gone) if !self.was_there => {
                self.absent_until = workspace.now + LOOK_AGAIN;
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        let was_there = std::mem::replace(&mut self.was_there, true);
        let limit = own.into_iter().chain(self.limit_above(workspace)).min();
        self.is_limited = limit.is_some();
        let Some(limit) = limit else { return Ok(()) };
        let raw = match workspace.read(&mut self.usage) {
            Ok(text) => limit::parse_charge(text).ok_or_else(|| self.usage.malformed("it is not a number"))?,
            Err(Failure::Gone) if !was_there => return Err(self.usage.malformed("it is not there beside its limit")),
            Err(failure) => return Err(failure),
        };
        self.charged = Some((limit, raw));
        Ok(())
    }

    /// The least limit that groups above have, read now and then.
    fn limit_above(&mut self, workspace: &mut Workspace) -> Option<u64> {
        if self.above.is_asked && workspace.now >= self.above.read_again_at {
            self.above.limit = self.read_stat(workspace).and_then(|stat| stat.least_limit());
            self.above.read_again_at = workspace.now + LOOK_AGAIN;
        }
        self.above.limit
    }

    fn read_stat(&mut self, workspace: &mut Workspace) -> Option<MemoryStat> {
        let text = workspace.read(self.stat.as_mut()?).ok()?;
        Some(MemoryStat::parse(text, self.version))
    }

    /// The part of the charge of the own group that cannot be given back, which is so in every group above.
    ///
    /// Linux 6.18 was seen to tell for up to two seconds what a group above had consisted of, where its file was read while
    /// memory was charged to the group below, and to tell what it is when that of the group below has been read: so this
    /// comes before, and what it says counts where the other lags behind all the same.
    fn fixed(&mut self, workspace: &mut Workspace) -> u64 {
        self.read_stat(workspace).map_or(0, |stat| stat.fixed())
    }

    /// The part of the charge that counts, of which so much is that of a group below and cannot be given back.
    fn judge(&mut self, limit: u64, raw: u64, fixed_below: u64, workspace: &mut Workspace) -> Charge {
        let charge = |limit, usage, raw| Charge { folder: Arc::clone(&self.folder), limit, usage, raw };
        let all = charge(limit, raw, raw);
        // Where it cannot be read, all that is charged counts: too much rather than too little.
        let Some(mut stat) = self.read_stat(workspace) else { return all };
        if self.version == Version::V1 {
            let reclaimable = self.kernel_memory.reclaimable(limit, stat.left_for_kernel(raw), workspace);
            stat = stat.with_reclaimable_kernel(raw, reclaimable);
        }
        let usage = stat.judged_usage(raw, fixed_below);
        let of_memory = Charge { usage, ..all };
        let with_swap = stat.limit_with_swap().map(|(limit, swap)| Charge {
            folder: Arc::clone(&self.folder),
            limit,
            usage: usage.saturating_add(swap),
            raw: raw.saturating_add(swap),
        });
        with_swap.filter(|with_swap| with_swap.room() < of_memory.room()).unwrap_or(of_memory)
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
