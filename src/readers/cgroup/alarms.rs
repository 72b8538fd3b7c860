//! The alarms that the kernel can be asked to wake the check thread by: memory that stalls
//! (`Documentation/accounting/psi.rst`, "Monitoring for pressure thresholds") and a group that reached its limit
//! (`memory.events`, which can be polled, `Documentation/admin-guide/cgroup-v2.rst`). A service manager may have said
//! what to watch instead (<https://systemd.io/MEMORY_PRESSURE/>).

use std::env;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::psi;
use crate::sys::bell::PollBell;
use crate::sys::file::read_line;
use crate::sys::file_kind::{kind_of, kind_of_open, Kind as FileKind};
use crate::sys::poll::{Interest, Ready};
use crate::sys::privilege::is_privileged;
use crate::sys::socket;
use crate::vocabulary::{Error, ErrorKind};

/// A stall of a twentieth of two seconds: whoever may not ask for less can ask for multiples of two seconds. It ends in
/// a NUL, or the kernel cuts off its last digit.
const TRIGGER: &[u8] = b"some 100000 2000000\0";

/// At most so many: the pressure and two groups.
const MOST: usize = 3;

/// The environment's wish as to what is watched, in the names of <https://systemd.io/MEMORY_PRESSURE/>.
///
/// The kind of harm to be kept out: a path and bytes that a user has chosen, opened and written with the rights of the
/// program. So a program with privileges of its own takes nothing from the environment, and any other writes only to
/// what the protocol means: a file of pressure, a FIFO, a socket. It is read when the monitor is built, and inherited
/// by forked children: to read it there would wait for a lock that a thread of the parent's may have held at the fork.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch {
    path: Option<OsString>,
    write: Option<OsString>,
}

impl Watch {
    pub(crate) fn from_environment() -> Watch {
        Watch::of(is_privileged(), |name| env::var_os(name))
    }

    fn of(is_privileged: bool, variable: impl Fn(&str) -> Option<OsString>) -> Watch {
        if is_privileged {
            return Watch::default();
        }
        Watch { path: variable("MEMORY_PRESSURE_WATCH"), write: variable("MEMORY_PRESSURE_WRITE") }
    }
}

/// The alarms that are armed.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    armed: Vec<Alarm>,
    /// Of the groups and their limits, as they were by then.
    pub(crate) fingerprint: u64,
    /// The reasons why others are not.
    pub(crate) failures: Vec<Error>,
}

#[derive(Debug)]
struct Alarm {
    file: File,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A file of pressure, with a trigger. The first event may be false: the total must have grown.
    Pressure { some_total: u64 },
    /// `memory.events`: to be read after each event, or there will not be another.
    Events,
    /// A pipe or a socket, through which somebody else says it.
    Told,
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
        let Some(path) = &watch.path else {
            let mut failure = None;
            for path in files {
                match trigger(path, TRIGGER) {
                    Ok(alarm) => return self.armed.push(alarm),
                    Err(error) => failure = Some(error),
                }
            }
            self.failures.extend(failure);
            return;
        };
        match arm_watch(Path::new(path), watch.write.clone()) {
            Ok(alarm) => self.armed.extend(alarm),
            Err(error) => self.failures.push(error),
        }
    }

    /// Arms the events of a group.
    pub(crate) fn arm_events(&mut self, path: &Path) {
        if self.armed.len() < MOST {
            let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
            match OpenOptions::new().read(true).custom_flags(flags).open(path) {
                Ok(file) => {
                    let mut alarm = Alarm { file, kind: Kind::Events };
                    // What happened before is not news.
                    alarm.hear(Ready::default());
                    self.armed.push(alarm);
                }
                Err(error) => self.failures.push(Error::read(path.to_owned(), error)),
            }
        }
    }

    /// As [`PollBell::wait`], and returns whether an alarm went off.
    pub(crate) fn wait(&mut self, bell: &PollBell<'_>, seen: u32, timeout: Duration) -> io::Result<bool> {
        let mut ready = [Ready::default(); MOST + 1];
        bell.wait(seen, timeout, self.fds(), &mut ready)?;
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

    fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Interest)> {
        self.armed.iter().map(|alarm| match alarm.kind {
            Kind::Pressure { .. } | Kind::Events => (alarm.file.as_fd(), Interest::Priority),
            Kind::Told => (alarm.file.as_fd(), Interest::Input),
        })
    }
}

/// The meaning of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Nothing,
    AReasonToLook,
    /// There will be no other event.
    TheLast,
}

impl Alarm {
    /// Finds out, and makes way for the next event.
    fn hear(&mut self, ready: Ready) -> Heard {
        let mut buffer = [0; 4096];
        match &mut self.kind {
            // The group is gone, and its trigger with it.
            Kind::Pressure { .. } if ready.error => Heard::TheLast,
            Kind::Pressure { some_total } => match read_total(self.file.as_fd(), &mut buffer) {
                Ok(total) if total > std::mem::replace(some_total, total) => Heard::AReasonToLook,
                Ok(_) => Heard::Nothing,
                Err(_) => Heard::TheLast,
            },
            // Of a group, an event looks like an error too.
            Kind::Events => match read_line(self.file.as_fd(), &mut buffer) {
                Ok(_) => Heard::AReasonToLook,
                Err(_) => Heard::TheLast,
            },
            // What it says is no news for us; what is left over wakes the thread again.
            Kind::Told => match (&self.file).read(&mut buffer) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    Heard::Nothing
                }
                Ok(0) | Err(_) => Heard::TheLast,
                Ok(_) => Heard::AReasonToLook,
            },
        }
    }
}

fn read_total(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<u64> {
    let length = read_line(fd, buffer)?;
    let parsed = psi::parse(buffer.get(..length).unwrap_or_default());
    parsed.map(|pressure| pressure.some_total).map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))
}

/// Arms a file of pressure, and no other: what is at the path may be anything, and be written to for good.
fn trigger(path: &Path, trigger: &[u8]) -> Result<Alarm, Error> {
    let arm = || -> io::Result<Alarm> {
        // Told by its name first, because reading some files of the kernel's changes something too.
        if !is_called_pressure(&path.canonicalize()?) {
            return Err(refused("it is no file of pressure"));
        }
        let mut file = open(path, FileKind::OfTheKernel)?;
        let some_total = read_total(file.as_fd(), &mut [0; 4096])?;
        file.write_all(trigger)?;
        Ok(Alarm { file, kind: Kind::Pressure { some_total } })
    };
    arm().map_err(|error| Error::arm(path.to_owned(), error))
}

/// `/proc/pressure/memory`, or `memory.pressure` of a control group.
fn is_called_pressure(path: &Path) -> bool {
    let in_folder = path.parent().and_then(Path::file_name) == Some("pressure".as_ref());
    in_folder || path.extension() == Some("pressure".as_ref())
}

/// Opens a file that somebody else has named, if it is of this kind: for reading and writing, without waiting, and
/// without making, emptying or adopting anything.
fn open(path: &Path, wanted: FileKind) -> io::Result<File> {
    let found = kind_of(path)?;
    let wrong = || refused("it is no file of pressure, no FIFO and no socket");
    if found.0 != wanted {
        return Err(wrong());
    }
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    // Somebody may have put another file there in between.
    if kind_of_open(&file)? != found {
        return Err(wrong());
    }
    Ok(file)
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Arms what the environment names; `None` where it says that nothing is to be watched.
fn arm_watch(path: &Path, write: Option<OsString>) -> Result<Option<Alarm>, Error> {
    if path == Path::new("/dev/null") {
        return Ok(None);
    }
    if !path.is_absolute() {
        return Err(Error::setting(format!("MEMORY_PRESSURE_WATCH {} is not an absolute path", path.display())));
    }
    let data = match write {
        None => Vec::new(),
        Some(text) => {
            let text = text.into_vec();
            decode_base64(&text).ok_or_else(|| {
                let text = String::from_utf8_lossy(&text);
                Error::setting(format!("MEMORY_PRESSURE_WRITE {text} is not base64"))
            })?
        }
    };
    let failed = |error| Error::arm(PathBuf::from(path), error);
    let told = |file| Some(Alarm { file, kind: Kind::Told });
    match kind_of(path).map_err(failed)?.0 {
        FileKind::Socket => {
            let connected = socket::connect(path).and_then(|socket| {
                // Nothing to say is nothing sent, or the other end would hear of it.
                if !data.is_empty() {
                    socket::send(socket.as_fd(), &data)?;
                }
                Ok(File::from(socket))
            });
            connected.map(told).map_err(failed)
        }
        FileKind::Fifo => {
            // Open for reading and writing, so that there is no end of file when the last writer goes, and no SIGPIPE
            // when there is no reader. What it cannot take at once it has no room for: this must not block.
            let written = open(path, FileKind::Fifo).and_then(|mut pipe| pipe.write_all(&data).map(|()| pipe));
            written.map(told).map_err(failed)
        }
        FileKind::OfTheKernel | FileKind::Other => {
            trigger(path, if data.is_empty() { TRIGGER } else { &data }).map(Some)
        }
    }
}

/// RFC 4648, with padding; line breaks are skipped.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let text: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if text.len() % 4 != 0 {
        return None;
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut decoded = Vec::new();
    for group in text[..text.len() - padding].chunks(4) {
        let mut bits = 0_u32;
        for &byte in group {
            bits = bits << 6 | u32::from(value(byte)?);
        }
        let bytes = group.len() * 6 / 8;
        bits <<= 6 * (4 - group.len());
        decoded.extend_from_slice(&bits.to_be_bytes()[1..=bytes]);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::time::Instant;

    use nix::fcntl::{renameat2, RenameFlags, AT_FDCWD};
    use nix::sys::stat::Mode;

    use super::*;
    use crate::sys::Bell;

    fn watch(path: &Path, write: Option<&str>) -> Alarms {
        let mut alarms = Alarms::default();
        let watch = Watch { path: Some(path.into()), write: write.map(Into::into) };
        alarms.arm_pressure(&watch, std::iter::empty());
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
    fn base64_is_decoded_and_anything_else_is_not() {
        let cases: [(&str, Option<&[u8]>); 8] = [
            ("", Some(b"")),
            ("Zg==", Some(b"f")),
            ("Zm8=", Some(b"fo")),
            ("Zm9v", Some(b"foo")),
            ("c29tZSAyMDAwMDAg\nMjAwMDAwMAA=", Some(b"some 200000 2000000\0")),
            ("Zm9", None),
            ("Zm9_", None),
            ("Z===", None),
        ];
        for (text, expected) in cases {
            assert_eq!(decode_base64(text.as_bytes()).as_deref(), expected, "{text:?}");
        }
    }

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

    #[test]
    fn what_cannot_be_armed_is_said_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "some avg10=0\n").unwrap();
        for (path, write, expected) in [
            (Path::new("relative"), None, "MEMORY_PRESSURE_WATCH relative is not an absolute path"),
            (&file, Some("?"), "MEMORY_PRESSURE_WRITE ? is not base64"),
            (&file, None, "could not watch "),
            (&folder.path().join("none"), None, "could not watch "),
        ] {
            let alarms = watch(path, write);
            assert!(!alarms.is_armed());
            assert!(alarms.failures[0].to_string().starts_with(expected), "{}", alarms.failures[0]);
        }
    }

    #[test]
    fn only_what_the_protocol_means_is_written_to() {
        const SAID: &str = "c29tZSAxMDAwMDAgMjAwMDAwMAA=";
        const PRESSURE: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["file", "memory.pressure", "target"] {
            std::fs::write(path(name), PRESSURE).unwrap();
        }
        std::fs::create_dir(path("pressure")).unwrap();
        std::fs::write(path("pressure/memory"), PRESSURE).unwrap();
        std::os::unix::fs::symlink(path("target"), path("link.pressure")).unwrap();
        std::os::unix::fs::symlink("/proc/self/oom_score_adj", path("adjusted.pressure")).unwrap();
        let before = std::fs::read("/proc/self/oom_score_adj").unwrap();
        for refused in [
            path("file"),
            path("memory.pressure"),
            path("pressure/memory"),
            path("link.pressure"),
            path("adjusted.pressure"),
            folder.path().to_owned(),
            "/proc/self/oom_score_adj".into(),
            "/proc/self/comm".into(),
            "/proc/sysrq-trigger".into(),
            "/proc/self/mem".into(),
            "/dev/zero".into(),
            "/dev/tty".into(),
            "/dev/watchdog".into(),
        ] {
            for said in [None, Some(SAID)] {
                let alarms = watch(&refused, said);
                assert!(!alarms.is_armed() && alarms.failures.len() == 1, "{}", refused.display());
            }
        }
        for name in ["file", "memory.pressure", "target", "pressure/memory"] {
            assert_eq!(std::fs::read_to_string(path(name)).unwrap(), PRESSURE, "{name}");
        }
        assert_eq!(std::fs::read("/proc/self/oom_score_adj").unwrap(), before);
    }

    #[test]
    fn a_file_that_takes_the_place_of_a_pipe_meanwhile_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let [named, other] = ["named", "other"].map(|name| folder.path().join(name));
        nix::unistd::mkfifo(&named, Mode::S_IRWXU).unwrap();
        std::fs::write(&other, "untouched").unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let swap = || renameat2(AT_FDCWD, &named, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE);
                while !done.load(Relaxed) {
                    swap().unwrap();
                }
            });
            let deadline = Instant::now() + Duration::from_millis(500);
            while Instant::now() < deadline {
                watch(&named, Some("Zm9v"));
            }
            done.store(true, Relaxed);
        });
        let file = if named.is_file() { named } else { other };
        assert_eq!(std::fs::read_to_string(file).unwrap(), "untouched");
    }

    #[test]
    fn a_program_with_privileges_of_its_own_takes_nothing_from_the_environment() {
        let said = |_: &str| Some(OsString::from("/proc/pressure/memory"));
        assert!(Watch::of(true, said).path.is_none() && Watch::of(true, said).write.is_none());
        assert!(Watch::of(false, said).path.is_some());
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
