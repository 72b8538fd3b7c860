//! The signals by which a terminal stops programs (credentials(7), "Process group membership" and "Sessions"): what the
//! kernel does about one that is not handled.

use std::fs;
use std::iter::successors;

use crate::readers::parse_stat;
use crate::sys::process;

/// Whether a signal stops this process by default, here and now.
pub(super) fn stops(signal: i32) -> bool {
    match signal {
        libc::SIGTSTP => can_be_continued(),
        // Sent for each use of the terminal from the background. By now this process may be in front.
        libc::SIGTTIN | libc::SIGTTOU => can_be_continued() && !process::is_in_front(),
        _ => false,
    }
}

/// Whether there is a shell that could continue this process: the parent of a process of its group, in another group of
/// the same session. Without one the group is orphaned, and the kernel stops nobody in it.
fn can_be_continued() -> bool {
    let parent_of = |pid: &u32| {
        let stat = parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?).ok()?;
        Some(stat.parent).filter(|parent| *parent > 0)
    };
    let group = process::own_group();
    let ancestors = successors(parent_of(&std::process::id()), parent_of);
    let shell = ancestors.into_iter().find(|ancestor| process::group_of(*ancestor) != Some(group));
    shell.is_some_and(|shell| process::session_of(shell) == process::session_of(0))
}
