//! The offers: which job a token is let out to, what is taken back because nobody took it, and why no more are.

use std::time::{Duration, Instant};

use super::client::{RunningJob, Token};
use super::held_back::HeldBack;
use super::server::{Server, State};
use super::slot_cost::SlotCost;
use crate::engine::{self, Core, Grant};
use crate::vocabulary::{Resource, Verdict, Work};

/// How long a token stays on offer that nobody takes, where another job has none on offer, or a jobserver above this one may
/// have another use for it.
pub(super) const IDLE_OFFER: Duration = Duration::from_millis(100);

/// The same for the job that has taken none for longest. Some clients look for a token only when a step of theirs ends, and
/// would never find what lies there for moments.
const PATIENT_OFFER: Duration = Duration::from_secs(1);

/// The longest time for which a job is offered nothing after it did not take what it was offered.
const LONGEST_REST: Duration = Duration::from_millis(800);

/// The label of a token among the holders.
const LABEL: &str = "jobserver token";

impl Server {
    /// Lets tokens out until one may not be.
    pub(super) fn let_out(&self, is_open: bool) {
        loop {
            let mut state = self.state.lock();
            let Some((id, work)) = state.next_offer(Instant::now()) else { return };
            if !is_open {
                drop(state);
                let verdict = Core::of(&self.engine).verdict();
                self.state.lock().held_back = Some(HeldBack::Verdict(Box::new(verdict)));
                return;
            }
            let mut outer = None;
            if let Some(above) = &mut state.outer {
                outer = above.take();
                if outer.is_none() {
                    state.held_back = Some(HeldBack::Outer);
                    return;
                }
            }
            drop(state);
            self.check_if_old();
            let admitted = self.admit(&work);
            let mut state = self.state.lock();
            match admitted {
                Ok(grant) => {
                    engine::expect_long(&self.engine, &grant);
                    state.held_back = None;
                    self.offer(&mut state, id, Token { grant, outer });
                }
                Err(verdict) => {
                    if let (Some(above), Some(outer)) = (&mut state.outer, outer) {
                        above.give_back(outer);
                    }
                    state.held_back = Some(HeldBack::Verdict(Box::new(verdict)));
                    return;
                }
            }
        }
    }

    /// Admits a token if half as much again would be granted: steps begin and end while a check is taken, and what it has
    /// missed of them is some part of one.
    fn admit(&self, work: &Work) -> Result<Grant, Verdict> {
        let margin = Work::new().memory_bytes(work.of(Resource::Memory) / 2);
        let with_margin = engine::try_admit(&self.engine, &work.widened(&margin))?;
        engine::finish(&self.engine, &with_margin);
        engine::try_admit(&self.engine, work)
    }

    fn offer(&self, state: &mut State, id: u64, token: Token) {
        let State { clients, account, outer, .. } = state;
        // It may have ended while the token was admitted.
        let client = clients.iter_mut().find(|client| client.id == id && client.job.is_some());
        match client {
            Some(client) if client.channel.offer().unwrap_or(false) => {
                account.offer(id);
                client.tokens.push(token);
                if let Some(job) = &mut client.job {
                    job.offered = Instant::now();
                    job.rests_until = None;
                }
            }
            _ => self.give_back(token, outer),
        }
    }

    fn withdraw(&self, state: &mut State, id: u64) -> bool {
        let State { clients, account, outer, .. } = state;
        let Some(client) = clients.iter_mut().find(|client| client.id == id) else { return false };
        // Else somebody has just taken it, which the next look sees.
        let is_back = account.is_offered_to(id) && client.channel.withdraw();
        if is_back {
            account.withdraw(id);
            if let Some(token) = client.tokens.pop() {
                self.give_back(token, outer);
            }
        }
        is_back
    }

    pub(super) fn withdraw_all(&self, state: &mut State) {
        let ids: Vec<u64> = state.clients.iter().map(|client| client.id).collect();
        for id in ids {
            self.withdraw(state, id);
        }
    }

    /// Takes back what nobody has taken for a while, if others have a use for it. Those whom it was offered rest, and each
    /// time in vain for longer: else they, who hold fewest, would be offered it again.
    pub(super) fn rest_idle_offers(&self, state: &mut State, now: Instant) {
        let is_wanted = match &state.held_back {
            _ if state.outer.is_some() || now < state.wanted_until => true,
            Some(HeldBack::Verdict(_) | HeldBack::AllOut) => state.account.next_without_limit(|_| true).is_some(),
            _ => false,
        };
        let idle: Vec<u64> = state.offers_end().filter(|(_, at)| is_wanted && *at <= now).map(|(id, _)| id).collect();
        for id in idle {
            if self.withdraw(state, id) {
                if let Some(job) = state.job(id) {
                    job.rests_until = now.checked_add(job.rest);
                    job.rest = (job.rest * 2).min(LONGEST_REST);
                }
            }
        }
    }

    /// Work that is no token waits for room: what nobody takes is not kept for anybody meanwhile.
    pub(super) fn make_room(&self) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let is_known = now < state.wanted_until;
        state.wanted_until = now.checked_add(LONGEST_REST).unwrap_or(now);
        drop(state);
        if !is_known {
            self.bell.signal();
        }
    }
}

impl State {
    /// The channel that is to be offered a token, and what the token is to reserve. `None` if there is none, or if as many
    /// are out as there may be, which is noted.
    fn next_offer(&mut self, now: Instant) -> Option<(u64, Work)> {
        if self.is_closed {
            return None;
        }
        let State { account, clients, costs, .. } = self;
        let client_of = |id: u64| clients.iter().find(|client| client.id == id);
        let is_known = |kind: &str| costs.get(kind).is_some_and(SlotCost::is_known);
        let is_resting = |job: &RunningJob| job.rests_until.is_some_and(|until| now < until);
        // Of a kind that is not known, one at a time.
        let is_let = |id: u64| {
            let Some(client) = client_of(id) else { return false };
            let alike = clients.iter().filter(|other| other.kind == client.kind);
            !client.job.as_ref().is_some_and(is_resting)
                && (is_known(&client.kind) || alike.map(|client| client.tokens.len()).sum::<usize>() == 0)
        };
        match account.next(is_let) {
            Some(id) => {
                let client = client_of(id)?;
                let cost = costs.get(&client.kind).copied().unwrap_or_default();
                Some((id, cost.work().label(LABEL)))
            }
            None => {
                let is_resting = |id: u64| client_of(id).and_then(|client| client.job.as_ref()).is_some_and(is_resting);
                self.held_back = match account.next_without_limit(is_let) {
                    Some(_) => Some(HeldBack::AllOut),
                    None => account.next_without_limit(|id| !is_resting(id)).map(|_| HeldBack::Learning),
                };
                None
            }
        }
    }

    /// The jobs that have a token on offer, and when it is taken back if somebody else has a use for it.
    pub(super) fn offers_end(&self) -> impl Iterator<Item = (u64, Instant)> + '_ {
        let jobs = || self.clients.iter().filter_map(|client| Some((client.id, client.job.as_ref()?)));
        let offered = move || jobs().filter(|(id, _)| self.account.is_offered_to(*id));
        let hungriest = offered().min_by_key(|(_, job)| job.took).map(|(id, _)| id);
        offered()
            .map(move |(id, job)| (id, job.offered + if hungriest == Some(id) { PATIENT_OFFER } else { IDLE_OFFER }))
    }
}
