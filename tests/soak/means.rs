//! Children, limits of this process, and numbers that a seed decides.

use std::thread;

use nix::libc;
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::waitpid;
use nix::unistd::{fork, ForkResult, Pid};

use crate::common::ms;

/// Numbers that a seed decides.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// A limit of this process that is lower for a while.
pub struct Limited(Resource, u64);

impl Limited {
    pub fn to(resource: Resource, soft: u64) -> Limited {
        let (before, hard) = getrlimit(resource).unwrap();
        setrlimit(resource, soft, hard).unwrap();
        Limited(resource, before)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let (_, hard) = getrlimit(self.0).unwrap();
        setrlimit(self.0, self.1, hard).unwrap();
    }
}

/// Children that do nothing.
pub struct Sleepers(pub Vec<Pid>);

impl Sleepers {
    /// So many, or as many as there are numbers for.
    pub fn up_to(count: u64) -> Sleepers {
        let sleeper = || {
            forked(|| loop {
                thread::sleep(ms(1_000_000));
            })
        };
        Sleepers((0..count).map_while(|_| sleeper().ok()).collect())
    }

    pub fn take(mut self) -> Vec<Pid> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        for child in &self.0 {
            kill(*child, Signal::SIGKILL).unwrap();
        }
        for child in &self.0 {
            waitpid(*child, None).unwrap();
        }
    }
}

/// A child that ends when `body` does, or its parent.
pub fn forked(body: impl FnOnce()) -> nix::Result<Pid> {
    // SAFETY: the child may allocate, which glibc allows after fork, and leaves by `_exit`.
    #[allow(unsafe_code)]
    let forked = unsafe { fork() }?;
    if let ForkResult::Parent { child } = forked {
        return Ok(child);
    }
    // SAFETY: it takes numbers alone.
    #[allow(unsafe_code)]
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)
    };
    let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).map_or(101, |()| 0);
    leave(code)
}

pub fn leave(code: i32) -> ! {
    // SAFETY: it ends the process and touches nothing.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(code)
    }
}
