//! The log of jobs: a line for each end, in the format of GNU parallel's `--joblog`.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::input::Line;

const HEADER: &str = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n";

#[derive(Debug)]
pub(crate) struct JobLog {
    file: File,
}

impl JobLog {
    /// Continues the log. Each line is there as soon as its job has ended: a runner that is killed has lost none.
    pub(crate) fn open(path: &Path) -> io::Result<JobLog> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if file.metadata()?.len() == 0 {
            file.write_all(HEADER.as_bytes())?;
        }
        Ok(JobLog { file })
    }

    /// The numbers of the lines that have ended with success.
    pub(crate) fn done(path: &Path) -> io::Result<HashSet<usize>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(HashSet::new()),
            file => file?,
        };
        let mut done = HashSet::new();
        for line in BufReader::new(file).split(b'\n') {
            let line = line?;
            let fields: Vec<_> = line.splitn(9, |byte| *byte == b'\t').map(String::from_utf8_lossy).collect();
            if let [number, .., exit, signal, _] = fields.as_slice() {
                if exit == "0" && signal == "0" {
                    done.extend(number.parse::<usize>());
                }
            }
        }
        Ok(done)
    }

    /// One write, so that no line is half there.
    pub(crate) fn write(&mut self, line: &Line, status: Option<ExitStatus>, took: Duration) -> io::Result<()> {
        let code = status.and_then(|status| status.code()).unwrap_or(-1);
        let signal = status.and_then(|status| status.signal()).unwrap_or(0);
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(took);
        let (began, took) = (began.as_secs_f64(), took.as_secs_f64());
        let number = line.number;
        let command = line.command.to_string_lossy().replace('\t', " ");
        let text = format!("{number}\t:\t{began:.3}\t{took:10.3}\t0\t0\t{code}\t{signal}\t{command}\n");
        self.file.write_all(text.as_bytes())
    }
}
