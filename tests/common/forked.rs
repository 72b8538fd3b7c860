//! Forked children, which run code of a test's.

use std::time::Instant;
use std::{fs, thread};

use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::{fork, ForkResult, Pid};

use super::{ms, wait_until, DEADLINE};

/// Runs `body` in a forked child, which must return a success within the deadline.
pub fn in_forked_child(body: impl FnOnce() -> Result<(), String>) {
    // SAFETY: the child runs code that may allocate, which glibc allows after fork; it leaves with `_exit`.
    #[allow(unsafe_code)]
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => exit_after(body),
        ForkResult::Parent { child } => {
            assert_eq!(wait_with_deadline(child), WaitStatus::Exited(child, 0));
        }
    }
}

/// Ends this process with what came of `body`.
fn exit_after(body: impl FnOnce() -> Result<(), String>) -> ! {
    let code = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(message)) => {
            eprintln!("forked child: {message}");
            1
        }
        Err(_) => 2,
    };
    // SAFETY: `_exit` ends the process and touches nothing.
    #[allow(unsafe_code)]
    unsafe {
        nix::libc::_exit(code)
    }
}

/// In a forked child: ends its first thread, and then the process with what came of `body` on another one.
pub fn without_first_thread(body: impl FnOnce() -> Result<(), String> + Send + 'static) -> ! {
    thread::spawn(|| {
        let has_ended = || fs::read_to_string("/proc/self/stat").unwrap().contains(") Z ");
        wait_until("the first thread has ended", has_ended);
        exit_after(body)
    });
    // SAFETY: it ends this thread alone, as `pthread_exit` does, but for its stack, which stays.
    #[allow(unsafe_code)]
    unsafe {
        nix::libc::syscall(nix::libc::SYS_exit, 0)
    };
    unreachable!("the first thread has ended")
}

/// A forked child, killed and waited for at the end.
pub struct Forked(pub Pid);

impl Forked {
    /// One that runs `body` and then waits for its end.
    pub fn run(body: impl FnOnce() -> Result<(), String>) -> Forked {
        // SAFETY: the child runs code that may allocate, which glibc allows after fork; it leaves with `_exit`.
        #[allow(unsafe_code)]
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => exit_after(|| {
                body()?;
                loop {
                    thread::sleep(DEADLINE);
                }
            }),
            ForkResult::Parent { child } => Forked(child),
        }
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        kill(self.0, Signal::SIGKILL).unwrap();
        waitpid(self.0, None).unwrap();
    }
}

fn wait_with_deadline(child: Pid) -> WaitStatus {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap() {
            WaitStatus::StillAlive if Instant::now() < deadline => thread::sleep(ms(1)),
            WaitStatus::StillAlive => {
                let threads = threads_of(child);
                kill(child, Signal::SIGKILL).unwrap();
                panic!("the forked child hangs: {threads}");
            }
            status => return status,
        }
    }
}

/// Where each thread of a process is in the kernel, as far as we may know.
fn threads_of(process: Pid) -> String {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let of = |task: &fs::DirEntry, file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
    tasks
        .map(|task| ["comm", "wchan", "syscall"].map(|file| of(&task, file).trim().to_owned()).join("; "))
        .collect::<Vec<_>>()
        .join("\n")
}

/// For a child's `body`: what must be true there.
pub fn ensure(condition: bool, what: &str) -> Result<(), String> {
    if condition {
        Ok(())
    } else {
        Err(what.to_string())
    }
}
