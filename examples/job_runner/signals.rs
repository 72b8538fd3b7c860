//! The signals that the runner acts upon. A thread waits for them and passes them on.

use std::io;
use std::thread;

use crossbeam_channel::{unbounded, Receiver};
use highwater::BoxError;
use nix::unistd::{getpgrp, tcgetpgrp};
use procfs::process::{Process, Stat};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN};
use signal_hook::iterator::Signals;

/// What somebody wants of the runner, or of all processes in front of a terminal. It never reaches the jobs, each of which
/// is a process group of its own: the runner has to do it to them.
const WISHES: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN];

/// The signals that arrive from now on. One that was ignored when the runner was started, as `nohup` does and a shell for
/// what it starts with `&`, stays so, for its jobs too: whoever ignored it wanted it to reach neither.
pub(crate) fn receive() -> Result<Receiver<i32>, BoxError> {
    let ignored = Process::myself()?.status()?.sigign;
    let is_ignored = |signal: i32| ignored & (1 << (signal - 1)) != 0;
    let wishes = WISHES.into_iter().filter(|signal| !is_ignored(*signal));
    // Whoever ignores SIGCHLD, as whoever started this may do, is told no status of a child.
    let mut signals = Signals::new(wishes.chain([SIGCHLD]))?;
    let (sender, receiver) = unbounded();
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if sender.send(signal).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// Whether the runner is to stop for a signal that stops what does not handle it.
pub(crate) fn shall_stop(signal: i32) -> bool {
    match signal {
        SIGTSTP => can_be_continued(),
        // It is sent for each attempt to read the terminal from the background, and by now this may be in front.
        SIGTTIN => can_be_continued() && tcgetpgrp(io::stdin()).is_ok_and(|in_front| in_front != getpgrp()),
        _ => false,
    }
}

/// Whether there is a shell that could continue this process: the parent of a process of its group, in another group of
/// the same session. Without one the kernel stops none of those that leave it to the kernel.
fn can_be_continued() -> bool {
    let stat = |pid| Process::new(pid).and_then(|process| process.stat()).ok();
    let Ok(own) = Process::myself().and_then(|process| process.stat()) else { return false };
    let mut parents = std::iter::successors(stat(own.ppid), |parent: &Stat| stat(parent.ppid));
    parents.find(|parent| parent.pgrp != own.pgrp).is_some_and(|shell| shell.session == own.session)
}
