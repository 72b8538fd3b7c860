//! How many jobs run at once where nobody has said how many: as many as there are CPUs, for more of those that compute would
//! take more memory and end no sooner; and more than that while CPUs are idle although so many run, as jobs that wait do.

use std::thread;
use std::time::{Duration, Instant};

use procfs::{CurrentSI, KernelStats};

/// The time over which idle CPUs are counted: ten ticks of the kernel's.
const WINDOW: Duration = Duration::from_millis(100);

/// The CPUs that must be idle for more jobs to run: a quarter of one can come of jobs that start and end.
const IDLE: f64 = 0.25;

/// The share of the time in percent in which a task waits for a CPU, from which on fewer jobs run. Two that compute on two
/// CPUs make less than 5 % of it, three make 50.
const CROWDED: f64 = 25.0;

/// How long the width stays after it was too large; twice as long the next time, up to the last.
const HOLD: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(8)];

/// The most jobs that run at once.
#[derive(Debug)]
pub(crate) struct Width {
    cpus: usize,
    jobs: usize,
    /// Whether a job was held back by it since the last look.
    is_felt: bool,
    looked: Option<(Instant, Ticks)>,
    hold: Duration,
    hold_until: Option<Instant>,
}

/// What all CPUs together have spent, in ticks.
#[derive(Debug, Clone, Copy)]
struct Ticks {
    idle: u64,
    all: u64,
    cpus: usize,
}

impl Width {
    pub(crate) fn new() -> Width {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        Width { cpus, jobs: cpus, is_felt: false, looked: None, hold: HOLD[0], hold_until: None }
    }

    /// Why no other job is started beside so many, if none is.
    pub(crate) fn refusal(&mut self, running: usize) -> Option<String> {
        if running < self.jobs {
            return None;
        }
        self.is_felt = true;
        Some(format!("{running} jobs run on {} CPUs", self.cpus))
    }

    /// Looks whether the CPUs have become idle or crowded, if it is time to. The pressure is a share of the time in percent.
    pub(crate) fn look(&mut self, pressure: Option<f64>) {
        let now = Instant::now();
        if self.looked.is_some_and(|(at, _)| now - at < WINDOW) {
            return;
        }
        let Some(ticks) = Ticks::read() else { return };
        if let Some((_, before)) = self.looked.replace((now, ticks)) {
            self.judge(now, ticks.idle_since(before), pressure.unwrap_or_default());
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
    fn read() -> Option<Ticks> {
        let stats = KernelStats::current().ok()?;
        let total = stats.total;
        let idle = total.idle + total.iowait.unwrap_or_default();
        let busy = total.user + total.nice + total.system + total.irq.unwrap_or_default();
        let all = idle + busy + total.softirq.unwrap_or_default() + total.steal.unwrap_or_default();
        Some(Ticks { idle, all, cpus: stats.cpu_time.len() })
    }

    /// How many CPUs were idle, on average.
    fn idle_since(self, before: Ticks) -> f64 {
        let idle = self.idle.saturating_sub(before.idle) as f64;
        let all = self.all.saturating_sub(before.all).max(1) as f64;
        idle / all * self.cpus as f64
    }
}
