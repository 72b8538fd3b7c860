//! The groups that the process is in, from the own one up to the highest that can be seen.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::alarms::Alarms;
use super::controllers::is_switched_off;
use super::level::{least, Charge, GroupFiles};
use super::membership::{of_controller, unified, Version};
use super::mountinfo::MountInfo;
use super::mounts::parse_line;
use super::own_file::OwnFile;
use super::pressure::{Growth, PressureFiles};
use super::psi::Averages;
use super::resolve::{look_at_folder, look_at_mount, Levels, Names, Sighting};
use super::watch::Watch;
use super::workspace::Workspace;
use crate::readers::kept_file::{Allowance, Failure, KeptFile};
use crate::readers::Roots;
use crate::sys::coarse_now;
use crate::sys::fork::Mutex;
use crate::vocabulary::{
    CgroupMemory, CgroupPids, Error, MemoryPressure, Origin, ReadOptional, ReadPart, RecentPressure,
};

/// The number of the groups' files that are kept open, those that are read first.
const KEPT_FILES: usize = 8;

/// Room for the longest of the files: `/proc/self/cgroup`, with a path of 4,096 bytes in each of fourteen hierarchies.
const BUFFER: usize = 64 << 10;

/// The groups are looked for again after this time where the kernel does not tell of changes, or where something was
/// out of sight.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The groups that the process was last seen in, and their files.
#[derive(Debug)]
pub(crate) struct Cgroups {
    roots: Roots,
    own: OwnFile,
    mounts: MountInfo,
    /// The text of `own` when the rest was looked up.
    membership: Option<Vec<u8>>,
    /// Then the rest is looked up, although no mount is said to have changed.
    look_again_at: Option<Duration>,
    lookups: u64,
    workspace: Workspace,
    memory: Controller,
    pids: Controller,
    pressure: PressureFiles,
}

/// The groups of the process in the hierarchy of one controller.
#[derive(Debug)]
struct Controller {
    name: &'static str,
    names: fn(Version) -> Names,
    groups: Vec<GroupFiles>,
    /// A group that may limit the process and that no mount shows.
    hidden: Option<Arc<Error>>,
}

/// The reason why groups are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// The process is in others.
    Moved,
    /// They may be found elsewhere, or more of them.
    Changed,
    /// A file of theirs has vanished.
    Vanished,
}

/// Of each controller, the smallest limit and where it stands.
#[derive(Debug)]
pub(crate) struct LeastLimits {
    pub(crate) memory: Option<(u64, Origin)>,
    pub(crate) pids: Option<(u64, Origin)>,
    /// The errors of the groups that could not be read, or not even seen.
    pub(crate) unread: Vec<Arc<Error>>,
    /// Some group was read, limited or not.
    pub(crate) any_read: bool,
}

impl Cgroups {
    pub(crate) fn new(roots: Roots) -> Cgroups {
        let proc_root = roots.proc_root.clone();
        Cgroups {
            own: OwnFile::new(&proc_root, "cgroup"),
            mounts: MountInfo::new(&proc_root),
            membership: None,
            look_again_at: None,
            lookups: 0,
            memory: Controller::new("memory", Names::of_memory),
            pids: Controller::new("pids", Names::of_pids),
            pressure: PressureFiles::new(&proc_root),
            workspace: Workspace {
                now: coarse_now(),
                allowance: Allowance(0),
                buffer: vec![0; BUFFER].into_boxed_slice(),
                meminfo: KeptFile::new(proc_root.join("meminfo")),
                zoneinfo: KeptFile::new(proc_root.join("zoneinfo")),
                proc_root,
            },
            roots,
        }
    }

    /// Looks up the groups if the process or a mount has been moved since. To be called before the others.
    pub(crate) fn refresh(&mut self) -> Result<(), Error> {
        self.workspace.now = coarse_now();
        let text = match self.own.read(self.workspace.now, self.membership.as_deref(), &mut self.workspace.buffer) {
            Ok(text) => text,
            // A kernel without control groups.
            Err(Failure::Gone) => &[],
            Err(Failure::Other(error)) => return Err(error),
        };
        if self.membership.as_deref() != Some(text) {
            self.membership = Some(text.to_vec());
            return self.look_up(Occasion::Moved);
        }
        if self.mounts.has_changed() || self.look_again_at.is_some_and(|then| self.workspace.now >= then) {
            return self.look_up(Occasion::Changed);
        }
        Ok(())
    }

    /// Differs when the groups have been looked up since, or others are limited: what was armed before may be that of
    /// another group, or not all.
    pub(crate) fn fingerprint(&self) -> u64 {
        let is_limited = |level: &&GroupFiles| level.is_limited && level.version == Version::V2;
        (self.lookups << 8) | self.memory.groups.iter().filter(is_limited).count() as u64
    }

    fn look_up(&mut self, occasion: Occasion) -> Result<(), Error> {
        let found = self.find();
        let [memory, pids, unified] = match found {
            Ok(found) => found,
            // Looked up again next time.
            Err(error) => {
                if occasion == Occasion::Moved {
                    self.membership = None;
                }
                self.look_again_at = Some(Duration::ZERO);
                return Err(error);
            }
        };
        let is_refused = [&memory, &pids, &unified].into_iter().flatten().any(Levels::is_refused);
        let is_other = [
            self.memory.replace(memory, occasion, &mut self.workspace),
            self.pids.replace(pids, occasion, &mut self.workspace),
            self.pressure.replace(unified),
        ];
        if is_other.contains(&true) || occasion != Occasion::Changed {
            self.lookups += 1;
        }
        let levels = || self.memory.groups.iter().chain(&self.pids.groups);
        let kept = levels().map(GroupFiles::kept_files).sum::<usize>() + self.pressure.kept_files();
        self.workspace.allowance = Allowance(KEPT_FILES.saturating_sub(kept));
        let is_settled = self.mounts.is_of_kernel() && !is_refused && !levels().any(|level| level.is_out_of_sight);
        self.look_again_at = if is_settled { None } else { Some(self.workspace.now + LOOK_AGAIN) };
        Ok(())
    }

    /// Looks for the groups that have the memory controller, for those that have that of tasks, and for those of
    /// version 2, through every mount of their hierarchies.
    fn find(&mut self) -> Result<[Option<Levels>; 3], Error> {
        let membership = self.membership.as_deref().unwrap_or_default();
        let of_controller = |controller: &Controller| of_controller(membership, controller.name).map(Levels::new);
        let mut found = [of_controller(&self.memory), of_controller(&self.pids), unified(membership).map(Levels::new)];
        if found.iter().all(Option::is_none) {
            return Ok(found);
        }
        let names = [self.memory.name, self.pids.name, ""];
        let Cgroups { mounts, roots, workspace, .. } = self;
        mounts.visit(&mut workspace.buffer, |line, is_of_kernel| {
            for (levels, name) in found.iter_mut().zip(names) {
                let Some(levels) = levels else { continue };
                let Some(mount) = parse_line(line, levels.version, name) else { continue };
                match roots.of_mount(&mount.point) {
                    // As it is laid out elsewhere.
                    Some(point) => levels.look_through(&mount, &point, look_at_folder),
                    None if is_of_kernel => levels.look_through(&mount, &mount.point, look_at_mount),
                    None => levels.look_through(&mount, &mount.point, look_at_folder),
                }
            }
        })?;
        Ok(found)
    }

    /// Memory of the group, of all that limit it, whose limit leaves the least room; and the error of one that could
    /// not be read, or not be seen, beside it.
    pub(crate) fn memory(&mut self) -> ReadPart<CgroupMemory> {
        let (found, unread) = self.least(|cgroups| (&mut cgroups.memory.groups, &mut cgroups.workspace))?;
        let found = found.map(|Charge { folder, limit, usage, raw }| CgroupMemory {
            path: folder,
            usage_bytes: usage,
            raw_bytes: raw,
            limit_bytes: limit,
        });
        Ok((found, unread.or_else(|| self.memory.hidden.clone())))
    }

    /// The same of tasks.
    pub(crate) fn pids(&mut self) -> ReadPart<CgroupPids> {
        let (found, unread) = self.least(|cgroups| (&mut cgroups.pids.groups, &mut cgroups.workspace))?;
        let found = found.map(|Charge { folder, limit, usage, .. }| CgroupPids { path: folder, count: usage, limit });
        Ok((found, unread.or_else(|| self.pids.hidden.clone())))
    }

    /// The smallest limits of any group that can be seen and read.
    pub(crate) fn least_limits(&mut self) -> LeastLimits {
        let mut unread: Vec<Arc<Error>> = self.refresh().err().map(Arc::new).into_iter().collect();
        let mut any_read = false;
        let Cgroups { memory, pids, workspace, .. } = self;
        let [memory, pids] = [memory, pids].map(|controller| {
            let mut least: Option<(u64, Origin)> = None;
            for level in &mut controller.groups {
                match level.read_limit(workspace) {
                    Ok(limit) => {
                        any_read = true;
                        let limit =
                            limit.map(|(limit, name)| (limit, Origin::in_group(name, Arc::clone(&level.folder))));
                        least = least.take().into_iter().chain(limit).min_by_key(|(limit, _)| *limit);
                    }
                    Err(error) => unread.push(Arc::new(error)),
                }
            }
            unread.extend(controller.hidden.clone());
            least
        });
        LeastLimits { memory, pids, unread, any_read }
    }

    /// Asks the kernel to wake whoever waits for what comes back.
    pub(crate) fn arm(&mut self, watch: &Watch, pressure: bool, memory: bool) -> Alarms {
        let mut alarms = Alarms::default();
        // What cannot be read is for checks to report.
        let _ = self.refresh();

        if pressure {
            alarms.arm_pressure(watch, self.pressure.memory.paths());
        }
        if memory {
            let Cgroups { memory, workspace, .. } = self;
            for level in memory.groups.iter_mut().filter(|level| level.version == Version::V2) {
                if let Ok(Some(_)) = level.read_limit(workspace) {
                    alarms.arm_events(&level.folder.join("memory.events"));
                }
            }
        }
        alarms.fingerprint = self.fingerprint();
        alarms
    }

    /// The group with the least room. One that has vanished under the process is looked up once more.
    fn least(&mut self, parts: impl Fn(&mut Cgroups) -> (&mut Vec<GroupFiles>, &mut Workspace)) -> ReadPart<Charge> {
        for _ in 0..2 {
            let (levels, workspace) = parts(self);
            match least(levels, workspace) {
                Ok(found) => return Ok(found),
                Err(Failure::Other(error)) => return Err(Arc::new(error)),
                Err(Failure::Gone) => self.look_up(Occasion::Vanished).map_err(Arc::new)?,
            }
        }
        // It comes and goes: the next reading will tell.
        Ok((None, None))
    }

    /// The pressure on memory of the own group, else of the machine; `None` where the kernel does not tell.
    pub(crate) fn memory_pressure(&mut self) -> ReadOptional<MemoryPressure> {
        let read = self.pressure.memory.read(&mut self.workspace)?;
        Ok(read.map(|(Averages { some_avg10, full_avg10, .. }, _)| MemoryPressure { some_avg10, full_avg10 }))
    }

    /// The same on the CPUs, over the time since an earlier reading.
    pub(crate) fn cpu_pressure(&mut self, growth: &Mutex<Growth>) -> ReadOptional<RecentPressure> {
        self.pressure.cpu.read_recent(&mut self.workspace, growth)
    }

    /// The same on disks.
    pub(crate) fn io_pressure(&mut self, growth: &Mutex<Growth>) -> ReadOptional<RecentPressure> {
        self.pressure.io.read_recent(&mut self.workspace, growth)
    }
}

impl Controller {
    fn new(name: &'static str, names: fn(Version) -> Names) -> Controller {
        Controller { name, names, groups: Vec::new(), hidden: None }
    }

    /// Replaces the groups by those that were found now, and returns whether they are others.
    fn replace(&mut self, found: Option<Levels>, occasion: Occasion, workspace: &mut Workspace) -> bool {
        let hidden: Vec<PathBuf> = found.iter().flat_map(|found| self.hidden_in(found)).map(Path::to_owned).collect();
        let is_other = self.replace_groups(found, occasion, workspace);
        // One that was seen before is known, though it is out of sight.
        let is_known = |group: &Path| self.groups.iter().any(|known| known.group == group);
        let hidden = hidden.into_iter().find(|group| !is_known(group));
        self.hidden = hidden.filter(|group| self.may_limit(group, workspace)).map(|group| {
            let mounts = workspace.proc_root.join("self/mountinfo");
            Arc::new(Error::hidden(mounts, &format!("control group {} of {}", group.display(), self.name)))
        });
        is_other
    }

    /// The groups that no mount shows, and whose limits no other group tells.
    fn hidden_in<'a>(&self, found: &'a Levels) -> impl Iterator<Item = &'a Path> {
        let is_told = (self.names)(found.version).stat_tells_limits_above;
        found.hidden().filter(move |group| !is_told || found.own() == Some(group))
    }

    /// Returns `false` if a group can have no limit: the root of all, or one of a controller that is switched off.
    fn may_limit(&self, group: &Path, workspace: &mut Workspace) -> bool {
        let mut controllers = KeptFile::new(workspace.proc_root.join("cgroups"));
        let is_off = match controllers.read(&mut Allowance(0), &mut workspace.buffer) {
            Ok(text) => is_switched_off(text, self.name),
            Err(_) => false,
        };
        !is_off && !is_root_of_all(group, &workspace.proc_root)
    }

    /// Where a limit was known, and the process is in that group still, it is out of sight (of a changed root, say) and
    /// not without a limit.
    fn replace_groups(&mut self, found: Option<Levels>, occasion: Occasion, workspace: &mut Workspace) -> bool {
        let version = found.as_ref().map_or(Version::V2, |levels| levels.version);
        let names = (self.names)(version);
        let mut seen = found.map(Levels::seen).unwrap_or_default();
        let mut is_bound = |above: &Sighting| names.hierarchy.map_or(true, |file| binds_below(above, file, workspace));
        let binding = 1 + seen.iter().skip(1).take_while(|above| is_bound(above)).count();
        seen.truncate(binding);

        let in_sight = self.groups.iter().filter(|group| !group.is_out_of_sight);
        if occasion == Occasion::Changed
            && in_sight.map(|group| &*group.folder).eq(seen.iter().map(|seen| &*seen.folder))
        {
            return false;
        }
        let before = std::mem::take(&mut self.groups);
        self.groups = seen.into_iter().map(|seen| GroupFiles::new(seen, version, names)).collect();
        // Groups may be out of sight above the highest, and between two that are seen through different mounts.
        for index in 0..self.groups.len() {
            let above = self.groups.get(index + 1).map(|above| above.group.clone());
            let is_next = above.is_some_and(|above| above == parent_of(&self.groups[index].group));
            if names.stat_tells_limits_above && !is_next {
                self.groups[index].ask_for_limits_above();
            }
        }
        let is_lost =
            |group: &GroupFiles| group.is_limited && self.groups.iter().all(|found| found.group != group.group);
        let lost: Vec<GroupFiles> =
            before.into_iter().filter(|group| occasion != Occasion::Moved && is_lost(group)).collect();
        self.groups.extend(lost.into_iter().map(GroupFiles::out_of_sight));
        true
    }
}

/// The name of the group above one: above the root of the cgroup namespace there are `/..`, `/../..` and so on.
fn parent_of(group: &Path) -> PathBuf {
    match group.components().next_back() {
        Some(Component::Normal(_)) => group.parent().unwrap_or(group).to_owned(),
        _ => group.join(".."),
    }
}

/// Returns `true` if this is the name of the highest group of all, which has no limits: `/` in the first cgroup
/// namespace. In any other that is some group, whose limits can only be known through a mount.
fn is_root_of_all(group: &Path, proc_root: &Path) -> bool {
    /// `PROC_CGROUP_INIT_INO` of `linux/proc_ns.h`, the same on every machine.
    const FIRST_NAMESPACE: &str = "cgroup:[4026531835]";
    let namespaces = ["thread-self", "self"].map(|own| proc_root.join(own).join("ns/cgroup"));
    let namespace = namespaces.iter().find_map(|link| fs::read_link(link).ok());
    // None before Linux 4.6.
    group == Path::new("/") && namespace.map_or(true, |namespace| namespace == Path::new(FIRST_NAMESPACE))
}

/// Returns `false` if the limit of a group does not count for those below it.
fn binds_below(group: &Sighting, file: &str, workspace: &mut Workspace) -> bool {
    let mut file = KeptFile::new(group.folder.join(file));
    !matches!(file.read(&mut Allowance(0), &mut workspace.buffer), Ok(b"0\n"))
}

#[cfg(test)]
mod tests;
