//! A job with its channel, and the tokens that it has.

use std::time::{Duration, Instant};

use super::channel::Channel;
use super::outer::OuterToken;
use super::slot_cost::SlotCost;
use crate::engine::Grant;
use crate::sys::poll::{poll, Interest, Ready};
use crate::sys::process::Handle;
use crate::vocabulary::{Work, WorkUsage};

/// A job and its channel.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: u64,
    pub(super) kind: String,
    pub(super) channel: Channel,
    /// The slot that it has of the jobserver above this one.
    pub(super) slot: Slot,
    /// While it runs.
    pub(super) job: Option<RunningJob>,
    /// As many as the account says: those that are lent first, then the one that is on offer.
    pub(super) tokens: Vec<Token>,
    /// What the last job of this channel used at most for each of its slots.
    pub(super) own: SlotCost,
}

/// The slot of a jobserver above this one that a job runs in, its implicit one.
#[derive(Debug)]
pub(super) enum Slot {
    None,
    /// That of this process.
    Own,
    Token(OuterToken),
}

#[derive(Debug)]
pub(super) struct RunningJob {
    pub(super) pid: u32,
    /// Readable when it has ended.
    pub(super) handle: Handle,
    /// Its own, where the host has attached none.
    pub(super) base: Option<Grant>,
    pub(super) usage: WorkUsage,
    /// The most slots that it has had since that usage was measured.
    pub(super) slots: usize,
    /// While it has a token that is the first of its kind.
    pub(super) learning: Option<Learning>,
    /// What it is taken to need for its own slot.
    pub(super) least: Work,
    pub(super) offered: Instant,
    /// When it last took a token, or began.
    pub(super) took: Instant,
    /// Nothing is offered before, because nobody took what was.
    pub(super) rests_until: Option<Instant>,
    /// For how long, the next time.
    pub(super) rest: Duration,
}

impl RunningJob {
    pub(super) fn has_ended(&self) -> bool {
        let Some(descriptor) = self.handle.descriptor() else { return false };
        let mut ready = [Ready::default()];
        // It is readable from its end on.
        let asked = poll(std::iter::once((descriptor, Interest::Input)), &mut ready, Duration::ZERO);
        asked.is_ok() && ready[0].any()
    }
}

/// The watch over the first step of a kind. It is over when a token comes back; or when memory falls by half of a slot's
/// share, for clients that keep a token from one step to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Learning {
    pub(super) since: Instant,
    pub(super) most_bytes: u64,
}

#[derive(Debug)]
pub(super) struct Token {
    pub(super) grant: Grant,
    pub(super) outer: Option<OuterToken>,
}
