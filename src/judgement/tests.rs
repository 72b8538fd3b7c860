use super::shed::ShedStep;
use super::*;
use crate::readiness_word::ReadinessWord;
use crate::resource::{Optional, MB};
use proptest::prelude::*;

const INTERVAL: Duration = Duration::from_secs(15);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// 100 MB and 100 processes.
fn limits() -> ResourceLimits {
    ResourceLimits::builder().max_memory_mb(100).max_processes(100).build().unwrap()
}

fn held() -> ResourceLimits {
    ResourceLimits::builder().max_memory_mb(100).max_processes(100).resume_percent(75).build().unwrap()
}

/// A judgement with what goes with it, stepped by hand.
struct Bench {
    judgement: Judgement,
    limits: ResourceLimits,
    settings: Settings,
    number: u64,
    now: Duration,
}

impl Bench {
    fn new() -> Bench {
        let judgement = Judgement::new(false, None);
        Bench { judgement, limits: limits(), settings: Settings::default(), number: 0, now: s(1000) }
    }

    fn running() -> Bench {
        let mut bench = Bench::new();
        bench.judgement.begin(INTERVAL);
        bench
    }

    fn record(&mut self, memory: Option<u64>, processes: Option<u64>, zombies: &[Identity]) -> Option<Report> {
        self.record_found(&found(memory, processes), zombies)
    }

    fn record_found(&mut self, found: &Found, zombies: &[Identity]) -> Option<Report> {
        self.number += 1;
        let (number, now, cpu) = (self.number, self.now, Duration::ZERO);
        let check =
            Observation { number, now, ended: now, cpu, cpu_between: Duration::ZERO, found, zombies, planned: None };
        self.judgement.record(&check, &self.limits, &self.settings)
    }

    fn good(&mut self, processes: u64) -> Report {
        self.record(Some(MB), Some(processes), &[]).unwrap()
    }

    fn fail(&mut self) -> Report {
        self.record(Some(MB), None, &[]).unwrap()
    }

    fn costing(&mut self, cpu: Duration) {
        self.number += 1;
        let (number, now) = (self.number, self.now);
        let check = Observation {
            number,
            now,
            ended: now,
            cpu,
            cpu_between: Duration::ZERO,
            found: &found(Some(0), Some(0)),
            zombies: &[],
            planned: None,
        };
        self.judgement.record(&check, &self.limits, &self.settings).unwrap();
    }

    fn verdict(&self) -> Verdict {
        self.judgement.verdict(self.now, &self.limits, &self.settings)
    }

    fn text(&self) -> String {
        self.verdict().to_string()
    }

    fn admit(&mut self, work: Work) -> Result<(), Verdict> {
        self.judgement.admit(&work, self.now, &self.limits, &self.settings)
    }

    fn publication(&self) -> Publication {
        self.judgement.publication(&self.limits, &self.settings)
    }

    fn is_open(&self) -> bool {
        let word = ReadinessWord::new();
        word.publish(&self.publication());
        word.is_open(self.now)
    }
}

/// A reading of the required resources; what is `None` could not be read.
fn found(memory: Option<u64>, processes: Option<u64>) -> Found {
    let required = |read: Option<u64>| match read {
        Some(usage) => Ok(Some(Amount::of(usage))),
        None => Err(Arc::new(Error::new(ErrorKind::Panicked, "the probe panicked"))),
    };
    PerResource::from_fn(|resource| match resource {
        Resource::Memory => required(memory),
        Resource::Processes => required(processes),
        _ => Ok(None),
    })
}

fn names(report: &Report) -> Vec<String> {
    let name = |event: &Event| match event {
        Event::LevelEntered { resource, level, changes, .. } => format!("{resource} {level:?} {changes}"),
        Event::Unread { resource, .. } => format!("{resource} unread"),
        Event::ReadAgain { resource } => format!("{resource} read again"),
        Event::Zombies { pids } => format!("zombies {pids:?}"),
        Event::CheckFailed { failures, .. } => format!("failed {failures}"),
        Event::Degraded { failures, .. } => format!("degraded {failures}"),
        Event::RunningLate(planned) => format!("late {:?}", planned.lateness),
        Event::Recovered { after_failures } => format!("recovered {after_failures}"),
        Event::DegradedCleared { after_failures } => format!("cleared {after_failures}"),
    };
    report.events.iter().map(name).collect()
}

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
fn a_failed_check_closes_the_gate_until_the_next_good_one_and_keeps_the_levels() {
    let mut bench = Bench::running();
    bench.good(96);
    let report = bench.fail();
    assert!(!report.good && *report.levels.get(Resource::Processes) == Level::Critical);
    assert_eq!(bench.text(), "not accepting work: the last check failed: the probe panicked");
    assert_eq!(bench.publication().open_until, None);
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

/// A good check that found this of an optional resource.
fn optional(bench: &mut Bench, resource: Resource, read: Optional<Amount>) -> Report {
    let mut found = found(Some(MB), Some(1));
    *found.get_mut(resource) = read;
    bench.record_found(&found, &[]).unwrap()
}

fn in_group(group: &str, usage: u64, limit: u64) -> Optional<Amount> {
    Ok(Some(Amount { limit: Some(limit), group: Some(Path::new(group).into()), ..Amount::of(usage) }))
}

#[test]
fn an_optional_resource_that_cannot_be_read_closes_nothing_and_is_said_once() {
    let mut bench = Bench::running();
    let unread = || Err(Arc::new(Error::new(ErrorKind::Read, "no permission")));
    let report = optional(&mut bench, Resource::CgroupPids, unread());
    assert!(report.good && bench.is_open());
    assert_eq!(names(&report), ["cgroup pids unread"]);
    assert!(bench.text().ends_with("; cgroup pids not all judged: no permission"), "{}", bench.text());
    assert!(names(&optional(&mut bench, Resource::CgroupPids, unread())).is_empty());
    assert_eq!(names(&optional(&mut bench, Resource::CgroupPids, Ok(None))), ["cgroup pids read again"]);
    // Nor is it at the level that it was last seen at.
    let report = optional(&mut bench, Resource::CgroupPids, in_group("/box", 99, 100));
    assert!(!bench.is_open() && report.critical.is_some());
    let report = optional(&mut bench, Resource::CgroupPids, unread());
    assert!(bench.is_open() && report.critical.is_none() && report.checked().all_normal);
}

#[test]
fn the_kernels_limit_is_judged_like_one_of_the_hosts() {
    let mut bench = Bench::running();
    optional(&mut bench, Resource::CgroupPids, in_group("/box", 79, 100));
    assert!(bench.is_open());
    let report = optional(&mut bench, Resource::CgroupPids, in_group("/box", 80, 100));
    assert!(!bench.is_open());
    assert_eq!(names(&report), ["cgroup pids Warning 0"]);
    assert_eq!(
        bench.text(),
        "not accepting work: cgroup pids 80 of 100 (80.0 %) in /box at or above the warning threshold of 80 %"
    );
    let critical = optional(&mut bench, Resource::CgroupPids, in_group("/box", 95, 100)).critical.unwrap();
    assert_eq!(critical.resource, Resource::CgroupPids);
    assert_eq!(critical.to_string(), "cgroup pids 95 of 100 (95.0 %) in /box at or above the hard threshold of 95 %");
    // A limit of nothing leaves no room, and one that was taken away leaves all.
    optional(&mut bench, Resource::CgroupPids, in_group("/box", 0, 0));
    assert!(!bench.is_open());
    optional(&mut bench, Resource::CgroupPids, Ok(None));
    assert!(bench.is_open());
}

#[test]
fn of_the_hosts_limit_and_the_kernels_the_smaller_one_binds() {
    let mut bench = Bench::running();
    let files = |limit| Ok(Some(Amount { limit: Some(limit), ..Amount::of(50) }));
    for (host, kernel, open) in
        [(None, 100, true), (Some(60), 100, false), (Some(100), 60, false), (Some(70), 64, true)]
    {
        let mut limits = ResourceLimits::builder();
        if let Some(host) = host {
            limits = limits.max_open_files(host);
        }
        bench.limits = limits.build().unwrap();
        optional(&mut bench, Resource::OpenFiles, files(kernel));
        assert_eq!(bench.is_open(), open, "{host:?} {kernel}: {}", bench.text());
    }
}

#[test]
fn work_is_admitted_only_if_it_fits_in_the_group_as_well() {
    let mut bench = Bench::running();
    optional(&mut bench, Resource::CgroupMemory, in_group("/box", 20 * MB, 50 * MB));
    let refused = bench.admit(Work::new().memory_mb(30)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "refused: cgroup memory 20.0 MB + 30.0 MB asked of 50.0 MB (100.0 %) in /box would reach the hard threshold of \
         95 %"
    );
    assert!(!refused.could_never_fit());
    assert!(bench.admit(Work::new().memory_mb(48)).unwrap_err().could_never_fit());
    bench.admit(Work::new().memory_mb(20)).unwrap();
    assert!(!bench.is_open(), "20 measured and 20 reserved of 50");
    let mut bench = Bench::running();
    optional(&mut bench, Resource::OpenFiles, Ok(Some(Amount { limit: Some(100), ..Amount::of(10) })));
    bench.admit(Work::new().open_files(60)).unwrap();
    assert_eq!(bench.admit(Work::new().open_files(30)).unwrap_err().resource(), Some(Resource::OpenFiles));
}

#[test]
fn what_is_not_known_of_an_optional_resource_refuses_nothing() {
    let mut bench = Bench::running();
    bench.limits = ResourceLimits::builder().max_open_files(100).build().unwrap();
    optional(&mut bench, Resource::OpenFiles, Ok(None));
    bench.admit(Work::new().open_files(1000)).unwrap();
}

#[test]
fn a_limit_that_is_gone_is_logged_as_normal_and_critical_again_when_it_returns() {
    let mut bench = Bench::running();
    bench.settings.settle = Some(Duration::ZERO);
    let critical = || in_group("/box", 99, 100);
    assert_eq!(names(&optional(&mut bench, Resource::CgroupPids, critical())), ["cgroup pids Critical 0"]);
    assert_eq!(names(&optional(&mut bench, Resource::CgroupPids, Ok(None))), ["cgroup pids Normal 0"]);
    bench.now += s(61);
    assert_eq!(names(&optional(&mut bench, Resource::CgroupPids, critical())), ["cgroup pids Critical 0"]);
}

#[test]
fn a_group_that_cannot_be_read_beside_one_that_can_is_said_and_the_other_judged() {
    let mut bench = Bench::running();
    let error = Arc::new(Error::new(ErrorKind::Read, "no permission"));
    let partly = Amount { limit: Some(100), unread: Some(error), ..Amount::of(80) };
    let report = optional(&mut bench, Resource::CgroupPids, Ok(Some(partly)));
    assert_eq!(names(&report), ["cgroup pids unread", "cgroup pids Warning 0"]);
    assert!(
        !bench.is_open() && bench.text().ends_with("; cgroup pids not all judged: no permission"),
        "{}",
        bench.text()
    );
}

#[test]
fn another_group_than_before_has_not_climbed() {
    let mut bench = Bench::running();
    for (group, usage, climbing) in [("/box/a", 10, false), ("/box", 60, false), ("/box", 65, true)] {
        bench.now += s(1);
        let report = optional(&mut bench, Resource::CgroupMemory, in_group(group, usage, 100));
        assert_eq!(report.climbing, climbing, "{group} {usage}");
    }
}

#[test]
fn pressure_closes_the_gate_at_its_own_limit_and_opens_no_other() {
    let mut bench = Bench::running();
    let pressure = |hundredths| Ok(Some(Amount::of(hundredths)));
    optional(&mut bench, Resource::MemoryPressure, pressure(9000));
    assert!(bench.is_open(), "no limit");
    bench.limits = ResourceLimits::builder().max_memory_mb(100).max_memory_pressure_percent(20).build().unwrap();
    optional(&mut bench, Resource::MemoryPressure, pressure(1599));
    assert!(bench.is_open());
    optional(&mut bench, Resource::MemoryPressure, pressure(1600));
    assert_eq!(
        bench.text(),
        "not accepting work: memory pressure 16.00 % of 20.00 % (80.0 %) at or above the warning threshold of 80 %"
    );
    let mut found = found(Some(90 * MB), Some(0));
    *found.get_mut(Resource::MemoryPressure) = pressure(0);
    bench.record_found(&found, &[]).unwrap();
    assert_eq!(bench.verdict().resource(), Some(Resource::Memory));
}

#[test]
fn memory_read_alone_moves_the_gate_for_the_group_and_for_pressure() {
    let mut bench = Bench::running();
    bench.settings.memory_scope = MemoryScope::Tree;
    optional(&mut bench, Resource::CgroupMemory, in_group("/box", 10, 100));
    assert!(bench.is_open());
    let nothing = || PerResource::from_fn(|_| Ok(None));
    let mut read = nothing();
    *read.get_mut(Resource::CgroupMemory) = in_group("/box", 80, 100);
    bench.judgement.record_memory(&read, bench.now, Duration::ZERO);
    assert!(!bench.is_open() && bench.verdict().resource() == Some(Resource::CgroupMemory));
    // What is not read alone keeps its value.
    bench.judgement.record_memory(&nothing(), bench.now, Duration::ZERO);
    assert!(!bench.is_open());
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
fn what_is_older_than_max_age_is_stale_without_any_check() {
    let mut bench = Bench::running();
    bench.good(12);
    let word = ReadinessWord::new();
    word.publish(&bench.publication());
    let checked = bench.now;
    for (age, accepts) in [(s(0), true), (s(45), true), (s(45) + Duration::from_nanos(1), false), (s(999), false)] {
        bench.now = checked + age;
        assert_eq!((bench.verdict().is_accepting(), word.is_open(bench.now)), (accepts, accepts), "{age:?}");
    }
    assert_eq!(bench.text(), "not accepting work: the last check is stale: 999000 ms old, more than max_age 45000 ms");
}

#[test]
fn the_verdict_says_when_the_budget_makes_an_explicit_max_age_unreachable() {
    let mut bench = Bench::running();
    bench.settings.max_age = Some(ms(50));
    bench.costing(Duration::from_micros(1200));
    let note = "; max_age 50 ms cannot be kept: the CPU budget puts 120 ms between checks";
    assert!(bench.text().ends_with(note), "{}", bench.text());
    bench.now += ms(60);
    assert!(bench.text().contains("60 ms old") && bench.text().ends_with(note), "{}", bench.text());
    bench.costing(Duration::from_micros(500));
    assert!(!bench.text().contains("cannot be kept"));
    // The default grows with the gap, so it can always be kept.
    bench.settings.max_age = None;
    bench.costing(s(1));
    assert_eq!(bench.judgement.max_age(&bench.settings), s(300));
    assert!(!bench.text().contains("cannot be kept"));
}

#[test]
fn a_forked_child_is_closed_until_it_checks_for_itself() {
    for stopped in [None, Some(Stopped::Asked)] {
        let mut bench = Bench::new();
        bench.judgement = Judgement::new(true, stopped);
        let forked = "not accepting work: forked; this process has not checked for itself";
        assert_eq!(bench.text(), forked);
        assert!(!bench.judgement.needs_fresh(s(9999), &bench.settings) && !bench.is_open());
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
    assert!(!bench.judgement.needs_fresh(bench.now, &bench.settings));
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
    // A check is on its way when the permit is dropped: the next to begin is two further.
    bench.judgement.release(&work, bench.number + 2);
    bench.good(1);
    assert!(!bench.verdict().is_accepting());
    bench.fail();
    bench.good(1);
    assert!(bench.verdict().is_accepting());
    assert!(bench.text().ends_with("processes 1 of 100 (1.0 %)"));
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
    bench.judgement.release(&work, bench.number + 1);
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
        let verdict = bench.judgement.verdict(bench.now, &lower, &bench.settings);
        assert_eq!(
            verdict.to_string(),
            "not accepting work: processes 50 of 60 (83.3 %) at or above the warning threshold of 80 %"
        );
        assert_eq!(bench.judgement.publication(&lower, &bench.settings).open_until, None);
    }
    // Back under the old limits, the excursion has left no trace.
    assert!(bench.verdict().is_accepting());
    assert_eq!(*bench.judgement.levels.get(Resource::Processes), Level::Normal);
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
    bench.settings.settle = Some(Duration::ZERO);
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
        let found = checked.critical.map(|critical| critical.resource);
        assert_eq!((found, checked.all_normal, checked.good, checked.at), (critical, all_normal, true, bench.now));
    }
    let report = bench.record(Some(1), Some(96), &[]).unwrap();
    assert_eq!(
        report.critical.unwrap().to_string(),
        "processes 96 of 100 (96.0 %) at or above the hard threshold of 95 %"
    );
    let mut policy = shed::ShedPolicy::default();
    let failed = bench.fail().checked();
    assert_eq!(policy.next(&failed, bench.now, s(45), INTERVAL), ShedStep::Nothing);
}

#[test]
fn a_fresh_check_is_needed_only_when_the_last_is_older_than_refresh_and_gap() {
    let mut bench = Bench::new();
    assert!(!bench.judgement.needs_fresh(s(9999), &bench.settings));
    bench.good(1);
    let needs = |bench: &Bench, age| bench.judgement.needs_fresh(bench.now + age, &bench.settings);
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
    let due = |bench: &Bench, demanded| {
        bench.judgement.next_check(bench.now, demanded, &bench.limits, &bench.settings) - bench.now
    };
    bench.costing(ms(1));
    assert_eq!((due(&bench, false), due(&bench, true)), (INTERVAL, ms(100)));
    bench.costing(s(1));
    assert_eq!((due(&bench, false), due(&bench, true)), (s(100), s(100)));
    for _ in 0..7 {
        bench.fail();
    }
    assert_eq!((due(&bench, false), due(&bench, true)), (s(60), s(1)));
    bench.costing(Duration::MAX);
    assert_eq!(bench.judgement.next_check(bench.now, true, &bench.limits, &bench.settings), Duration::MAX);
}

#[test]
fn the_thread_keeps_its_own_time_and_its_distance_from_checks_of_callers() {
    let mut bench = Bench::running();
    let own = bench.now;
    let due = |bench: &Bench, demanded| bench.judgement.next_check(own, demanded, &bench.limits, &bench.settings) - own;
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
    let due = |bench: &Bench| bench.judgement.next_check(bench.now, false, &bench.limits, &bench.settings) - bench.now;
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
    let due = |bench: &Bench| {
        bench.judgement.next_memory_reading(false, &bench.limits, &bench.settings).map(|due| due - s(1000))
    };
    bench.record(Some(0), Some(0), &[]).unwrap();
    assert_eq!(due(&bench), None);
    bench.now += s(1);
    let report = bench.record(Some(40 * MB), Some(0), &[]).unwrap();
    assert!(report.climbing);
    // 40 of 80 MB are left, at 40 a second.
    assert_eq!(due(&bench), Some(ms(1500)));
    let checked = bench.now;
    bench.now += ms(500);
    bench.judgement.record_memory(&found(Some(60 * MB), None), bench.now, Duration::ZERO);
    assert_eq!(due(&bench), Some(ms(1750)));
    bench.now += ms(500);
    bench.judgement.record_memory(&found(Some(80 * MB), None), bench.now, Duration::ZERO);
    assert!(!bench.is_open());
    assert!(bench.text().contains("memory 80.0 MB of 100.0 MB (80.0 %) at or above"), "{}", bench.text());
    // The answer is as old as the check, and the level is still that of the check.
    assert_eq!(bench.judgement.last.as_ref().unwrap().at, checked);
    assert_eq!(*bench.judgement.levels.get(Resource::Memory), Level::Normal);
    // Nothing is read for a monitor that has stopped, or that cannot read.
    bench.fail();
    bench.judgement.record_memory(&found(Some(0), None), bench.now, Duration::ZERO);
    assert_eq!(due(&bench), None);
    assert!(!bench.is_open());
    bench.record(Some(90 * MB), Some(0), &[]).unwrap();
    assert!(due(&bench).is_some());
    bench.judgement.close(Stopped::Asked);
    assert_eq!(due(&bench), None);
}

#[test]
fn running_late_is_in_the_verdict_while_it_lasts_and_in_the_log_once_a_minute() {
    let mut bench = Bench::running();
    let mut take = |at: u64, lateness: u64| {
        bench.number += 1;
        bench.now = s(1000 + at);
        let planned = Some(Planned { delay: s(10), lateness: s(lateness) });
        let (number, now, cpu) = (bench.number, bench.now, Duration::ZERO);
        let found = found(Some(0), Some(0));
        let check = Observation {
            number,
            now,
            ended: now,
            cpu,
            cpu_between: Duration::ZERO,
            planned,
            found: &found,
            zombies: &[],
        };
        let report = bench.judgement.record(&check, &bench.limits, &bench.settings).unwrap();
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

#[test]
fn without_a_start_the_interval_counts_as_nothing() {
    let mut bench = Bench::new();
    bench.good(1);
    assert_eq!(bench.judgement.max_age(&bench.settings), s(2));
    assert_eq!(bench.judgement.settle(&bench.settings), Duration::ZERO);
    bench.judgement.begin(INTERVAL);
    assert_eq!((bench.judgement.max_age(&bench.settings), bench.judgement.settle(&bench.settings)), (s(45), INTERVAL));
}

#[derive(Debug, Clone)]
enum Step {
    Good(u64, u64),
    Fail,
    Admit(u64),
    Release(u64),
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
        3 => (0..3u64).prop_map(Step::Release),
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
                Step::Release(ahead) => {
                    if let Some(work) = permits.pop() {
                        bench.judgement.release(&work, bench.number + ahead);
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
