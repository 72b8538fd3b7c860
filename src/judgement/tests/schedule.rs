//! The times of checks, and of readings of memory alone.

use super::*;
use crate::judgement::atomics::AtomicU64;
use crate::judgement::room::Room;
use crate::judgement::row::Left;
use crate::judgement::shares::Seat;
use crate::judgement::slots::{self, Slot, Words};
use crate::judgement::watching::{Shown, ShownLimit};

#[test]
fn a_fresh_check_is_needed_only_when_the_last_is_older_than_refresh_and_gap() {
    let mut bench = Bench::new();
    assert!(!bench.judgement.needs_fresh(s(9999)));
    bench.good(1);
    let needs = |bench: &Bench, age| bench.judgement.needs_fresh(bench.now + age);
    assert!(!needs(&bench, ms(100)) && needs(&bench, ms(101)));
    bench.costing(ms(2));
    assert!(!needs(&bench, ms(200)) && needs(&bench, ms(201)));
    for _ in 0..5 {
        bench.fail();
    }
    assert!(!needs(&bench, ms(1000)) && needs(&bench, ms(1001)));
}

#[test]
fn demand_is_asked_of_a_running_thread_only() {
    let mut bench = Bench::new();
    bench.good(1);
    assert_eq!(bench.publication().refresh_at, None);
    bench.judgement.begin(INTERVAL);
    bench.good(1);
    assert_eq!(bench.publication().refresh_at, Some(bench.now + ms(100)));
    bench.judgement.close(Stopped::Asked);
    assert_eq!(bench.publication().refresh_at, None);
}

#[test]
fn the_next_check_is_due_after_the_interval_or_sooner_on_demand() {
    let mut bench = Bench::running();
    let due = |bench: &Bench, demanded| bench.judgement.next_check(bench.now, demanded, &bench.limits) - bench.now;
    bench.costing(ms(1));
    assert_eq!((due(&bench, false), due(&bench, true)), (INTERVAL, ms(100)));
    bench.costing(s(1));
    assert_eq!((due(&bench, false), due(&bench, true)), (s(100), s(100)));
    for _ in 0..7 {
        bench.fail();
    }
    assert_eq!((due(&bench, false), due(&bench, true)), (s(60), s(1)));
    bench.costing(Duration::MAX);
    assert_eq!(bench.judgement.next_check(bench.now, true, &bench.limits), Duration::MAX);
}

#[test]
fn the_thread_keeps_its_own_time_and_its_distance_from_checks_of_callers() {
    let mut bench = Bench::running();
    let own = bench.now;
    let due = |bench: &Bench, demanded| bench.judgement.next_check(own, demanded, &bench.limits) - own;
    // A caller's check, long after the thread's own last one, and then one that takes the whole interval's budget.
    bench.now = own + s(5);
    bench.costing(ms(1));
    assert_eq!((due(&bench, false), due(&bench, true)), (INTERVAL, s(5) + ms(100)));
    bench.costing(ms(200));
    assert_eq!((due(&bench, false), due(&bench, true)), (s(5) + s(20), s(5) + s(20)));
}

#[test]
fn a_climbing_resource_is_checked_sooner_and_a_failing_one_is_not() {
    let mut bench = Bench::running();
    let due = |bench: &Bench| bench.judgement.next_check(bench.now, false, &bench.limits) - bench.now;
    bench.good(0);
    bench.now += s(1);
    bench.good(10);
    // 70 of 80 are left, at 10 a second.
    assert_eq!(due(&bench), ms(3500));
    bench.now += ms(3500);
    bench.good(45);
    assert_eq!(due(&bench), ms(1750));
    // Memory, which stays, is no reason for anything; nor is a limit that is not there.
    bench.limits = ResourceLimits::builder().max_memory_mb(100).build().unwrap();
    assert_eq!(due(&bench), INTERVAL);
    bench.limits = limits();
    bench.fail();
    assert_eq!(due(&bench), INTERVAL);
}

#[test]
fn memory_that_climbs_is_read_alone_while_the_budget_forbids_a_check() {
    let mut bench = Bench::running();
    let due = |bench: &Bench| bench.judgement.next_memory_reading(false, &bench.limits).map(|due| due - s(1000));
    bench.record(Some(0), Some(0), &[]).unwrap();
    assert_eq!(due(&bench), None);
    bench.now += s(1);
    let report = bench.record(Some(40 * MB), Some(0), &[]).unwrap();
    assert!(report.climbing);
    // 40 of 80 MB are left, at 40 a second.
    assert_eq!(due(&bench), Some(ms(1500)));
    let checked = bench.now;
    bench.now += ms(500);
    bench.judgement.record_memory(
        &found(Some(60 * MB), None),
        bench.now,
        bench.now,
        Duration::ZERO,
        &Released::default(),
        &bench.limits,
    );
    assert_eq!(due(&bench), Some(ms(1750)));
    bench.now += ms(500);
    bench.judgement.record_memory(
        &found(Some(80 * MB), None),
        bench.now,
        bench.now,
        Duration::ZERO,
        &Released::default(),
        &bench.limits,
    );
    assert!(!bench.is_open());
    assert!(bench.text().contains("memory 80.0 MB of 100.0 MB (80.0 %) at or above"), "{}", bench.text());
    // The answer is as old as the check, and the level is still that of the check.
    assert_eq!(bench.judgement.last.as_ref().unwrap().at, checked);
    assert_eq!(*bench.judgement.levels.get(Resource::Memory), Level::Normal);
    // Nothing is read for a monitor that has stopped, or that cannot read.
    bench.fail();
    bench.judgement.record_memory(
        &found(Some(0), None),
        bench.now,
        bench.now,
        Duration::ZERO,
        &Released::default(),
        &bench.limits,
    );
    assert_eq!(due(&bench), None);
    assert!(!bench.is_open());
    bench.record(Some(90 * MB), Some(0), &[]).unwrap();
    assert!(due(&bench).is_some());
    bench.judgement.close(Stopped::Asked);
    assert_eq!(due(&bench), None);
}

#[test]
fn without_a_start_the_interval_counts_as_nothing() {
    let mut bench = Bench::new();
    bench.good(1);
    assert_eq!(bench.judgement.max_age(), s(2));
    assert_eq!(bench.judgement.settle(), Duration::ZERO);
    bench.judgement.begin(INTERVAL);
    assert_eq!((bench.judgement.max_age(), bench.judgement.settle()), (s(45), INTERVAL));
}

#[test]
fn a_wait_has_memory_read_where_it_has_a_limit_and_less_often_the_longer_it_stays_as_it_is() {
    let mut bench = Bench::running();
    bench.good(0);
    let due = |bench: &Bench| bench.judgement.next_memory_reading(false, &bench.limits).map(|due| due - bench.now);
    assert_eq!(due(&bench), None);
    bench.judgement.admission.room.add_waiter();
    assert_eq!(due(&bench), Some(ms(1)));
    for (memory, expected) in [(MB, 2), (MB, 4), (2 * MB, 1), (2 * MB, 2)] {
        bench.judgement.record_memory(
            &found(Some(memory), None),
            bench.now,
            bench.now,
            Duration::ZERO,
            &Released::default(),
            &bench.limits,
        );
        assert_eq!(due(&bench), Some(ms(expected)));
    }
    bench.limits = ResourceLimits::builder().max_processes(100).build().unwrap();
    assert_eq!(due(&bench), None);
}

#[test]
fn a_wait_has_checks_taken_for_four_fifths_of_the_budget() {
    let mut bench = Bench::running();
    bench.costing(Duration::from_micros(10));
    bench.judgement.admission.room.add_waiter();
    let due = |bench: &Bench| bench.judgement.next_check(bench.now, false, &bench.limits) - bench.now;
    assert_eq!(due(&bench), ms(5));
    bench.costing(Duration::from_micros(200));
    assert_eq!(due(&bench), ms(25));
    assert_eq!(bench.judgement.next_check(bench.now, true, &bench.limits) - bench.now, ms(20));
}

#[test]
fn the_resource_that_is_used_up_first_is_named_with_the_time_that_is_left() {
    let mut bench = Bench::running();
    bench.limits = ResourceLimits::builder().max_memory_mb(100).max_processes(100).build().unwrap();
    assert!(bench.verdict().exhaustion().is_none());
    for (memory, processes) in [(10, 10), (12, 20), (14, 30)] {
        bench.now += s(1);
        bench.record(Some(memory * MB), Some(processes), &[]).unwrap();
    }
    // 70 processes are left at 10 a second, and 86 MB at 2.
    let exhaustion = bench.verdict().exhaustion().unwrap();
    assert_eq!((exhaustion.resource, exhaustion.soonest, exhaustion.at_mean_rate), (Resource::Processes, s(7), s(7)));
    bench.now += s(2);
    assert!(bench.text().ends_with("; processes full in 5 s"), "{}", bench.text());
    bench.now += s(1);
    bench.record(Some(74 * MB), Some(30), &[]).unwrap();
    // 26 MB at 20 a second, and at 64 in 5 s.
    assert!(bench.text().ends_with("; memory full in 1 to 3 s"), "{}", bench.text());
    bench.now += s(1);
    bench.record(Some(10 * MB), Some(10), &[]).unwrap();
    assert!(bench.verdict().exhaustion().is_none(), "{}", bench.text());
}

#[test]
fn a_gate_that_a_gauge_has_closed_is_looked_at_no_sooner_unless_hysteresis_holds_it() {
    for (limits, is_held) in [(ResourceLimits::builder(), false), (ResourceLimits::builder().resume_percent(50), true)]
    {
        let mut bench = Bench::running();
        bench.limits = limits.build().unwrap();
        let (gauge, _) = bench.judgement.add_gauge("slots", 10, &bench.limits.clone()).unwrap();
        bench.good(0);
        let idle = bench.judgement.next_check(bench.now, false, &bench.limits);
        let _ = bench.judgement.admission().room.set_pushed(gauge, 9);
        bench.judgement.take_gauges();
        assert!(!bench.verdict().is_accepting());
        let closed = bench.judgement.next_check(bench.now, false, &bench.limits);
        assert_eq!(closed < idle, is_held, "{closed:?} {idle:?}");
    }
}

#[test]
fn a_check_that_says_nothing_of_now_foretells_nothing() {
    type Change = fn(&mut Bench);
    let changes: [(&str, Change); 4] = [
        ("stopped", |bench| bench.judgement.close(Stopped::Asked)),
        ("stale", |bench| bench.now += s(1000)),
        ("failed", |bench| drop(bench.fail())),
        ("degraded", |bench| (0..5).for_each(|_| drop(bench.fail()))),
    ];
    for (name, change) in changes {
        let mut bench = Bench::running();
        bench.limits = ResourceLimits::builder().max_memory_mb(100).max_processes(100).build().unwrap();
        for processes in [10, 20, 30] {
            bench.now += s(1);
            bench.good(processes);
        }
        assert!(bench.verdict().exhaustion().is_some(), "{name}");
        change(&mut bench);
        assert!(
            bench.verdict().exhaustion().is_none() && !bench.text().contains("full in"),
            "{name}: {}",
            bench.text()
        );
    }
}

#[derive(Debug)]
struct Memory(Vec<AtomicU64>);

impl Words for Memory {
    fn words(&self) -> &[AtomicU64] {
        &self.0
    }
}

fn words_of_a_ledger() -> Arc<dyn Words> {
    Arc::new(Memory((0..slots::WORDS).map(|_| AtomicU64::new(0)).collect()))
}

#[test]
fn who_waits_for_nothing_but_what_another_process_shows_has_few_checks_taken() {
    let words = words_of_a_ledger();
    let mut bench = Bench::running();
    bench.costing(ms(0));
    slots::note_used(words.words(), 1);
    let watcher = Room::new();
    watcher.sit(Seat::new(Arc::clone(&words), 1, true));
    let seat = watcher.seat().unwrap();
    let show = |left: u64| {
        let left = Left { usage: 0, background: left, warn: left, hard: left, closes_from: left };
        let limits = [left, Left::UNLIMITED].map(|left| ShownLimit { left, limit: 100 });
        seat.watch(&Shown { limits, closed_by: None, trusted_until: Some(s(99)) }, &seat.marks());
    };
    let below = &bench.judgement.admission.room;
    below.sit(Seat::new(Arc::clone(&words), 0, false));
    let due = || bench.judgement.next_check(bench.now, false, &bench.limits) - bench.now;
    let work = Work::new().memory_bytes(60);
    show(50);
    assert!(below.try_reserve(&work).is_err() && below.is_refused_by_watchers(&work));
    below.add_waiter();
    assert_eq!(due(), ms(5), "nobody has told yet for what it waits");
    below.leave_to_watchers(true);
    assert_eq!(due(), ms(50));
    show(70);
    assert!(below.try_reserve(&work).is_ok());
    assert!(!below.is_refused_by_watchers(&Work::new().memory_mb(9999)), "a limit of its own is too small");
}

#[test]
fn those_who_wait_below_a_watcher_are_checked_for_as_its_own_are() {
    let words = words_of_a_ledger();
    let mut bench = Bench::running();
    bench.judgement.admission.room.sit(Seat::new(Arc::clone(&words), 0, true));
    let due = |bench: &Bench| bench.judgement.next_check(bench.now, false, &bench.limits) - bench.now;
    bench.costing(ms(0));
    assert_eq!((due(&bench), bench.judgement.longest_sleep()), (INTERVAL, ms(100)), "nobody is below it");
    let (below, slot) = (Room::new(), Slot::of(words.words(), 1).unwrap());
    slots::note_used(words.words(), 1);
    slot.take(7, 7);
    below.sit(Seat::new(Arc::clone(&words), 1, false));
    assert_eq!((due(&bench), bench.judgement.longest_sleep()), (ms(100), Duration::MAX));
    below.add_waiter();
    below.add_waiter();
    assert_eq!(due(&bench), ms(5));
    below.remove_waiter();
    assert_eq!(due(&bench), ms(5));
    below.remove_waiter();
    assert_eq!(due(&bench), ms(100));
    below.add_waiter();
    slot.bury();
    assert_eq!(due(&bench), INTERVAL);
}
