//! A process that is watched, and the threads that ask and compare each answer with what must be true.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use highwater::{Gauge, Permit, ResourceLimits, ResourceMonitor, Work};

use crate::common::{ms, wait_until};
use crate::means::Random;

pub const MAX_AGE: Duration = Duration::from_secs(1);
pub const PROCESSES: u64 = 40;
pub const MEMORY: usize = 256 << 20;
/// A number for each process and thread in the namespace, and the least that there may be is 301.
pub const NUMBERS: u64 = 400;
pub const SLOTS: u64 = 1000;
/// The warning and the hard threshold in percent; the first are those that limits begin with.
pub const THRESHOLDS: [(u8, u8); 4] = [(80, 95), (50, 70), (20, 30), (90, 99)];

/// What was found, and how much was done to find it.
#[derive(Default)]
pub struct Tally {
    pub checks: AtomicU64,
    pub answers: AtomicU64,
    pub grants: AtomicU64,
    pub refusals: AtomicU64,
    pub faults: Mutex<BTreeMap<&'static str, u64>>,
    pub wrong: Mutex<Vec<String>>,
    pub panics: AtomicU64,
}

impl Tally {
    pub fn fault(&self, name: &'static str) {
        *self.faults.lock().unwrap().entry(name).or_default() += 1;
    }

    pub fn is(&self, right: bool, what: impl Display) {
        self.answers.fetch_add(1, SeqCst);
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if !right && wrong.len() < 20 {
            eprintln!("wrong: {what}");
            wrong.push(what.to_string());
        }
    }
}

/// A process that is watched, and those who ask.
pub struct Host {
    pub monitor: ResourceMonitor,
    pub slots: Gauge,
    /// The thresholds in force. Whoever asks keeps them from being changed.
    pub thresholds: RwLock<(u8, u8)>,
    /// No more than is reserved of the slots, at any moment.
    pub referee: AtomicU64,
    /// Odd while no answer may be yes.
    pub closed: AtomicU64,
    pub done: AtomicBool,
    pub tally: &'static Tally,
}

impl Host {
    pub fn new(tally: &'static Tally) -> Host {
        let monitor = ResourceMonitor::builder(limits(PROCESSES, THRESHOLDS[0])).max_age(MAX_AGE).build().unwrap();
        let slots = monitor.gauge("slots", SLOTS).unwrap();
        let closed = AtomicU64::new(0);
        let (referee, done) = (AtomicU64::new(0), AtomicBool::new(false));
        Host { monitor, slots, thresholds: RwLock::new(THRESHOLDS[0]), referee, closed, done, tally }
    }

    /// Asks for slots, and lets go of what was granted a while ago.
    pub fn ask_for_slots(&self, mut random: Random) {
        let mut held: Vec<(u64, Permit)> = Vec::new();
        while !self.done.load(SeqCst) {
            let thresholds = self.thresholds.read().unwrap();
            let slots = random.below(120) + 1;
            let work = Work::new().gauge(&self.slots, slots).label("slots");
            let closed = self.closed.load(SeqCst);
            let answer = match random.below(4) {
                0 => self.monitor.admit(work, ms(5)),
                _ => self.monitor.try_admit(work),
            };
            let surely_closed = closed % 2 == 1 && closed == self.closed.load(SeqCst);
            match answer {
                Ok(permit) => {
                    let before = self.referee.fetch_add(slots, SeqCst);
                    let hard = u64::from(thresholds.1) * SLOTS / 100;
                    self.tally.is(!surely_closed, "a grant while the gate must be closed");
                    let is_within = before + slots < hard;
                    self.tally.is(is_within, format_args!("{slots} slots granted beside {before} of {hard}"));
                    self.tally.grants.fetch_add(1, SeqCst);
                    held.push((slots, permit));
                }
                Err(verdict) => {
                    let text = verdict.to_string();
                    let is_no = text.starts_with("refused: ") || text.starts_with("not accepting work: ");
                    self.tally.is(is_no && !verdict.is_accepting(), format_args!("a refusal says: {text}"));
                    self.tally.refusals.fetch_add(1, SeqCst);
                }
            }
            drop(thresholds);
            while held.len() as u64 > random.below(6) {
                let (slots, permit) = held.swap_remove(random.below(held.len() as u64) as usize);
                self.referee.fetch_sub(slots, SeqCst);
                permit.finish();
            }
            thread::yield_now();
        }
        for (slots, permit) in held {
            self.referee.fetch_sub(slots, SeqCst);
            permit.finish();
        }
    }

    /// Looks at the gate by every way there is.
    pub fn look(&self) {
        while !self.done.load(SeqCst) {
            let (closed, begun) = (self.closed.load(SeqCst), Instant::now());
            let is_open = self.monitor.is_accepting_work();
            let age = self.monitor.seconds_since_last_check();
            // The coarse clock has steps of up to 10 ms.
            let youngest = age - begun.elapsed().as_secs_f64() - 0.02;
            let verdict = self.monitor.verdict();
            let pressure = self.monitor.readiness().pressure();
            let is_degraded = self.monitor.is_degraded();
            if closed == self.closed.load(SeqCst) {
                let is_stale = youngest > MAX_AGE.as_secs_f64();
                self.tally.is(!(is_open && is_stale), format_args!("open by a check of {age} s ago"));
                if closed % 2 == 1 {
                    self.tally.is(!is_open, "open while it must be closed");
                    self.tally.is(!verdict.is_accepting(), format_args!("while it must be closed: {verdict}"));
                    self.tally.is(pressure >= 1.0, format_args!("a pressure of {pressure} while it is closed"));
                }
            }
            self.tally.is(!is_degraded, "degraded, and nothing has failed");
            let text = verdict.to_string();
            let says = (text.starts_with("accepting work"), text.starts_with("not accepting work: "));
            self.tally.is(says == (verdict.is_accepting(), !verdict.is_accepting()), format_args!("it says: {text}"));
            thread::yield_now();
        }
    }

    /// Has everybody ask for a while, during which no answer may be yes.
    pub fn while_closed(&self, why: &str) {
        self.monitor.check_now();
        let verdict = self.monitor.verdict();
        self.tally.is(!verdict.is_accepting(), format_args!("{why}: {verdict}"));
        self.closed.fetch_add(1, SeqCst);
        let answers = self.tally.answers.load(SeqCst);
        wait_until("others have asked", || self.tally.answers.load(SeqCst) > answers + 200);
        self.closed.fetch_add(1, SeqCst);
    }

    pub fn wait_until_open(&self, what: &str) {
        wait_until(what, || {
            self.monitor.check_now();
            let verdict = self.monitor.verdict();
            // By what the others hold it may be closed.
            verdict.is_accepting() || verdict.resource() == Some(self.slots.resource())
        });
    }
}

pub fn limits(processes: u64, (warn, hard): (u8, u8)) -> ResourceLimits {
    let limits = ResourceLimits::builder().max_memory_bytes(MEMORY as u64).max_processes(processes);
    limits.warn_percent(warn).hard_percent(hard).build().unwrap()
}
