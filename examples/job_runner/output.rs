//! What jobs write. It comes through pipes, for lines of several jobs shall not be mixed, and is printed in whole lines.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor, ErrorKind, Read, Seek, Write};
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use clap::ValueEnum;
use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::pipe2;
use parking_lot::Mutex;
use tempfile::SpooledTempFile;

use crate::printer::{Printer, Target};

/// The most that is held of a job in memory: as much as a pipe holds. What is beyond it goes to a file without a name.
const HELD: usize = 64 << 10;

/// The most that is read at once.
const CHUNK: usize = 16 << 10;

/// The longest line that is waited for to be whole.
const LONGEST_LINE: usize = 1 << 20;

/// The most that is read from a pipe when its job has ended. Whoever still writes to it is none of the job's.
const REST: usize = 1 << 20;

/// When the output of a job is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Grouping {
    /// All of it when the job has ended
    Grouped,
    /// Each line when it is whole
    Lines,
}

/// The outputs of all jobs, which a thread reads.
#[derive(Debug)]
pub(crate) struct Outputs {
    grouping: Grouping,
    printer: Printer,
    epoll: Epoll,
    /// Those that it reads, by their descriptors.
    watched: Mutex<HashMap<RawFd, Arc<Mutex<Stream>>>>,
}

/// The output of a job.
#[derive(Debug)]
pub(crate) struct Output {
    streams: [Arc<Mutex<Stream>>; 2],
    outputs: Arc<Outputs>,
}

/// One of the two that a job writes to.
#[derive(Debug)]
struct Stream {
    /// Nothing blocks that reads it.
    from: File,
    target: Target,
    /// What was read and is not printed yet.
    held: SpooledTempFile,
    length: usize,
    is_line_whole: bool,
    /// How many bytes could not be held, and why the last could not.
    lost: Option<(usize, io::Error)>,
}

impl Outputs {
    pub(crate) fn new(grouping: Grouping, printer: Printer) -> io::Result<Arc<Outputs>> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let outputs = Arc::new(Outputs { grouping, printer, epoll, watched: Mutex::default() });
        let reader = Arc::clone(&outputs);
        thread::Builder::new().name("output".into()).spawn(move || reader.read_all())?;
        Ok(outputs)
    }

    /// Has what a command writes read from now on.
    pub(crate) fn of(self: &Arc<Self>, command: &mut Command) -> io::Result<Output> {
        let (stdout, to_stdout) = pipe2(OFlag::O_CLOEXEC)?;
        let (stderr, to_stderr) = pipe2(OFlag::O_CLOEXEC)?;
        command.stdout(to_stdout).stderr(to_stderr);
        let streams = [Stream::new(stdout, Target::Stdout)?, Stream::new(stderr, Target::Stderr)?];
        for stream in &streams {
            let locked = stream.lock();
            let descriptor = locked.from.as_raw_fd();
            self.watched.lock().insert(descriptor, Arc::clone(stream));
            self.epoll.add(&locked.from, EpollEvent::new(EpollFlags::EPOLLIN, descriptor as u64))?;
        }
        Ok(Output { streams, outputs: Arc::clone(self) })
    }

    fn read_all(&self) {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let found = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(found) => found,
                Err(Errno::EINTR) => continue,
                Err(error) => return log::error!("what jobs write is read late: {error}"),
            };
            for event in &events[..found] {
                let descriptor = event.data() as RawFd;
                // Else its job has ended, and has read the rest.
                let stream = self.watched.lock().get(&descriptor).cloned();
                if let Some(stream) = stream {
                    let mut stream = stream.lock();
                    match stream.read(CHUNK) {
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Ok(1..) => {}
                        _ => drop(self.epoll.delete(&stream.from)),
                    }
                    if self.grouping == Grouping::Lines {
                        stream.print_lines(&self.printer);
                    }
                }
            }
        }
    }
}

impl Output {
    /// Prints what is left, as the job has ended.
    pub(crate) fn finish(self) {
        for stream in &self.streams {
            let mut stream = stream.lock();
            self.outputs.watched.lock().remove(&stream.from.as_raw_fd());
            // If the other end is closed, this has been done.
            let _ = self.outputs.epoll.delete(&stream.from);
            let mut rest = REST;
            while let Ok(length @ 1..) = stream.read(rest) {
                rest -= length;
            }
            stream.print_all(&self.outputs.printer);
        }
    }
}

impl Stream {
    fn new(pipe: OwnedFd, target: Target) -> io::Result<Arc<Mutex<Stream>>> {
        // The other end is a description of its own: the job sees nothing of this.
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let held = SpooledTempFile::new(HELD);
        Ok(Arc::new(Mutex::new(Stream { from: pipe.into(), target, held, length: 0, is_line_whole: true, lost: None })))
    }

    /// Reads some of what there is.
    fn read(&mut self, at_most: usize) -> io::Result<usize> {
        let mut bytes = [0; CHUNK];
        let length = self.from.read(&mut bytes[..at_most.min(CHUNK)])?;
        if let [.., last] = bytes[..length] {
            self.hold(&bytes[..length]);
            self.is_line_whole = last == b'\n';
        }
        Ok(length)
    }

    fn hold(&mut self, bytes: &[u8]) {
        match self.held.write_all(bytes) {
            Ok(()) => self.length += bytes.len(),
            Err(error) => self.lost = Some((self.lost.as_ref().map_or(0, |(lost, _)| *lost) + bytes.len(), error)),
        }
    }

    /// Prints the lines that are whole.
    fn print_lines(&mut self, printer: &Printer) {
        let mut lines = Vec::new();
        let _ = self.held.rewind().and_then(|()| self.held.read_to_end(&mut lines));
        let whole = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        if whole == 0 && lines.len() < LONGEST_LINE {
            return;
        }
        let rest = if whole == 0 { Vec::new() } else { lines.split_off(whole) };
        self.held = SpooledTempFile::new(HELD);
        self.length = 0;
        self.hold(&rest);
        printer.print(self.target, Cursor::new(lines));
    }

    /// Prints everything. A last line that has no end gets one, or another's would follow on it.
    fn print_all(&mut self, printer: &Printer) {
        if let Some((lost, error)) = self.lost.take() {
            log::error!("{lost} bytes that a job has written are lost: {error}");
        }
        if self.length == 0 {
            return;
        }
        if !self.is_line_whole {
            self.hold(b"\n");
        }
        let mut held = mem::replace(&mut self.held, SpooledTempFile::new(HELD));
        match held.rewind() {
            Ok(()) => printer.print(self.target, held),
            Err(error) => log::error!("what a job has written is lost: {error}"),
        }
    }
}
