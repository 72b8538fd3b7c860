//! One descriptor by which the check thread can be woken, and the meaning of its events.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::psi;
use crate::sys::file::read_line;
use crate::sys::poll::{Interest, Ready};
use crate::vocabulary::Error;

/// A descriptor that is watched.
#[derive(Debug)]
pub(super) struct Alarm {
    file: File,
    kind: Kind,
}

/// The kind of a descriptor.
#[derive(Debug)]
enum Kind {
    /// A file of pressure, with a trigger. The first event may be false: the total must have grown.
    Pressure { some_total: u64 },
    /// `memory.events`: to be read after each event, or there will not be another.
    Events,
    /// A pipe or a socket, through which somebody else says it.
    Told,
}

/// The meaning of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    AReasonToLook,
    /// There will be no other event.
    TheLast,
}

impl Alarm {
    /// A file of pressure that is opened and has no trigger yet.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub(super) fn of_pressure(file: File) -> io::Result<Alarm> {
        let some_total = read_total(file.as_fd(), &mut [0; 4096])?;
        Ok(Alarm { file, kind: Kind::Pressure { some_total } })
    }

    /// The `memory.events` of a group.
    pub(super) fn of_events(path: &Path) -> Result<Alarm, Error> {
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let file = file.map_err(|error| Error::read(path.to_owned(), error))?;
        let mut alarm = Alarm { file, kind: Kind::Events };
        // What happened before is not news.
        alarm.hear(Ready::default());
        Ok(alarm)
    }

    /// A pipe or a socket, through which somebody else says it.
    pub(super) fn told(file: File) -> Alarm {
        Alarm { file, kind: Kind::Told }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The descriptor, and the event that is waited for.
    pub(super) fn interest(&self) -> (BorrowedFd<'_>, Interest) {
        let interest = match self.kind {
            Kind::Pressure { .. } | Kind::Events => Interest::Priority,
            Kind::Told => Interest::Input,
        };
        (self.file.as_fd(), interest)
    }

    /// Finds out, and makes way for the next event.
    pub(super) fn hear(&mut self, ready: Ready) -> Heard {
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
