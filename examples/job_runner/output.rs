//! All that is printed. A thread of its own reads what jobs write, through pipes, and prints it in whole lines above the
//! progress line: so whoever reads slowly holds back the jobs, whose pipes are full, and never the runner.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, Write};
use std::mem;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use crossbeam_channel::{bounded, unbounded, Receiver, Sender};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::pipe2;
use parking_lot::Mutex;
use tempfile::SpooledTempFile;

/// The most that is held of a stream in memory. What is beyond it goes to a file without a name.
const HELD: usize = 64 << 10;

/// How long one text may be in printing before its reader is taken to be slow.
const PROMPT: Duration = Duration::from_millis(100);

/// When the output of a job is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Grouping {
    /// All of it when the job has ended
    Grouped,
    /// Each line when it is whole
    Lines,
}

/// The way to the thread that prints. Written to, it prints to standard error.
#[derive(Clone)]
pub(crate) struct Output {
    pub(crate) bar: ProgressBar,
    errands: Sender<Errand>,
    bell: Arc<EventFd>,
    busy_since: Arc<Mutex<Option<Instant>>>,
    is_lost: Arc<AtomicBool>,
}

/// Something that the thread is to do.
type Errand = Box<dyn FnOnce(&mut Printer) + Send>;

/// Standard output or standard error.
type Target = Box<dyn Write + Send>;

/// The thread that prints.
struct Printer {
    bar: ProgressBar,
    busy_since: Arc<Mutex<Option<Instant>>>,
    /// Whether something could not be printed.
    is_lost: Arc<AtomicBool>,
    epoll: Epoll,
    /// Those of jobs that have not ended, by the number that they have with `epoll`.
    streams: HashMap<u64, Stream>,
}

/// One of the two that a job writes to.
struct Stream {
    from: File,
    target: Target,
    grouping: Grouping,
    /// What was read and is not printed yet.
    held: SpooledTempFile,
    length: u64,
    is_line_whole: bool,
}

impl Output {
    pub(crate) fn new() -> io::Result<Output> {
        let is_terminal = io::stdout().is_terminal();
        let target = if is_terminal { ProgressDrawTarget::stdout() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        let ((errands, received), bell) =
            (unbounded(), Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?));
        let output = Output { bar: bar.clone(), errands, bell, busy_since: Arc::default(), is_lost: Arc::default() };
        let (busy_since, epoll) = (Arc::clone(&output.busy_since), Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        epoll.add(&output.bell, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        let is_lost = Arc::clone(&output.is_lost);
        let printer = Printer { bar, busy_since, is_lost, epoll, streams: HashMap::new() };
        let bell = Arc::clone(&output.bell);
        thread::Builder::new().name("output".into()).spawn(move || printer.run(&received, &bell))?;
        Ok(output)
    }

    fn send(&self, errand: impl FnOnce(&mut Printer) + Send + 'static) {
        // The thread does not end, nor is the counter of its bell ever full.
        let _ = self.errands.send(Box::new(errand));
        let _ = self.bell.write(1);
    }

    /// Has what a command writes printed, until the end of its job, which these numbers are for: from `number` on, two.
    pub(crate) fn begin(&self, number: u64, command: &mut Command, grouping: Grouping) -> io::Result<()> {
        let ((stdout, to_stdout), (stderr, to_stderr)) = (pipe2(OFlag::O_CLOEXEC)?, pipe2(OFlag::O_CLOEXEC)?);
        command.stdout(to_stdout).stderr(to_stderr);
        let streams =
            [(number, stdout, Box::new(io::stdout()) as Target), (number + 1, stderr, Box::new(io::stderr()))];
        for (number, from, target) in streams {
            // The other end is a description of its own: the job sees nothing of this.
            fcntl(&from, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            let held = SpooledTempFile::new(HELD);
            let stream = Stream { from: from.into(), target, grouping, held, length: 0, is_line_whole: true };
            self.send(move |printer| printer.begin(number, stream));
        }
        Ok(())
    }

    /// Prints the rest.
    pub(crate) fn end(&self, number: u64) {
        self.send(move |printer| (number..number + 2).for_each(|number| printer.end(number)));
    }

    /// Prints a line.
    pub(crate) fn say(&self, line: impl Display) {
        let line = format!("{line}\n");
        self.send(move |printer| printer.print(&mut io::stdout(), line.as_bytes()));
    }

    /// Whether nobody reads as fast as it is printed.
    pub(crate) fn is_behind(&self) -> bool {
        self.busy_since.lock().is_some_and(|since| since.elapsed() > PROMPT)
    }

    /// Whether something could not be printed.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    /// Waits until everything is printed, or for so long.
    pub(crate) fn wait(&self, at_most: Option<Duration>) {
        let (mark, passed) = bounded::<()>(0);
        self.send(move |_| drop(mark));
        let _ = at_most.map_or_else(|| passed.recv().is_ok(), |timeout| passed.recv_timeout(timeout).is_ok());
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = bytes.to_vec();
        self.send(move |printer| printer.print(&mut io::stderr(), text.as_slice()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Printer {
    fn run(mut self, errands: &Receiver<Errand>, bell: &EventFd) {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let found = self.epoll.wait(&mut events, EpollTimeout::NONE).unwrap_or(0);
            for event in &events[..found] {
                match self.streams.remove(&event.data()) {
                    Some(mut stream) => {
                        if stream.read(&self).is_none() {
                            let _ = self.epoll.delete(&stream.from);
                        }
                        self.streams.insert(event.data(), stream);
                    }
                    None => drop(bell.read()),
                }
            }
            errands.try_iter().for_each(|errand| errand(&mut self));
        }
    }

    fn begin(&mut self, number: u64, stream: Stream) {
        let _ = self.epoll.add(&stream.from, EpollEvent::new(EpollFlags::EPOLLIN, number));
        self.streams.insert(number, stream);
    }

    /// A last line that has no end gets one, or another's would follow on it.
    fn end(&mut self, number: u64) {
        let Some(mut stream) = self.streams.remove(&number) else { return };
        // No more than a pipe may hold: whoever still writes to it is none of the job's.
        let mut rest: usize = 1 << 20;
        while let Some(length) = stream.read(self).filter(|_| rest > 0) {
            rest = rest.saturating_sub(length);
        }
        stream.hold(if stream.is_line_whole { b"" } else { b"\n" }, self);
        stream.print(self);
    }

    fn print(&self, target: &mut dyn Write, mut text: impl Read) {
        *self.busy_since.lock() = Some(Instant::now());
        let mut copy = || {
            // A reader that has gone away, or a full disk, is no reason to stop running jobs.
            let Err(error) = io::copy(&mut text, target).and_then(|_| target.flush()) else { return };
            if !self.is_lost.swap(true, Ordering::Relaxed) {
                let _ = writeln!(io::stderr(), "error: not everything could be printed: {error}");
            }
        };
        if self.bar.is_hidden() {
            copy()
        } else {
            self.bar.suspend(copy)
        }
        *self.busy_since.lock() = None;
    }
}

impl Stream {
    /// Reads some of what there is. `None` if there is nothing, or the end.
    fn read(&mut self, printer: &Printer) -> Option<usize> {
        let mut bytes = [0; 16 << 10];
        let length = self.from.read(&mut bytes).ok().filter(|length| *length > 0)?;
        self.is_line_whole = bytes[length - 1] == b'\n';
        let end = bytes[..length].iter().rposition(|byte| *byte == b'\n' && self.grouping == Grouping::Lines);
        let (whole, rest) = bytes[..length].split_at(end.map_or(0, |end| end + 1));
        if !whole.is_empty() {
            self.hold(whole, printer);
            self.print(printer);
        }
        self.hold(rest, printer);
        Some(length)
    }

    /// Where there is no room to hold it, as the disk is full, what is held so far is printed before its time.
    fn hold(&mut self, bytes: &[u8], printer: &Printer) {
        if self.held.write_all(bytes).is_err() {
            self.print(printer);
            let _ = self.held.write_all(bytes);
        }
        self.length += bytes.len() as u64;
    }

    fn print(&mut self, printer: &Printer) {
        let mut held = mem::replace(&mut self.held, SpooledTempFile::new(HELD));
        if held.rewind().is_ok() && self.length > 0 {
            printer.print(&mut self.target, held.take(mem::take(&mut self.length)));
        }
    }
}
