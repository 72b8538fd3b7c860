//! Tasks: a process is one for each of its threads. The limit of a control group on them, and that of a user, count what
//! others have as well.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater::CgroupPids;
use nix::sys::resource::{getrlimit, Resource, RLIM_INFINITY};
use procfs::process::{all_processes, Process};

use crate::tree;

/// How long nothing is looked at while less than half of every limit is used.
const FAR: Duration = Duration::from_secs(1);

/// Privileges by which a process is exempt from the limit of its user: to administrate the system, and its resources.
const EXEMPT: u64 = 1 << 21 | 1 << 24;

/// The limits on tasks, and what was used of each at the last look.
#[derive(Debug)]
pub(crate) struct Tasks {
    user: Option<Room>,
    group: Option<Room>,
    next_look: Instant,
}

/// What there is of one limit.
#[derive(Debug, Clone)]
struct Room {
    whose: Whose,
    used: u64,
    limit: u64,
}

#[derive(Debug, Clone)]
enum Whose {
    User(u32),
    Group(Arc<Path>),
}

/// Why a job is not started.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) could_never_fit: bool,
}

impl Tasks {
    pub(crate) fn new() -> Tasks {
        Tasks { user: Room::of_user(), group: None, next_look: Instant::now() }
    }

    /// Takes note of the group that has the least room, if one has a limit.
    pub(crate) fn set_group(&mut self, pids: Option<&CgroupPids>) {
        self.group =
            pids.map(|pids| Room { whose: Whose::Group(pids.path.clone()), used: pids.count, limit: pids.limit });
    }

    /// Whether there is a limit at all.
    pub(crate) fn are_limited(&self) -> bool {
        self.user.is_some() || self.group.is_some()
    }

    /// Whether to look at what is used, which costs as much as a check: a tenth of the time goes into that at most.
    pub(crate) fn is_look_due(&self) -> bool {
        self.are_limited() && Instant::now() >= self.next_look
    }

    /// Looks at what is used, after the jobs were looked at: what they start in between then counts twice, not never.
    pub(crate) fn look(&mut self, began: Instant) {
        let mut are_far = true;
        for room in [&mut self.user, &mut self.group].into_iter().flatten() {
            if let Some(used) = room.whose.tasks() {
                room.used = used;
            }
            are_far &= room.used < room.limit / 2;
        }
        let gap = began.elapsed() * 10;
        self.next_look = Instant::now() + if are_far { gap.max(FAR) } else { gap };
    }

    /// Why a job of so many tasks does not fit beside what those that run are still to start, if it does not.
    pub(crate) fn refusal(&self, asked: u64, to_come: u64) -> Option<Refusal> {
        let rooms = [&self.user, &self.group];
        let full = rooms.into_iter().flatten().find(|room| room.used + to_come + asked > room.limit)?;
        let Room { whose, used, limit } = full;
        let whose = match whose {
            Whose::User(user) => format!("user {user}"),
            Whose::Group(path) => path.display().to_string(),
        };
        let could_never_fit = asked > *limit;
        let never = if could_never_fit { "; it could never fit" } else { "" };
        let reason = format!("tasks {used} + {to_come} to come + {asked} asked exceed {limit} of {whose}{never}");
        Some(Refusal { reason, could_never_fit })
    }
}

impl Room {
    /// `None` where no limit holds: for the first user, and with privileges.
    fn of_user() -> Option<Room> {
        let (limit, _) = getrlimit(Resource::RLIMIT_NPROC).ok().filter(|(soft, _)| *soft != RLIM_INFINITY)?;
        let status = Process::myself().and_then(|process| process.status()).ok()?;
        let is_exempt = status.ruid == 0 || status.capeff & EXEMPT != 0;
        let whose = Whose::User(status.ruid);
        (!is_exempt).then(|| Room { used: whose.tasks().unwrap_or_default(), whose, limit })
    }
}

impl Whose {
    /// The tasks that there are now.
    fn tasks(&self) -> Option<u64> {
        match self {
            Whose::User(user) => {
                let is_own = |process: &Process| process.uid().is_ok_and(|owner| owner == *user);
                Some(all_processes().ok()?.flatten().filter(is_own).map(|process| tree::threads(&process)).sum())
            }
            Whose::Group(path) => fs::read_to_string(path.join("pids.current")).ok()?.trim().parse().ok(),
        }
    }
}
