//! What became of the tokens, for the summary of a host.

use std::fmt;
use std::time::{Duration, Instant};

/// The tokens that were out, and for how long others were held back, since the server was made.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct TokenTally {
    /// The tokens that are lent now.
    pub out: usize,
    /// The most that were lent at once.
    pub most_out: usize,
    /// The average over the time in which there was a job.
    pub average_out: f64,
    /// For how long there was a job that could not be offered a token, by the reason: the name of the resource that was
    /// short, or another word. The longest first.
    pub held_back: Vec<(String, Duration)>,
}

/// For people: `7 at most, 3.4 on average; held back 4.6 s by cgroup memory, 0.8 s by the first step of its kind`.
impl fmt::Display for TokenTally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at most, {:.1} on average", self.most_out, self.average_out)?;
        for (index, (reason, time)) in self.held_back.iter().enumerate() {
            let before = if index == 0 { "; held back" } else { "," };
            write!(f, "{before} {:.1} s by {reason}", time.as_secs_f64())?;
        }
        Ok(())
    }
}

/// The tally as it is kept.
#[derive(Debug)]
pub(super) struct Tally {
    since: Instant,
    out: usize,
    is_serving: bool,
    reason: Option<String>,
    most_out: usize,
    token_time: f64,
    served: Duration,
    held_back: Vec<(String, Duration)>,
}

impl Tally {
    pub(super) fn new(now: Instant) -> Tally {
        Tally {
            since: now,
            out: 0,
            is_serving: false,
            reason: None,
            most_out: 0,
            token_time: 0.0,
            served: Duration::ZERO,
            held_back: Vec::new(),
        }
    }

    /// From now on so many tokens are lent, to jobs if there are any, and this holds others back.
    pub(super) fn set(&mut self, now: Instant, out: usize, is_serving: bool, reason: Option<String>) {
        self.pass(now);
        (self.out, self.is_serving, self.reason) = (out, is_serving, reason);
        self.most_out = self.most_out.max(out);
    }

    fn pass(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.since, now));
        if !self.is_serving {
            return;
        }
        self.served += passed;
        self.token_time += passed.as_secs_f64() * self.out as f64;
        if let Some(reason) = &self.reason {
            match self.held_back.iter_mut().find(|(known, _)| known == reason) {
                Some((_, time)) => *time += passed,
                None => self.held_back.push((reason.clone(), passed)),
            }
        }
    }

    pub(super) fn as_of(&mut self, now: Instant) -> TokenTally {
        self.pass(now);
        let mut held_back = self.held_back.clone();
        held_back.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        let served = self.served.as_secs_f64();
        let average_out = if served > 0.0 { self.token_time / served } else { 0.0 };
        TokenTally { out: self.out, most_out: self.most_out, average_out, held_back }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_is_over_the_time_with_a_job_and_reasons_are_added_up() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut tally = Tally::new(now);
        assert_eq!(tally.as_of(now), TokenTally::default());
        tally.set(at(10), 1, true, Some("memory".into()));
        tally.set(at(12), 3, true, Some("cap".into()));
        tally.set(at(13), 3, true, Some("memory".into()));
        tally.set(at(14), 0, false, None);
        let text = tally.as_of(at(100)).to_string();
        assert_eq!(text, "3 at most, 2.0 on average; held back 3.0 s by memory, 1.0 s by cap");
        let TokenTally { out, most_out, average_out, held_back } = tally.as_of(at(100));
        assert_eq!((out, most_out, average_out), (0, 3, 2.0));
        assert_eq!(held_back, [("memory".into(), Duration::from_secs(3)), ("cap".into(), Duration::from_secs(1))]);
    }
}
