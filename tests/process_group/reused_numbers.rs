//! Numbers that are given away again within one clock tick, so that number and start time are the same: nobody is
//! signalled, and nobody's status is taken, in the place of another.

use std::time::Instant;

use nix::sys::signal::{signal, SigHandler};

use super::*;

/// How long a number is sought that comes round within a tick.
const PATIENCE: Duration = Duration::from_secs(60);

fn sleep_for_ever() -> i32 {
    loop {
        nix::unistd::pause();
    }
}

fn end(child: Pid) {
    kill(child, Signal::SIGKILL).unwrap();
    waitpid(child, None).unwrap();
}

/// The clock tick in which a process started.
fn start(process: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// A child with the number of one that is gone, which had started at `tick`; `None` when another process was given that
/// number, or the tick is over.
fn twin(number: Pid, tick: u64, life: impl FnOnce() -> i32) -> Option<Pid> {
    fs::write("/proc/sys/kernel/ns_last_pid", (number.as_raw() - 1).to_string()).ok()?;
    let child = fork_child(life);
    if child == number && start(child) == Some(tick) {
        return Some(child);
    }
    end(child);
    None
}

/// A backend with a sleeper below it, which it does not wait for.
fn backend() -> (Pid, Pid) {
    let below = shared_counter();
    let backend = fork_child(|| {
        // SAFETY: no code is run when a child of this process ends.
        #[allow(unsafe_code)]
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.unwrap();
        below.store(fork_child(sleep_for_ever).as_raw() as u32, Ordering::SeqCst);
        sleep_for_ever()
    });
    let deadline = Instant::now() + LONG;
    while below.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < deadline, "the backend starts nobody");
        std::hint::spin_loop();
    }
    (backend, Pid::from_raw(below.load(Ordering::SeqCst) as i32))
}

/// Tries until a twin was met, or the machine has shown that it lets nobody choose.
fn until_met(mut attempt: impl FnMut() -> Option<()>) {
    let deadline = Instant::now() + PATIENCE;
    let mut attempts = 0;
    while Instant::now() < deadline {
        attempts += 1;
        if attempt().is_some() {
            println!("{attempts} attempts");
            return;
        }
    }
    println!("skipped: in {attempts} attempts no number came round within a clock tick");
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn a_child_with_the_number_and_the_tick_of_an_orphan_is_not_ended() {
        let group = set_up();
        until_met(|| {
            let (backend, below) = backend();
            group.track_backend_pid(backend.as_raw() as u32).unwrap();
            let tick = start(below).unwrap();
            kill(below, Signal::SIGKILL).unwrap();
            while state(below.as_raw() as u32).is_some() {
                std::hint::spin_loop();
            }
            let twin = twin(below, tick, sleep_for_ever);
            end(backend);
            let twin = twin?;
            for _ in 0..3 {
                assert_eq!(group.cleanup_orphans().unwrap(), [0_u32; 0]);
                assert_eq!(group.reap_orphaned_backends().unwrap(), [0_u32; 0]);
            }
            assert_eq!(waitpid(twin, Some(WaitPidFlag::WNOHANG)).unwrap(), WaitStatus::StillAlive);
            // Nor is its status taken when it has ended: it was never handed to this process.
            kill(twin, Signal::SIGTERM).unwrap();
            wait_until("it has ended", || state(twin.as_raw() as u32).unwrap().0 == 'Z');
            assert_eq!(group.reap_orphaned_backends().unwrap(), [0_u32; 0]);
            assert_eq!(waitpid(twin, None).unwrap(), WaitStatus::Signaled(twin, Signal::SIGTERM, false));
            Some(())
        });
    }

    #[test]
    fn a_child_with_the_number_and_the_tick_of_a_backend_is_not_signalled() {
        let group = set_up();
        until_met(|| {
            let backend = fork_child(sleep_for_ever);
            let tick = start(backend).unwrap();
            group.track_backend_pid(backend.as_raw() as u32).unwrap();
            end(backend);
            let twin = twin(backend, tick, sleep_for_ever)?;
            assert_eq!(group.signal_backend(backend.as_raw() as u32, SIGKILL).unwrap_err().kind(), ErrorKind::Process);
            assert_eq!(waitpid(twin, Some(WaitPidFlag::WNOHANG)).unwrap(), WaitStatus::StillAlive);
            end(twin);
            Some(())
        });
    }

    #[test]
    fn a_child_with_the_number_and_the_tick_of_a_watched_one_keeps_its_status() {
        let group = set_up();
        until_met(|| {
            let watched = fork_child(sleep_for_ever);
            let tick = start(watched).unwrap();
            group.watch_child(watched.as_raw() as u32).unwrap();
            // Against what was agreed, the host waits for it itself.
            end(watched);
            let twin = twin(watched, tick, || 6)?;
            wait_until("it has ended", || state(twin.as_raw() as u32).unwrap().0 == 'Z');
            assert_eq!(group.exit_status(watched.as_raw() as u32), None);
            assert_eq!(group.reap_orphaned_backends().unwrap(), [0_u32; 0]);
            assert_eq!(waitpid(twin, None).unwrap(), WaitStatus::Exited(twin, 6));
            Some(())
        });
    }

    #[test]
    fn a_process_that_lives_on_after_its_first_tick_is_the_same_one() {
        let group = set_up();
        for _ in 0..20 {
            let (backend, below) = backend();
            group.track_backend_pid(backend.as_raw() as u32).unwrap();
            end(backend);
            wait_until("it is handed to us", || state(below.as_raw() as u32).unwrap().1 == std::process::id());
            assert_eq!(group.cleanup_orphans().unwrap(), [below.as_raw() as u32]);
            clean_up_until_gone(&group, below.as_raw() as u32);
        }
    }
}
