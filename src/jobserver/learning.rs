//! The cost of a slot, learned from what jobs use while they have so many.

use std::time::{Duration, Instant};

use super::client::Client;
use super::server::{Server, State};
use super::slot_cost::SlotCost;
use crate::engine;
use crate::vocabulary::Work;

/// How old a check may be on which a token is admitted, and how often one is taken while the first step of a kind is watched:
/// they take at most a tenth of the time.
const CLOSELY: Duration = Duration::from_millis(5);

/// How long the end of the first step is waited for before a second token is let out all the same.
const LEARNING: Duration = Duration::from_secs(10);

/// Memory that falls by so much was that of a step, however soon; by less, only after the time in which clients start.
const STEP_BYTES: u64 = 32 << 20;
const START: Duration = Duration::from_secs(1);

impl Server {
    /// Takes note of what a job uses, as the last check has seen it.
    pub(super) fn sample(&self, state: &mut State, id: u64) {
        let State { clients, account, costs, .. } = state;
        let Some(client) = clients.iter_mut().find(|client| client.id == id) else { return };
        let Some(job) = &mut client.job else { return };
        let slots = account.lent_to(id) + 1;
        job.slots = job.slots.max(slots);
        if job.learning.is_some_and(|learning| learning.since.elapsed() >= LEARNING) {
            job.learning = None;
            costs.entry(client.kind.clone()).or_default().set_known();
        }
        let Some(usage) = engine::usage_of(&self.engine, job.pid) else { return };
        if usage == job.usage {
            return;
        }
        client.own.note(usage, job.slots);
        // Looked up first: the name is copied once a kind.
        if !costs.contains_key(&client.kind) {
            costs.insert(client.kind.clone(), SlotCost::default());
        }
        let Some(cost) = costs.get_mut(&client.kind) else { return };
        cost.note(usage, job.slots);
        if let Some(learning) = &mut job.learning {
            learning.most_bytes = learning.most_bytes.max(usage.memory_bytes);
            let fell = learning.most_bytes - usage.memory_bytes;
            // A process that is forked counts as large as its parent until it has become another program.
            let is_step = fell >= STEP_BYTES || learning.since.elapsed() >= START;
            if is_step && fell * 2 * job.slots as u64 >= learning.most_bytes {
                cost.set_known();
                job.learning = None;
            }
        }
        (job.usage, job.slots) = (usage, slots);
        self.expect(client, slots, cost.work());
    }

    /// Takes a job to need for each of its slots what steps of its kind are known to need by now. Its tokens have declared what
    /// was known when they were admitted, the first one nothing, and clients keep a token from one step to the next.
    pub(super) fn expect(&self, client: &mut Client, slots: usize, cost: Work) {
        let Some(job) = &mut client.job else { return };
        let declared = client
            .tokens
            .iter()
            .take(slots.saturating_sub(1))
            .fold(Work::new(), |sum, token| sum.widened(&token.grant.work));
        let least = (0..slots).fold(Work::new(), |sum, _| sum.widened(&cost)).narrowed(&declared);
        if job.least != least {
            job.least = least;
            engine::set_least(&self.engine, job.pid, &least);
        }
    }

    /// Takes a check while the first step of a kind is watched, so that its cost is seen.
    pub(super) fn learn(&self) {
        if self.state.lock().is_learning() {
            self.check_if_old();
        }
    }

    /// Takes a check unless one was taken just now, and has the costs follow. What a step had that has ended would stand for
    /// the next one otherwise.
    pub(super) fn check_if_old(&self) {
        let now = Instant::now();
        if now < self.state.lock().next_check {
            return;
        }
        engine::check_now(&self.engine);
        let took = now.elapsed();
        let mut state = self.state.lock();
        state.next_check = Instant::now() + CLOSELY.max(took * 10);
        let ids: Vec<u64> = state.clients.iter().map(|client| client.id).collect();
        ids.into_iter().for_each(|id| self.sample(&mut state, id));
    }
}
