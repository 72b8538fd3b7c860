//! The one error type of the crate.

use std::path::{Path, PathBuf};
use std::{error, fmt, io};

/// An error that names the value or the file it is about. Branch on [`kind`](Error::kind), print the rest.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    path: Option<PathBuf>,
    source: Option<io::Error>,
}

/// The kinds of [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A limit or threshold that cannot be judged by: zero, contradictory, or too large for bytes.
    InvalidLimit,
    /// A monitor setting, or an argument of a call, that makes no sense.
    InvalidSetting,
    /// A thread could not be created.
    Thread,
    /// A kernel file could not be opened or read.
    Read,
    /// A kernel file was read, and does not say what its documentation promises.
    Malformed,
    /// A process is not there, is not what the call is for, or may not be dealt with.
    Process,
    /// The host's or the library's code panicked during a reading.
    Panicked,
    /// A ledger cannot be shared: it is full, damaged, another user's or another version's, or no ledger at all.
    Ledger,
}

impl Error {
    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The file that could not be read or understood, for kinds [`Read`](ErrorKind::Read),
    /// [`Malformed`](ErrorKind::Malformed) and [`Ledger`](ErrorKind::Ledger).
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The number of the system's error behind this one.
    pub(crate) fn os_error(&self) -> Option<i32> {
        self.source.as_ref().and_then(io::Error::raw_os_error)
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), path: None, source: None }
    }

    /// The error of a ledger: of the file at this path, or of one without a name.
    pub(crate) fn ledger(path: Option<&Path>, what: impl fmt::Display) -> Error {
        let message = match path {
            Some(path) => format!("ledger {}: {what}", path.display()),
            None => format!("ledger: {what}"),
        };
        Error { path: path.map(Path::to_owned), ..Error::new(ErrorKind::Ledger, message) }
    }

    /// As [`ledger`](Error::ledger), of what the system has refused.
    pub(crate) fn ledger_refused(path: Option<&Path>, what: &str, source: io::Error) -> Error {
        Error { source: Some(source), ..Error::ledger(path, what) }
    }

    pub(crate) fn limit(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidLimit, message)
    }

    pub(crate) fn setting(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidSetting, message)
    }

    pub(crate) fn thread(name: &str, source: io::Error) -> Error {
        Error { source: Some(source), ..Error::new(ErrorKind::Thread, format!("could not create thread {name}")) }
    }

    pub(crate) fn read(path: PathBuf, source: io::Error) -> Error {
        let message = format!("could not read {}", path.display());
        Error { path: Some(path), source: Some(source), ..Error::new(ErrorKind::Read, message) }
    }

    pub(crate) fn arm(path: PathBuf, source: io::Error) -> Error {
        let message = format!("could not watch {}", path.display());
        Error { path: Some(path), source: Some(source), ..Error::new(ErrorKind::Read, message) }
    }

    /// The error of a thing that no mount shows, though it is there.
    pub(crate) fn hidden(mountinfo: PathBuf, what: &str) -> Error {
        let message = format!("no mount in {} shows {what}", mountinfo.display());
        Error { path: Some(mountinfo), ..Error::new(ErrorKind::Read, message) }
    }

    pub(crate) fn process(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Process, message)
    }

    /// An error of the system, and what was tried.
    pub(crate) fn system(message: impl Into<String>, source: io::Error) -> Error {
        Error { source: Some(source), ..Error::process(message) }
    }

    pub(crate) fn poll(source: io::Error) -> Error {
        let message = "could not wait for the kernel's word on memory";
        Error { source: Some(source), ..Error::new(ErrorKind::Read, message) }
    }

    pub(crate) fn malformed(path: PathBuf, what: &str) -> Error {
        let message = format!("malformed {}: {what}", path.display());
        Error { path: Some(path), ..Error::new(ErrorKind::Malformed, message) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_error_names_its_path_and_its_cause() {
        let error = Error::read("/proc/self/statm".into(), io::Error::from_raw_os_error(libc::EACCES));
        assert!(error.to_string().starts_with("could not read /proc/self/statm: Permission denied"));
        assert_eq!(error.path(), Some(Path::new("/proc/self/statm")));
        assert_eq!(error.kind(), ErrorKind::Read);
    }
}
