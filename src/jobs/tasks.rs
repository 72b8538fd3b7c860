//! Limits on tasks. A process is one task for each of its threads, and a limit counts what others have as well.
//!
//! # The need
//!
//! Where a limit is reached, `fork(2)` and `clone(2)` fail with `EAGAIN` (getrlimit(2), `RLIMIT_NPROC`;
//! `Documentation/admin-guide/cgroup-v2.rst`, `pids.max`): that of the host, which waits, but also those of jobs that
//! run, which fail. So what these are still to start must be kept free.
//!
//! # What is done
//!
//! A job is started if its tasks fit beside those that there are and those that running jobs have not started yet. The
//! former are looked at last: what a job starts between two looks counts twice, not never.
//!
//! # The cost
//!
//! That of a control group is told in a file. The tasks of a user are told by nobody, so every process is read, some
//! 30 us each; unless the tasks of the whole machine, which one file has, are so few that his cannot matter. A look
//! takes a tenth of the time at most, and a hundred microseconds a second where every limit is far.

use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sys::rlimit;
use crate::vocabulary::CgroupPids;

/// How long nothing is looked at where every limit is far.
const FAR: Duration = Duration::from_secs(1);

/// The shortest time between two looks.
const NEAR: Duration = Duration::from_millis(5);

/// The room from which on a limit of which less than half is used is far: jobs hardly start so many tasks in a second.
const AMPLE: u64 = 1000;

/// The capabilities with either of which a process is not held to the limit of its user: `CAP_SYS_ADMIN` and
/// `CAP_SYS_RESOURCE` (capabilities(7)).
const EXEMPT: u64 = 1 << 21 | 1 << 24;

/// The inode of the first user namespace, `PROC_USER_INIT_INO` of `linux/proc_ns.h`: privileges in any other are none
/// against a limit.
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// The limits on tasks, and what was used of each at the last look.
#[derive(Debug)]
pub(super) struct Tasks {
    limits: Vec<Limit>,
    next_look: Instant,
    /// Whether a job was refused by a number that is no more than a bound.
    is_exact_wanted: bool,
}

/// A limit, and what is used of it.
#[derive(Debug, Clone)]
struct Limit {
    whose: Arc<str>,
    limit: u64,
    used: u64,
    /// Otherwise no more than so many are used.
    is_exact: bool,
}

/// A want of tasks for a job. Its text begins with `tasks` and names the numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskShortage {
    /// The holder of the limit: `user 1000`, or the folder of a control group.
    pub whose: Arc<str>,
    /// The limit.
    pub limit: u64,
    /// The tasks that there are, those of others included.
    pub used: u64,
    /// The tasks that the jobs that run are still to start.
    pub to_come: u64,
    /// The tasks that the job is taken to need.
    pub asked: u64,
}

impl TaskShortage {
    /// Whether the job needs more than there would be with nothing beside it and the host.
    pub fn could_never_fit(&self) -> bool {
        self.asked >= self.limit
    }
}

impl fmt::Display for TaskShortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TaskShortage { whose, limit, used, to_come, asked } = self;
        write!(f, "tasks {used} + {to_come} to come + {asked} asked exceed {limit} of {whose}")?;
        f.write_str(if self.could_never_fit() { "; it could never fit" } else { "" })
    }
}

impl Tasks {
    pub(super) fn new() -> Tasks {
        Tasks { limits: Vec::new(), next_look: Instant::now(), is_exact_wanted: false }
    }

    pub(super) fn is_look_due(&self, now: Instant) -> bool {
        now >= self.next_look
    }

    /// Whether a limit was so near at the last look that the tasks of jobs matter.
    pub(super) fn are_near(&self) -> bool {
        !self.limits.iter().all(Limit::is_far)
    }

    /// Looks at what is used, after the jobs were looked at, which began at this instant. The group is the one that has
    /// the least room, as a check has found it.
    pub(super) fn look(&mut self, began: Instant, group: Option<&CgroupPids>) {
        let is_exact_wanted = std::mem::take(&mut self.is_exact_wanted);
        self.limits.clear();
        self.limits.extend(group.map(of_group));
        self.limits.extend(of_user(is_exact_wanted));
        let gap = began.elapsed() * 10;
        self.next_look = Instant::now() + gap.max(if self.are_near() { NEAR } else { FAR });
    }

    /// Why a job of so many tasks does not fit beside those that are to come, if it does not.
    pub(super) fn shortage(&mut self, asked: u64, to_come: u64) -> Option<TaskShortage> {
        let full = self.limits.iter().find(|limit| !limit.has_room(asked.saturating_add(to_come)))?;
        let Limit { whose, limit, used, is_exact } = full.clone();
        if !is_exact {
            self.is_exact_wanted = true;
            self.next_look = Instant::now();
        }
        Some(TaskShortage { whose, limit, used, to_come, asked })
    }

    /// Whether the host alone leaves too few for a job of so many tasks.
    pub(super) fn are_too_few_beside_host(&self, asked: u64) -> bool {
        let own = fs::read("/proc/self/status").map_or(1, |status| Status::parse(&status).threads);
        self.limits.iter().any(|limit| asked.saturating_add(own) > limit.limit)
    }
}

impl Limit {
    fn is_far(&self) -> bool {
        self.used < self.limit / 2 && self.has_room(AMPLE)
    }

    fn has_room(&self, tasks: u64) -> bool {
        self.used.saturating_add(tasks) <= self.limit
    }
}

fn of_group(pids: &CgroupPids) -> Limit {
    // The check may be old. Where the file cannot be read it is what there is.
    let now = fs::read_to_string(pids.path.join("pids.current")).ok().and_then(|text| text.trim().parse().ok());
    let whose = pids.path.display().to_string().into();
    Limit { whose, limit: pids.limit, used: now.unwrap_or(pids.count), is_exact: true }
}

/// `None` where no limit holds: for the first user, and with privileges.
fn of_user(is_exact_wanted: bool) -> Option<Limit> {
    let limit = rlimit::user_tasks()?;
    let own = Status::parse(&fs::read("/proc/thread-self/status").ok()?);
    let user = own.user?;
    let has_privileges = user == 0 || own.capabilities & EXEMPT != 0;
    if has_privileges && is_first_user_namespace() {
        return None;
    }
    let whose = format!("user {user}").into();
    let bound = fs::read("/proc/loadavg").ok().as_deref().and_then(machine_tasks);
    let bound = bound.map(|used| Limit { whose: Arc::clone(&whose), limit, used, is_exact: false });
    match bound.filter(|bound| bound.is_far() && !is_exact_wanted) {
        None => Some(Limit { whose, limit, used: tasks_of(user), is_exact: true }),
        bound => bound,
    }
}

fn is_first_user_namespace() -> bool {
    // Without the file there are no others.
    fs::metadata("/proc/self/ns/user").map_or(true, |namespace| namespace.ino() == FIRST_USER_NAMESPACE)
}

/// The tasks of a user, as far as `/proc` shows them: what is in other pid namespaces counts, and is not seen.
fn tasks_of(user: u32) -> u64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.filter(|entry| entry.file_name().as_bytes().first().is_some_and(u8::is_ascii_digit));
    // One that has just ended has none.
    let statuses = processes.filter_map(|entry| Some(Status::parse(&fs::read(entry.path().join("status")).ok()?)));
    statuses.filter(|status| status.user == Some(user)).map(|status| status.threads).sum()
}

/// The tasks of the whole machine, those of the kernel included, from `/proc/loadavg` (proc_loadavg(5)):
///
/// ```text
/// 0.20 0.18 0.12 1/523 11206
/// ```
///
/// The second number of the fourth field, 523. All pid namespaces are in it.
fn machine_tasks(loadavg: &[u8]) -> Option<u64> {
    let field = std::str::from_utf8(loadavg).ok()?.split_ascii_whitespace().nth(3)?;
    field.split_once('/')?.1.parse().ok()
}

/// `/proc/<pid>/status` (proc_pid_status(5)), as far as it says who is held to a limit.
///
/// ```text
/// Name:   cc1plus
/// Uid:    1000    1000    1000    1000
/// Threads:        16
/// CapEff: 000001ffffffffff
/// ```
///
/// The surprise: of the four users the first counts, the real one, which need not be the owner of the folder.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    user: Option<u32>,
    threads: u64,
    capabilities: u64,
}

impl Status {
    fn parse(status: &[u8]) -> Status {
        let value = |name: &[u8]| {
            let mut lines = status.split(|byte| *byte == b'\n');
            let values = lines.find_map(|line| line.strip_prefix(name))?;
            std::str::from_utf8(values).ok()?.split_ascii_whitespace().next()
        };
        Status {
            user: value(b"Uid:").and_then(|user| user.parse().ok()),
            threads: value(b"Threads:").and_then(|threads| threads.parse().ok()).unwrap_or(1),
            capabilities: value(b"CapEff:").and_then(|set| u64::from_str_radix(set, 16).ok()).unwrap_or_default(),
        }
    }
}

/// A process has a user that its file names, and other lines change nothing.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let _ = machine_tasks(bytes);
    let status = Status::parse(bytes);
    assert_eq!(Status::parse(&crate::laws::after_a_line("Name:\tUid: 7", bytes)), status);
    let text = String::from_utf8_lossy(bytes);
    assert!(status.user.map_or(true, |_| text.contains("Uid:")) && (status.threads == 1 || text.contains("Threads:")));
    let all = format!("Uid: 7\nThreads: 9\nCapEff: 1f\n{text}");
    assert_eq!(Status::parse(all.as_bytes()), Status { user: Some(7), threads: 9, capabilities: 0x1f });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(used: u64, limit: u64, is_exact: bool) -> Tasks {
        let limit = Limit { whose: "user 7".into(), limit, used, is_exact };
        Tasks { limits: vec![limit], next_look: Instant::now() + FAR, is_exact_wanted: false }
    }

    #[test]
    fn a_job_fits_up_to_the_limit_beside_what_is_to_come() {
        let mut tasks = limited(24, 40, true);
        assert_eq!(tasks.shortage(16, 0), None);
        let shortage = tasks.shortage(16, 1).unwrap();
        assert_eq!(shortage.to_string(), "tasks 24 + 1 to come + 16 asked exceed 40 of user 7");
        assert!(!shortage.could_never_fit());
        assert!(tasks.shortage(40, 0).unwrap().could_never_fit(), "the host is a task itself");
        assert!(tasks.shortage(u64::MAX, u64::MAX).is_some());
    }

    #[test]
    fn a_limit_is_far_where_half_of_it_and_much_is_left() {
        for (used, limit, is_near) in
            [(1, 40, true), (499, 2000, false), (1000, 2000, true), (0, 999, true), (29_999, 60_000, false)]
        {
            assert_eq!(limited(used, limit, true).are_near(), is_near, "{used} of {limit}");
        }
        assert!(!Tasks::new().are_near());
    }

    #[test]
    fn a_refusal_by_a_bound_has_the_tasks_counted_at_once() {
        let mut tasks = limited(100, 4000, false);
        assert!(!tasks.is_look_due(Instant::now()));
        assert_eq!(tasks.shortage(100, 0), None);
        assert!(!tasks.is_look_due(Instant::now()));
        assert!(tasks.shortage(3950, 0).is_some());
        assert!(tasks.is_look_due(Instant::now()) && tasks.is_exact_wanted);
    }

    #[test]
    fn a_group_is_read_anew_and_else_is_as_the_check_found_it() {
        let folder = tempfile::tempdir().unwrap();
        let pids = CgroupPids { path: folder.path().into(), count: 7, limit: 40 };
        assert_eq!(of_group(&pids).used, 7);
        for (text, used) in [("12\n", 12), ("", 7), ("x\n", 7)] {
            fs::write(folder.path().join("pids.current"), text).unwrap();
            assert_eq!(of_group(&pids).used, used, "{text:?}");
        }
    }

    #[test]
    fn a_status_says_whose_the_tasks_are_and_a_damaged_one_nothing() {
        let text = b"Name:\tUid:\\n 9\nUid:\t1000\t0\t0\t0\nThreads:\t16\nCapEff:\t0000000001200000\n";
        let status = Status { user: Some(1000), threads: 16, capabilities: EXEMPT };
        assert_eq!(Status::parse(text), status);
        let nothing = Status { user: None, threads: 1, capabilities: 0 };
        for text in [&b""[..], b"Uid:\nThreads:\nCapEff:\n", b"Uid:\t-1\nThreads:\tx\nCapEff:\t\xff\n"] {
            assert_eq!(Status::parse(text), nothing, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn the_tasks_of_a_machine_are_no_fewer_than_those_of_a_user() {
        assert_eq!(machine_tasks(b"0.20 0.18 0.12 1/523 11206\n"), Some(523));
        for text in [&b""[..], b"0.20 0.18 0.12 1", b"0 0 0 1/x 1", b"\xff"] {
            assert_eq!(machine_tasks(text), None);
        }
        let own = Status::parse(&fs::read("/proc/thread-self/status").unwrap());
        let (used, all) = (tasks_of(own.user.unwrap()), machine_tasks(&fs::read("/proc/loadavg").unwrap()));
        assert!(used >= own.threads);
        // The tasks of a machine come and go between both looks.
        assert!(all.map_or(true, |all| used <= all + 500));
    }
}
