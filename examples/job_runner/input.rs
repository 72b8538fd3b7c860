//! The commands. A thread reads them ahead, so that it is known how many there are.

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::mem;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{bounded, Receiver};

/// The most lines that are read ahead: whoever writes more of them is held back.
const AHEAD: usize = 1 << 16;

/// A command, and the number of its line, which is its name everywhere.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) command: OsString,
}

/// The lines of standard input, one command each; blank ones are left out.
fn lines() -> impl Iterator<Item = io::Result<Line>> {
    let lines = (1..).zip(io::stdin().lock().split(b'\n')).map(|(number, line)| {
        let mut line = line?;
        // Of a file from elsewhere.
        line.truncate(line.strip_suffix(b"\r").map_or(line.len(), <[u8]>::len));
        Ok(Line { number, command: OsString::from_vec(line) })
    });
    let is_blank = |line: &Line| line.command.as_bytes().iter().all(u8::is_ascii_whitespace);
    let mut has_failed = false;
    // What cannot be read once cannot be read again.
    let lines = lines.take_while(move |line| !mem::replace(&mut has_failed, line.is_err()));
    lines.filter(move |line| !line.as_ref().is_ok_and(is_blank))
}

/// The lines, and the thread that reads them, which has ended once it knows them all.
pub(crate) fn read() -> io::Result<(Receiver<io::Result<Line>>, JoinHandle<()>)> {
    let (sender, receiver) = bounded(AHEAD);
    let send_all = move || drop(lines().try_for_each(|line| sender.send(line)));
    Ok((receiver, thread::Builder::new().name("commands".into()).spawn(send_all)?))
}

/// Prints them.
pub(crate) fn print() -> io::Result<()> {
    lines().try_for_each(|line| writeln!(io::stdout(), "{}", line?.command.to_string_lossy()))
}
