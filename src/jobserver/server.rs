//! The server: its channels, the tokens that are out, and what is done at each turn of its thread.
//!
//! Its lock is held for moments, and never while a token is admitted: that may take a check, and call the host's logger.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::account::{Account, Change};
use super::channel::Channel;
use super::client::{Client, Learning, RunningJob, Slot, Token};
use super::held_back::HeldBack;
use super::offers::IDLE_OFFER;
use super::outer::Outer;
use super::slot_cost::SlotCost;
use super::tally::{Tally, TokenTally};
use crate::engine::{self, Core, Shared};
use crate::sys::epoll::Epoll;
use crate::sys::fork::Mutex;
use crate::sys::poll::EventFd;
use crate::sys::process::Handle;
use crate::sys::ProcessMark;
use crate::vocabulary::{Error, Verdict, Work, WorkUsage};

/// The number of the bell among the descriptors that are waited for.
const BELL: u64 = 0;
/// The number of the jobserver above this one.
const OUTER: u64 = 1;
/// Each channel has two numbers, from 2 on: that of its pipes, and the next, of the end of its job.
const NUMBERS: u64 = 2;

/// How soon a token that was refused is asked for again; each time in vain twice as late, up to the latter.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(320));

/// How long the thread sleeps when there is nothing to do.
const IDLE: Duration = Duration::from_secs(3600);

/// The label of a job that has no permit of its own.
const JOB_LABEL: &str = "jobserver client";

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) tokens: usize,
    /// The folder of the fifos; `None` for pipes.
    pub(super) fifos: Option<PathBuf>,
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) engine: Arc<Shared>,
    pub(super) settings: Settings,
    epoll: Epoll,
    pub(super) bell: Arc<EventFd>,
    mark: ProcessMark,
    pub(super) state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) account: Account,
    pub(super) clients: Vec<Client>,
    pub(super) costs: BTreeMap<String, SlotCost>,
    pub(super) outer: Option<Outer>,
    pub(super) tally: Tally,
    pub(super) last_id: u64,
    pub(super) is_closed: bool,
    /// The channels in which there is more to see than was read.
    pub(super) unread: Vec<u64>,
    /// Why the next token is not let out, and when it is asked for again.
    pub(super) held_back: Option<HeldBack>,
    pub(super) again: Duration,
    pub(super) next_check: Instant,
    /// Until then, work that is no token waits for room.
    pub(super) wanted_until: Instant,
}

impl Server {
    pub(super) fn new(engine: Arc<Shared>, settings: Settings, outer: Option<Outer>) -> io::Result<Server> {
        let (epoll, bell) = (Epoll::new()?, Arc::new(EventFd::new()?));
        epoll.add(bell.as_fd(), BELL, false)?;
        outer.iter().try_for_each(|outer| outer.watch(&epoll, OUTER))?;
        let now = Instant::now();
        let state = State {
            account: Account::new(settings.tokens),
            clients: Vec::new(),
            costs: BTreeMap::new(),
            outer,
            tally: Tally::new(now),
            last_id: 0,
            is_closed: false,
            unread: Vec::new(),
            held_back: None,
            again: AGAIN.0,
            next_check: now,
            wanted_until: now,
        };
        Core::of(&engine).watch_gate(&bell);
        Ok(Server { engine, settings, epoll, bell, mark: ProcessMark::here(), state: Mutex::new(state) })
    }

    /// Whether this process was forked since the server was made, which is its parent's. Then no lock may be taken.
    pub(super) fn is_inherited(&self) -> bool {
        self.mark.is_inherited()
    }

    pub(super) fn next_id(&self) -> u64 {
        let mut state = self.state.lock();
        state.last_id += 1;
        state.last_id
    }

    pub(super) fn add(&self, id: u64, kind: String, channel: Channel) -> io::Result<()> {
        channel.watch(&self.epoll, number_of(id))?;
        let client =
            Client { id, kind, channel, slot: Slot::None, job: None, tokens: Vec::new(), own: SlotCost::default() };
        self.state.lock().clients.push(client);
        Ok(())
    }

    /// Takes everything back from a channel, which is gone then.
    pub(super) fn remove(&self, id: u64) {
        let mut state = self.state.lock();
        self.end_job(&mut state, id);
        if let Some(index) = state.clients.iter().position(|client| client.id == id) {
            let client = state.clients.remove(index);
            client.channel.unwatch(&self.epoll);
        }
        drop(state);
        self.bell.signal();
    }

    /// Has a job hold a slot of the jobserver above this one, if there is one. `false` if none is to be had now.
    pub(super) fn reserve_slot(&self, id: u64) -> bool {
        let mut state = self.state.lock();
        let State { clients, outer, .. } = &mut *state;
        let Some(outer) = outer else { return true };
        let is_own_free = !clients.iter().any(|client| matches!(client.slot, Slot::Own));
        let Some(client) = clients.iter_mut().find(|client| client.id == id) else { return false };
        if matches!(client.slot, Slot::None) {
            client.slot = if is_own_free { Slot::Own } else { outer.take().map_or(Slot::None, Slot::Token) };
        }
        !matches!(client.slot, Slot::None)
    }

    /// Lets tokens out into a channel from now on, until the process has ended.
    pub(super) fn serve(&self, id: u64, pid: u32) -> Result<(), Error> {
        if self.state.lock().clients.iter().any(|client| client.id == id && client.job.is_some()) {
            return Err(Error::setting("the channel serves a process already"));
        }
        let handle = Handle::open(pid).map_err(|error| Error::system(format!("no job is process {pid}"), error))?;
        let base = if engine::is_attached_to(&self.engine, pid) {
            None
        } else {
            let base = engine::hold_nothing(&self.engine, JOB_LABEL)?;
            if let Err(error) = engine::attach(&self.engine, &base, pid) {
                engine::finish(&self.engine, &base);
                return Err(error);
            }
            Some(base)
        };
        let mut state = self.state.lock();
        let State { clients, account, .. } = &mut *state;
        let Some(client) = clients.iter_mut().find(|client| client.id == id) else { return Ok(()) };
        if let Some(descriptor) = handle.descriptor() {
            // An error: its end is seen when its channel is dropped.
            let _ = self.epoll.add(descriptor, number_of(id) + 1, true);
        }
        client.own = SlotCost::default();
        // From the first check on it is a build.
        let least = Work::new().processes(1);
        engine::set_least(&self.engine, pid, &least);
        let now = Instant::now();
        client.job = Some(RunningJob {
            pid,
            handle,
            base,
            usage: WorkUsage::default(),
            slots: 1,
            learning: None,
            least,
            offered: now,
            took: now,
            rests_until: None,
            rest: IDLE_OFFER,
        });
        account.open(id);
        state.again = AGAIN.0;
        drop(state);
        self.bell.signal();
        Ok(())
    }

    /// The job of a channel has ended, and the channel stays.
    pub(super) fn rest(&self, id: u64) {
        let mut state = self.state.lock();
        self.end_job(&mut state, id);
        drop(state);
        self.bell.signal();
    }

    /// What the last job of a channel has used at most for each of its slots.
    pub(super) fn slot_of(&self, id: u64) -> Option<Work> {
        let mut state = self.state.lock();
        self.sample(&mut state, id);
        let client = state.clients.iter().find(|client| client.id == id)?;
        Some(client.own.work())
    }

    pub(super) fn lent_to(&self, id: u64) -> usize {
        self.state.lock().account.lent_to(id)
    }

    pub(super) fn tally(&self) -> TokenTally {
        self.state.lock().tally.as_of(Instant::now())
    }

    pub(super) fn held_back(&self) -> Option<Verdict> {
        match &self.state.lock().held_back {
            Some(HeldBack::Verdict(verdict)) => Some((**verdict).clone()),
            _ => None,
        }
    }

    /// Everything comes back, and the thread ends.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        let ids: Vec<u64> = state.clients.iter().map(|client| client.id).collect();
        ids.into_iter().for_each(|id| self.end_job(&mut state, id));
        drop(state);
        self.bell.signal();
    }

    pub(super) fn wait(&self, ready: &mut Vec<u64>, timeout: Duration) -> io::Result<()> {
        self.epoll.wait(ready, timeout)
    }

    /// Sees what has happened, and lets tokens out. Returns how long to sleep if nothing happens; `None` at the end.
    pub(super) fn turn(&self, ready: &[u64]) -> Option<Duration> {
        if ready.contains(&BELL) {
            self.bell.clear();
        }
        let is_open = Core::of(&self.engine).is_open_as_measured();
        let mut state = self.state.lock();
        if state.is_closed {
            return None;
        }
        if !ready.is_empty() {
            // Something has changed.
            state.again = AGAIN.0;
        }
        self.look(&mut state, ready);
        if !is_open {
            self.withdraw_all(&mut state);
        }
        self.rest_idle_offers(&mut state, Instant::now());
        drop(state);
        // Before anything is let out: what has become known now is not looked at again until something happens.
        self.learn();
        self.let_out(is_open);
        let mut state = self.state.lock();
        let now = Instant::now();
        let (lent, is_serving) = (state.account.lent(), state.clients.iter().any(|client| client.job.is_some()));
        let reason = state.held_back.as_ref().map(HeldBack::word);
        state.tally.set(now, lent, is_serving, reason);
        Some(state.next_timeout(now, is_open))
    }

    /// Looks into the channels that have changed, and for jobs that have ended.
    fn look(&self, state: &mut State, ready: &[u64]) {
        let unread = std::mem::take(&mut state.unread);
        for number in unread.iter().chain(ready.iter().filter(|number| **number >= NUMBERS)) {
            let id = number / NUMBERS;
            self.look_into(state, id);
            // The number may be that of the job before, which has ended in the meantime.
            if number % NUMBERS == 1 && state.job(id).is_some_and(|job| job.has_ended()) {
                self.end_job(state, id);
            }
        }
        if let Some(outer) = &mut state.outer {
            outer.flush();
        }
    }

    fn look_into(&self, state: &mut State, id: u64) {
        self.sample(state, id);
        let State { clients, account, costs, unread, .. } = state;
        let Some(client) = clients.iter_mut().find(|client| client.id == id) else { return };
        let seen = client.channel.look(account.is_offered_to(id));
        if seen.is_more {
            unread.push(number_of(id));
        }
        let change = account.look(id, seen.is_offer_there, seen.came_back);
        let Some(job) = &mut client.job else { return };
        if change.taken {
            (job.rest, job.took) = (IDLE_OFFER, Instant::now());
            if let Some(token) = client.tokens.last() {
                engine::join(&self.engine, &token.grant, job.pid);
            }
            job.slots = job.slots.max(account.lent_to(id) + change.returned + 1);
            let cost = costs.get(&client.kind).copied().unwrap_or_default();
            if !cost.is_known() {
                job.learning.get_or_insert_with(|| Learning { since: Instant::now(), most_bytes: 0 });
            }
        }
        for token in client.tokens.drain(..change.returned.min(client.tokens.len())) {
            self.give_back(token, &mut state.outer);
        }
        // In a fifo, a token that comes back may be taken again before it is seen: then something has moved, and nothing has
        // changed.
        let is_unseen = client.channel.is_fifo() && change == Change::default() && account.lent_to(id) > 0;
        let ended = change.returned + usize::from(is_unseen);
        if ended > 0 {
            job.learning = None;
            let cost = costs.entry(client.kind.clone()).or_default();
            (0..ended).for_each(|_| cost.note_end());
        }
        if change != Change::default() {
            let cost = costs.get(&client.kind).copied().unwrap_or_default();
            self.expect(client, account.lent_to(id) + 1, cost.work());
        }
    }

    pub(super) fn give_back(&self, token: Token, outer: &mut Option<Outer>) {
        engine::finish(&self.engine, &token.grant);
        if let (Some(outer), Some(token)) = (outer, token.outer) {
            outer.give_back(token);
        }
    }

    /// The job of a channel has ended: whatever it had is back.
    fn end_job(&self, state: &mut State, id: u64) {
        self.sample(state, id);
        let State { clients, account, outer, .. } = state;
        account.close(id);
        let Some(client) = clients.iter_mut().find(|client| client.id == id) else { return };
        for token in client.tokens.drain(..) {
            self.give_back(token, outer);
        }
        if let Some(job) = client.job.take() {
            if let Some(base) = &job.base {
                engine::finish(&self.engine, base);
            }
            if let Some(descriptor) = job.handle.descriptor() {
                self.epoll.remove(descriptor);
            }
        }
        client.channel.drain();
        if let (Slot::Token(token), Some(outer)) = (std::mem::replace(&mut client.slot, Slot::None), outer) {
            outer.give_back(token);
        }
    }
}

impl State {
    pub(super) fn job(&mut self, id: u64) -> Option<&mut RunningJob> {
        self.clients.iter_mut().find(|client| client.id == id).and_then(|client| client.job.as_mut())
    }

    pub(super) fn is_learning(&self) -> bool {
        self.clients.iter().any(|client| client.job.as_ref().is_some_and(|job| job.learning.is_some()))
    }

    /// How long to sleep, if nothing happens.
    fn next_timeout(&mut self, now: Instant, is_open: bool) -> Duration {
        let mut timeout = if self.unread.is_empty() { IDLE } else { Duration::ZERO };
        if self.outer.as_ref().is_some_and(Outer::is_stuck) {
            timeout = timeout.min(AGAIN.1);
        }
        let mut until = |at: Instant| timeout = timeout.min(at.saturating_duration_since(now));
        let jobs = || self.clients.iter().filter_map(|client| Some((client.id, client.job.as_ref()?)));
        if self.is_learning() {
            until(self.next_check);
        }
        jobs().filter_map(|(_, job)| job.rests_until).filter(|at| *at > now).for_each(&mut until);
        let is_contended = self.outer.is_some()
            || now < self.wanted_until
            || matches!(self.held_back, Some(HeldBack::AllOut | HeldBack::Verdict(_)));
        if is_open && is_contended {
            self.offers_end().for_each(|(_, at)| until(at));
        }
        match &self.held_back {
            // A closed gate rings when it opens.
            Some(HeldBack::Verdict(_)) if is_open => {
                timeout = timeout.min(self.again);
                self.again = (self.again * 2).min(AGAIN.1);
            }
            _ => {}
        }
        timeout
    }
}

fn number_of(id: u64) -> u64 {
    id * NUMBERS
}
