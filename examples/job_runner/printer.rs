//! Prints. A thread does, because whoever reads may be slow: the runner goes on to see the ends of jobs, and signals.

use std::io::{self, Cursor, Read, Write};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded, Receiver, Sender};
use indicatif::ProgressBar;

/// Prints texts one after the other, in the order in which it was given them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Printer {
    pieces: Sender<Piece>,
}

/// Where a text is printed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    Stdout,
    Stderr,
}

enum Piece {
    /// Whole lines.
    Text(Target, Box<dyn Read + Send>),
    /// Says by its end that everything before it is printed.
    Mark(Sender<()>),
}

impl Printer {
    /// Prints above a progress line, which stays whole.
    pub(crate) fn new(bar: ProgressBar) -> io::Result<Printer> {
        let (pieces, received) = unbounded();
        thread::Builder::new().name("printer".into()).spawn(move || print_all(&bar, &received))?;
        Ok(Printer { pieces })
    }

    /// Prints a text of whole lines.
    pub(crate) fn print(&self, target: Target, text: impl Read + Send + 'static) {
        // The thread ends with the last of those that could give it something.
        let _ = self.pieces.send(Piece::Text(target, Box::new(text)));
    }

    /// Prints a line.
    pub(crate) fn say(&self, line: &str) {
        self.print(Target::Stdout, Cursor::new(format!("{line}\n")));
    }

    /// The number of texts that wait to be printed.
    pub(crate) fn backlog(&self) -> usize {
        self.pieces.len()
    }

    /// Waits until everything is printed, or for so long.
    pub(crate) fn wait(&self, at_most: Option<Duration>) {
        let (mark, passed) = bounded(0);
        let _ = self.pieces.send(Piece::Mark(mark));
        let _ = match at_most {
            Some(timeout) => passed.recv_timeout(timeout).is_ok(),
            None => passed.recv().is_ok(),
        };
    }
}

fn print_all(bar: &ProgressBar, pieces: &Receiver<Piece>) {
    for piece in pieces {
        match piece {
            Piece::Text(target, mut text) => above(bar, || {
                // A reader that has gone away is no reason to stop running jobs.
                let _ = match target {
                    Target::Stdout => copy(&mut text, &mut io::stdout().lock()),
                    Target::Stderr => copy(&mut text, &mut io::stderr().lock()),
                };
            }),
            Piece::Mark(mark) => drop(mark),
        }
    }
}

fn copy(text: &mut impl Read, target: &mut impl Write) -> io::Result<()> {
    io::copy(text, target)?;
    target.flush()
}

/// Does something while the progress line is not shown, if there is one. Without one, nobody waits for whoever else prints.
pub(crate) fn above<T>(bar: &ProgressBar, print: impl FnOnce() -> T) -> T {
    if bar.is_hidden() {
        print()
    } else {
        bar.suspend(print)
    }
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Piece::Text(..) => "Text",
            Piece::Mark(_) => "Mark",
        })
    }
}
