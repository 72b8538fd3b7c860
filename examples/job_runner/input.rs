//! The commands. A thread waits for them and passes them on.

use std::ffi::OsString;
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStringExt;
use std::thread;

use crossbeam_channel::{bounded, Receiver};

/// A command, and the number of its line, which is its name everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) command: OsString,
}

/// The lines of standard input, one command each; blank ones are skipped. The channel holds none, so a runner that is held
/// back holds back whoever writes the commands.
pub(crate) fn lines() -> io::Result<Receiver<io::Result<Line>>> {
    let (sender, receiver) = bounded(0);
    thread::Builder::new().name("commands".into()).spawn(move || {
        for (index, line) in io::stdin().lock().split(b'\n').enumerate() {
            let line = match line {
                Ok(line) if line.iter().all(u8::is_ascii_whitespace) => continue,
                Ok(mut line) => {
                    // Of a file from elsewhere.
                    line.truncate(line.strip_suffix(b"\r").map_or(line.len(), <[u8]>::len));
                    Ok(Line { number: index + 1, command: OsString::from_vec(line) })
                }
                Err(error) => Err(error),
            };
            let failed = line.is_err();
            if sender.send(line).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(receiver)
}
