//! Slots of a ledger in every order that a random scheduler comes upon: processes that reserve, release and measure, and one
//! that is gone at any access and is buried. A referee beside them knows what is really held.

use std::sync::Arc as StdArc;

use shuttle::scheduler::RandomScheduler;
use shuttle::sync::atomic::{AtomicU64, Ordering::SeqCst};
use shuttle::sync::Arc;
use shuttle::{thread, Runner};

use super::shares::Seat;
use super::slots::{note_used, Slot, Words, WORDS};
use crate::vocabulary::Resource;

const ROOM: u64 = 4;
const EXECUTIONS: usize = 500;

#[derive(Debug)]
struct Memory(Vec<AtomicU64>);

impl Words for Memory {
    fn words(&self) -> &[AtomicU64] {
        &self.0
    }
}

/// What is measured, and what is held but cannot be measured yet.
#[derive(Default)]
struct Referee {
    used: AtomicU64,
    held: AtomicU64,
}

/// One process: asks for one of `ROOM`, and uses it for good.
fn live(seat: &Seat, referee: &Referee) {
    for _ in 0..2 {
        // A check: the marks are taken before it measures.
        let marks = seat.marks();
        let measured = referee.used.load(SeqCst);
        seat.set_seen(&marks);
        seat.raise([1, 0]);
        let others = seat.others().of(Resource::CgroupMemory);
        if measured + others + 1 > ROOM {
            seat.end([1, 0]);
            continue;
        }
        let held = referee.held.fetch_add(1, SeqCst) + 1;
        assert!(held <= ROOM, "{held} are held of {ROOM}");
        // It can be measured before it is released, and not the other way round.
        referee.used.fetch_add(1, SeqCst);
        seat.release([1, 0]);
        thread::yield_now();
    }
}

#[test]
fn processes_that_share_slots_never_hold_more_than_fits() {
    let model = || {
        let words: StdArc<dyn Words> = StdArc::new(Memory((0..WORDS).map(|_| AtomicU64::new(0)).collect()));
        let referee = Arc::new(Referee::default());
        let processes: Vec<_> = (0..3)
            .map(|number| {
                note_used(words.words(), number);
                let (seat, referee) = (Seat::new(StdArc::clone(&words), number, false), Arc::clone(&referee));
                thread::spawn(move || live(&seat, &referee))
            })
            .collect();
        processes.into_iter().for_each(|process| process.join().unwrap());
        let last = Seat::new(StdArc::clone(&words), 3, false);
        last.set_seen(&last.marks());
        assert_eq!(last.others().of(Resource::CgroupMemory), 0, "all was released or ended");
    };
    Runner::new(RandomScheduler::new(EXECUTIONS), shuttle::Config::new()).run(model);
}

#[test]
fn a_buried_slot_leaves_nothing_reserved() {
    let model = || {
        let words: StdArc<dyn Words> = StdArc::new(Memory((0..WORDS).map(|_| AtomicU64::new(0)).collect()));
        (0..2).for_each(|number| note_used(words.words(), number));
        let gone = Seat::new(StdArc::clone(&words), 0, false);
        // Gone in the middle: one is held, one is half taken back.
        gone.raise([3, 0]);
        gone.release([1, 0]);
        let watching = Seat::new(StdArc::clone(&words), 1, false);
        let buried = StdArc::clone(&words);
        let burial = thread::spawn(move || Slot::of(buried.words(), 0).unwrap().bury());
        assert!(watching.others().of(Resource::CgroupMemory) <= 3);
        burial.join().unwrap();
        watching.set_seen(&watching.marks());
        assert_eq!(watching.others().of(Resource::CgroupMemory), 0);
    };
    Runner::new(RandomScheduler::new(EXECUTIONS), shuttle::Config::new()).run(model);
}
