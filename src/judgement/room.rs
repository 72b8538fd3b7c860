//! The room below each threshold, and the reservations that fill it: atomics, so that a permit is granted and given back
//! without a lock.
//!
//! # The need
//!
//! A hundred threads ask for admission at once. Each grant must be judged on measured usage *and* on every grant before
//! it, and a check that brings a new measurement must not open a moment in which work counts nowhere: no more as
//! reserved, and not yet as measured.
//!
//! # The obvious way, and why not
//!
//! A mutex around the judgement: right, and three times the cost of a semaphore when eight threads meet at it.
//!
//! # What is done instead
//!
//! Each resource has a row: how much may be reserved before each bound is reached, and how much is. To reserve is to add
//! to `reserved`, and then to look again whether the sum is below the bound; if not, it is taken back. Rows are judged
//! one by one, so two askers may refuse each other, and never let each other through. A bound is one word with the
//! measurement already taken off, so no asker mixes the usage of one check with the limit of another.
//!
//! A check that has seen released work publishes what is left by its measurement *before* it takes the reservation of
//! that work back. An asker that adds before the reservation is taken back counts it; one that adds after finds the new
//! measurement when it looks again.
//!
//! Readers of the gate look at one word instead of all rows while it is 0, which says that no row has reached its
//! warning bound. Whoever reserves up to that bound raises the word *after* it has reserved; a publisher raises it
//! *before* it stores any bound, and lowers it to 0 *after* it has looked at all rows, if nobody has raised it since
//! before that look. A reservation that comes before the look is seen in its row, and one that comes after it raises
//! the word after it was noted: so while anybody has work that closes the gate, the word is not 0. Room that is given
//! back leaves it raised until the next publication, and readers look at the rows meanwhile.
//!
//! A waiter announces itself in `waiters` *before* it looks whether there is room; whoever frees room, or takes it, looks
//! at `waiters` *after*. One of the two sees the other, so nobody sleeps beside room that fits.
//!
//! With a [`Seat`] at a ledger, what other processes have reserved is one more summand in the rows of what all share. An
//! asker shows what it reserves to them *before* it adds up what they have. Theirs changes without a word to us, so that
//! `reached` says nothing, and readers look at the rows.
//!
//! # Orders of memory
//!
//! Everything above is about the order of accesses to different words, so all of them are SeqCst: one order that all
//! threads agree on. A load costs nothing more for it on the common machines; bounds are stored by checks alone.
//!
//! # The cost
//!
//! A refusal may be wrong for an instant: another asker holds what it is about to take back, or a check is between its
//! measurement and the reservations that it has seen. [`Room::is_open`] waits such an instant out, and work that is
//! refused is judged once more under the lock of the judgement.

use std::sync::OnceLock;
use std::time::Duration;

use super::atomics::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use super::row::{amount, at_least_nothing, is_below, Left, Row, MOST};
use super::shares::{self, Marks, Others, Seat};
use crate::vocabulary::{Class, GaugeName, PerResource, Resource, Work};

/// The rows of all resources, and the number of threads that wait for room in them.
#[derive(Debug)]
pub(crate) struct Room {
    rows: PerResource<Row>,
    waiters: AtomicUsize,
    /// Whether the first of them waits for nothing but what another process shows.
    is_left_to_watchers: AtomicBool,
    /// Raised before and after the rows are published: odd while they are.
    publications: AtomicUsize,
    /// 0 while no row has reached its warning bound.
    reached: AtomicU64,
    /// `false` while no gauge has a bound. Raised before the first gets one, and lowered after the last has lost it, so an
    /// asker who finds it `false` has judged all gauges as they were at that moment.
    has_bounded_gauges: AtomicBool,
    /// The place among the processes that share a ledger, once it was taken.
    seat: OnceLock<Seat>,
}

/// The reservations that were released before a reading began, which has seen them: the own ones of each resource, and
/// the marks of all processes that share a ledger.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Released {
    own: PerResource<u64>,
    pub(crate) marks: Marks,
}

impl Released {
    pub(crate) fn get(&self, resource: Resource) -> u64 {
        *self.own.get(resource)
    }

    pub(crate) fn add(&mut self, resource: Resource, amount: u64) {
        *self.own.get_mut(resource) += amount;
    }
}

impl Room {
    /// Without a bound and without a reservation.
    pub(crate) fn new() -> Room {
        Room {
            rows: PerResource::from_fn(|_| Row::new()),
            waiters: AtomicUsize::new(0),
            is_left_to_watchers: AtomicBool::new(false),
            publications: AtomicUsize::new(0),
            reached: AtomicU64::new(0),
            has_bounded_gauges: AtomicBool::new(false),
            seat: OnceLock::new(),
        }
    }

    /// Takes a seat among the processes that share a ledger, for good.
    pub(crate) fn sit(&self, seat: Seat) {
        // Whoever checks takes turns, so nobody else has.
        let _ = self.seat.set(seat);
    }

    /// The seat, once it was taken.
    #[inline]
    pub(crate) fn seat(&self) -> Option<&Seat> {
        self.seat.get()
    }

    /// The amounts that other processes have reserved.
    #[inline]
    fn others(&self) -> Others {
        self.seat().map_or_else(Others::default, Seat::others)
    }

    /// The amount of a resource that other processes have reserved, and how many have.
    pub(crate) fn reserved_by_others(&self, resource: Resource) -> (u64, usize) {
        let Some(seat) = self.seat() else { return (0, 0) };
        let amount = seat.others().of(resource);
        // Whoever had reserved it may have given it back since.
        (amount, seat.holders(resource).max(usize::from(amount > 0)))
    }

    /// Replaces what is left of each resource, then takes back the reservations that the new measurement has seen.
    /// Callers take turns.
    pub(crate) fn publish(&self, left: impl Fn(Resource) -> Left, seen: &Released) {
        self.publications.fetch_add(1, SeqCst);
        let reached = self.reached.fetch_add(1, SeqCst);
        let left = PerResource::from_fn(left);
        let mut gauges = Resource::ALL[Resource::READ.len()..].iter();
        let has_bounded_gauges = gauges.any(|gauge| left.get(*gauge).is_bounded());
        if has_bounded_gauges {
            self.has_bounded_gauges.store(true, SeqCst);
        }
        for resource in Resource::ALL {
            self.rows.get(resource).publish(left.get(resource));
        }
        if !has_bounded_gauges {
            self.has_bounded_gauges.store(false, SeqCst);
        }
        self.settle(seen);
        self.show_waiters();
        if self.are_open(Class::Normal) {
            // If this fails, somebody has reserved that much since.
            let _ = self.reached.compare_exchange(reached.wrapping_add(1), 0, SeqCst, SeqCst);
        }
        self.publications.fetch_add(1, SeqCst);
    }

    /// Returns `true` if work that costs nothing, of class `Normal`, would be granted.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        let is_known = self.seat().is_none() && self.reached.load(SeqCst) == 0;
        is_known || self.are_open(Class::Normal) || self.are_open_afterwards()
    }

    #[inline]
    fn are_open(&self, class: Class) -> bool {
        let others = self.others();
        let mut rows = Resource::ALL.iter().map(|resource| (self.rows.get(*resource), others.of(*resource)));
        rows.all(|(row, others)| is_below(row.total(row.reserved.load(SeqCst), others), row.bound(class)))
            && self.seat().map_or(true, |seat| seat.is_admitted_by_watchers([0; 2], [0; 2], class))
    }

    /// Looks again, while the rows are being published. A publisher that takes long has lost its processor: then what
    /// was seen stands.
    #[cold]
    fn are_open_afterwards(&self) -> bool {
        const ROUNDS: usize = 100;
        for _ in 0..ROUNDS {
            let before = self.publications.load(SeqCst);
            if self.are_open(Class::Normal) {
                return true;
            }
            if before % 2 == 0 && before == self.publications.load(SeqCst) {
                return false;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// Reserves the work if it fits: every row is below the bound of the work's class, and with the work below the hard
    /// one. Otherwise nothing is reserved, and the row that refused is named.
    pub(crate) fn try_reserve(&self, work: &Work) -> Result<(), Resource> {
        let Some(seat) = self.seat() else { return self.try_reserve_beside(work, &Others::default()) };
        let (asked, class) = (shares::amounts(work), work.class_of());
        // Looked at first, so that what is refused is never in anybody's way.
        self.admits_beside(work, &seat.others())?;
        if !seat.is_admitted_by_watchers([0; 2], asked, class) {
            return Err(Resource::Memory);
        }
        seat.raise(asked);
        let reserved = self.try_reserve_beside(work, &seat.others());
        if reserved.is_ok() && !seat.is_admitted_by_watchers(asked, [0; 2], class) {
            self.give_back_own(work);
            seat.end(asked);
            return Err(Resource::Memory);
        }
        if reserved.is_err() {
            seat.end(asked);
        }
        reserved
    }

    /// Returns `true` if all rows have room for this work, so that it is those who watch who have none.
    pub(crate) fn is_refused_by_watchers(&self, work: &Work) -> bool {
        self.seat().is_some_and(|seat| self.admits_beside(work, &seat.others()).is_ok())
    }

    /// Notes whether the first who waits does so for nothing but what another process shows.
    pub(crate) fn leave_to_watchers(&self, is_left: bool) {
        self.is_left_to_watchers.store(is_left, SeqCst);
    }

    pub(crate) fn is_left_to_watchers(&self) -> bool {
        self.is_left_to_watchers.load(SeqCst)
    }

    /// Whether every row has room for the work, beside what others have reserved.
    fn admits_beside(&self, work: &Work, others: &Others) -> Result<(), Resource> {
        let refuses = |resource: &&Resource| {
            let row = self.rows.get(**resource);
            let (reserved, asked) = (row.reserved.load(SeqCst), amount(work, **resource));
            !row.admits(reserved, asked, others.of(**resource), work.class_of())
        };
        work.resources().iter().find(refuses).map_or(Ok(()), |resource| Err(*resource))
    }

    fn try_reserve_beside(&self, work: &Work, others: &Others) -> Result<(), Resource> {
        let mut reaches = false;
        // A gauge without a bound refuses nothing, and most programs have no gauge.
        let judging = if self.has_bounded_gauges.load(SeqCst) { &Resource::ALL } else { work.resources() };
        for (index, resource) in judging.iter().enumerate() {
            let (amount_of_it, others) = (amount(work, *resource), others.of(*resource));
            match self.rows.get(*resource).try_reserve(amount_of_it, others, work.class_of()) {
                Some(reached) => reaches |= reached,
                None => {
                    for reserved in &judging[..index] {
                        self.rows.get(*reserved).give_back(amount(work, *reserved));
                    }
                    return Err(*resource);
                }
            }
        }
        if reaches {
            self.reached.fetch_add(1, SeqCst);
        }
        Ok(())
    }

    /// Gives reserved work back: nothing of it is left, or it is counted elsewhere by now.
    pub(crate) fn give_back(&self, work: &Work) {
        self.give_back_own(work);
        if let Some(seat) = self.seat() {
            seat.end(shares::amounts(work));
        }
    }

    fn give_back_own(&self, work: &Work) {
        for resource in work.resources() {
            self.rows.get(*resource).give_back(amount(work, *resource));
        }
    }

    /// Notes that every check which begins from now on sees the reserved work. It stays reserved until one has.
    pub(crate) fn release(&self, work: &Work) {
        for resource in work.resources() {
            self.rows.get(*resource).release(amount(work, *resource));
        }
        if let Some(seat) = self.seat() {
            seat.release(shares::amounts(work));
        }
    }

    /// Gives the room of one resource back, as [`give_back`](Self::give_back) does that of all.
    pub(crate) fn give_back_of(&self, resource: Resource, work: &Work) {
        self.rows.get(resource).give_back(amount(work, resource));
        if let Some(seat) = self.seat() {
            seat.end_of(resource, amount(work, resource));
        }
    }

    /// Leaves this much of one resource to a later reading, which one has taken that did not measure it.
    pub(crate) fn release_amount_again(&self, resource: Resource, amount: u64) {
        self.rows.get(resource).release(amount);
    }

    /// Releases what is reserved of one resource, as [`release`](Self::release) does all.
    pub(crate) fn release_of(&self, resource: Resource, work: &Work) {
        self.rows.get(resource).release(amount(work, resource));
        if let Some(seat) = self.seat() {
            seat.release_of(resource, amount(work, resource));
        }
    }

    /// Takes what was released so far, for a check that begins now: it sees all of that. To be called before anything
    /// is read. What comes of it is for [`publish`](Self::publish), [`settle`](Self::settle) or
    /// [`release_again`](Self::release_again).
    pub(crate) fn take_released(&self) -> Released {
        let own = PerResource::from_fn(|resource| self.rows.get(resource).released.swap(0, SeqCst));
        Released { own, marks: self.marks() }
    }

    fn marks(&self) -> Marks {
        self.seat().map_or_else(Marks::default, Seat::marks)
    }

    /// Takes what was released so far of the resources that are read alone, for a reading of them that begins now.
    pub(crate) fn take_released_alone(&self) -> Released {
        let mut own = PerResource::default();
        for resource in Resource::read_alone() {
            *own.get_mut(resource) = self.rows.get(resource).released.swap(0, SeqCst);
        }
        Released { own, marks: self.marks() }
    }

    /// Gives back what was seen by a check whose measurement, or a later one, was published.
    pub(crate) fn settle(&self, seen: &Released) {
        for resource in Resource::ALL {
            self.rows.get(resource).give_back(seen.get(resource));
        }
    }

    /// Leaves to a later check what one has taken that failed.
    pub(crate) fn release_again(&self, taken: &Released) {
        for resource in Resource::ALL {
            self.rows.get(resource).release(taken.get(resource));
        }
    }

    /// The amount of a resource that permits of this process have reserved.
    pub(crate) fn reserved(&self, resource: Resource) -> u64 {
        self.rows.get(resource).reserved.load(SeqCst)
    }

    /// The largest share that a resource has reached, measured and reserved, of the usage that closes the gate: below 1
    /// exactly where that is not reached.
    pub(crate) fn pressure(&self, now: Duration) -> f64 {
        let others = self.others();
        let shares = Resource::ALL.iter().map(|resource| self.rows.get(*resource).pressure(others.of(*resource)));
        shares.fold(self.seat().map_or(0.0, |seat| seat.pressure(now)), f64::max)
    }

    /// Adds to a gauge.
    #[inline]
    pub(crate) fn push(&self, gauge: GaugeName, amount: u64) {
        let row = self.rows.get(Resource::Gauge(gauge));
        row.pushed.fetch_add(amount.min(MOST), SeqCst);
        self.note_push(row);
    }

    /// Takes off what was added to a gauge. Returns `true` if somebody waits, who is to be served.
    #[inline]
    #[must_use]
    pub(crate) fn pull(&self, gauge: GaugeName, amount: u64) -> bool {
        self.rows.get(Resource::Gauge(gauge)).pushed.fetch_sub(amount.min(MOST), SeqCst);
        self.has_waiters()
    }

    /// Replaces the value of a gauge. Returns as [`pull`](Self::pull) does.
    pub(crate) fn set_pushed(&self, gauge: GaugeName, value: u64) -> bool {
        let row = self.rows.get(Resource::Gauge(gauge));
        row.pushed.store(value.min(MOST), SeqCst);
        self.note_push(row);
        self.has_waiters()
    }

    /// The value of a gauge.
    pub(crate) fn pushed(&self, gauge: GaugeName) -> u64 {
        at_least_nothing(self.rows.get(Resource::Gauge(gauge)).pushed.load(SeqCst))
    }

    /// The row of a gauge is another one's from now on.
    pub(crate) fn set_gauge_number(&self, gauge: GaugeName, number: u16) {
        self.rows.get(Resource::Gauge(gauge)).gauge.store(number.into(), SeqCst);
    }

    /// The work without what it declares of gauges that are not this monitor's.
    #[inline]
    pub(crate) fn of_own_gauges(&self, work: &Work) -> Work {
        if !work.has_gauges() {
            return *work;
        }
        work.of_gauges(|place| {
            let row = self.rows.get(Resource::Gauge(GaugeName::of_place(place as u8)));
            u16::try_from(row.gauge.load(SeqCst)).unwrap_or(0)
        })
    }

    /// Raises the word if a gauge has reached the warning bound: as whoever reserves does.
    #[inline]
    fn note_push(&self, row: &Row) {
        if !is_below(row.total(row.reserved.load(SeqCst), 0), row.warn.load(SeqCst)) {
            self.reached.fetch_add(1, SeqCst);
        }
    }

    /// Announces a waiter, before it looks whether there is room. Returns `true` if it is the only one.
    pub(crate) fn add_waiter(&self) -> bool {
        let is_only = self.waiters.fetch_add(1, SeqCst) == 0;
        self.show_waiters();
        is_only
    }

    /// Takes back the announcement of a waiter that waits no more.
    pub(crate) fn remove_waiter(&self) {
        self.waiters.fetch_sub(1, SeqCst);
        self.show_waiters();
    }

    /// Two at once may show them in the wrong order: each publication does it again.
    fn show_waiters(&self) {
        if let Some(seat) = self.seat() {
            seat.show_waiters(self.waiters());
        }
    }

    /// Returns `true` if somebody waits for room; to be asked after room was reserved or freed.
    #[inline]
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiters() != 0
    }

    #[inline]
    pub(crate) fn waiters(&self) -> usize {
        self.waiters.load(SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room for `warn` processes before new work is refused, and for `hard` in all.
    fn room(background: u64, warn: u64, hard: u64) -> Room {
        let room = Room::new();
        publish(&room, &[(Resource::Processes, Left { background, warn, hard, usage: 0, closes_from: warn })]);
        room
    }

    fn publish(room: &Room, left: &[(Resource, Left)]) {
        let of =
            |resource| left.iter().find(|(other, _)| *other == resource).map_or(Left::UNLIMITED, |(_, left)| *left);
        room.publish(of, &Released::default());
    }

    fn processes(processes: u64) -> Work {
        Work::new().processes(processes)
    }

    #[test]
    fn work_is_granted_below_the_bound_of_its_class_and_up_to_the_hard_one() {
        let room = room(60, 80, 95);
        let cases = [
            (Class::Normal, 94, true),
            (Class::Normal, 95, false),
            (Class::Critical, 94, true),
            (Class::Background, 94, true),
            (Class::Background, 95, false),
        ];
        for (class, asked, fits) in cases {
            let work = processes(asked).class(class);
            assert_eq!(room.try_reserve(&work), if fits { Ok(()) } else { Err(Resource::Processes) }, "{work:?}");
            if fits {
                room.give_back(&work);
            }
        }
        for (reserved, open) in
            [(59, [true; 3]), (1, [false, true, true]), (20, [false, false, true]), (15, [false; 3])]
        {
            assert_eq!(room.try_reserve(&processes(reserved).class(Class::Critical)).is_ok(), reserved != 15);
            if reserved == 15 {
                let full = Left { background: 0, warn: 0, hard: 0, usage: 0, closes_from: 0 };
                publish(&room, &[(Resource::Processes, full)]);
            }
            let classes = [Class::Background, Class::Normal, Class::Critical];
            assert_eq!(room.is_open(), open[1], "after {reserved} more");
            assert_eq!(classes.map(|class| room.try_reserve(&Work::new().class(class)).is_ok()), open);
        }
    }

    #[test]
    fn refused_work_leaves_nothing_reserved_of_any_resource() {
        let room = Room::new();
        let left = Left { background: 1, warn: 1, hard: 10, usage: 0, closes_from: 1 };
        publish(&room, &[(Resource::Processes, left), (Resource::Memory, left)]);
        assert_eq!(room.try_reserve(&processes(10).memory_bytes(9)), Err(Resource::Processes));
        assert_eq!(room.try_reserve(&processes(9).memory_bytes(10)), Err(Resource::Memory));
        assert!(Resource::ALL.iter().all(|resource| room.reserved(*resource) == 0));
    }

    #[test]
    fn released_work_is_given_back_by_a_check_that_began_after_it() {
        let room = room(8, 8, 10);
        room.try_reserve(&processes(3)).unwrap();
        room.try_reserve(&processes(2)).unwrap();
        room.release(&processes(3));
        let seen = room.take_released();
        room.release(&processes(2));
        assert_eq!(room.reserved(Resource::Processes), 5);
        room.publish(|_| Left::UNLIMITED, &seen);
        assert_eq!(room.reserved(Resource::Processes), 2);
        let failed = room.take_released();
        room.release_again(&failed);
        room.settle(&room.take_released());
        assert_eq!(room.reserved(Resource::Processes), 0);
    }

    #[test]
    fn without_a_bound_the_largest_work_is_granted_and_given_back() {
        let room = Room::new();
        let largest = Work::new().processes(u64::MAX).memory_bytes(u64::MAX).open_files(u64::MAX);
        for _ in 0..100 {
            assert_eq!(room.try_reserve(&largest), Ok(()));
        }
        assert!(room.is_open() && room.pressure(Duration::ZERO) == 0.0);
        for _ in 0..100 {
            room.give_back(&largest);
        }
        assert_eq!(room.reserved(Resource::Memory), 0);
    }

    #[test]
    fn pressure_is_the_largest_share_of_what_closes_the_gate_and_below_1_while_that_is_open() {
        let room = Room::new();
        let left = |usage, closes_from| Left { background: 0, warn: 0, hard: 100, usage, closes_from };
        let of = |processes, open_files| [(Resource::Processes, processes), (Resource::OpenFiles, open_files)];
        publish(&room, &of(left(40, 80), left(60, 80)));
        assert_eq!(room.pressure(Duration::ZERO), 0.75);
        publish(&room, &of(left(40, 80), left(160, 80)));
        assert_eq!(room.pressure(Duration::ZERO), 2.0);
        let large = 1 << 60;
        publish(&room, &of(left(40, 80), left(large - 1, large)));
        assert!(room.pressure(Duration::ZERO) < 1.0);
        publish(&room, &of(left(40, 80), left(large, large)));
        assert_eq!(room.pressure(Duration::ZERO), 1.0);
    }

    #[test]
    fn room_that_was_given_back_is_seen_before_and_after_the_next_publication() {
        let room = room(60, 80, 95);
        assert!(room.is_open() && room.reached.load(SeqCst) == 0);
        room.try_reserve(&processes(80)).unwrap();
        assert!(!room.is_open());
        room.give_back(&processes(80));
        assert!(room.is_open() && room.reached.load(SeqCst) > 0);
        publish(&room, &[]);
        assert!(room.is_open() && room.reached.load(SeqCst) == 0);
    }

    #[test]
    fn a_gauge_with_a_bound_is_judged_for_work_that_declares_none_of_it_and_only_while_it_has_one() {
        let (room, gauge) = (Room::new(), GaugeName::of_place(3));
        let of_gauge = Work::new().with_gauge(gauge, 1, 8);
        room.try_reserve(&of_gauge).unwrap();
        assert_eq!(room.reserved(Resource::Gauge(gauge)), 8);
        let left = Left { background: 6, warn: 8, hard: 10, usage: 0, closes_from: 8 };
        publish(&room, &[(Resource::Gauge(gauge), left)]);
        assert_eq!(room.try_reserve(&processes(1)), Err(Resource::Gauge(gauge)));
        assert_eq!(room.reserved(Resource::Processes), 0);
        room.give_back(&of_gauge);
        assert_eq!(room.try_reserve(&processes(1)), Ok(()));
        room.try_reserve(&of_gauge).unwrap();
        publish(&room, &[]);
        assert_eq!(room.try_reserve(&processes(1)), Ok(()));
        room.release(&of_gauge);
        room.settle(&room.take_released());
        assert_eq!(room.reserved(Resource::Gauge(gauge)), 0);
    }

    /// The measurement of a check has work in it whose reservation is not taken back yet.
    #[test]
    fn the_gate_does_not_flicker_while_a_check_is_published() {
        let room = &room(60, 80, 95);
        let work = processes(50);
        let rounds = 2_000_u32;
        std::thread::scope(|scope| {
            let publisher = scope.spawn(|| {
                for _ in 0..rounds {
                    room.try_reserve(&work).unwrap();
                    room.release(&work);
                    let seen = room.take_released();
                    let left = Left { background: 10, warn: 30, hard: 45, usage: 50, closes_from: 80 };
                    room.publish(
                        |resource| if resource == Resource::Processes { left } else { Left::UNLIMITED },
                        &seen,
                    );
                    let left = Left { background: 60, warn: 80, hard: 95, usage: 0, closes_from: 80 };
                    publish(room, &[(Resource::Processes, left)]);
                }
            });
            let (mut flickers, mut was_open) = (0_u32, true);
            while !publisher.is_finished() {
                let is_open = room.is_open();
                flickers += u32::from(was_open && !is_open);
                was_open = is_open;
            }
            // A publisher that has lost its processor is not waited for: seen as closed for as long, once.
            assert!(flickers <= rounds / 50, "{flickers} of {rounds}");
        });
    }
}
