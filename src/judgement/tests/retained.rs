//! Freed memory that the allocator keeps: when it is looked for, when it is trimmed, and what is said of it.

use super::*;
use crate::judgement::{OwnMemory, Trimmed};

/// A bench of 100 MB whose settle time is a second.
fn settling() -> Bench {
    let mut bench = Bench::running();
    bench.judgement.settings.settle = Some(s(1));
    bench
}

/// A check that finds so many MB used. Returns whether it is time to look into the allocator.
fn used(bench: &mut Bench, memory_mb: u64) -> bool {
    bench.record(Some(memory_mb * MB), Some(1), &[]).unwrap().look_due
}

/// A bench that so many MB have shut for a settle time.
fn shut_by(memory_mb: u64) -> Bench {
    let mut bench = settling();
    used(&mut bench, memory_mb);
    bench.now += s(1);
    assert!(used(&mut bench, memory_mb));
    bench
}

fn own(resident_mb: u64, free_mb: u64, in_use_mb: u64) -> OwnMemory {
    OwnMemory { resident: resident_mb * MB, free: free_mb * MB, in_use: in_use_mb * MB }
}

/// Looks into an allocator. Returns whether it is to be trimmed.
fn look(bench: &mut Bench, own: OwnMemory) -> bool {
    bench.judgement.looked(&own, ms(1), bench.now, &bench.limits)
}

fn trim(bench: &mut Bench, before: OwnMemory, after: OwnMemory) -> Trimmed {
    bench.judgement.trimmed(&before, &after, ms(1), bench.now)
}

#[test]
fn the_allocator_is_looked_into_once_memory_has_shut_the_gate_for_a_settle_time() {
    let mut bench = settling();
    assert!(!used(&mut bench, 79));
    bench.now += s(10);
    assert!(!used(&mut bench, 80), "just now");
    bench.now += ms(999);
    assert!(!used(&mut bench, 80));
    bench.now += ms(1);
    assert!(used(&mut bench, 96));
    // An open gate begins anew.
    assert!(!used(&mut bench, 79));
    bench.now += s(10);
    assert!(!used(&mut bench, 80));
    // So does a start.
    bench.now += s(1);
    assert!(used(&mut bench, 80));
    bench.judgement.begin(INTERVAL);
    assert!(!used(&mut bench, 80));
}

#[test]
fn nothing_is_looked_for_where_something_else_shuts_the_gate_or_nothing_is_known() {
    let mut bench = settling();
    for _ in 0..3 {
        let full = bench.record(Some(MB), Some(100), &[]).unwrap();
        assert!(!full.look_due && !bench.is_open());
        bench.now += s(1);
    }
    let mut bench = shut_by(90);
    assert!(!bench.fail().look_due);
    bench.limits = ResourceLimits::builder().max_processes(100).build().unwrap();
    assert!(!used(&mut bench, 90), "without a limit");
}

#[test]
fn memory_that_is_reserved_shuts_the_gate_as_well() {
    let mut bench = settling();
    let work = Work::new().memory_mb(30);
    used(&mut bench, 40);
    bench.admit(work).unwrap();
    assert!(!used(&mut bench, 49) && bench.is_open());
    bench.now += s(10);
    assert!(!used(&mut bench, 50) && !bench.is_open());
    bench.now += s(1);
    assert!(used(&mut bench, 50));
    // A check that has seen the work end counts it no more.
    bench.release(&work);
    assert!(!used(&mut bench, 50) && bench.is_open());
}

#[test]
fn a_look_is_repeated_after_a_second_and_after_a_hundred_times_what_it_took() {
    let mut bench = shut_by(90);
    let nothing = own(90, 0, 89);
    for (took, rest) in [(ms(1), ms(1000)), (ms(20), ms(2000))] {
        bench.judgement.looked(&nothing, took, bench.now, &bench.limits);
        bench.now += rest - ms(1);
        assert!(!used(&mut bench, 90), "{rest:?}");
        bench.now += ms(1);
        assert!(used(&mut bench, 90), "{rest:?}");
    }
}

#[test]
fn a_trim_is_worth_a_tenth_of_the_limit_or_an_open_gate() {
    // MB used of 100, MB free, and whether to trim.
    let cases = [(90, 10, true), (90, 9, false), (82, 2, false), (82, 3, true), (80, 1, true), (80, 0, false)];
    for (used, free, expected) in cases {
        assert_eq!(look(&mut shut_by(used), own(used, free, used - free)), expected, "{used} {free}");
    }
    // Next to nothing is not worth it, even if it would do.
    for (free, expected) in [(9, false), (10, true)] {
        let mut bench = settling();
        bench.limits = ResourceLimits::builder().max_memory_mb(1000).build().unwrap();
        used(&mut bench, 805);
        assert_eq!(look(&mut bench, own(805, free, 0)), expected, "{free}");
    }
    // Hysteresis keeps the gate shut down to 75 %.
    for (free, expected) in [(7, false), (8, true)] {
        let mut bench = settling();
        bench.limits = held();
        used(&mut bench, 82);
        bench.now += s(1);
        used(&mut bench, 82);
        assert_eq!(look(&mut bench, own(82, free, 0)), expected, "{free}");
    }
    // So does what is reserved.
    for (free, expected) in [(5, false), (6, true)] {
        let mut bench = settling();
        used(&mut bench, 40);
        bench.admit(Work::new().memory_mb(30)).unwrap();
        used(&mut bench, 55);
        assert_eq!(look(&mut bench, own(55, free, 0)), expected, "{free}");
    }
}

#[test]
fn of_a_floor_a_tenth_counts() {
    for (free, expected) in [(9, false), (10, true)] {
        let mut bench = settling();
        bench.limits = ResourceLimits::builder().min_available_memory_mb(100).build().unwrap();
        let mut found = found(Some(MB), Some(1));
        *found.get_mut(Resource::MachineMemory) =
            Ok(Some(Measured { limit: Some(1000 * MB), ..Measured::of(920 * MB) }));
        bench.record_found(&found, &[]).unwrap();
        assert_eq!(look(&mut bench, own(500, free, 0)), expected, "{free}");
    }
}

#[test]
fn pages_that_cannot_be_resident_are_not_kept() {
    let mut bench = shut_by(90);
    // 300 MB in free blocks, and 88 of the 90 resident ones in use: a try is worth it, and nothing is said.
    assert!(look(&mut bench, own(90, 300, 88)));
    assert!(!bench.text().contains("allocator"), "{}", bench.text());
    // Blocks in use that were never touched hide what is kept, until a trim brings it back.
    assert!(look(&mut bench, own(90, 60, 500)));
    assert!(!bench.text().contains("allocator"), "{}", bench.text());
    let trimmed = trim(&mut bench, own(90, 60, 500), own(40, 60, 500));
    let all = 50 * MB;
    assert_eq!(trimmed, Trimmed { free: all, returned: all, kept: 0, has_helped: true, is_news: true });
}

#[test]
fn the_verdict_says_what_is_kept_while_memory_is_the_reason() {
    let mut bench = shut_by(90);
    look(&mut bench, own(90, 60, 30));
    assert!(bench.text().ends_with("; the allocator keeps 60.0 MB that are free (see return_freed_memory)"));
    let refused = bench.admit(Work::new().memory_mb(1)).unwrap_err();
    assert!(refused.to_string().contains("; the allocator keeps 60.0 MB"), "{refused}");
    // All but 20 come back, and what is used still shuts the gate.
    trim(&mut bench, own(90, 60, 30), own(50, 60, 30));
    assert!(bench.text().contains("; the allocator keeps 20.0 MB"), "{}", bench.text());
    // Another reason, for which it is of no account.
    bench.record(Some(50 * MB), Some(99), &[]).unwrap();
    assert!(!bench.text().contains("allocator"), "{}", bench.text());
    used(&mut bench, 50);
    used(&mut bench, 90);
    assert!(!bench.text().contains("allocator"), "it was looked at before the gate was open: {}", bench.text());
}

#[test]
fn a_trim_is_repeated_after_ten_seconds_and_said_once_a_minute() {
    let mut bench = shut_by(90);
    let (before, after) = (own(90, 60, 30), own(80, 60, 30));
    let mut trims = Vec::new();
    let began = bench.now;
    while bench.now < began + s(80) {
        if look(&mut bench, before) {
            let trimmed = trim(&mut bench, before, after);
            trims.push(((bench.now - began).as_secs(), trimmed.has_helped, trimmed.is_news));
        }
        bench.now += s(1);
    }
    let at = |seconds| (seconds, seconds == 0, seconds % 60 == 0);
    assert_eq!(trims, [0, 10, 20, 30, 40, 50, 60, 70].map(at));
    // One that took long is not repeated for a hundred times as long.
    bench.judgement.trimmed(&before, &after, ms(500), bench.now);
    bench.now += s(49);
    assert!(!look(&mut bench, before));
    bench.now += s(1);
    assert!(look(&mut bench, before));
}

#[test]
fn a_trim_in_vain_of_what_was_not_there_is_not_said() {
    let mut bench = shut_by(90);
    let own = own(90, 300, 89);
    assert!(look(&mut bench, own));
    let trimmed = trim(&mut bench, own, own);
    assert_eq!((trimmed.returned, trimmed.has_helped, trimmed.is_news), (0, false, false));
}

#[test]
fn a_gate_that_has_opened_meanwhile_needs_no_trim_and_does_not_silence_one() {
    let mut bench = shut_by(90);
    used(&mut bench, 50);
    assert!(!look(&mut bench, own(90, 60, 30)), "it has opened before the look");
    let mut bench = shut_by(90);
    assert!(look(&mut bench, own(90, 60, 30)));
    used(&mut bench, 30);
    let trimmed = trim(&mut bench, own(90, 60, 30), own(30, 60, 30));
    assert!(trimmed.is_news && trimmed.returned == 60 * MB, "{trimmed:?}");
}

#[test]
fn what_the_host_frees_and_takes_during_a_trim_is_not_its_doing() {
    let mut bench = shut_by(90);
    look(&mut bench, own(90, 20, 70));
    // Less is left than the allocator had: a mapping of the host's has gone.
    let trimmed = trim(&mut bench, own(90, 20, 70), own(10, 0, 10));
    assert_eq!((trimmed.free, trimmed.returned, trimmed.kept), (20 * MB, 20 * MB, 0));
    // More is resident than before.
    let trimmed = trim(&mut bench, own(90, 20, 70), own(200, 20, 180));
    assert_eq!((trimmed.free, trimmed.returned, trimmed.kept), (20 * MB, 0, 20 * MB));
}
