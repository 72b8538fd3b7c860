//! The commands. A thread waits for them and passes them on.

use std::ffi::OsString;
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStringExt;
use std::thread;

use crossbeam_channel::{bounded, Receiver};

use crate::job::Job;

/// The jobs on standard input, one command per line; blank lines are skipped. The channel holds none, so a runner that
/// is held back holds back whoever writes the commands.
pub(crate) fn jobs() -> io::Result<Receiver<io::Result<Job>>> {
    let (sender, receiver) = bounded(0);
    thread::Builder::new().name("commands".into()).spawn(move || {
        for (index, line) in io::stdin().lock().split(b'\n').enumerate() {
            let job = match line {
                Ok(line) if line.iter().all(u8::is_ascii_whitespace) => continue,
                Ok(line) => Ok(Job::new(index + 1, OsString::from_vec(line))),
                Err(error) => Err(error),
            };
            let failed = job.is_err();
            if sender.send(job).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(receiver)
}
