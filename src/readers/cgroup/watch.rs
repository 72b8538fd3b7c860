//! The environment's wish as to what is watched (<https://systemd.io/MEMORY_PRESSURE/>), and the way in which a file
//! that somebody else has named is opened and written to.

use std::env;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::alarm::Alarm;
use crate::sys::file_kind::{kind_of, kind_of_open, Kind};
use crate::sys::privilege::is_privileged;
use crate::sys::socket;
use crate::vocabulary::Error;

/// A stall of a twentieth of two seconds: whoever may not ask for less can ask for multiples of two seconds. It ends in
/// a NUL, or the kernel cuts off its last digit.
pub(super) const TRIGGER: &[u8] = b"some 100000 2000000\0";

/// The environment's wish: `MEMORY_PRESSURE_WATCH` and `MEMORY_PRESSURE_WRITE`.
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

    /// Returns `true` if it says what is to be watched, which may be nothing.
    pub(super) fn is_set(&self) -> bool {
        self.path.is_some()
    }

    /// Arms what it names; `None` where it names nothing, or says that nothing is to be watched.
    pub(super) fn arm(&self) -> Result<Option<Alarm>, Error> {
        let Some(path) = self.path.as_ref().map(Path::new) else { return Ok(None) };
        if path == Path::new("/dev/null") {
            return Ok(None);
        }
        if !path.is_absolute() {
            return Err(Error::setting(format!("MEMORY_PRESSURE_WATCH {} is not an absolute path", path.display())));
        }
        let data = match &self.write {
            None => Vec::new(),
            Some(text) => {
                let text = text.clone().into_vec();
                decode_base64(&text).ok_or_else(|| {
                    let text = String::from_utf8_lossy(&text);
                    Error::setting(format!("MEMORY_PRESSURE_WRITE {text} is not base64"))
                })?
            }
        };
        let failed = |error| Error::arm(path.to_owned(), error);
        let told = |file| Some(Alarm::told(file));
        match kind_of(path).map_err(failed)?.0 {
            Kind::Socket => {
                let connected = socket::connect(path).and_then(|socket| {
                    // Nothing to say is nothing sent, or the other end would hear of it.
                    if !data.is_empty() {
                        socket::send(socket.as_fd(), &data)?;
                    }
                    Ok(File::from(socket))
                });
                connected.map(told).map_err(failed)
            }
            Kind::Fifo => {
                // Open for reading and writing, so that there is no end of file when the last writer goes, and no
                // SIGPIPE when there is no reader. What it cannot take at once it has no room for: this must not block.
                let written = open(path, Kind::Fifo).and_then(|mut pipe| pipe.write_all(&data).map(|()| pipe));
                written.map(told).map_err(failed)
            }
            Kind::OfTheKernel | Kind::Other => trigger(path, if data.is_empty() { TRIGGER } else { &data }).map(Some),
        }
    }
}

/// Arms a file of pressure, and no other: what is at the path may be anything, and be written to for good.
pub(super) fn trigger(path: &Path, trigger: &[u8]) -> Result<Alarm, Error> {
    let arm = || -> io::Result<Alarm> {
        // Told by its name first, because reading some files of the kernel's changes something too.
        if !is_called_pressure(&path.canonicalize()?) {
            return Err(refused("it is no file of pressure"));
        }
        let alarm = Alarm::of_pressure(open(path, Kind::OfTheKernel)?)?;
        alarm.file().write_all(trigger)?;
        Ok(alarm)
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
fn open(path: &Path, wanted: Kind) -> io::Result<File> {
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

/// What was encoded is itself again, wherever its lines are broken, and nothing else is longer than its text.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let encoded = bytes.chunks(3).flat_map(|chunk| {
        let bits = (0..3).fold(0, |bits, place| bits << 8 | usize::from(chunk.get(place).copied().unwrap_or(0)));
        let digit = move |place: usize| DIGITS[bits >> (18 - 6 * place) & 63];
        let length = chunk.len();
        (0..4).map(move |place| if place <= length { digit(place) } else { b'=' })
    });
    let encoded: Vec<u8> = encoded.flat_map(|digit| [digit, b'\n']).collect();
    assert_eq!(decode_base64(&encoded).as_deref(), Some(bytes));
    assert!(decode_base64(bytes).map_or(true, |decoded| decoded.len() * 4 <= bytes.len() * 3));
}

#[cfg(test)]
impl Watch {
    pub(super) fn naming(path: &Path, write: Option<&str>) -> Watch {
        Watch { path: Some(path.into()), write: write.map(Into::into) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::time::{Duration, Instant};

    use nix::fcntl::{renameat2, RenameFlags, AT_FDCWD};
    use nix::sys::stat::Mode;

    use super::*;

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
            let error = Watch::naming(path, write).arm().unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
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
                assert!(Watch::naming(&refused, said).arm().is_err(), "{}", refused.display());
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
                // Refused or not, nothing may be written to the file.
                drop(Watch::naming(&named, Some("Zm9v")).arm());
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
}
