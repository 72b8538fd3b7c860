//! The log of jobs: a line for each end, in the format of GNU parallel's `--joblog`.

use std::collections::HashSet;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fs_err::{self as fs, File, OpenOptions};
use highwater::Outcome;

use crate::input::Line;

const HEADER: &str = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n";

pub(crate) struct JobLog(File);

impl JobLog {
    pub(crate) fn open(path: &Path, goes_on: bool) -> io::Result<JobLog> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let is_pipe = !file.metadata()?.is_file();
        if !is_pipe && !goes_on {
            file.set_len(0)?;
        }
        // A disk was full where a line has no end.
        let text = if is_pipe { Vec::new() } else { fs::read(path)? };
        file.write_all(text.last().map_or(HEADER.as_bytes(), |last| if *last == b'\n' { b"" } else { b"\n" }))?;
        Ok(JobLog(file))
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

/// The lines that ended with success when they were last run, as a log says.
pub(crate) fn done(path: &Path) -> io::Result<HashSet<usize>> {
    let text = if path.is_file() { String::from_utf8_lossy(&fs::read(path)?).into_owned() } else { String::new() };
    if !text.is_empty() && !text.starts_with("Seq\t") {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{}` is no log of jobs", path.display())));
    }
    let mut done = HashSet::new();
    for fields in text.lines().map(|line| line.splitn(9, '\t').collect::<Vec<_>>()) {
        let Ok(number) = fields[0].parse() else { continue };
        let _ = if fields.get(6..8) == Some(&["0", "0"]) { done.insert(number) } else { done.remove(&number) };
    }
    Ok(done)
}
