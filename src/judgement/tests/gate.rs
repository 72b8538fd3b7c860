//! The gate and its verdicts, and the admission of work.

use proptest::prelude::*;

use super::*;

#[test]
fn the_gate_needs_a_successful_check() {
    let mut bench = Bench::new();
    assert_eq!(bench.text(), "not accepting work: no check has been taken yet");
    assert!(!bench.is_open() && bench.admit(Work::new()).is_err());
    bench.good(12);
    assert_eq!(bench.text(), "accepting work: memory 1.0 MB of 100.0 MB (1.0 %), processes 12 of 100 (12.0 %)");
    assert!(bench.is_open() && bench.admit(Work::new()).is_ok());
}

#[test]
fn the_gate_closes_exactly_at_the_warning_threshold_measured_and_reserved() {
    for (measured, reserved, accepts) in [(79, 0, true), (80, 0, false), (40, 39, true), (40, 40, false)] {
        let mut bench = Bench::running();
        bench.good(40);
        bench.admit(Work::new().processes(reserved)).unwrap();
        bench.good(measured);
        let verdict = bench.verdict();
        assert_eq!((verdict.is_accepting(), bench.is_open()), (accepts, accepts), "{verdict}");
        assert_eq!(verdict.resource(), if accepts { None } else { Some(Resource::Processes) });
    }
}

#[test]
fn what_is_older_than_max_age_is_stale_without_any_check() {
    let mut bench = Bench::running();
    bench.good(12);
    let checked = bench.now;
    for (age, accepts) in [(s(0), true), (s(45), true), (s(45) + Duration::from_nanos(1), false), (s(999), false)] {
        bench.now = checked + age;
        assert_eq!((bench.verdict().is_accepting(), bench.is_open()), (accepts, accepts), "{age:?}");
    }
    assert_eq!(bench.text(), "not accepting work: the last check is stale: 999000 ms old, more than max_age 45000 ms");
}

#[test]
fn the_verdict_says_when_the_budget_makes_an_explicit_max_age_unreachable() {
    let mut bench = Bench::running();
    bench.judgement.settings.max_age = Some(ms(50));
    bench.costing(Duration::from_micros(1200));
    let note = "; max_age 50 ms cannot be kept: the CPU budget puts 120 ms between checks";
    assert!(bench.text().ends_with(note), "{}", bench.text());
    bench.now += ms(60);
    assert!(bench.text().contains("60 ms old") && bench.text().ends_with(note), "{}", bench.text());
    bench.costing(Duration::from_micros(500));
    assert!(!bench.text().contains("cannot be kept"));
    // The default grows with the gap, so it can always be kept.
    bench.judgement.settings.max_age = None;
    bench.costing(s(1));
    assert_eq!(bench.judgement.max_age(), s(300));
    assert!(!bench.text().contains("cannot be kept"));
}

#[test]
fn a_forked_child_is_closed_until_it_checks_for_itself() {
    for stopped in [None, Some(Stopped::Asked)] {
        let mut bench = Bench::new();
        bench.judgement = Judgement::new(Settings::default(), true, stopped);
        let forked = "not accepting work: forked; this process has not checked for itself";
        assert_eq!(bench.text(), forked);
        assert!(!bench.judgement.needs_fresh(s(9999)) && !bench.is_open());
        bench.good(1);
        assert_eq!(bench.verdict().is_accepting(), stopped.is_none());
    }
}

#[test]
fn after_a_stop_only_a_start_opens_the_gate() {
    let mut bench = Bench::running();
    bench.good(1);
    bench.judgement.close(Stopped::Asked);
    assert_eq!(bench.text(), "not accepting work: the monitor is stopped");
    bench.good(1);
    assert!(!bench.verdict().is_accepting() && !bench.is_open() && bench.admit(Work::new()).is_err());
    assert_eq!(bench.publication().refresh_at, None);
    bench.now += s(99);
    assert!(!bench.judgement.needs_fresh(bench.now));
    bench.judgement.begin(INTERVAL);
    assert_eq!(bench.text(), "not accepting work: no check has been taken yet");
    bench.good(1);
    assert!(bench.verdict().is_accepting() && bench.is_open());
}

#[test]
fn a_start_is_fresh_but_keeps_permits_numbers_and_what_was_checked_before_it() {
    let mut bench = Bench::new();
    bench.good(1);
    bench.admit(Work::new().processes(5)).unwrap();
    bench.judgement.begin(INTERVAL);
    assert!(bench.text().contains("processes 1 + 5 reserved of 100 (6.0 %)"), "{}", bench.text());
    bench.number -= 1;
    assert!(bench.record(None, None, &[]).is_none());
    for _ in 0..5 {
        bench.fail();
    }
    bench.judgement.begin(INTERVAL);
    assert!(!bench.publication().degraded && bench.publication().last_success.is_some() && !bench.is_open());
    assert_eq!(names(&bench.fail()), ["failed 1"]);
}

#[test]
fn work_is_admitted_up_to_the_hard_threshold_and_no_further() {
    let cases = [
        (70, 0, 24, None),
        (70, 0, 25, Some("refused: processes 70 + 25 asked of 100 (95.0 %) would reach the hard threshold of 95 %")),
        (70, 9, 15, None),
        (
            70,
            9,
            16,
            Some(
                "refused: processes 70 + 9 reserved + 16 asked of 100 (95.0 %) would reach the hard threshold of 95 %",
            ),
        ),
        (0, 0, 94, None),
        (
            0,
            0,
            95,
            Some(
                "refused: processes 0 + 95 asked of 100 (95.0 %) would reach the hard threshold of 95 %; \
                 it could never fit",
            ),
        ),
    ];
    for (measured, reserved, asked, refusal) in cases {
        let mut bench = Bench::running();
        bench.good(measured);
        bench.admit(Work::new().processes(reserved)).unwrap();
        let result = bench.admit(Work::new().processes(asked));
        assert_eq!(result.err().map(|verdict| verdict.to_string()).as_deref(), refusal);
    }
}

#[test]
fn a_refusal_says_that_work_could_never_fit_even_while_the_gate_is_closed() {
    let mut bench = Bench::running();
    let huge = Work::new().memory_mb(u64::MAX);
    assert!(bench.admit(huge).unwrap_err().could_never_fit());
    bench.good(85);
    let verdict = bench.admit(huge).unwrap_err();
    assert_eq!(
        verdict.to_string(),
        "not accepting work: processes 85 of 100 (85.0 %) at or above the warning threshold of 80 %; \
         what was asked for could never fit"
    );
    assert!(verdict.could_never_fit() && !bench.admit(Work::new()).unwrap_err().could_never_fit());
    bench.good(1);
    let verdict = bench.admit(huge.processes(94)).unwrap_err();
    assert_eq!(verdict.resource(), Some(Resource::Memory));
    assert!(verdict.could_never_fit() && verdict.to_string().starts_with("refused: memory 1.0 MB + "), "{verdict}");
}

#[test]
fn an_unset_limit_admits_anything() {
    let mut bench = Bench::running();
    bench.limits = ResourceLimits::builder().build().unwrap();
    bench.record(Some(u64::MAX), Some(u64::MAX), &[]).unwrap();
    let work = Work::new().memory_bytes(u64::MAX).processes(u64::MAX);
    assert!(bench.admit(work).is_ok() && bench.admit(work).is_ok());
    assert!(bench.verdict().is_accepting());
}

#[test]
fn a_dropped_permit_is_reserved_until_the_first_successful_check_after_it() {
    let mut bench = Bench::running();
    bench.good(1);
    let work = Work::new().processes(79);
    bench.admit(work).unwrap();
    assert!(!bench.verdict().is_accepting() && !bench.is_open());
    // A check is on its way when the permit is dropped.
    let released = bench.begin_check();
    bench.release(&work);
    bench.finish_check(&found(Some(MB), Some(1)), released, |check| check).unwrap();
    assert!(!bench.verdict().is_accepting());
    bench.fail();
    assert!(bench.text().contains("the last check failed"));
    bench.good(1);
    assert!(bench.verdict().is_accepting());
    assert!(bench.text().ends_with("processes 1 of 100 (1.0 %)"));
}

#[test]
fn a_check_that_a_later_one_overtook_gives_back_what_it_has_seen() {
    let work = Work::new().processes(79);
    for later_is_good in [true, false] {
        let mut bench = Bench::running();
        bench.good(1);
        bench.admit(work).unwrap();
        bench.release(&work);
        let released = bench.begin_check();
        let earlier = bench.number;
        if later_is_good {
            bench.good(1);
        } else {
            bench.fail();
        }
        let found = found(Some(MB), Some(1));
        assert!(bench.finish_check(&found, released, |check| Observation { number: earlier, ..check }).is_none());
        // What the failed one has not seen is left to the next.
        assert_eq!(bench.judgement.reserved(Resource::Processes), if later_is_good { 0 } else { 79 });
        bench.good(1);
        assert_eq!(bench.judgement.reserved(Resource::Processes), 0);
    }
}

#[test]
fn a_class_is_refused_from_its_own_threshold_on() {
    let classes = [Class::Background, Class::Normal, Class::Critical];
    for (processes, opens) in [
        (59, [true; 3]),
        (60, [false, true, true]),
        (79, [false, true, true]),
        (80, [false, false, true]),
        (94, [false, false, true]),
        (95, [false; 3]),
    ] {
        let mut bench = Bench::running();
        bench.good(processes);
        for (class, opens) in classes.into_iter().zip(opens) {
            let work = Work::new().class(class);
            assert_eq!(bench.admit(work).is_ok(), opens, "{processes} {class:?}");
            assert_eq!(bench.judgement.admission.try_grant(&work, bench.now), opens, "{processes} {class:?}");
        }
    }
    let mut bench = Bench::running();
    bench.good(96);
    let refusal = |class| bench.admit(Work::new().class(class)).unwrap_err().to_string();
    assert!(refusal(Class::Background).ends_with("at or above the background threshold of 60 %"));
    assert!(refusal(Class::Critical).ends_with("at or above the hard threshold of 95 %"));
}

#[test]
fn hysteresis_holds_the_gate_for_all_but_the_most_important_work() {
    let mut bench = Bench::running();
    bench.limits = held();
    bench.good(80);
    bench.good(76);
    let granted = [Class::Background, Class::Normal, Class::Critical].map(|class| {
        let work = Work::new().class(class);
        assert_eq!(bench.admit(work).is_ok(), bench.judgement.admission.try_grant(&work, bench.now), "{class:?}");
        bench.admit(work).is_ok()
    });
    assert_eq!(granted, [false, false, true]);
    assert!(bench.judgement.admission.pressure(bench.now) >= 1.0);
}

#[test]
fn pressure_is_infinite_while_nothing_is_known() {
    let mut bench = Bench::running();
    assert_eq!(bench.judgement.admission.pressure(bench.now), f64::INFINITY);
    bench.good(40);
    assert_eq!(bench.judgement.admission.pressure(bench.now), 0.5);
    bench.admit(Work::new().processes(20)).unwrap();
    assert_eq!(bench.judgement.admission.pressure(bench.now), 0.75);
    bench.fail();
    assert_eq!(bench.judgement.admission.pressure(bench.now), f64::INFINITY);
}

#[test]
fn attached_work_counts_once_and_an_end_makes_room_at_once() {
    let mut bench = Bench::running();
    bench.good(10);
    let work = Work::new().processes(40).memory_mb(60);
    bench.admit(work).unwrap();
    let root = Identity { pid: 7, start_ticks: 1 };
    let id = bench.judgement.attach(&work, root, true, &bench.limits).unwrap();
    // Its memory is not this process's.
    assert!(bench.text().ends_with("memory 1.0 MB of 100.0 MB (1.0 %), processes 10 + 40 reserved of 100 (50.0 %)"));
    let measured = [Subtree { processes: 15, is_alive: true, ..Subtree::of(root) }];
    let found = found(Some(MB), Some(25));
    bench.record_check(&found, |check| Observation { subtrees: &measured, ..check });
    assert!(bench.text().ends_with("processes 25 + 25 reserved of 100 (50.0 %)"), "{}", bench.text());
    assert_eq!((bench.judgement.held(id, Resource::Processes), bench.judgement.held(id, Resource::Memory)), (40, 0));
    assert_eq!(bench.judgement.admission.pressure(bench.now), 50.0 / 80.0);
    bench.judgement.finish(id, &bench.limits);
    assert!(bench.text().ends_with("processes 10 of 100 (10.0 %)"), "{}", bench.text());
    assert_eq!(bench.judgement.admission.pressure(bench.now), 10.0 / 80.0);
}

#[test]
fn reservations_close_the_gate_but_never_latch() {
    let mut bench = Bench::running();
    bench.limits = held();
    bench.good(10);
    let work = Work::new().processes(80);
    bench.admit(work).unwrap();
    let report = bench.good(10);
    assert!(report.events.is_empty() && *report.levels.get(Resource::Processes) == Level::Normal);
    bench.release(&work);
    bench.good(79);
    assert!(bench.verdict().is_accepting());
}

#[test]
fn hysteresis_holds_the_gate_until_below_the_resume_threshold() {
    let mut bench = Bench::running();
    bench.limits = held();
    for (processes, accepts) in [(79, true), (80, false), (79, false), (75, false), (74, true), (79, true)] {
        bench.good(processes);
        assert_eq!(bench.verdict().is_accepting(), accepts, "{}", bench.text());
        if (75..80).contains(&processes) && !accepts {
            assert!(bench.text().ends_with("not yet below the resume threshold of 75 %"), "{}", bench.text());
        }
    }
}

#[test]
fn new_limits_are_judged_at_once_and_judging_moves_no_level() {
    let mut bench = Bench::running();
    bench.limits = held();
    bench.good(50);
    let lower = ResourceLimits::builder().max_processes(60).resume_percent(75).build().unwrap();
    for _ in 0..2 {
        let verdict = bench.judgement.verdict(bench.now, &lower);
        assert_eq!(
            verdict.to_string(),
            "not accepting work: processes 50 of 60 (83.3 %) at or above the warning threshold of 80 %"
        );
        bench.judgement.publish_check(&lower);
        assert!(!bench.judgement.admission.is_open(bench.now));
    }
    // Back under the old limits, the excursion has left no trace.
    assert!(bench.verdict().is_accepting());
    assert_eq!(*bench.judgement.levels.get(Resource::Processes), Level::Normal);
}

#[derive(Debug, Clone)]
enum Step {
    Good(u64, u64),
    Fail,
    Admit(u64),
    Release,
    Wait(u64),
    Limit(Option<u64>),
    Begin,
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..110u64, 0..110u64).prop_map(|(memory, processes)| Step::Good(memory, processes)),
        2 => Just(Step::Fail),
        4 => (0..60u64).prop_map(Step::Admit),
        3 => Just(Step::Release),
        3 => (0..60u64).prop_map(Step::Wait),
        2 => proptest::option::of(1..200u64).prop_map(Step::Limit),
        1 => Just(Step::Begin),
        1 => Just(Step::Close),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn the_word_the_verdict_its_text_and_an_admission_always_agree(steps in steps(), resume: bool) {
        let mut bench = Bench::new();
        let mut permits = Vec::new();
        for step in steps {
            match step {
                Step::Good(memory, processes) => {
                    bench.record(Some(memory * MB), Some(processes), &[]).unwrap();
                }
                Step::Fail => {
                    bench.fail();
                }
                Step::Admit(processes) => {
                    let work = Work::new().processes(processes);
                    let open = bench.is_open();
                    match bench.admit(work) {
                        Ok(()) => {
                            prop_assert!(open);
                            permits.push(work);
                        }
                        Err(verdict) => {
                            prop_assert!(!verdict.is_accepting());
                            prop_assert_eq!(verdict.to_string().starts_with("refused: "), open);
                        }
                    }
                }
                Step::Release => {
                    if let Some(work) = permits.pop() {
                        bench.release(&work);
                    }
                }
                Step::Wait(seconds) => bench.now += s(seconds),
                Step::Limit(processes) => {
                    let builder = ResourceLimits::builder().max_memory_mb(100);
                    let builder = if resume { builder.resume_percent(70) } else { builder };
                    bench.limits = match processes {
                        Some(processes) => builder.max_processes(processes),
                        None => builder,
                    }
                    .build()
                    .unwrap();
                }
                Step::Begin => bench.judgement.begin(INTERVAL),
                Step::Close => bench.judgement.close(Stopped::Asked),
            }
            let verdict = bench.verdict();
            let text = verdict.to_string();
            prop_assert_eq!(verdict.is_accepting(), text.starts_with("accepting work: "));
            prop_assert_eq!(verdict.is_accepting(), bench.is_open(), "{}", text);
            prop_assert_eq!(verdict.is_accepting(), bench.admit(Work::new()).is_ok(), "{}", text);
        }
    }
}
