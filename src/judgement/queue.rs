//! The waiters for room, and the order in which they are served: a queue without a clock, a lock or a thread.
//!
//! First come, first served within a class, and a more important class before a less important one. Strictly kept, that
//! leaves room idle behind work too large for it; dropped, the large work waits for ever ("a couch in a room full of
//! sand"). So overtaking is bounded: work that fits may pass work that does not, until that has been passed so often or
//! has waited for so long; then nothing of its class or below is served before it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::vocabulary::{Class, Overtaking, Work};

/// The classes in the order in which they are served.
const ORDER: [Class; 3] = [Class::Critical, Class::Normal, Class::Background];

/// Names one waiter of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// Everybody who waits. `T` is how a waiter is told.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    /// As in [`ORDER`].
    classes: [Line<T>; 3],
    next: u64,
    /// The number of those that take no room from anybody, and so are in nobody's way.
    free: usize,
    overtaking: Overtaking,
}

/// The waiters of one class.
#[derive(Debug)]
struct Line<T> {
    /// In the order of arrival.
    waiters: VecDeque<Waiter<T>>,
    /// No more of anything than any of them asks for, which tells when to stop trying: thousands may wait for the same.
    least: Option<Work>,
}

#[derive(Debug)]
struct Waiter<T> {
    ticket: Ticket,
    work: Work,
    since: Duration,
    /// The number of times that work behind this one was served before it. Never more for a later waiter of the class.
    passed: u32,
    tell: T,
}

impl<T> Queue<T> {
    pub(crate) fn new(overtaking: Overtaking) -> Queue<T> {
        Queue { classes: ORDER.map(|_| Line { waiters: VecDeque::new(), least: None }), next: 0, free: 0, overtaking }
    }

    /// The number of waiters.
    pub(crate) fn len(&self) -> usize {
        self.classes.iter().map(|line| line.waiters.len()).sum()
    }

    /// Puts work at the end of its class.
    pub(crate) fn push(&mut self, work: Work, now: Duration, tell: T) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.free += usize::from(work.is_free());
        let line = &mut self.classes[place(work.class_of())];
        line.least = Some(line.least.filter(|_| !line.waiters.is_empty()).map_or(work, |least| least.least(&work)));
        line.waiters.push_back(Waiter { ticket, work, since: now, passed: 0, tell });
        ticket
    }

    /// Takes a waiter out that gives up; `None` when it was served before.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let (class, index) =
            (0..ORDER.len()).find_map(|class| Some((class, self.classes[class].find(ticket).ok()?)))?;
        self.take(class, index)
    }

    /// Takes everybody out whose work is `hopeless`, in the order of service.
    pub(crate) fn dismiss(&mut self, hopeless: impl Fn(&Work) -> bool, mut tell: impl FnMut(T)) {
        for class in 0..ORDER.len() {
            let mut index = 0;
            while let Some(waiter) = self.classes[class].waiters.get(index) {
                if hopeless(&waiter.work) {
                    self.take(class, index).map(&mut tell);
                } else {
                    index += 1;
                }
            }
        }
    }

    /// The number of waiters that are served before this one, if it waits.
    pub(crate) fn ahead_of(&self, ticket: Ticket) -> Option<usize> {
        let mut ahead = 0;
        for line in &self.classes {
            match line.find(ticket) {
                Ok(index) => return Some(ahead + index),
                Err(_) => ahead += line.waiters.len(),
            }
        }
        None
    }

    /// Returns `true` if somebody waits whom this work, which comes now, may not pass.
    pub(crate) fn bars(&self, work: &Work, now: Duration) -> bool {
        !work.is_free() && self.is_barred(place(work.class_of()), usize::MAX, now)
    }

    /// Counts, for everybody who should have been before it, that work which did not wait was served.
    pub(crate) fn was_passed_by(&mut self, work: &Work) {
        if !work.is_free() {
            let before = self.classes.iter_mut().take(place(work.class_of()) + 1);
            before.for_each(|line| line.pass(usize::MAX));
        }
    }

    /// Serves everybody who may be served now. `reserve` says whether work fits, and takes its room if it does; `serve`
    /// gets the means to tell each waiter that was served.
    pub(crate) fn serve(&mut self, now: Duration, mut reserve: impl FnMut(&Work) -> bool, mut serve: impl FnMut(T)) {
        // Work that asks for at least as much need not be tried.
        let mut misfit: Option<Work> = None;
        for class in 0..ORDER.len() {
            let mut index = 0;
            while let Some(waiter) = self.classes[class].waiters.get(index) {
                // One that was tried before this one and is still there is passed by it.
                let is_barred = self.is_barred(class, index, now);
                if is_barred && self.free == 0 {
                    return;
                }
                let work = waiter.work;
                let is_hopeless =
                    (is_barred && !work.is_free()) || misfit.is_some_and(|misfit| work.is_at_least(&misfit));
                if !is_hopeless && reserve(&work) {
                    if !work.is_free() {
                        self.pass(class, index);
                    }
                    self.take(class, index).map(&mut serve);
                    continue;
                }
                if !is_barred && misfit.map_or(true, |misfit| misfit.is_at_least(&work)) {
                    misfit = Some(work);
                }
                if self.classes[class].is_hopeless(misfit) {
                    break;
                }
                index += 1;
            }
        }
    }

    fn take(&mut self, class: usize, index: usize) -> Option<T> {
        let waiter = self.classes[class].waiters.remove(index)?;
        self.free -= usize::from(waiter.work.is_free());
        Some(waiter.tell)
    }

    /// Returns `true` if somebody may not be passed who waits in a class before this one, or in this one among the first
    /// so many. The first of a class, but for those that are in nobody's way, has been passed most often and has waited
    /// longest.
    fn is_barred(&self, class: usize, among: usize, now: Duration) -> bool {
        let lengths = [usize::MAX; ORDER.len()].into_iter().take(class).chain([among]);
        self.classes.iter().zip(lengths).any(|(line, length)| {
            let first = line.waiters.iter().take(length).find(|waiter| !waiter.work.is_free());
            first.is_some_and(|first| first.is_due(now, self.overtaking))
        })
    }

    /// Counts for everybody before this place that somebody behind them is served.
    fn pass(&mut self, class: usize, index: usize) {
        let lengths = [usize::MAX; ORDER.len()].into_iter().take(class).chain([index]);
        self.classes.iter_mut().zip(lengths).for_each(|(line, length)| line.pass(length));
    }
}

impl<T> Line<T> {
    fn find(&self, ticket: Ticket) -> Result<usize, usize> {
        self.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket)
    }

    /// Counts for the first so many that somebody behind them is served.
    fn pass(&mut self, length: usize) {
        for waiter in self.waiters.iter_mut().take(length) {
            waiter.passed = waiter.passed.saturating_add(1);
        }
    }

    /// Returns `true` if none of them fits where this one does not.
    fn is_hopeless(&self, misfit: Option<Work>) -> bool {
        misfit.zip(self.least).is_some_and(|(misfit, least)| least.is_at_least(&misfit))
    }
}

impl<T> Waiter<T> {
    /// Returns `true` if nobody behind it is served before it any more.
    fn is_due(&self, now: Duration, overtaking: Overtaking) -> bool {
        self.passed >= overtaking.times || now.saturating_sub(self.since) >= overtaking.time
    }
}

fn place(class: Class) -> usize {
    match class {
        Class::Critical => 0,
        Class::Normal => 1,
        Class::Background => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BOUND: Overtaking = Overtaking { times: 16, time: Duration::from_secs(5) };

    fn of(processes: u64) -> Work {
        Work::new().processes(processes)
    }

    /// Serves from a room of this size; returns what is left of it, and who was served.
    fn serve(queue: &mut Queue<u64>, now: Duration, mut room: u64) -> (u64, Vec<u64>) {
        let mut served = Vec::new();
        let reserve = |work: &Work| {
            let asked = work.of(crate::vocabulary::Resource::Processes);
            let fits = asked <= room;
            if fits {
                room -= asked;
            }
            fits
        };
        queue.serve(now, reserve, |name| served.push(name));
        (room, served)
    }

    #[test]
    fn the_first_that_came_is_served_first_and_a_class_before_those_below() {
        let mut queue = Queue::new(BOUND);
        let works = [
            (Class::Background, 1),
            (Class::Normal, 2),
            (Class::Critical, 3),
            (Class::Normal, 4),
            (Class::Critical, 5),
            (Class::Background, 6),
        ];
        for (class, name) in works {
            queue.push(of(1).class(class), Duration::ZERO, name);
        }
        assert_eq!(serve(&mut queue, Duration::ZERO, 4), (0, vec![3, 5, 2, 4]));
        assert_eq!(serve(&mut queue, Duration::ZERO, 4), (2, vec![1, 6]));
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn work_that_fits_passes_work_that_does_not_sixteen_times() {
        let mut queue = Queue::new(BOUND);
        queue.push(of(100), Duration::ZERO, 0);
        for name in 1..=20 {
            queue.push(of(1), Duration::ZERO, name);
        }
        assert_eq!(serve(&mut queue, Duration::ZERO, 50), (34, (1..=16).collect()));
        assert!(queue.bars(&of(1), Duration::ZERO) && queue.bars(&of(1).class(Class::Background), Duration::ZERO));
        assert!(
            !queue.bars(&of(1).class(Class::Critical), Duration::ZERO),
            "the more important class was never behind it"
        );
        assert_eq!(serve(&mut queue, Duration::ZERO, 104), (0, vec![0, 17, 18, 19, 20]));
    }

    #[test]
    fn after_five_seconds_nobody_passes() {
        let mut queue = Queue::new(BOUND);
        queue.push(of(100), SECOND, 1);
        queue.push(of(1).class(Class::Background), SECOND, 2);
        queue.push(of(1), 3 * SECOND, 3);
        assert!(!queue.bars(&of(1), 6 * SECOND - Duration::from_nanos(1)));
        assert!(queue.bars(&of(1), 6 * SECOND));
        assert_eq!(serve(&mut queue, 6 * SECOND, 50), (50, vec![]));
        assert_eq!(serve(&mut queue, 5 * SECOND, 50), (48, vec![3, 2]));
    }

    #[test]
    fn who_does_not_wait_and_is_served_has_passed_those_before_it() {
        let mut queue = Queue::new(BOUND);
        queue.push(of(100), Duration::ZERO, 1);
        for _ in 0..16 {
            assert!(!queue.bars(&of(1), Duration::ZERO));
            queue.was_passed_by(&of(1).class(Class::Critical));
            queue.was_passed_by(&of(1));
        }
        assert!(queue.bars(&of(1), Duration::ZERO));
    }

    #[test]
    fn one_that_gives_up_is_nobodys_obstacle_any_more() {
        let mut queue = Queue::new(BOUND);
        let large = queue.push(of(100), Duration::ZERO, 1);
        let small = queue.push(of(1), Duration::ZERO, 2);
        assert_eq!((queue.ahead_of(large), queue.ahead_of(small)), (Some(0), Some(1)));
        assert_eq!(serve(&mut queue, 9 * SECOND, 1), (1, vec![]));
        assert_eq!((queue.remove(large), queue.remove(large)), (Some(1), None));
        assert_eq!(serve(&mut queue, 9 * SECOND, 1), (0, vec![2]));
        assert_eq!((queue.ahead_of(small), queue.len()), (None, 0));
    }

    #[test]
    fn the_hopeless_leave_in_the_order_of_service() {
        let mut queue = Queue::new(BOUND);
        queue.push(of(1).class(Class::Background), Duration::ZERO, 2);
        queue.push(of(9), Duration::ZERO, 3);
        queue.push(of(1), Duration::ZERO, 1);
        let mut left = Vec::new();
        queue.dismiss(|work| *work != of(9), |name| left.push(name));
        assert_eq!((left, queue.len()), (vec![1, 2], 1));
    }

    #[test]
    fn work_that_costs_nothing_is_in_nobodys_way_and_nobody_is_in_its() {
        let mut queue = Queue::new(BOUND);
        queue.push(Work::new(), Duration::ZERO, 1);
        queue.push(of(100), Duration::ZERO, 2);
        queue.push(Work::new(), Duration::ZERO, 3);
        queue.push(of(1), Duration::ZERO, 4);
        queue.push(Work::new().class(Class::Background), Duration::ZERO, 5);
        assert!(queue.bars(&of(1), 9 * SECOND) && !queue.bars(&Work::new(), 9 * SECOND));
        assert_eq!(serve(&mut queue, 9 * SECOND, 50), (50, vec![1, 3, 5]));
        assert_eq!((queue.len(), queue.free), (2, 0));
    }

    #[test]
    fn a_clock_that_goes_back_makes_nobody_due() {
        let mut queue = Queue::new(BOUND);
        queue.push(of(100), 100 * SECOND, 1);
        queue.push(of(1), SECOND, 2);
        assert_eq!(serve(&mut queue, SECOND, 50), (49, vec![2]));
    }

    proptest! {
        /// Whoever is left fits no more, or must not pass; and nobody is passed more often than allowed.
        #[test]
        fn nobody_waits_beside_room_that_fits(
            arrivals in proptest::collection::vec((1..40u64, 0..3usize, 0..4u64, 0..30u64), 1..80),
        ) {
            let mut queue = Queue::new(BOUND);
            let mut now = Duration::ZERO;
            let mut room = 40;
            for (name, (size, class, pause, freed)) in arrivals.into_iter().enumerate() {
                now += Duration::from_millis(500 * pause);
                queue.push(of(size).class(ORDER[class]), now, name as u64);
                room = (room + freed).min(40);
                room = serve(&mut queue, now, room).0;
                let mut barred = false;
                for line in &queue.classes {
                    for waiter in &line.waiters {
                        prop_assert!(waiter.passed <= BOUND.times);
                        let fits = waiter.work.of(crate::vocabulary::Resource::Processes) <= room;
                        prop_assert!(barred || !fits);
                        barred |= waiter.is_due(now, BOUND);
                    }
                    let waiters = &line.waiters;
                    prop_assert!(waiters.iter().zip(waiters.iter().skip(1)).all(|(a, b)| a.passed >= b.passed));
                }
            }
        }
    }
}
