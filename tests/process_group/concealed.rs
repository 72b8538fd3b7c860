//! Children that may not be looked at: a `/proc` with `hidepid`, and a process of this user that may not be dumped.

use std::path::Path;

use nix::mount::{mount, MsFlags};
use nix::sched::{unshare, CloneFlags};
use nix::sys::prctl::set_dumpable;
use nix::unistd::{setgid, setgroups, setuid, Gid, Uid};

use super::*;

/// In a forked child: becomes nobody, to whom `/proc` shows what may be traced. `false` where that cannot be had.
fn see_only_what_may_be_traced() -> bool {
    let (nobody, options) = (65_534, Some("hidepid=2"));
    let mounted = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>))
        .and_then(|()| mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), options));
    if let Err(error) = mounted {
        println!("skipped: cannot mount proc with hidepid: {error}");
        return false;
    }
    setgroups(&[]).unwrap();
    setgid(Gid::from_raw(nobody)).unwrap();
    setuid(Uid::from_raw(nobody)).unwrap();
    set_dumpable(true).unwrap();
    true
}

fn fork_concealed_child() -> Pid {
    let child = fork_child(|| {
        let _ = set_dumpable(false);
        loop {
            thread::sleep(LONG);
        }
    });
    wait_until("it is concealed", || !Path::new(&format!("/proc/{child}")).exists());
    child
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn children_that_may_not_be_looked_at_are_ended_with_the_others() {
        in_forked_child(|| {
            if !see_only_what_may_be_traced() {
                return Ok(());
            }
            let group = set_up();
            let shown = fork_child(|| loop {
                thread::sleep(LONG);
            });
            let concealed = fork_concealed_child();
            let report = group.kill_all_children(SIGKILL, 3 * SECOND).unwrap();
            ensure(report.survivors.is_empty() && report.signaled.len() == 2, &format!("{report:?}"))?;
            for child in [shown, concealed] {
                let status = waitpid(child, None).unwrap();
                ensure(status == WaitStatus::Signaled(child, Signal::SIGKILL, false), &format!("{status:?}"))?;
            }
            Ok(())
        });
    }
}
