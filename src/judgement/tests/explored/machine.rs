//! The machine that is explored: a judgement, its waiters and its policy of shedding, put together as the engine does it.

use super::super::{found, held, s, Bench, INTERVAL};
use super::expected::Expected;
use super::{Check, Fault, Limits, Promise, Step};
use crate::judgement::queue::{Queue, Ticket};
use crate::judgement::shed::{self, ShedPolicy, ShedStep};
use crate::judgement::{Judgement, Stopped};
use crate::vocabulary::{Critical, Overtaking, ResourceLimits, Settings, Work, MB};

/// The cost of what waits.
const WAITING: u64 = 30;

pub(super) struct Machine {
    bench: Bench,
    expected: Expected,
    permits: Vec<u64>,
    queue: Queue<()>,
    tickets: Vec<Ticket>,
    policy: ShedPolicy,
    /// The shed that the host is at.
    shedding: Option<Critical>,
    fault: Option<Fault>,
}

impl Machine {
    /// A machine that is right, or has one fault.
    pub(super) fn new(fault: Option<Fault>) -> Machine {
        let mut bench = Bench::new();
        bench.limits = Limits::Held.of();
        let expected = Expected::new(bench.now);
        let (queue, policy) = (Queue::new(Overtaking::default()), ShedPolicy::default());
        Machine { bench, expected, permits: vec![], queue, tickets: vec![], policy, shedding: None, fault }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Takes a step; fails if what the step itself does breaks a promise.
    pub(super) fn step(&mut self, step: Step) -> Result<(), Promise> {
        let late = if step == Step::Later { s(20) } else { s(0) };
        self.expected.pass(late);
        self.bench.now = self.expected.now;
        match step {
            Step::Check(check) => self.check(check)?,
            Step::Admit(processes) => self.admit(processes)?,
            Step::Drop => {
                if let Some(processes) = self.permits.pop() {
                    let work = Work::new().processes(processes);
                    if self.is(Fault::ForgetsADroppedPermitAtOnce) {
                        self.bench.judgement.admission.room.give_back(&work);
                    } else {
                        self.bench.release(&work);
                    }
                    self.expected.drop_permit(processes);
                }
            }
            Step::Finish => {
                if let Some(processes) = self.permits.pop() {
                    self.bench.judgement.admission.room.give_back(&Work::new().processes(processes));
                    self.expected.held -= processes;
                }
            }
            Step::Wait => self.wait()?,
            Step::GiveUp => {
                self.tickets.pop().map(|ticket| self.queue.remove(ticket));
            }
            Step::OtherLimits => {
                self.expected.limits = self.expected.limits.other();
                self.bench.limits = self.expected.limits.of();
                if !self.is(Fault::KeepsTheOldLimitsForReaders) {
                    self.bench.judgement.publish_rejudged(&self.bench.limits);
                }
            }
            Step::Start if !self.expected.is_running => {
                let was_stopped = self.bench.judgement.stopped;
                self.bench.judgement.begin(INTERVAL);
                if self.is(Fault::StaysStopped) {
                    self.bench.judgement.stopped = was_stopped;
                }
                self.bench.judgement.publish_check(&self.bench.limits);
                self.expected.start();
            }
            Step::Stop => {
                if !self.is(Fault::ForgetsAStop) {
                    self.bench.judgement.close(Stopped::Asked);
                }
                self.bench.judgement.publish_check(&self.bench.limits);
                self.expected.stop();
            }
            Step::Fork => self.fork(),
            Step::ShedIsOver => {
                if let Some(critical) = self.shedding.take() {
                    if !self.is(Fault::ForgetsThatItHasShed) {
                        self.policy.done("job", &critical, shed::Outcome::Paused, self.bench.now);
                    }
                    self.expected.shed();
                }
            }
            Step::Start | Step::Later => {}
        }
        self.serve()
    }

    fn check(&mut self, check: Check) -> Result<(), Promise> {
        let seen = check.processes().map(|processes| processes - u64::from(self.is(Fault::CountsOneLess)));
        let report = if seen.is_none() && self.is(Fault::OverlooksAFailedCheck) {
            None
        } else {
            self.bench.record_found(&found(Some(MB), seen), &[])
        };
        let mut events = report.as_ref().map_or_else(Vec::new, |report| report.events.clone());
        if self.is(Fault::SaysEverythingTwice) {
            events.extend(events.clone());
        }
        self.expected.check(check, &events)?;
        let Some(report) = report else { return Ok(()) };
        let checked = report.checked();
        // The thread that sheds runs from a start to a stop, and does one thing at a time.
        let sheds = self.bench.judgement.is_running() && self.shedding.is_none();
        if !sheds || !checked.is_trusted(self.bench.now, self.bench.judgement.max_age()) {
            return Ok(());
        }
        self.policy.effect(&checked, INTERVAL);
        match self.policy.next(&checked, INTERVAL) {
            ShedStep::Nothing => {}
            // The host has nothing to spare.
            ShedStep::Reclaim(critical) | ShedStep::Shed(critical) => {
                if !self.expected.may_shed() {
                    return Err(Promise::OneShedAtATime);
                }
                self.shedding = Some(critical);
            }
            ShedStep::Cleared => {
                if !self.expected.clear() {
                    return Err(Promise::OneShedAtATime);
                }
            }
        }
        Ok(())
    }

    fn admit(&mut self, processes: u64) -> Result<(), Promise> {
        let work = Work::new().processes(processes);
        if self.queue.bars(&work, self.bench.now) {
            return Ok(());
        }
        let is_granted = self.bench.admit(work).is_ok();
        match (is_granted, self.expected.grants(processes)) {
            (true, false) => return Err(Promise::NothingPastAThreshold),
            (false, true) => return Err(Promise::OpenWhereThereIsRoom),
            (false, false) => return Ok(()),
            (true, true) => {}
        }
        if self.is(Fault::ForgetsWhatItHasGranted) {
            self.bench.judgement.admission.room.give_back(&work);
        }
        self.queue.was_passed_by(&work);
        self.grant(processes);
        Ok(())
    }

    fn grant(&mut self, processes: u64) {
        self.permits.push(processes);
        self.expected.held += processes;
    }

    fn wait(&mut self) -> Result<(), Promise> {
        let granted = self.permits.len();
        self.admit(WAITING)?;
        if self.permits.len() == granted && !self.expected.is_hopeless() {
            self.tickets.push(self.queue.push(Work::new().processes(WAITING), self.bench.now, ()));
        }
        Ok(())
    }

    /// Serves the waiters that fit, as whoever frees room does it.
    fn serve(&mut self) -> Result<(), Promise> {
        if self.is(Fault::ForgetsThoseWhoWait) {
            return Ok(());
        }
        if self.bench.judgement.is_hopeless() {
            self.queue.dismiss(|_| true, |()| {});
        }
        let (bench, expected) = (&self.bench, &mut self.expected);
        let mut is_too_much = false;
        let reserve = |work: &Work| {
            let expects = expected.grants(WAITING);
            let is_granted = bench.admit(*work).is_ok();
            is_too_much |= is_granted && !expects;
            expected.held += if is_granted { WAITING } else { 0 };
            is_granted
        };
        let mut served = 0;
        self.queue.serve(bench.now, reserve, |()| served += 1);
        self.permits.extend((0..served).map(|_| WAITING));
        self.tickets.retain(|ticket| self.queue.ahead_of(*ticket).is_some());
        if is_too_much {
            return Err(Promise::NothingPastAThreshold);
        }
        Ok(())
    }

    fn fork(&mut self) {
        if !self.is(Fault::ForgetsAFork) {
            self.bench.judgement = Judgement::new(Settings::default(), true, self.bench.judgement.stopped);
        }
        self.expected.fork();
        (self.permits, self.tickets) = (vec![], vec![]);
        self.queue = Queue::new(Overtaking::default());
        (self.policy, self.shedding) = (ShedPolicy::default(), None);
    }

    /// Compares what the machine says with what it must say.
    pub(super) fn verify(&self) -> Result<(), Promise> {
        let (bench, expected) = (&self.bench, &self.expected);
        let admission = &bench.judgement.admission;
        let last = bench.judgement.last.as_ref().filter(|_| self.is(Fault::NeverGrowsOld));
        let is_open = admission.is_open(last.map_or(bench.now, |last| last.at));
        if is_open && !expected.is_known() {
            return Err(Promise::ClosedUnlessKnown);
        }
        let verdict = bench.verdict();
        let text = verdict.to_string();
        let answers = [
            verdict.is_accepting(),
            text.starts_with("accepting work: "),
            !text.starts_with("not accepting work: "),
            bench.admit(Work::new()).is_ok(),
            admission.pressure(bench.now) < 1.0,
        ];
        if answers.iter().any(|answer| *answer != is_open) {
            return Err(Promise::OneAnswer);
        }
        match (is_open, expected.is_open()) {
            (true, false) => return Err(Promise::NothingPastAThreshold),
            (false, true) => return Err(Promise::OpenWhereThereIsRoom),
            _ => {}
        }
        if self.queue.len() > 0 && (expected.is_hopeless() || expected.grants(WAITING)) {
            return Err(Promise::NobodyWaitsBesideRoom);
        }
        Ok(())
    }

    /// Goes the ways out that the verdicts name, one after another, until the gate is open.
    pub(super) fn leave(mut self) -> Result<(), Promise> {
        const MOST_WAYS: usize = 4;
        for _ in 0..MOST_WAYS {
            let text = self.bench.text();
            if text.starts_with("accepting work") {
                return Ok(());
            }
            if text.contains("the monitor is stopped") {
                self.step(Step::Start)?;
            } else if text.contains("threshold") {
                while let Some(processes) = self.permits.pop() {
                    self.bench.release(&Work::new().processes(processes));
                    self.expected.drop_permit(processes);
                }
                self.tickets.clear();
                self.queue.dismiss(|_| true, |()| {});
            }
            self.step(Step::Check(Check::Low))?;
        }
        Err(Promise::AWayOut)
    }
}

impl Limits {
    /// 100 processes with hysteresis, or 60 without.
    pub(super) fn of(self) -> ResourceLimits {
        match self {
            Limits::Held => held(),
            Limits::Few => ResourceLimits::builder().max_memory_mb(100).max_processes(60).build().unwrap(),
        }
    }

    pub(super) fn other(self) -> Limits {
        match self {
            Limits::Held => Limits::Few,
            Limits::Few => Limits::Held,
        }
    }
}
