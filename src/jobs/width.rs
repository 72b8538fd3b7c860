//! How many jobs run at once where nobody has said how many: as many as there are CPUs, for more of those that compute
//! would take more memory and end no sooner; and more than that while CPUs are idle although so many run, as jobs that
//! wait do.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::held_back::HeldBack;

/// The time over which idle CPUs are counted: ten ticks of the kernel's.
const WINDOW: Duration = Duration::from_millis(100);

/// The CPUs that must be idle for more jobs to run: a quarter of one can come of jobs that start and end.
const IDLE: f64 = 0.25;

/// The share of the time in percent in which a task waits for a CPU, from which on fewer jobs run. Two that compute on
/// two CPUs make less than 5 % of it, three make 50.
const CROWDED: f64 = 25.0;

/// How long the width stays after it was too large; twice as long the next time, up to the last.
const HOLD: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(8)];

/// The most jobs that run at once.
#[derive(Debug)]
pub(super) struct Width {
    cpus: usize,
    jobs: usize,
    is_fixed: bool,
    /// Whether a job was held back by it since the last look.
    is_felt: bool,
    looked: Option<(Instant, Ticks)>,
    hold: Duration,
    hold_until: Option<Instant>,
}

/// The time of all CPUs together since boot, in ticks, as the first line of `/proc/stat` counts it (proc_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    idle: u64,
    all: u64,
}

impl Width {
    /// As wide as the CPUs bear, or as given.
    pub(super) fn new(fixed: Option<usize>) -> Width {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        Width {
            cpus,
            jobs: fixed.unwrap_or(cpus),
            is_fixed: fixed.is_some(),
            is_felt: false,
            looked: None,
            hold: HOLD[0],
            hold_until: None,
        }
    }

    /// Whether another job may be started beside so many.
    pub(super) fn has_room(&mut self, running: usize) -> bool {
        self.is_felt |= running >= self.jobs;
        running < self.jobs
    }

    /// Says that it has no room beside so many.
    pub(super) fn refusal(&self, running: usize) -> HeldBack {
        if self.is_fixed {
            HeldBack::Width(self.jobs)
        } else {
            HeldBack::Cpus { running, cpus: self.cpus }
        }
    }

    /// Looks whether the CPUs have become idle or crowded, if it is time to. The pressure is the share of the time in
    /// percent in which some task waited for a CPU.
    pub(super) fn look(&mut self, now: Instant, pressure: Option<f64>) {
        if self.is_fixed || self.looked.is_some_and(|(at, _)| now - at < WINDOW) {
            return;
        }
        let Some(ticks) = fs::read("/proc/stat").ok().as_deref().and_then(parse) else { return };
        if let Some((_, before)) = self.looked.replace((now, ticks)) {
            let all = thread::available_parallelism().map_or(self.cpus, usize::from);
            self.judge(now, ticks.idle_since(before) * all as f64, pressure.unwrap_or_default());
        }
    }

    fn judge(&mut self, now: Instant, idle_cpus: f64, pressure: f64) {
        let is_held = self.hold_until.is_some_and(|until| now < until);
        if pressure >= CROWDED && self.jobs > self.cpus && !is_held {
            self.jobs = self.cpus.max(self.jobs - (self.jobs / 4).max(1));
            self.hold_until = Some(now + self.hold);
            self.hold = (self.hold * 2).min(HOLD[1]);
        } else if pressure < CROWDED && idle_cpus >= IDLE && self.is_felt && !is_held {
            self.jobs += (self.jobs / 2).max(1);
        }
        self.is_felt = false;
    }
}

impl Ticks {
    /// The share of the CPUs that were idle, on average.
    fn idle_since(self, before: Ticks) -> f64 {
        let idle = self.idle.saturating_sub(before.idle) as f64;
        idle / self.all.saturating_sub(before.all).max(1) as f64
    }
}

/// `cpu  user nice system idle iowait irq softirq steal guest guest_nice`; time of guests is in `user` and `nice` too.
fn parse(stat: &[u8]) -> Option<Ticks> {
    let line = stat.split(|byte| *byte == b'\n').next()?;
    let fields = std::str::from_utf8(line).ok()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = fields.split_ascii_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    let idle = *ticks.get(3)?;
    let waiting = ticks.get(4).copied().unwrap_or_default();
    let all = ticks.iter().fold(0, |all: u64, ticks| all.saturating_add(*ticks));
    Some(Ticks { idle: idle.saturating_add(waiting), all })
}

/// What is idle is part of all.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let Some(ticks) = parse(bytes) else { return };
    assert!(ticks.idle <= ticks.all && bytes.starts_with(b"cpu "));
    assert_eq!(parse(&[bytes, b"\ncpu 1 2 3 4"].concat()), Some(ticks));
    assert!((0.0..=1.0).contains(&ticks.idle_since(Ticks { idle: 0, all: 0 })));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_that_of_all_cpus_and_includes_waits_for_disks() {
        let before = parse(b"cpu  10 0 10 100 10 0 0 0 5 0\ncpu0 1 2 3\n").unwrap();
        assert_eq!(before, Ticks { idle: 110, all: 130 });
        let after = parse(b"cpu  60 0 10 140 20 0 0 0 5 0\n").unwrap();
        assert_eq!(after.idle_since(before), 0.5);
        assert_eq!(before.idle_since(before), 0.0);
        for text in ["", "cpu ", "cpu 1 2 3", "cpu0 1 2 3 4", "cpu 1 2 3 x"] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn it_grows_while_cpus_are_idle_and_jobs_are_held_back_and_shrinks_when_crowded() {
        let mut width = Width { cpus: 4, jobs: 4, ..Width::new(None) };
        let mut now = Instant::now();
        let mut judge = |width: &mut Width, running, idle, pressure| {
            now += WINDOW;
            width.has_room(running);
            width.judge(now, idle, pressure);
            width.jobs
        };
        assert_eq!(judge(&mut width, 3, 4.0, 0.0), 4); // nobody was held back
        assert_eq!(judge(&mut width, 4, 0.1, 0.0), 4); // nothing was idle
        assert_eq!(judge(&mut width, 4, 3.0, 0.0), 6);
        assert_eq!(judge(&mut width, 6, 1.0, 30.0), 5);
        assert_eq!(judge(&mut width, 5, 1.0, 0.0), 5); // not again at once
    }

    #[test]
    fn a_given_width_stays() {
        let mut width = Width::new(Some(7));
        assert!(width.has_room(6));
        assert!(!width.has_room(7));
        let now = Instant::now();
        width.look(now, Some(100.0));
        width.look(now + WINDOW, Some(100.0));
        assert!(width.has_room(6));
    }
}
