//! The commands. A thread reads them ahead, so that it is known how many there are.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::OsStringExt;
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
        let mut command = line?;
        // Of a file from elsewhere.
        command.truncate(command.strip_suffix(b"\r").map_or(command.len(), <[u8]>::len));
        Ok((number, command))
    });
    let is_blank = |(_, command): &(usize, Vec<u8>)| command.iter().all(u8::is_ascii_whitespace);
    let lines = lines.filter(move |line| !line.as_ref().is_ok_and(is_blank));
    lines.map(|line| line.map(|(number, command)| Line { number, command: OsString::from_vec(command) }))
}

/// The lines but for those with these numbers, and the thread that reads them.
pub(crate) fn read(left_out: HashSet<usize>) -> io::Result<(Receiver<Line>, JoinHandle<io::Result<()>>)> {
    let (sender, receiver) = bounded(AHEAD);
    let send_all = move || {
        let mut lines = lines().filter(|line| !line.as_ref().is_ok_and(|line| left_out.contains(&line.number)));
        // An error: the run is over.
        lines.try_for_each(|line| line.map(|line| drop(sender.send(line))))
    };
    Ok((receiver, thread::Builder::new().name("commands".into()).spawn(send_all)?))
}

/// Prints them.
pub(crate) fn print() -> io::Result<()> {
    lines().try_for_each(|line| writeln!(io::stdout(), "{}", line?.command.to_string_lossy()))
}
