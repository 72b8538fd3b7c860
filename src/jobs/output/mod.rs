//! What jobs write: read by one thread for all of them, and handed to the host in whole lines.
//!
//! - `reader`: the thread, and the pipes that it reads. `held`: what is held of one until its lines are whole, or its job has
//!   ended.

mod held;
mod reader;

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, unbounded, Sender};

use self::reader::{Errand, Reader, BELL};
use crate::sys::epoll::Epoll;
use crate::sys::fork::Mutex;
use crate::sys::poll::EventFd;
use crate::sys::{pipe, ProcessMark};
use crate::vocabulary::Error;

/// How long one text may be in printing before its reader is taken to be slow.
const PROMPT: Duration = Duration::from_millis(100);

/// When what a job writes is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// All of it when the job has ended. What does not fit 64 KB is held in a file without a name, in the folder for temporary
    /// files; if there is no room for it, what is held is handed over before its time.
    Whole,
    /// Each line when it is whole.
    Lines,
}

/// The stream that a text was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Copies a text to this stream of the process itself, and flushes that.
    ///
    /// # Errors
    /// That of the reading or the writing.
    pub fn print(self, text: &mut dyn Read) -> io::Result<()> {
        let mut to: Box<dyn Write> = match self {
            Stream::Stdout => Box::new(io::stdout()),
            Stream::Stderr => Box::new(io::stderr()),
        };
        io::copy(text, &mut to)?;
        to.flush()
    }
}

/// Who has written a text, and where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Origin {
    /// The [number](super::JobHandle::id) of the job; `None` for a text of the host's own ([`JobOutput::say`]).
    pub job: Option<u64>,
    /// The stream.
    pub stream: Stream,
}

/// Reads what [`Jobs`](super::Jobs) write to their standard output and standard error, and hands it to the host in whole lines.
///
/// A job's streams are pipes, and one thread (`highwater-output`) reads those of all jobs and calls the host's code, in which it
/// may print, or wait for whoever reads that. A reader that is slow so holds back the jobs, whose pipes are full, and
/// nobody else: no job is started while a text takes longer than a tenth of a second ([`HeldBack::Output`](super::HeldBack::Output)).
///
/// What a job has written is handed over before what is [said](Self::say) after its end was told. Each try of a job that is run
/// again counts as one. A last line without an end gets one, or another's would follow on it. What is written by a process that a
/// job has left behind, once the job has ended, is lost.
///
/// It costs two pipes for each job that runs. Clones are the same output. The thread ends with the last of them, after what was
/// handed over by then; [`wait`](Self::wait) waits for that.
///
/// ```
/// use std::process::Command;
/// use std::time::Duration;
/// use highwater::{Grouping, Job, JobOutput, ResourceLimits, ResourceMonitor, Stream};
///
/// let output = JobOutput::new(Grouping::Lines, |origin, text| origin.stream.print(text))?;
/// let monitor = ResourceMonitor::new(ResourceLimits::builder().max_processes(20).build()?);
/// let jobs = monitor.jobs().output(&output).build()?;
/// monitor.start(Duration::from_secs(1))?;
/// let mut echo = Command::new("echo");
/// echo.arg("a line");
/// assert!(jobs.submit(Job::new(echo))?.wait().is_success());
/// output.say(Stream::Stdout, "one job is done\n");
/// assert!(output.wait(Duration::from_secs(10)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct JobOutput(Arc<Way>);

/// The way to the thread that reads.
struct Way {
    errands: Sender<Errand>,
    bell: Arc<EventFd>,
    printing: Arc<Printing>,
    last_pipe: AtomicU64,
    mark: ProcessMark,
}

/// The state of the host's code.
#[derive(Debug, Default)]
struct Printing {
    since: Mutex<Option<Instant>>,
    is_lost: AtomicBool,
}

impl JobOutput {
    /// Starts the thread, which calls `print` with each text and whoever has written it. An error of `print` is logged once
    /// (`jobs.output_lost`), as is a panic, and what follows is handed over all the same.
    ///
    /// # Errors
    /// [`Process`](crate::ErrorKind::Process) if there is no descriptor left; [`Thread`](crate::ErrorKind::Thread) if the thread
    /// could not be created.
    pub fn new(
        grouping: Grouping,
        print: impl FnMut(Origin, &mut dyn Read) -> io::Result<()> + Send + 'static,
    ) -> Result<JobOutput, Error> {
        let wait = || {
            let (epoll, bell) = (Epoll::new()?, EventFd::new()?);
            epoll.add(bell.as_fd(), BELL, false)?;
            Ok((epoll, Arc::new(bell)))
        };
        let (epoll, bell) = wait().map_err(|error| Error::system("could not wait for what jobs write", error))?;
        let (errands, received) = unbounded();
        let printing = Arc::new(Printing::default());
        Reader::new(grouping, Box::new(print), Arc::clone(&printing), epoll, Arc::clone(&bell), received).start()?;
        let way = Way { errands, bell, printing, last_pipe: AtomicU64::new(BELL), mark: ProcessMark::here() };
        Ok(JobOutput(Arc::new(way)))
    }

    /// Hands over a text of the host's own, after all that was handed over before. This waits for nobody.
    pub fn say(&self, stream: Stream, text: impl Into<Vec<u8>>) {
        self.0.send(Errand::Say { stream, text: text.into() });
    }

    /// A way to [say](Self::say) what is written to it, each time as one text: for a logger.
    pub fn writer(&self, stream: Stream) -> impl Write + Send + 'static {
        OwnText { output: self.clone(), stream }
    }

    /// Waits until everything is handed over that was written by jobs that have ended, or said, for `timeout` at most. Returns
    /// whether it was.
    pub fn wait(&self, timeout: Duration) -> bool {
        let (mark, passed) = bounded::<()>(0);
        self.0.send(Errand::Pass { mark });
        // The mark is dropped on the way, or by an output that has nobody to print any more.
        matches!(passed.recv_timeout(timeout), Err(error) if !error.is_timeout())
    }

    /// Returns `true` while one text takes longer than a tenth of a second.
    pub fn is_behind(&self) -> bool {
        !self.0.mark.is_inherited() && self.0.printing.since.lock().is_some_and(|since| since.elapsed() > PROMPT)
    }

    /// Returns `true` once something could not be printed.
    pub fn is_lost(&self) -> bool {
        self.0.printing.is_lost.load(Ordering::Relaxed)
    }

    /// Has what this job writes from now on handed over, until the end that is returned is dropped. `command` keeps the other
    /// ends of the pipes until it [lets them go](Capture::release).
    pub(super) fn capture(&self, job: u64, command: &mut Command) -> io::Result<Capture> {
        let ((stdout, to_stdout), (stderr, to_stderr)) = (pipe::pipe()?, pipe::pipe()?);
        command.stdout(to_stdout).stderr(to_stderr);
        let begin = |pipe, stream| {
            let number = self.0.last_pipe.fetch_add(1, Ordering::Relaxed) + 1;
            self.0.send(Errand::Begin { number, pipe, origin: Origin { job: Some(job), stream } });
            number
        };
        let pipes = [begin(stdout, Stream::Stdout), begin(stderr, Stream::Stderr)];
        Ok(Capture { way: Arc::clone(&self.0), pipes })
    }
}

struct OwnText {
    output: JobOutput,
    stream: Stream,
}

impl Write for OwnText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.say(self.stream, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Way {
    fn send(&self, errand: Errand) {
        // In a forked child there is no thread to print.
        if !self.mark.is_inherited() {
            // An error: the thread has ended, which it does when told to.
            let _ = self.errands.send(errand);
            self.bell.signal();
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.send(Errand::Close);
    }
}

impl fmt::Debug for JobOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobOutput").field("printing", &self.0.printing).finish_non_exhaustive()
    }
}

/// The pipes of one try of a job. Dropped, it hands over the rest of what they hold.
pub(super) struct Capture {
    way: Arc<Way>,
    pipes: [u64; 2],
}

impl Capture {
    /// Has the command keep no end of a pipe, once it was started or could not be.
    pub(super) fn release(command: &mut Command) {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        for number in self.pipes {
            self.way.send(Errand::End { number });
        }
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("pipes", &self.pipes).finish_non_exhaustive()
    }
}
