//! The commands. A thread reads them ahead, so that it is known how many there are.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{bounded, Receiver};

/// The most lines that are read ahead, and fewer if the longest has over 128 bytes: whoever writes more is held back.
const AHEAD: usize = 1 << 16;

/// A command, and the number of its line, which is its name everywhere.
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) command: OsString,
}

/// The lines of standard input, one command each, but for blank ones and those with these numbers.
fn lines(left_out: &HashSet<usize>) -> impl Iterator<Item = io::Result<Line>> + '_ {
    let lines = (1..).zip(io::stdin().lock().split(b'\n')).map(|(number, line)| {
        let mut command = line?;
        // Of a file from elsewhere.
        command.truncate(command.strip_suffix(b"\r").map_or(command.len(), <[u8]>::len));
        Ok(Line { number, command: OsString::from_vec(command) })
    });
    let is_blank = |line: &Line| line.command.as_bytes().iter().all(u8::is_ascii_whitespace);
    lines.filter(move |line| !line.as_ref().is_ok_and(|line| is_blank(line) || left_out.contains(&line.number)))
}

/// These lines, and the thread that reads them.
pub(crate) fn read(left_out: HashSet<usize>) -> io::Result<(Receiver<Line>, JoinHandle<io::Result<()>>)> {
    let (sender, receiver) = bounded(AHEAD);
    let mut longest = 0;
    let mut send = move |line: Line| {
        longest = longest.max(line.command.len());
        while sender.len() * longest > AHEAD * 128 {
            thread::sleep(Duration::from_millis(10));
        }
        // An error: the run is over.
        drop(sender.send(line));
    };
    let send_all = move || lines(&left_out).try_for_each(|line| line.map(&mut send));
    Ok((receiver, thread::Builder::new().name("commands".into()).spawn(send_all)?))
}

pub(crate) fn print(left_out: HashSet<usize>) -> io::Result<u8> {
    lines(&left_out).try_for_each(|line| io::stdout().write_all(&[line?.command.as_bytes(), b"\n"].concat()))?;
    Ok(0)
}
