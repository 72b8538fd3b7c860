//! Whose a process is: what jobs have started carries a mark in its environment, so that it is known however fast it was
//! orphaned.
//!
//! Orphans become children of this process, a subreaper, and the kernel lists them as those of its first thread
//! (`/proc/<pid>/task/<tid>/children`, proc_pid_task(5), with `CONFIG_PROC_CHILDREN`), apart from the jobs themselves,
//! which another thread has started. An environment is read as `environ` shows it (proc_pid_environ(5)): a process can
//! change its own. A list costs about 10 us, and each orphan in it 30 us.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::cost::Cost;
use crate::readers::procfs::bytes;
use crate::readers::{parse_stat, stopped_by};
use crate::sys::process::Handle;
use crate::sys::reserve::is_exhausted;

/// The name of the mark in the environment.
pub(super) const MARK: &str = "HIGHWATER_JOB";

/// The longest environment that is looked through: longer than any that a program is started with (6 MB, execve(2)). A
/// process can have the kernel show another one.
const LONGEST: u64 = 8 << 20;

/// The starts of one table of jobs.
#[derive(Debug)]
pub(super) struct Family {
    number: u64,
    started: AtomicU64,
}

/// One start of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Serial {
    family: u64,
    number: u64,
}

impl Family {
    pub(super) fn new() -> Family {
        static FAMILIES: AtomicU64 = AtomicU64::new(1);
        Family { number: FAMILIES.fetch_add(1, Relaxed), started: AtomicU64::new(0) }
    }

    pub(super) fn next(&self) -> Serial {
        Serial { family: self.number, number: self.started.fetch_add(1, Relaxed) }
    }

    pub(super) fn has(&self, serial: Serial) -> bool {
        serial.family == self.number
    }
}

impl Serial {
    /// The mark of all that it starts.
    pub(super) fn mark(self) -> String {
        format!("{}.{}.{}", std::process::id(), self.family, self.number)
    }

    /// `None` for a mark of another process.
    fn from_mark(mark: &str) -> Option<Serial> {
        let mut numbers = mark.split('.');
        let is_own = numbers.next()?.parse() == Ok(std::process::id());
        let serial = Serial { family: numbers.next()?.parse().ok()?, number: numbers.next()?.parse().ok()? };
        (is_own && numbers.next().is_none()).then_some(serial)
    }
}

/// A child of this process that its first thread has started, or was handed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Orphan {
    pub(super) pid: u32,
    /// The process group that it is in.
    pub(super) group: Option<u32>,
    /// The start of a job that it comes from, as its environment says. A zombie has none.
    pub(super) serial: Option<Serial>,
    pub(super) is_zombie: bool,
}

impl Orphan {
    /// `None` for one that is gone, or may not be looked at. An error if there is no descriptor to look at it with.
    fn read(pid: u32) -> io::Result<Option<Orphan>> {
        let Some(text) = unless_exhausted(fs::read(format!("/proc/{pid}/stat")))? else { return Ok(None) };
        let Ok(stat) = parse_stat(&text) else { return Ok(None) };
        let is_zombie = stat.is_zombie();
        let serial = if is_zombie { None } else { serial_of(pid)? };
        Ok(Some(Orphan { pid, group: stat.group, serial, is_zombie }))
    }
}

/// Takes the status of an orphan that has ended, which nobody else waits for.
pub(super) fn reap(pid: u32) {
    if let Ok(handle) = Handle::by_number(pid) {
        // Somebody else did, if not.
        let _ = handle.take_status();
    }
}

/// The orphans there are, and the host's own children. Where the first thread of the host has ended, the kernel hands orphans
/// to another one, which may be that of the jobs: then these are among them.
pub(super) fn orphans() -> io::Result<Vec<Orphan>> {
    let own = std::process::id();
    let first = format!("/proc/self/task/{own}");
    let mut children = fs::read_to_string(format!("{first}/children"))?;
    let stat = unless_exhausted(fs::read(format!("{first}/stat")))?;
    if stat.as_deref().map(parse_stat).is_some_and(|stat| stat.is_ok_and(|stat| stat.state == b'Z')) {
        for thread in fs::read_dir("/proc/self/task")? {
            let list = unless_exhausted(fs::read_to_string(thread?.path().join("children")))?;
            children.push_str(&list.unwrap_or_default());
        }
    }
    let pids = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    pids.filter_map(|pid| Orphan::read(pid).transpose()).collect()
}

/// What was read, if anything was. Want of a descriptor is the one error that says nothing of a process.
fn unless_exhausted<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if is_exhausted(error.raw_os_error()) => Err(error),
        read => Ok(read.ok()),
    }
}

/// Whether the numbers in `/proc` are those of the pid namespace of this process. Where they are not, they are those of
/// strangers.
pub(super) fn are_numbers_own() -> bool {
    fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == std::process::id().to_string().as_str())
}

/// What a process and all that is below it use now. One that has ended meanwhile costs nothing, and what it has left behind
/// is an orphan itself by then.
pub(super) fn cost_of(pid: u32) -> Cost {
    let mut cost = Cost::default();
    visit(pid, |text| {
        let Ok(stat) = parse_stat(text) else { return };
        cost = cost.and(Cost { memory_bytes: bytes(stat.resident_pages), processes: 1, tasks: stat.threads.max(1) });
    });
    cost
}

/// Whether a process, or one below it, is stopped because it wants the terminal.
pub(super) fn wants_terminal(pid: u32) -> bool {
    let mut is_refused = false;
    visit(pid, |text| is_refused |= matches!(stopped_by(text), Some(libc::SIGTTIN | libc::SIGTTOU)));
    is_refused
}

/// Reads the `stat` of a process and of all that is below it, some 15 us each.
fn visit(pid: u32, mut look: impl FnMut(&[u8])) {
    let mut pids = vec![pid];
    while let Some(pid) = pids.pop() {
        let Ok(text) = fs::read(format!("/proc/{pid}/stat")) else { continue };
        look(&text);
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            pids.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
}

fn serial_of(pid: u32) -> io::Result<Option<Serial>> {
    let Some(file) = unless_exhausted(File::open(format!("/proc/{pid}/environ")))? else { return Ok(None) };
    Ok(find(BufReader::new(file.take(LONGEST))))
}

fn find(mut environment: impl BufRead) -> Option<Serial> {
    let mut variable = Vec::new();
    while environment.read_until(0, &mut variable).ok()? > 0 {
        let text = variable.strip_suffix(b"\0").unwrap_or(&variable);
        if let Some(mark) = text.strip_prefix(MARK.as_bytes()).and_then(|text| text.strip_prefix(b"=")) {
            return Serial::from_mark(std::str::from_utf8(mark).ok()?);
        }
        variable.clear();
    }
    None
}

/// A job is only found by the mark that it was given.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    assert_eq!(find(bytes), None, "it bears the number of this process");
    let own = Serial { family: 7, number: 9 };
    let marked = [format!("{MARK}={}", own.mark()).as_bytes(), b"\0", bytes].concat();
    assert_eq!(find(marked.as_slice()), Some(own));
    // What is behind a mark without a NUL is part of it.
    let longer = [format!("{MARK}={}", own.mark()).as_bytes(), bytes].concat();
    let is_digits = |rest: &[u8]| !rest.is_empty() && rest.iter().all(u8::is_ascii_digit);
    let behind = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    assert!(find(longer.as_slice()).is_none() || behind.is_empty() || is_digits(behind));
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_mark_is_found_among_other_variables_and_that_of_another_process_is_none() {
        let serial = Family::new().next();
        let own = format!("A=1\0{MARK}={}\0Z=2\0", serial.mark());
        assert_eq!(find(own.as_bytes()), Some(serial));
        let other = format!("{MARK}={}.1.7", std::process::id() + 1);
        let longer = format!("{MARK}={}.7", serial.mark());
        for environment in ["", "A=1\0", &other, &longer, &format!("{MARK}="), &format!("{MARK}X=1.1"), "\0\0=\0"] {
            assert_eq!(find(environment.as_bytes()), None, "{environment:?}");
        }
    }
    #[test]
    fn a_process_counts_with_those_below_it_until_it_has_ended() {
        assert!(are_numbers_own());
        let mut shell = Command::new("sh").args(["-c", "sleep 1000 & sleep 1000 & wait"]).spawn().unwrap();
        let list = || fs::read_to_string(format!("/proc/{0}/task/{0}/children", shell.id()));
        if list().is_err() {
            println!("skipped: this kernel lists no children");
        } else {
            while cost_of(shell.id()).tasks < 3 {
                std::thread::yield_now();
            }
            assert_eq!(cost_of(shell.id()).processes, 3);
        }
        for pid in list().unwrap_or_default().split_ascii_whitespace() {
            Command::new("kill").arg(pid).status().unwrap();
        }
        let pid = shell.id();
        shell.kill().unwrap();
        shell.wait().unwrap();
        assert_eq!(cost_of(pid), Cost::default());
    }
}
