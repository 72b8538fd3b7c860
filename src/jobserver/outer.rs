//! The jobserver that this process is a client of, if its environment names one.
//!
//! This process has one slot of its own there, which is that of the first job. Every other job and every token that is let
//! out holds a token of that jobserver.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::makeflags::{named_in, Named, CARGO_MAKEFLAGS, MAKEFLAGS};
use crate::sys::epoll::{Epoll, IN};
use crate::sys::pipe::{self, Way};

/// The way to a jobserver above this one.
#[derive(Debug)]
pub(super) struct Outer {
    /// `None` where it cannot be used: then no token is to be had, as `make` has it in a recipe without a `+`.
    ends: Option<(OwnedFd, OwnedFd)>,
    /// Tokens that could not be given back yet, because its pipe was full.
    stuck: VecDeque<u8>,
}

/// A token of that jobserver: the byte that is to be given back.
#[derive(Debug)]
pub(super) struct OuterToken(u8);

impl Outer {
    /// The one that the environment of this process names, and why it cannot be used if it cannot.
    pub(super) fn from_environment() -> (Option<Outer>, Option<io::Error>) {
        let named = [CARGO_MAKEFLAGS, MAKEFLAGS].iter().filter_map(std::env::var_os).find_map(|flags| named_in(&flags));
        let Some(named) = named else { return (None, None) };
        let (ends, error) = match open(&named) {
            Ok(ends) => (Some(ends), None),
            Err(error) => (None, Some(error)),
        };
        (Some(Outer { ends, stuck: VecDeque::new() }), error)
    }

    pub(super) fn watch(&self, epoll: &Epoll, number: u64) -> io::Result<()> {
        self.ends.as_ref().map_or(Ok(()), |(reader, _)| epoll.add_edges(reader.as_fd(), number, IN))
    }

    /// Takes a token, if there is one now.
    pub(super) fn take(&mut self) -> Option<OuterToken> {
        if let Some(byte) = self.stuck.pop_front() {
            return Some(OuterToken(byte));
        }
        let mut byte = [0];
        let (reader, _) = self.ends.as_ref()?;
        (pipe::read_now(reader, &mut byte).ok()? == 1).then_some(OuterToken(byte[0]))
    }

    /// Gives a token back.
    pub(super) fn give_back(&mut self, OuterToken(byte): OuterToken) {
        self.stuck.push_back(byte);
        self.flush();
    }

    /// Whether some could not be given back yet.
    pub(super) fn is_stuck(&self) -> bool {
        !self.stuck.is_empty()
    }

    /// Gives back what could not be before.
    pub(super) fn flush(&mut self) {
        let Some((_, writer)) = &self.ends else { return };
        while let Some(byte) = self.stuck.front() {
            match pipe::write_now(writer, &[*byte]) {
                Ok(0) => return,
                Ok(_) => self.stuck.pop_front(),
                // Nobody is there to take it.
                Err(_) => {
                    self.stuck.clear();
                    break;
                }
            };
        }
    }
}

fn open(named: &Named) -> io::Result<(OwnedFd, OwnedFd)> {
    match named {
        // Opened both ways: so it never ends, and a write is never one without a reader.
        Named::Fifo(path) => Ok((pipe::open(path, Way::Both, false)?, pipe::open(path, Way::Both, false)?)),
        Named::Pipes { reader, writer } => {
            if !pipe::is_open_pipe(*reader, Way::In) || !pipe::is_open_pipe(*writer, Way::Out) {
                let message = format!("descriptors {reader} and {writer} are no pipe to it");
                return Err(io::Error::new(io::ErrorKind::NotFound, message));
            }
            // A pipe opened both ways, too.
            Ok((pipe::reopen(*reader, Way::In)?, pipe::reopen(*writer, Way::Both)?))
        }
        Named::Unknown => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is named in a way that is not known")),
    }
}
