//! The alarms that the kernel can be asked to wake the check thread by: memory that stalls
//! (`Documentation/accounting/psi.rst`, "Monitoring for pressure thresholds") and a group that reached its limit
//! (`memory.events`, which can be polled, `Documentation/admin-guide/cgroup-v2.rst`). A service manager may have said
//! what to watch instead.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::alarm::{Alarm, Heard};
use super::watch::{trigger, Watch, TRIGGER};
use crate::sys::bell::PollBell;
use crate::sys::poll::Ready;
use crate::vocabulary::{Error, ErrorKind};

/// At most so many: the pressure and two groups.
const MOST: usize = 3;

/// The alarms that are armed.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    armed: Vec<Alarm>,
    /// Of the groups and their limits, as they were by then.
    pub(crate) fingerprint: u64,
    /// The reasons why others are not.
    pub(crate) failures: Vec<Error>,
}

impl Alarms {
    pub(crate) fn is_armed(&self) -> bool {
        !self.armed.is_empty()
    }

    /// Disarms everything, for this reason.
    pub(crate) fn give_up(&mut self, why: Error) {
        self.armed.clear();
        self.failures = vec![why];
    }

    /// Arms the pressure on memory: as the environment has it, else of the first of the files that allows it.
    pub(crate) fn arm_pressure<'a>(&mut self, watch: &Watch, files: impl Iterator<Item = &'a Path>) {
        if watch.is_set() {
            match watch.arm() {
                Ok(alarm) => self.armed.extend(alarm),
                Err(error) => self.failures.push(error),
            }
            return;
        }
        let mut failure = None;
        for path in files {
            match trigger(path, TRIGGER) {
                Ok(alarm) => return self.armed.push(alarm),
                Err(error) => failure = Some(error),
            }
        }
        self.failures.extend(failure);
    }

    /// Arms the events of a group.
    pub(crate) fn arm_events(&mut self, path: &Path) {
        if self.armed.len() < MOST {
            match Alarm::of_events(path) {
                Ok(alarm) => self.armed.push(alarm),
                Err(error) => self.failures.push(error),
            }
        }
    }

    /// As [`PollBell::wait`], and returns whether an alarm went off.
    pub(crate) fn wait(&mut self, bell: &PollBell<'_>, seen: u32, timeout: Duration) -> io::Result<bool> {
        let mut ready = [Ready::default(); MOST + 1];
        bell.wait(seen, timeout, self.armed.iter().map(Alarm::interest), &mut ready)?;
        let mut went_off = false;
        let mut of_alarms = ready.into_iter().skip(1);
        self.armed.retain_mut(|alarm| {
            let ready = of_alarms.next().unwrap_or_default();
            if !ready.any() {
                return true;
            }
            let heard = alarm.hear(ready);
            went_off |= heard != Heard::Nothing;
            heard != Heard::TheLast
        });
        if self.armed.is_empty() {
            self.failures = vec![Error::new(ErrorKind::Read, "what was watched has come to its end")];
        }
        Ok(went_off)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use nix::sys::stat::Mode;

    use super::*;
    use crate::sys::Bell;

    fn watch(path: &Path, write: Option<&str>) -> Alarms {
        let mut alarms = Alarms::default();
        alarms.arm_pressure(&Watch::naming(path, write), std::iter::empty());
        alarms
    }

    /// Whether the alarms go off within that time.
    fn goes_off(alarms: &mut Alarms, timeout: Duration) -> bool {
        let bell = Bell::new();
        let poll_bell = bell.attach_eventfd().unwrap();
        alarms.wait(&poll_bell, bell.count(), timeout).unwrap()
    }

    const LONG: Duration = Duration::from_secs(120);

    #[test]
    fn a_pipe_that_the_environment_names_wakes_and_is_drained() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let mut alarms = watch(&path, None);
        assert!(alarms.is_armed() && !goes_off(&mut alarms, Duration::from_millis(1)));
        for _ in 0..2 {
            // Whoever wrote has closed it again: that is not the end.
            File::options().write(true).open(&path).unwrap().write_all(b"stall").unwrap();
            assert!(goes_off(&mut alarms, LONG));
            assert!(!goes_off(&mut alarms, Duration::from_millis(1)));
        }
    }

    #[test]
    fn a_socket_gets_what_is_to_be_written_and_is_let_go_when_it_closes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let mut alarms = watch(&path, Some("Zm9v"));
        let (mut peer, _) = listener.accept().unwrap();
        let mut said = [0; 3];
        peer.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"foo");
        peer.write_all(b"stall").unwrap();
        assert!(goes_off(&mut alarms, LONG));
        drop(peer);
        while alarms.is_armed() {
            goes_off(&mut alarms, LONG);
        }
    }

    #[test]
    fn the_environment_can_say_that_nothing_is_to_be_watched() {
        let alarms = watch(Path::new("/dev/null"), None);
        assert!(!alarms.is_armed() && alarms.failures.is_empty());
    }

    /// The kernel notifies `cgroup.events` in the way of `memory.events`, and needs no controller for it.
    #[test]
    fn a_groups_events_wake_each_time_and_end_with_the_group() {
        let mounts = std::fs::read("/proc/self/mountinfo").unwrap();
        let v2 = super::super::membership::Version::V2;
        let mut lines = mounts.split(|byte| *byte == b'\n');
        let unified = lines.find_map(|line| super::super::mounts::parse_line(line, v2, ""));
        let group = unified.map(|mount| mount.point.join(format!("highwater-test-{}", std::process::id())));
        let Some(group) = group.filter(|group| std::fs::create_dir(group).is_ok()) else {
            println!("skipped: no control group of version 2 can be made");
            return;
        };
        let mut alarms = Alarms::default();
        alarms.arm_events(&group.join("cgroup.events"));
        assert!(!goes_off(&mut alarms, Duration::from_millis(1)));
        for frozen in ["1", "0"] {
            std::fs::write(group.join("cgroup.freeze"), frozen).unwrap();
            assert!(goes_off(&mut alarms, LONG), "{frozen}");
            assert!(!goes_off(&mut alarms, Duration::from_millis(1)), "{frozen}");
        }
        std::fs::remove_dir(&group).unwrap();
        while alarms.is_armed() {
            goes_off(&mut alarms, LONG);
        }
    }
}
