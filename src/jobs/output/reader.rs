//! The thread that reads what jobs write (`highwater-output`), and calls the host's code with it.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::held::Held;
use super::{Grouping, Origin, Printing, Stream};
use crate::host::{contained, events};
use crate::jobs::log::call_logger;
use crate::sys::epoll::Epoll;
use crate::sys::pipe;
use crate::sys::poll::EventFd;
use crate::sys::thread::{spawn, STACK};
use crate::vocabulary::Error;

const NAME: &str = "highwater-output";

/// The number of the bell among the descriptors that are waited for. Pipes are numbered from 1.
pub(super) const BELL: u64 = 0;

/// How long the thread sleeps when there is nothing to do.
const IDLE: Duration = Duration::from_secs(3600);

/// How long it sleeps where it cannot wait for descriptors.
const BLIND: Duration = Duration::from_millis(10);

/// Something that the thread is to do.
pub(super) enum Errand {
    Begin {
        number: u64,
        pipe: OwnedFd,
        origin: Origin,
    },
    End {
        number: u64,
    },
    Say {
        stream: Stream,
        text: Vec<u8>,
    },
    /// To drop it.
    Pass {
        mark: Sender<()>,
    },
    Close,
}

type Print = Box<dyn FnMut(Origin, &mut dyn Read) -> io::Result<()> + Send>;

pub(super) struct Reader {
    epoll: Epoll,
    bell: Arc<EventFd>,
    errands: Receiver<Errand>,
    /// Those of jobs that have not ended.
    pipes: HashMap<u64, Pipe>,
    printer: Printer,
}

/// The host's code.
struct Printer {
    print: Print,
    printing: Arc<Printing>,
    grouping: Grouping,
}

/// One of the two that a job writes to.
struct Pipe {
    from: OwnedFd,
    origin: Origin,
    /// What was read and is not handed over yet.
    held: Held,
    is_line_whole: bool,
}

impl Reader {
    pub(super) fn new(
        grouping: Grouping,
        print: Print,
        printing: Arc<Printing>,
        epoll: Epoll,
        bell: Arc<EventFd>,
        errands: Receiver<Errand>,
    ) -> Reader {
        let printer = Printer { print, printing, grouping };
        Reader { epoll, bell, errands, pipes: HashMap::new(), printer }
    }

    pub(super) fn start(self) -> Result<(), Error> {
        spawn(NAME, STACK, move || self.run()).map(drop).map_err(|error| Error::thread(NAME, error))
    }

    fn run(mut self) {
        let mut readable = Vec::new();
        loop {
            if self.epoll.wait(&mut readable, IDLE).is_err() {
                thread::sleep(BLIND);
            }
            for number in &readable {
                let Some(pipe) = self.pipes.get_mut(number) else {
                    // Or a pipe that was ended since.
                    self.bell.clear();
                    continue;
                };
                if pipe.read(&mut self.printer) == 0 {
                    self.epoll.remove(pipe.from.as_fd());
                }
            }
            while let Ok(errand) = self.errands.try_recv() {
                match errand {
                    Errand::Begin { number, pipe, origin } => self.begin(number, pipe, origin),
                    Errand::End { number } => self.end(number),
                    Errand::Say { stream, text } => {
                        self.printer.print(Origin { job: None, stream }, &mut text.as_slice());
                    }
                    Errand::Pass { mark } => drop(mark),
                    Errand::Close => return,
                }
            }
        }
    }

    fn begin(&mut self, number: u64, from: OwnedFd, origin: Origin) {
        // An error: what it writes is read at its end, and as much as a pipe holds.
        let _ = self.epoll.add(from.as_fd(), number, false);
        self.pipes.insert(number, Pipe { from, origin, held: Held::default(), is_line_whole: true });
    }

    fn end(&mut self, number: u64) {
        let Some(mut pipe) = self.pipes.remove(&number) else { return };
        // No more than there is now: whoever still writes to it is none of the job's.
        let mut rest = pipe::queued(pipe.from.as_fd()).unwrap_or(0);
        while rest > 0 {
            let length = pipe.read(&mut self.printer);
            rest = if length == 0 { 0 } else { rest.saturating_sub(length) };
        }
        if !pipe.is_line_whole {
            pipe.hold(b"\n", &mut self.printer);
        }
        pipe.hand_over(&mut self.printer);
    }
}

impl Printer {
    fn print(&mut self, origin: Origin, text: &mut dyn Read) {
        *self.printing.since.lock() = Some(Instant::now());
        let printed = contained(|| (self.print)(origin, text));
        *self.printing.since.lock() = None;
        let panic = |message| Err(io::Error::new(io::ErrorKind::Other, message));
        if let Err(error) = printed.unwrap_or_else(panic) {
            if !self.printing.is_lost.swap(true, Ordering::Relaxed) {
                call_logger(|| events::output_lost(&error));
            }
        }
    }
}

impl Pipe {
    /// Reads some of what there is. 0 at the end, and if it cannot be read.
    fn read(&mut self, printer: &mut Printer) -> usize {
        let mut bytes = [0; 16 << 10];
        let length = pipe::read_now(&self.from, &mut bytes).unwrap_or(0);
        let Some(last) = length.checked_sub(1) else { return 0 };
        self.is_line_whole = bytes[last] == b'\n';
        let is_end = |byte: &u8| *byte == b'\n' && printer.grouping == Grouping::Lines;
        let end = bytes[..length].iter().rposition(is_end).map_or(0, |end| end + 1);
        let (whole, rest) = bytes[..length].split_at(end);
        if !whole.is_empty() {
            self.hold(whole, printer);
            self.hand_over(printer);
        }
        self.hold(rest, printer);
        length
    }

    /// Where there is no room to hold it, as the disk is full, what is held so far is handed over before its time.
    fn hold(&mut self, bytes: &[u8], printer: &mut Printer) {
        if self.held.push(bytes).is_err() {
            self.hand_over(printer);
            // It fits the memory.
            let _ = self.held.push(bytes);
        }
    }

    fn hand_over(&mut self, printer: &mut Printer) {
        let origin = self.origin;
        self.held.hand_over(|text| printer.print(origin, text));
    }
}
