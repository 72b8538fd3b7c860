//! The memory that running jobs are still to take.
//!
//! A job is admitted by what its kind costs, and the one that is larger than typical by the headroom. Two of them at once
//! are beyond what was foreseen, and the kernel kills before the monitor has paused anything: a job fills 20 MB between two
//! checks, and the oldest, which the monitor pauses, has mostly grown to its size. So jobs that grow are watched where room
//! is short, and the youngest is held where the hard threshold is near: it keeps what it has, and goes on when the others
//! have grown or ended. A job that has grown counts at what it uses.
//!
//! The cost is a check every 20 ms while what may come would not fit, and at most a tenth of the time of one thread.

use std::time::{Duration, Instant};

use super::cost::Cost;
use super::running::{By, Running};
use super::starting::LEARNING;
use super::table::{JobTable, State, AGAIN, CLOSELY};
use crate::engine::{self, Core};

/// The share of the memory of a job that is no growth, as a divisor: a job that fills 100 MB a second beside others grows by
/// 2 % of 100 MB from one check to the next.
const LITTLE: u64 = 64;

/// The growth of the memory of a job, as seen so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Growth {
    memory_bytes: u64,
    /// The age of the job when it was last seen to have grown, and when it was last seen to have not.
    grown_at: Duration,
    still_at: Duration,
    longest_pause: Duration,
}

impl Growth {
    /// Takes note of the most memory that a job of this age was seen to use. Very little more is no growth.
    pub(super) fn note(&mut self, memory_bytes: u64, age: Duration) {
        let is_pause = memory_bytes <= self.memory_bytes.saturating_add(self.memory_bytes / LITTLE);
        if !is_pause {
            self.longest_pause = self.longest_pause.max(self.pause());
            (self.memory_bytes, self.grown_at) = (memory_bytes, age);
        }
        self.still_at = age;
    }

    /// Leaves out the time up to this age, over which it was stopped.
    pub(super) fn skip_to(&mut self, age: Duration) {
        (self.grown_at, self.still_at) = (age, age);
    }

    /// The time over which it was seen not to grow, up to the last look.
    pub(super) fn pause(&self) -> Duration {
        self.still_at - self.grown_at
    }

    /// The longest time over which it was seen not to grow before it grew again.
    pub(super) fn longest_pause(&self) -> Duration {
        self.longest_pause
    }
}

impl JobTable {
    /// Takes note of what the running jobs have grown to, if a check was taken since this was done last.
    pub(super) fn follow_growth(&self, now: Instant) {
        let Some(latest) = Core::of(&self.engine).publisher.lock().latest() else { return };
        let mut state = self.state.lock();
        let State { running, costs, growth_seen, .. } = &mut *state;
        if growth_seen.replace(latest.timestamp) == Some(latest.timestamp) {
            return;
        }
        let (mut grown_by, mut has_outgrown) = (0u64, false);
        for job in running.iter_mut().filter(|job| job.is_active() && !job.has_tokens()) {
            let Some(usage) = engine::usage(&self.engine, &job.grant) else { continue };
            grown_by = grown_by.saturating_add(job.note_growth(usage, latest.timestamp));
            job.has_grown = costs.has_grown(&job.job.job.kind, &job.growth);
            // What its kind is taken to cost may be known better by now than when it was started.
            let typical = costs.typical(&job.job.job.kind);
            let outgrown = typical.map(|typical| Cost { memory_bytes: usage.memory_bytes, ..typical }.beyond(typical));
            has_outgrown |= outgrown.is_some_and(|outgrown| std::mem::replace(&mut job.outgrown, outgrown) != outgrown);
            let Some(least) = (if job.has_grown { Some(Cost::default()) } else { typical }) else { continue };
            let counted = least.max(job.job.needed).max(Cost::declared(&job.job.job.declared)).memory_bytes;
            if std::mem::replace(&mut job.counted_bytes, counted) != counted {
                engine::declare_memory(&self.engine, &job.grant, counted);
            }
        }
        if has_outgrown {
            self.fit_headroom(&mut state);
        }
        // As much again before the next check, and once more before what is told to stop has stopped.
        if engine::is_too_much_memory(&self.engine, grown_by.saturating_mul(2)) {
            self.hold_growing(&mut state);
        } else {
            self.let_go(&mut state, now);
        }
    }

    /// Stops those that grow, the youngest first, but for the last job that runs.
    fn hold_growing(&self, state: &mut State) {
        let mut active = state.running.iter().filter(|job| job.is_active()).count();
        for job in state.running.iter_mut().rev().filter(|job| job.is_growing()) {
            if active > 1 {
                active -= 1;
                let done = job.pause(By::Jobs, &self.processes);
                job.complain("stop", done);
            }
        }
    }

    /// Continues the oldest that is held, if it may grow to the size of the largest of its kind and no other grows; or if
    /// nothing else runs that could make room.
    fn let_go(&self, state: &mut State, now: Instant) {
        let State { running, costs, .. } = state;
        let is_any_active = running.iter().any(Running::is_active);
        if running.iter().any(Running::is_growing) {
            return;
        }
        let Some(held) = running.iter_mut().find(|job| job.is_held()) else { return };
        let to_come = held.to_come(costs.largest(&held.job.job.kind));
        if !is_any_active || !engine::is_too_much_memory(&self.engine, to_come) {
            held.growth.skip_to(now.saturating_duration_since(held.started));
            let done = held.resume(By::Jobs, &self.processes);
            held.complain("continue", done);
        }
    }

    /// Takes a check if it is time to: while the first job of a kind runs, so that its cost is seen, and while what may come
    /// of those that grow, and of the next job, would not fit.
    pub(super) fn check_closely(&self, now: Instant) {
        let mut state = self.state.lock();
        if state.next_check.is_some_and(|at| now < at) {
            return;
        }
        let pause = if state.is_any_first(now) {
            CLOSELY
        } else if engine::is_too_much_memory(&self.engine, state.to_come()) {
            AGAIN
        } else {
            state.next_check = None;
            return;
        };
        drop(state);
        engine::check_now(&self.engine);
        let took = now.elapsed();
        self.state.lock().next_check = Some(Instant::now() + pause.max(took * 10));
    }
}

impl State {
    /// Whether the first job of a kind runs, for not so long that others are started beside it.
    fn is_any_first(&self, now: Instant) -> bool {
        let is_first = |job: &Running| self.costs.typical(&job.job.job.kind).is_none() && now - job.started < LEARNING;
        self.running.iter().any(is_first)
    }

    /// The memory that jobs may still take if they grow to the size of the largest of their kinds: those that grow or are
    /// held, and one more if any waits.
    fn to_come(&self) -> u64 {
        let (mut to_come, mut most) = (0u64, 0);
        for job in &self.running {
            let largest = self.costs.largest(&job.job.job.kind);
            most = most.max(largest.memory_bytes);
            if job.is_growing() || job.is_held() {
                to_come = to_come.saturating_add(job.to_come(largest));
            }
        }
        to_come.saturating_add(if self.queue.len() > 0 { most } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was seen of a job each second.
    fn growth(bytes: &[u64]) -> Growth {
        let mut growth = Growth::default();
        (1..).zip(bytes).for_each(|(second, bytes)| growth.note(*bytes, Duration::from_secs(second)));
        growth
    }

    #[test]
    fn a_pause_is_the_time_without_an_eighth_more_before_the_next_growth() {
        let seen = growth(&[6400, 6400, 6500, 6501, 8000, 8000]);
        assert_eq!((seen.longest_pause(), seen.pause()), (Duration::from_secs(2), Duration::from_secs(1)));
        let seen = growth(&[100, 200, 300]);
        assert_eq!((seen.longest_pause(), seen.pause()), (Duration::ZERO, Duration::ZERO), "no look has seen a pause");
    }

    #[test]
    fn the_time_for_which_it_was_stopped_is_no_pause() {
        let mut growth = growth(&[100, 200]);
        growth.skip_to(Duration::from_secs(30));
        growth.note(300, Duration::from_secs(31));
        assert_eq!((growth.longest_pause(), growth.pause()), (Duration::ZERO, Duration::ZERO));
    }
}
