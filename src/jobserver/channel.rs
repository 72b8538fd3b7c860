//! The private channel of a job: the descriptors through which its tokens go.
//!
//! Of two pipes the server writes into one, from which clients take, and reads from the other, to which they give back: so
//! every token that comes back passes the server. Of a fifo there is one for both.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::makeflags::Address;
use crate::sys::epoll::{Epoll, EITHER, IN};
use crate::sys::pipe::{self, Way};

/// A token as it is written. make and ninja write the same; what comes back may be any byte.
const TOKEN: u8 = b'+';

/// The bytes that are read at once. A client that gives back more has gone wrong, and is read again.
const CHUNK: usize = 512;

#[derive(Debug)]
pub(super) struct Channel {
    /// The ends that clients inherit: to take from, and to give back to. Held here too, so that there is always a reader and
    /// a writer, whatever the clients do.
    pub(super) inherited: Arc<[OwnedFd; 2]>,
    ends: Ends,
}

/// The ends of the server, none of which blocks.
#[derive(Debug)]
enum Ends {
    Pipes {
        offer_to: OwnedFd,
        /// The end that clients take from, with a description of its own: an offer is taken back through it.
        take_from: OwnedFd,
        back_from: OwnedFd,
    },
    Fifo {
        fifo: OwnedFd,
        path: PathBuf,
    },
}

/// What is seen in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) is_offer_there: bool,
    /// The bytes that have come back.
    pub(super) came_back: usize,
    /// There is more than was read.
    pub(super) is_more: bool,
}

impl Channel {
    pub(super) fn pipes() -> io::Result<Channel> {
        let ((take_from, offer_to), (back_from, back_to)) = (pipe::pipe()?, pipe::pipe()?);
        let ends = Ends::Pipes {
            take_from: pipe::reopen(take_from.as_raw_fd(), Way::In)?,
            offer_to: pipe::reopen(offer_to.as_raw_fd(), Way::Out)?,
            back_from: pipe::reopen(back_from.as_raw_fd(), Way::In)?,
        };
        pipe::set_one_slot(offer_to.as_fd())?;
        Ok(Channel { inherited: Arc::new([take_from, back_to]), ends })
    }

    pub(super) fn fifo(path: PathBuf) -> io::Result<Channel> {
        pipe::make_fifo(&path)?;
        let open = || {
            // First the one that is a reader and a writer: the others would wait for those.
            let fifo = pipe::open(&path, Way::Both, false)?;
            pipe::set_one_slot(fifo.as_fd())?;
            Ok((fifo, [pipe::open(&path, Way::In, true)?, pipe::open(&path, Way::Out, true)?]))
        };
        match open() {
            Ok((fifo, inherited)) => Ok(Channel { inherited: Arc::new(inherited), ends: Ends::Fifo { fifo, path } }),
            Err(error) => {
                let _ = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }

    pub(super) fn address(&self) -> Address<'_> {
        let [reader, writer] = &*self.inherited;
        Address { reader: reader.as_raw_fd(), writer: writer.as_raw_fd(), fifo: self.path() }
    }

    /// Whether clients take what others of the same job give back without the server.
    pub(super) fn is_fifo(&self) -> bool {
        self.path().is_some()
    }

    fn path(&self) -> Option<&Path> {
        match &self.ends {
            Ends::Pipes { .. } => None,
            Ends::Fifo { path, .. } => Some(path),
        }
    }

    /// The descriptors that tell of changes, and of which.
    fn watched(&self) -> impl Iterator<Item = (BorrowedFd<'_>, u32)> {
        let (first, second) = match &self.ends {
            Ends::Pipes { offer_to, back_from, .. } => ((offer_to.as_fd(), EITHER), Some((back_from.as_fd(), IN))),
            Ends::Fifo { fifo, .. } => ((fifo.as_fd(), EITHER), None),
        };
        [first].into_iter().chain(second)
    }

    pub(super) fn watch(&self, epoll: &Epoll, number: u64) -> io::Result<()> {
        self.watched().try_for_each(|(fd, ways)| epoll.add_edges(fd, number, ways))
    }

    pub(super) fn unwatch(&self, epoll: &Epoll) {
        self.watched().for_each(|(fd, _)| epoll.remove(fd));
    }

    /// Puts a token in, where there is none.
    pub(super) fn offer(&self) -> io::Result<bool> {
        let into = match &self.ends {
            Ends::Pipes { offer_to, .. } => offer_to,
            Ends::Fifo { fifo, .. } => fifo,
        };
        Ok(pipe::write_now(into, &[TOKEN])? == 1)
    }

    /// Takes the offered token out again. `false` if somebody else has taken it.
    pub(super) fn withdraw(&self) -> bool {
        let from = match &self.ends {
            Ends::Pipes { take_from, .. } => take_from,
            Ends::Fifo { fifo, .. } => fifo,
        };
        pipe::read_now(from, &mut [0]).is_ok_and(|read| read == 1)
    }

    /// Looks for what has come back, and whether the offered token is there still, if one was.
    pub(super) fn look(&self, is_offered: bool) -> Seen {
        let mut bytes = [0; CHUNK];
        match &self.ends {
            Ends::Pipes { offer_to, back_from, .. } => {
                // In this order: what has come back was taken before that.
                let came_back = pipe::read_now(back_from, &mut bytes).unwrap_or_default();
                let is_offer_there = pipe::queued(offer_to.as_fd()).map_or(true, |queued| queued > 0);
                Seen { is_offer_there, came_back, is_more: came_back == CHUNK }
            }
            Ends::Fifo { fifo, .. } => {
                // All look alike: one of them is the offer.
                let queued = pipe::queued(fifo.as_fd()).unwrap_or_default();
                let is_offer_there = is_offered && queued > 0;
                let beyond = queued - usize::from(is_offer_there);
                let came_back = match beyond.min(CHUNK) {
                    0 => 0,
                    most => pipe::read_now(fifo, &mut bytes[..most]).unwrap_or_default(),
                };
                Seen { is_offer_there, came_back, is_more: beyond > CHUNK }
            }
        }
    }

    /// Empties it, for the next job.
    pub(super) fn drain(&self) {
        while self.withdraw() {}
        while self.look(false).is_more {}
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Some(path) = self.path() {
            // It may be gone with its folder.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Whatever a client reads and writes: no more is lent to it than it has taken, none is lost, and the next job begins anew.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let Some((first, steps)) = bytes.split_first() else { return };
    let is_fifo = first % 2 == 1;
    let path = std::env::temp_dir().join(format!("highwater-law-{:?}", std::thread::current().id()));
    let channel = if is_fifo { Channel::fifo(path) } else { Channel::pipes() };
    let Ok(channel) = channel else { panic!("{channel:?}") };
    let [take, give] = &*channel.inherited;
    let mut account = super::account::Account::new(3);
    account.open(1);
    // What was read of what was offered, and of that what has come back; any bytes at all that were written.
    let (mut offered, mut lent, mut written) = (0, 0, 0);
    for step in steps.iter().take(64) {
        let is_offered = account.is_offered_to(1);
        match step % 8 {
            0 | 1 => {
                if account.next(|_| true).is_some() && channel.offer().is_ok_and(|is_in| is_in) {
                    account.offer(1);
                    offered += 1;
                }
            }
            // Not where there is nothing, or it would wait.
            2 | 3 => {
                if pipe::queued(take.as_fd()).is_ok_and(|queued| queued > 0) {
                    assert!(pipe::read_now(take, &mut [0]).is_ok_and(|read| read == 1));
                }
            }
            4 => written += pipe::write_now(give, &[*step]).unwrap_or_default(),
            5 if written < 1500 => written += pipe::write_now(give, &[*step; 700]).unwrap_or_default(),
            6 => {
                if is_offered && channel.withdraw() {
                    account.withdraw(1);
                    offered -= 1;
                }
            }
            _ => {
                let seen = channel.look(is_offered);
                let change = account.look(1, seen.is_offer_there, seen.came_back);
                lent += usize::from(change.taken);
                assert!(change.returned <= seen.came_back && change.returned <= lent);
                lent -= change.returned;
            }
        }
        assert!(account.out() <= 3 && account.lent_to(1) == lent && lent <= offered);
    }
    channel.drain();
    account.close(1);
    assert_eq!((account.out(), channel.look(false)), (0, Seen { is_offer_there: false, came_back: 0, is_more: false }));
    assert_eq!(pipe::queued(take.as_fd()).ok(), Some(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(folder: &Path) -> [Channel; 2] {
        [Channel::pipes().unwrap(), Channel::fifo(folder.join("fifo")).unwrap()]
    }

    fn seen(is_offer_there: bool, came_back: usize) -> Seen {
        Seen { is_offer_there, came_back, is_more: false }
    }

    #[test]
    fn takes_and_returns_are_seen_whatever_bytes_they_are() {
        let folder = tempfile::tempdir().unwrap();
        for channel in both(folder.path()) {
            let [take, give] = &*channel.inherited;
            assert!(channel.offer().unwrap());
            assert_eq!(channel.look(true), seen(true, 0));
            assert_eq!(pipe::read_now(take, &mut [0]).unwrap(), 1);
            assert_eq!(channel.look(true), seen(false, 0));
            pipe::write_now(give, &[0, 255, b'x']).unwrap();
            assert_eq!(channel.look(false), seen(false, 3));
            assert!(channel.offer().unwrap() && channel.withdraw() && !channel.withdraw());
            pipe::write_now(give, &[b'+'; 2000]).unwrap();
            assert!(channel.look(false).is_more);
            channel.drain();
            assert_eq!(channel.look(false), seen(false, 0));
        }
        assert!(!folder.path().join("fifo").exists());
        assert!(Channel::fifo(folder.path().join("no/fifo")).is_err());
    }
}
