//! The account of tokens: how many each job has, and who is offered the next. A pure state machine, without I/O or clock.
//!
//! A token is offered (its byte lies in the channel), then lent (somebody has read the byte), and comes back as any byte.
//! Bytes look alike, so a job can give back no more than it was lent: what is beyond that is surplus, and is forgotten. What
//! it does not give back is back when it ends.

/// The tokens of all jobs.
#[derive(Debug)]
pub(super) struct Account {
    most: usize,
    jobs: Vec<JobTokens>,
    /// Counts offers, so that of two jobs that hold as many the one comes first that was offered none for longer.
    turns: u64,
}

/// The tokens of one job.
#[derive(Debug)]
struct JobTokens {
    id: u64,
    lent: usize,
    is_offered: bool,
    last_turn: u64,
}

/// The change that a look into a channel has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Change {
    /// The offered token was taken.
    pub(super) taken: bool,
    /// As many lent tokens came back.
    pub(super) returned: usize,
}

impl Account {
    /// Lends so many tokens at most.
    pub(super) fn new(most: usize) -> Account {
        Account { most, jobs: Vec::new(), turns: 0 }
    }

    /// From now on this job may be offered tokens.
    pub(super) fn open(&mut self, id: u64) {
        self.turns += 1;
        self.close(id);
        self.jobs.push(JobTokens { id, lent: 0, is_offered: false, last_turn: self.turns });
    }

    /// The job has ended, and all that it had is back.
    pub(super) fn close(&mut self, id: u64) {
        self.jobs.retain(|job| job.id != id);
    }

    /// The job that is to be offered the next token: of those that have none on offer, the one that holds fewest. `None` if
    /// there is none, or all tokens are out.
    pub(super) fn next(&self, may_have: impl Fn(u64) -> bool) -> Option<u64> {
        if self.out() >= self.most {
            return None;
        }
        self.next_without_limit(may_have)
    }

    /// The same, as if there were more tokens.
    pub(super) fn next_without_limit(&self, may_have: impl Fn(u64) -> bool) -> Option<u64> {
        let without_offer = self.jobs.iter().filter(|job| !job.is_offered && may_have(job.id));
        without_offer.min_by_key(|job| (job.lent, job.last_turn)).map(|job| job.id)
    }

    /// A token was put into the channel of a job that had none on offer.
    pub(super) fn offer(&mut self, id: u64) {
        self.turns += 1;
        let turn = self.turns;
        if let Some(job) = self.get_mut(id) {
            job.is_offered = true;
            job.last_turn = turn;
        }
    }

    /// The token on offer was taken back before anybody else took it.
    pub(super) fn withdraw(&mut self, id: u64) {
        if let Some(job) = self.get_mut(id) {
            job.is_offered = false;
        }
    }

    /// A look into the channel: whether the token on offer is there still, and how many bytes have come back. These were read
    /// *before* it was looked whether the offer is there, so none of them can be of a take that was not seen.
    pub(super) fn look(&mut self, id: u64, is_offer_there: bool, came_back: usize) -> Change {
        let Some(job) = self.get_mut(id) else { return Change::default() };
        let taken = job.is_offered && !is_offer_there;
        if taken {
            job.is_offered = false;
            job.lent += 1;
        }
        let returned = came_back.min(job.lent);
        job.lent -= returned;
        Change { taken, returned }
    }

    /// The tokens that a job was lent.
    pub(super) fn lent_to(&self, id: u64) -> usize {
        self.get(id).map_or(0, |job| job.lent)
    }

    pub(super) fn is_offered_to(&self, id: u64) -> bool {
        self.get(id).is_some_and(|job| job.is_offered)
    }

    /// The tokens that are lent.
    pub(super) fn lent(&self) -> usize {
        self.jobs.iter().map(|job| job.lent).sum()
    }

    /// The tokens that are lent or on offer.
    pub(super) fn out(&self) -> usize {
        self.jobs.iter().map(|job| job.lent + usize::from(job.is_offered)).sum()
    }

    fn get(&self, id: u64) -> Option<&JobTokens> {
        self.jobs.iter().find(|job| job.id == id)
    }

    fn get_mut(&mut self, id: u64) -> Option<&mut JobTokens> {
        self.jobs.iter_mut().find(|job| job.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: fn(u64) -> bool = |_| true;

    #[test]
    fn the_job_that_holds_fewest_is_offered_the_next_and_of_two_the_one_that_waits_longer() {
        let mut account = Account::new(5);
        for id in [1, 2] {
            account.open(id);
        }
        let mut offered = Vec::new();
        while let Some(id) = account.next(ANY) {
            account.offer(id);
            if offered.len() < 2 {
                account.look(id, false, 0);
            }
            offered.push(id);
        }
        assert_eq!((offered, account.out(), account.lent()), (vec![1, 2, 1, 2], 4, 2));
        account.look(1, false, 2);
        assert_eq!((account.lent_to(1), account.next(ANY)), (0, Some(1)));
        assert_eq!(account.next(|id| id != 1), None, "the other has one on offer");
    }

    #[test]
    fn nobody_gives_back_more_than_it_was_lent() {
        let mut account = Account::new(9);
        account.open(1);
        assert_eq!(account.look(1, false, 3), Change::default());
        account.offer(1);
        assert_eq!(account.look(1, true, 3), Change::default(), "the offer is there");
        // Taken and given back between two looks.
        assert_eq!(account.look(1, false, 4), Change { taken: true, returned: 1 });
        assert_eq!(account.out(), 0);
    }

    #[test]
    fn what_a_job_has_is_back_when_it_ends() {
        let mut account = Account::new(2);
        account.open(1);
        account.offer(1);
        account.look(1, false, 0);
        account.offer(1);
        assert_eq!((account.out(), account.next(ANY)), (2, None));
        assert!(account.is_offered_to(1));
        account.close(1);
        assert_eq!((account.out(), account.next(ANY)), (0, None));
        assert_eq!(account.look(1, false, 9), Change::default());
    }

    /// A channel as the kernel has it: the byte on offer, those that were given back, and what its clients hold.
    #[derive(Default)]
    struct World {
        id: u64,
        has_byte: bool,
        given_back: usize,
        held: usize,
        /// Given back beyond what was taken, and not yet seen.
        surplus: usize,
        is_greedy: bool,
    }

    /// Any order of offers, takes, returns, surpluses, losses, looks at any moment, and ends.
    #[test]
    fn never_is_more_out_than_granted_none_is_lost_and_all_is_back_at_the_end() {
        const MOST: usize = 7;
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = move |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        let (mut account, mut worlds, mut ids) = (Account::new(MOST), Vec::<World>::new(), 0);
        for _ in 0..1_000_000 {
            if worlds.len() < 2 {
                ids += 1;
                account.open(ids);
                worlds.push(World { id: ids, is_greedy: next(4) == 0, ..World::default() });
            }
            let (index, jobs) = (next(worlds.len()), worlds.len());
            let world = &mut worlds[index];
            let id = world.id;
            match next(100) {
                0..=24 => {
                    if let Some(id) = account.next(|_| true) {
                        account.offer(id);
                        let world = worlds.iter_mut().find(|world| world.id == id).unwrap();
                        assert!(!std::mem::replace(&mut world.has_byte, true), "two bytes in one channel");
                    }
                }
                25..=49 if world.has_byte => {
                    world.has_byte = false;
                    world.held += 1;
                }
                50..=69 if world.held > 0 => {
                    world.held -= 1;
                    world.given_back += 1;
                }
                70..=71 if world.is_greedy => world.surplus += 1 + next(30),
                // A client is killed with what it holds.
                72 => world.held = 0,
                73..=76 if world.has_byte => {
                    world.has_byte = false;
                    account.withdraw(id);
                }
                77 if jobs < 6 => {
                    ids += 1;
                    account.open(ids);
                    worlds.push(World { id: ids, is_greedy: next(4) == 0, ..World::default() });
                }
                78 => {
                    account.close(id);
                    worlds.swap_remove(index);
                }
                _ => {
                    let came_back = world.given_back + world.surplus;
                    let lent = account.lent_to(id);
                    let is_untrue = world.surplus > 0;
                    (world.given_back, world.surplus) = (0, 0);
                    let change = account.look(id, world.has_byte, came_back);
                    assert!(change.returned <= lent + usize::from(change.taken));
                    // Surplus passes for what is still held: no client that gives back only what it took loses by that.
                    assert!(is_untrue || change.returned == came_back || world.is_greedy);
                }
            }
            assert!(account.out() <= MOST, "more out than granted");
            for world in worlds.iter().filter(|world| !world.is_greedy) {
                let out = account.lent_to(world.id) + usize::from(account.is_offered_to(world.id));
                assert!(world.held + world.given_back + usize::from(world.has_byte) <= out, "one was lost");
            }
        }
        for world in worlds {
            account.close(world.id);
        }
        assert_eq!((account.out(), account.lent()), (0, 0));
    }
}
