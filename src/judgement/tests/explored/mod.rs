//! The judgement, driven through every sequence of steps up to a length, and through long ones at random. Each promise of
//! the documentation is checked after every sequence, and is shown to fail on a machine with a fault.
//!
//! `HIGHWATER_LENGTH` is the length (3 by default), `PROPTEST_CASES` the number of long ones: `.ci/run explored`.

mod expected;
mod machine;

use std::fmt;
use std::thread;

use proptest::prelude::*;

use self::machine::Machine;

/// A promise that a step or a state has broken, and where it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// README, "How it decides": closed without a good check, and when the last one is stale or failed, or the monitor
    /// stopped or forked.
    ClosedUnlessKnown,
    /// `Readiness::try_admit`: nothing is granted that would reach the hard threshold, nor from the warning threshold on.
    NothingPastAThreshold,
    /// `Readiness::is_accepting_work`: open wherever none of all that closes it holds.
    OpenWhereThereIsRoom,
    /// `Verdict`: its answer and its text, `is_accepting_work`, `pressure` and `try_admit(Work::new())` agree.
    OneAnswer,
    /// `Verdict`: the gate opens once what it names has changed.
    AWayOut,
    /// The guide "Log events": a line for a change, and none without.
    NoEventWithoutAChange,
    /// `JobManager`: one shed at a time, each with its time to take effect, on a reading that can be trusted.
    OneShedAtATime,
    /// `Readiness::admit`: whoever waits is served once there is room, and told at once where there will be none.
    NobodyWaitsBesideRoom,
}

/// A way in which a machine may be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    OverlooksAFailedCheck,
    NeverGrowsOld,
    ForgetsAStop,
    ForgetsAFork,
    CountsOneLess,
    ForgetsWhatItHasGranted,
    ForgetsADroppedPermitAtOnce,
    KeepsTheOldLimitsForReaders,
    StaysStopped,
    SaysEverythingTwice,
    ForgetsThatItHasShed,
    ForgetsThoseWhoWait,
}

/// The processes that a check finds, out of 100 or 60.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Low,
    /// Between the percentage from which a warning is over and that of the warning.
    Held,
    Warning,
    Critical,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limits {
    Held,
    Few,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Check(Check),
    Admit(u64),
    Drop,
    Finish,
    Wait,
    GiveUp,
    OtherLimits,
    Start,
    Stop,
    Fork,
    ShedIsOver,
    Later,
}

const STEPS: [Step; 17] = [
    Step::Check(Check::Low),
    Step::Check(Check::Held),
    Step::Check(Check::Warning),
    Step::Check(Check::Critical),
    Step::Check(Check::Failed),
    Step::Admit(20),
    Step::Admit(64),
    Step::Drop,
    Step::Finish,
    Step::Wait,
    Step::GiveUp,
    Step::OtherLimits,
    Step::Start,
    Step::Stop,
    Step::Fork,
    Step::ShedIsOver,
    Step::Later,
];

impl Check {
    fn processes(self) -> Option<u64> {
        match self {
            Check::Low => Some(10),
            Check::Held => Some(77),
            Check::Warning => Some(80),
            Check::Critical => Some(95),
            Check::Failed => None,
        }
    }
}

impl Limits {
    /// The processes from which a warning holds, and those of the two thresholds.
    fn thresholds(self) -> [u64; 3] {
        match self {
            Limits::Held => [75, 80, 95],
            Limits::Few => [48, 48, 57],
        }
    }
}

/// A sequence of steps that breaks a promise.
#[derive(PartialEq)]
struct Broken {
    promise: Promise,
    steps: Vec<Step>,
}

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is broken by {:?}", self.promise, self.steps)
    }
}

/// Takes the steps, and looks at the state that they lead to.
fn take(fault: Option<Fault>, steps: impl Iterator<Item = Step> + Clone) -> Result<(), Broken> {
    let taken = || {
        let mut machine = Machine::new(fault);
        steps.clone().try_for_each(|step| machine.step(step))?;
        machine.verify()?;
        machine.leave()
    };
    taken().map_err(|promise| Broken { promise, steps: steps.clone().collect() })
}

/// The sequence of this length and number.
fn sequence(length: u32, number: usize) -> impl Iterator<Item = Step> + Clone {
    (0..length).map(move |place| STEPS[number / STEPS.len().pow(place) % STEPS.len()])
}

/// Takes every sequence of up to so many steps after the first ones; fails with one of the shortest that break a promise.
fn explore(fault: Option<Fault>, first_steps: &[Step], length: u32) -> Result<usize, Broken> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut taken = 0;
    for length in 0..=length {
        let count = STEPS.len().pow(length);
        thread::scope(|scope| {
            let of = |first: usize| {
                scope.spawn(move || {
                    let mut numbers = (first..count).step_by(threads);
                    numbers
                        .try_for_each(|number| take(fault, first_steps.iter().copied().chain(sequence(length, number))))
                })
            };
            let parts: Vec<_> = (0..threads).map(of).collect();
            parts.into_iter().try_for_each(|part| part.join().unwrap())
        })?;
        taken += count;
    }
    Ok(taken)
}

#[test]
fn every_sequence_of_steps_keeps_every_promise() {
    let length = std::env::var("HIGHWATER_LENGTH").map_or(3, |steps| steps.parse().unwrap());
    let taken = explore(None, &[], length).unwrap();
    println!("every sequence of up to {length} of {} steps: {taken}", STEPS.len());
}

#[test]
fn each_promise_is_broken_by_a_machine_with_a_fault() {
    let broken = [
        (Fault::OverlooksAFailedCheck, Promise::NoEventWithoutAChange),
        (Fault::NeverGrowsOld, Promise::ClosedUnlessKnown),
        (Fault::ForgetsAStop, Promise::ClosedUnlessKnown),
        (Fault::ForgetsAFork, Promise::ClosedUnlessKnown),
        (Fault::CountsOneLess, Promise::NothingPastAThreshold),
        (Fault::ForgetsWhatItHasGranted, Promise::NothingPastAThreshold),
        (Fault::ForgetsADroppedPermitAtOnce, Promise::NothingPastAThreshold),
        (Fault::KeepsTheOldLimitsForReaders, Promise::OneAnswer),
        (Fault::StaysStopped, Promise::AWayOut),
        (Fault::SaysEverythingTwice, Promise::NoEventWithoutAChange),
        (Fault::ForgetsThatItHasShed, Promise::OneShedAtATime),
        (Fault::ForgetsThoseWhoWait, Promise::NobodyWaitsBesideRoom),
    ];
    for (fault, promise) in broken {
        let found = explore(Some(fault), &[Step::Start, Step::Check(Check::Low)], 3).unwrap_err();
        println!("{fault:?}: {found:?}");
        assert_eq!(found.promise, promise, "{fault:?}: {found:?}");
    }
}

proptest! {
    #[test]
    fn long_sequences_keep_every_promise(steps in prop::collection::vec(prop::sample::select(&STEPS[..]), 0..200)) {
        prop_assert_eq!(take(None, steps.iter().copied()), Ok(()));
    }
}
