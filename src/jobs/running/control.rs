//! What is done to a running job: it is paused and continued, stopped with the host, told to end, and killed.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{By, Running, State, Why, DYING};
use crate::pgroup::ProcessGroupManager;
use crate::sys::child::{self, Child, Turn};
use crate::sys::process::{self, Handle};
use crate::sys::reserve::is_exhausted;

impl Running {
    pub(crate) fn pause(&mut self, by: By, processes: &ProcessGroupManager) -> io::Result<()> {
        match self.state {
            State::Running => {
                self.heeds_continuation = child::last_turn(self.pid) != Some(Turn::Continued);
                if let Err(error) = self.signal(libc::SIGSTOP, processes) {
                    // What of it could be stopped.
                    let _ = self.signal(libc::SIGCONT, processes);
                    return Err(error);
                }
            }
            State::Paused(_) => {}
            State::Ending { .. } => return Ok(()),
        }
        self.state = State::Paused(by);
        Ok(())
    }

    /// Continues it, if it was paused by them.
    pub(crate) fn resume(&mut self, by: By, processes: &ProcessGroupManager) -> io::Result<()> {
        if self.state == State::Paused(by) {
            self.signal(libc::SIGCONT, processes)?;
            self.state = State::Running;
        }
        Ok(())
    }

    /// Takes note that somebody else has continued it while it is paused. Then all of it goes on, lest a part stands still
    /// for ever, and it may be paused anew.
    pub(crate) fn note_continuation(&mut self, now: Instant, processes: &ProcessGroupManager) -> io::Result<()> {
        let State::Paused(by) = self.state else { return Ok(()) };
        match child::last_turn(self.pid) {
            Some(Turn::Stopped) => self.heeds_continuation = true,
            Some(Turn::Continued) if self.heeds_continuation => {
                self.growth.skip_to(now.saturating_duration_since(self.started));
                return self.resume(by, processes);
            }
            _ => {}
        }
        Ok(())
    }

    /// Stops it together with the host, whatever it is made to do.
    pub(crate) fn stop(&mut self, processes: &ProcessGroupManager) -> io::Result<()> {
        self.signal(libc::SIGSTOP, processes)
    }

    /// Has it go on as before, after the host and it were stopped for so long, which is not counted as its time.
    pub(crate) fn go_on(&mut self, stopped: Duration, processes: &ProcessGroupManager) -> io::Result<()> {
        self.started += stopped;
        self.leaving = self.leaving.map(|kill_at| kill_at + stopped);
        self.killed_at = self.killed_at.map(|at| at + stopped);
        if let State::Ending { kill_at: Some(kill_at), .. } = &mut self.state {
            *kill_at += stopped;
        }
        if self.is_paused() {
            return Ok(());
        }
        self.signal(libc::SIGCONT, processes)
    }

    /// Asks it to end, and sees to it later that it does: this does not wait.
    pub(crate) fn end(&mut self, why: Why, grace: Duration, processes: &ProcessGroupManager) -> io::Result<()> {
        if self.is_ending() {
            return Ok(());
        }
        // Noted even where it fails: one that may not be signalled may still be killed by somebody who may.
        self.state = State::Ending { kill_at: Instant::now().checked_add(grace), why };
        let told = self.signal(libc::SIGTERM, processes);
        // A stopped process dies of nothing but SIGKILL, and whoever stopped it may have been the job itself.
        told.and(self.signal(libc::SIGCONT, processes))
    }

    /// Leaves it no more time to end.
    pub(crate) fn hurry(&mut self) {
        let now = Instant::now();
        if let State::Ending { kill_at: Some(kill_at), .. } = &mut self.state {
            *kill_at = now;
        }
        if !self.has_killed_orphans {
            self.leaving = self.leaving.map(|_| now);
        }
    }

    /// Kills what is left of it, if its grace is over.
    pub(crate) fn kill_if_due(&mut self, now: Instant, processes: &ProcessGroupManager) -> io::Result<()> {
        if let State::Ending { kill_at, .. } = &mut self.state {
            if kill_at.is_some_and(|at| at <= now) {
                *kill_at = None;
                self.killed_at = Some(now);
                return self.signal(libc::SIGKILL, processes);
            }
        }
        Ok(())
    }

    /// The next time at which something is to be done to it, whatever happens.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let kill_at = match self.state {
            State::Ending { kill_at, .. } => kill_at,
            _ => self.times_out_at(),
        };
        match (kill_at, self.leaving) {
            (Some(kill_at), Some(leaving)) => Some(kill_at.min(leaving)),
            (kill_at, leaving) => kill_at.or(leaving),
        }
    }

    /// Sends a signal to the whole job: to its process group at once, and to what was seen of it elsewhere. What is in
    /// both may get it twice; what is just being forked gets it once at least.
    fn signal(&mut self, signal: i32, processes: &ProcessGroupManager) -> io::Result<()> {
        // Before a signal ends the first process, which is what tells whose the others are.
        self.track(processes);
        let sent = match process::signal_group(self.pid, signal) {
            // Its first process has gone to another group.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            // None of the group may be signalled. What is elsewhere may be.
            sent => sent,
        };
        for orphan in &self.orphans {
            // One that has ended meanwhile is tracked no more, here and below.
            let _ = processes.track_backend_pid(*orphan);
        }
        for pid in self.orphans.iter().chain([&self.pid]) {
            match processes.signal_backend(*pid, signal) {
                // Without a descriptor there is still the number, which nobody else is given before our child is waited for.
                Err(error) if is_exhausted(error.os_error()) && child::find(*pid) == Child::Alive => {
                    let _ = Handle::by_number(*pid).and_then(|process| process.signal(signal));
                }
                _ => {}
            }
        }
        sent
    }

    /// Why its end is waited for no longer, if it is not. It was killed a while ago and has not ended: it may not be
    /// signalled, as a set-user-ID program that has changed its user, and goes on for as long as it likes; or it waits for a
    /// device, or its tracer has not heard of its end, and nobody is left to wait for it (`is_last`).
    pub(crate) fn beyond_reach(
        &mut self,
        now: Instant,
        is_last: bool,
        processes: &ProcessGroupManager,
    ) -> Option<&'static str> {
        let killed_at = self.killed_at.filter(|_| !self.has_ended)?;
        if now.saturating_duration_since(killed_at) < DYING {
            return None;
        }
        let is_refused = self.handle.signal(0).is_err_and(|error| error.raw_os_error() == Some(libc::EPERM));
        let why = if is_refused { "it may not be signalled, and goes on" } else { "it was killed, and has not ended" };
        let is_given_up = is_refused || is_last;
        if is_given_up {
            processes.untrack_backend_pid(self.pid);
        }
        if is_given_up || !std::mem::replace(&mut self.is_delay_said, true) {
            self.complain("end", Err(io::Error::new(io::ErrorKind::Other, why)));
        }
        is_given_up.then_some(why)
    }

    /// The status once nothing of it is left. What the first process has left behind is told to end when that has
    /// ended, and killed after a grace: run again beside what was left, a job would be there twice.
    pub(crate) fn try_finish(
        &mut self,
        now: Instant,
        grace: Duration,
        processes: &Arc<ProcessGroupManager>,
    ) -> io::Result<Option<ExitStatus>> {
        if !self.has_ended {
            return Ok(None);
        }
        if !self.orphans.is_empty() {
            match self.leaving {
                None => {
                    // What comes to light once its time is over has none left.
                    let was_killed = matches!(self.state, State::Ending { kill_at: None, .. });
                    self.leaving = now.checked_add(if was_killed { Duration::ZERO } else { grace });
                    let told = self.signal(libc::SIGTERM, processes);
                    let told = told.and_then(|()| self.signal(libc::SIGCONT, processes));
                    self.complain("end", told);
                    return Ok(None);
                }
                Some(due) if now < due => return Ok(None),
                Some(_) if !self.has_killed_orphans => {
                    self.has_killed_orphans = true;
                    self.leaving = now.checked_add(DYING);
                    let killed = self.signal(libc::SIGKILL, processes);
                    self.complain("kill", killed);
                    return Ok(None);
                }
                Some(_) => {
                    let why = "what it has left behind was killed, and has not ended";
                    self.complain("end all of", Err(io::Error::new(io::ErrorKind::Other, why)));
                }
            }
        }
        if self.is_tracked {
            processes.untrack_backend_pid(self.pid);
        }
        self.handle.take_status()
    }
}
