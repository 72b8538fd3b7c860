//! The log of jobs: a line for each end, in the format of GNU parallel's `--joblog`.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use highwater::Outcome;

use crate::input::Line;

const HEADER: &str = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n";

pub(crate) struct JobLog(File);

impl JobLog {
    /// Continues the log. Also returns the numbers of the lines that have ended with success, as it says.
    pub(crate) fn open(path: &Path) -> io::Result<(JobLog, HashSet<usize>)> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        // A pipe has nothing to be read again.
        let text = if file.metadata()?.is_file() { fs::read(path)? } else { Vec::new() };
        match text.last() {
            None => file.write_all(HEADER.as_bytes())?,
            Some(b'\n') => {}
            // A disk was full.
            Some(_) => file.write_all(b"\n")?,
        }
        let done = String::from_utf8_lossy(&text).lines().filter_map(done_by).collect();
        Ok((JobLog(file), done))
    }

    /// One write, so that no line is half there, as soon as the job has ended: a runner that is killed has lost none.
    pub(crate) fn write(&mut self, line: &Line, outcome: &Outcome, took: Duration) -> io::Result<()> {
        let ended = |status: ExitStatus| (status.code().unwrap_or(-1), status.signal().unwrap_or(0));
        let (code, signal) = outcome.status().map_or((-1, 0), ended);
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(took);
        let (began, took, number) = (began.as_secs_f64(), took.as_secs_f64(), line.number);
        let command = line.command.to_string_lossy().replace('\t', " ");
        let text = format!("{number}\t:\t{began:.3}\t{took:10.3}\t0\t0\t{code}\t{signal}\t{command}\n");
        let length = self.0.metadata()?.len();
        // Half a line would be taken for one together with the next.
        self.0.write_all(text.as_bytes()).map_err(|error| self.0.set_len(length).err().unwrap_or(error))
    }
}

/// The number of a line that has ended with success.
fn done_by(line: &str) -> Option<usize> {
    let fields: Vec<&str> = line.splitn(9, '\t').collect();
    fields.get(6..8).filter(|status| *status == ["0", "0"])?;
    fields[0].parse().ok()
}
