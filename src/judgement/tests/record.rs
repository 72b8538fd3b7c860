//! Failed checks, levels, growth and lateness, as reports tell of them.

use super::*;
use crate::judgement::shed::ShedStep;

#[test]
fn a_failed_check_closes_the_gate_until_the_next_good_one_and_keeps_the_levels() {
    let mut bench = Bench::running();
    bench.good(96);
    let report = bench.fail();
    assert!(!report.good && *report.levels.get(Resource::Processes) == Level::Critical);
    assert_eq!(bench.text(), "not accepting work: the last check failed: the probe panicked");
    assert_eq!(bench.publication().trusted_until, None);
    assert_eq!(bench.publication().last_success, Some(bench.now));
    bench.good(1);
    assert!(bench.verdict().is_accepting());
}

#[test]
fn failures_are_logged_up_to_the_fifth_and_one_good_check_clears_everything() {
    let mut bench = Bench::running();
    for n in 1..=4 {
        assert_eq!(names(&bench.fail()), [format!("failed {n}")]);
        assert!(!bench.publication().degraded);
    }
    let report = bench.fail();
    assert_eq!(names(&report), ["failed 5", "degraded 5"]);
    assert!(report.degraded && bench.publication().degraded);
    assert!(bench.fail().events.is_empty());
    assert!(bench.text().starts_with("not accepting work: degraded after 6 failed checks in a row: the probe"));
    let report = bench.good(1);
    assert_eq!(names(&report), ["recovered 6", "cleared 6"]);
    assert!(!report.degraded && bench.verdict().is_accepting());
    bench.fail();
    assert_eq!(names(&bench.good(1)), ["recovered 1"]);
}

#[test]
fn a_steady_check_has_nothing_to_tell_and_allocates_no_list() {
    let mut bench = Bench::running();
    for _ in 0..3 {
        assert_eq!(bench.good(12).events.capacity(), 0);
        bench.now += INTERVAL;
    }
}

#[test]
fn a_check_that_began_before_the_published_one_changes_nothing() {
    let mut bench = Bench::running();
    bench.good(12);
    bench.number = 8;
    bench.good(12);
    // The bench counts one up before it records.
    for before in [0, 4, 8] {
        bench.number = before;
        assert!(bench.record(None, None, &[]).is_none());
        assert!(bench.verdict().is_accepting());
    }
}

#[test]
fn levels_are_logged_with_their_numbers_when_a_check_enters_them() {
    let mut bench = Bench::running();
    let report = bench.record(Some(96 * MB), Some(85), &[]).unwrap();
    assert_eq!(names(&report), ["memory Critical 0", "processes Warning 0"]);
    let expected = (Level::Critical, 96 * MB, Some(100 * MB));
    assert!(matches!(report.events[0],
        Event::LevelEntered { level, usage, limit, .. } if (level, usage, limit) == expected));
    for (at, expected) in [(1, &[][..]), (15, &[]), (16, &["memory Normal 0", "processes Normal 0"])] {
        bench.now = s(1000 + at);
        assert_eq!(names(&bench.good(1)), expected, "at {at}");
    }
}

#[test]
fn an_unset_limit_ends_its_level_without_a_limit_to_print() {
    let mut bench = Bench::running();
    bench.judgement.settings.settle = Some(Duration::ZERO);
    bench.good(90);
    bench.limits = ResourceLimits::builder().build().unwrap();
    let report = bench.good(90);
    assert!(matches!(report.events[..], [Event::LevelEntered { level: Level::Normal, limit: None, .. }]));
}

#[test]
fn zombies_that_stay_an_interval_are_reported() {
    let mut bench = Bench::running();
    let zombies = [Identity { pid: 7, start_ticks: 1 }];
    assert!(bench.record(Some(0), Some(1), &zombies).unwrap().events.is_empty());
    bench.now += INTERVAL;
    assert_eq!(names(&bench.record(Some(0), Some(1), &zombies).unwrap()), ["zombies [7]"]);
}

#[test]
fn shedding_sees_the_first_critical_resource_of_a_check() {
    let mut bench = Bench::running();
    let cases = [
        (1, 1, None, true),
        (85, 1, None, false),
        (1, 96, Some(Resource::Processes), false),
        (96, 96, Some(Resource::Memory), false),
    ];
    for (memory, processes, critical, all_normal) in cases {
        let report = bench.record(Some(memory * MB), Some(processes), &[]).unwrap();
        let checked = report.checked();
        let found = checked.critical.first().map(|critical| critical.resource);
        assert_eq!((found, checked.all_normal, checked.good, checked.at), (critical, all_normal, true, bench.now));
    }
    let report = bench.record(Some(1), Some(96), &[]).unwrap();
    assert_eq!(report.critical[0].to_string(), "processes 96 of 100 (96.0 %) at or above the hard threshold of 95 %");
    let mut policy = shed::ShedPolicy::default();
    let failed = bench.fail().checked();
    assert_eq!(policy.next(&failed, INTERVAL), ShedStep::Nothing);
}

#[test]
fn running_late_is_in_the_verdict_while_it_lasts_and_in_the_log_once_a_minute() {
    let mut bench = Bench::running();
    let mut take = |at: u64, lateness: u64| {
        bench.now = s(1000 + at);
        let planned = Some(Planned { delay: s(10), lateness: s(lateness) });
        let report = bench.record_check(&found(Some(0), Some(0)), |check| Observation { planned, ..check }).unwrap();
        assert_eq!(bench.text().ends_with("; the monitor runs late: the last check began 6000 ms after its time"), {
            lateness == 6
        });
        names(&report)
    };
    assert!(take(0, 4).is_empty());
    assert_eq!(take(10, 6), ["late 6s"]);
    for (at, lateness) in [(20, 6), (30, 0), (40, 6), (50, 0)] {
        assert!(take(at, lateness).is_empty(), "at {at}");
    }
    assert_eq!(take(70, 6), ["late 6s"]);
}

/// A monitor that knows of 1 MB and no process, and 50 MB and 10 processes of a permit that was dropped.
fn with_a_dropped_permit() -> Bench {
    let mut bench = Bench::running();
    bench.limits = ResourceLimits::builder().max_memory_mb(100).max_processes(100).build().unwrap();
    bench.good(0);
    let work = Work::new().memory_mb(50).processes(10);
    bench.admit(work).unwrap();
    bench.release(&work);
    bench.now += s(1);
    bench
}

/// Takes a reading of memory alone that found this, and began then. Returns what is reserved after it.
fn read_alone(bench: &mut Bench, memory_mb: u64, began: Duration, released: &Released) -> (u64, u64) {
    let memory = found(Some(memory_mb * MB), None);
    bench.judgement.record_memory(&memory, bench.now, began, Duration::ZERO, released, &bench.limits);
    bench.judgement.publish_check(&bench.limits);
    let room = &bench.judgement.admission().room;
    (room.reserved(Resource::Memory) / MB, room.reserved(Resource::Processes))
}

#[test]
fn a_reading_of_memory_alone_has_seen_the_memory_of_permits_and_not_their_processes() {
    let mut bench = with_a_dropped_permit();
    let released = bench.judgement.admission().room.take_released_alone();
    let now = bench.now;
    assert_eq!(read_alone(&mut bench, 51, now, &released), (0, 10));
    assert!(bench.text().contains("memory 51.0 MB of 100.0 MB"), "{}", bench.text());
    bench.good(10);
    assert_eq!(bench.judgement.reserved(Resource::Processes), 0);
}

#[test]
fn a_reading_that_another_has_overtaken_frees_nothing_and_changes_nothing() {
    let mut bench = with_a_dropped_permit();
    let released = bench.judgement.admission().room.take_released_alone();
    let (before, now) = (bench.now - ms(1), bench.now);
    assert_eq!(read_alone(&mut bench, 51, now, &Released::default()), (50, 10));
    assert_eq!(read_alone(&mut bench, 1, before, &released), (50, 10), "it is left to the next one");
    assert!(bench.text().contains("memory 51.0 MB + 50.0 MB reserved"), "{}", bench.text());
    let released = bench.judgement.admission().room.take_released_alone();
    assert_eq!(read_alone(&mut bench, 51, now, &released), (0, 10));
}

#[test]
fn a_check_that_took_long_keeps_what_memory_was_found_to_be_meanwhile() {
    let mut bench = with_a_dropped_permit();
    let (began, of_check) = (bench.now, Released::default());
    // The check reads memory before the permit's is touched; a reading of memory alone sees that, and frees it.
    bench.now += ms(5);
    let released = bench.judgement.admission().room.take_released_alone();
    let now = bench.now;
    assert_eq!(read_alone(&mut bench, 51, now, &released), (0, 10));
    bench.number += 1;
    let found = found(Some(MB), Some(3));
    bench.finish_check(&found, of_check, |check| Observation { began, ..check }).unwrap();
    assert!(bench.text().contains("memory 51.0 MB of 100.0 MB"), "{}", bench.text());
    assert!(bench.text().contains("processes 3 + 10 reserved"), "{}", bench.text());
}
