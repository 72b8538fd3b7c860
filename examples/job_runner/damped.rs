//! Warnings that would be said again and again.

use std::fmt::Display;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long the same thing is not said again.
const GAP: Duration = Duration::from_secs(60);

/// A warning that is said once a minute at most, with the number of times that it was not.
#[derive(Debug, Default)]
pub(crate) struct Damped(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    said: Option<Instant>,
    left_out: u64,
}

impl Damped {
    /// Says it, or counts it.
    pub(crate) fn warn(&self, warning: impl Display) {
        let mut state = self.0.lock();
        if state.said.is_some_and(|said| said.elapsed() < GAP) {
            state.left_out += 1;
            return;
        }
        let State { left_out, .. } = std::mem::replace(&mut *state, State { said: Some(Instant::now()), left_out: 0 });
        drop(state);
        match left_out {
            0 => log::warn!("{warning}"),
            _ => log::warn!("{warning} ({left_out} more like this since the last time)"),
        }
    }
}
