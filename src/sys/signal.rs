//! Signal masks: our threads hear no signal, the host's code on them hears what the host does.

use std::fmt;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

/// Signals that an instruction of the thread itself raises. If they were blocked, a fault would kill the process
/// without a call of the host's handler.
const FAULTS: [libc::c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS, libc::SIGABRT];

/// The set of signals that a thread blocks (`pthread_sigmask(3)`).
#[derive(Clone, Copy)]
pub(crate) struct SignalMask(libc::sigset_t);

impl SignalMask {
    /// The mask of the calling thread.
    pub(crate) fn current() -> SignalMask {
        let mut mask = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: a null new mask changes nothing, and `mask` is valid to write the old one to.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), mask.as_mut_ptr()) };
        // SAFETY: a sigset_t is plain integers, for which zeroes are valid too.
        SignalMask(unsafe { mask.assume_init() })
    }

    /// All signals that can be blocked, but for the faults.
    pub(crate) fn all_but_faults() -> SignalMask {
        let mut mask = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: `mask` is valid to write to; the call initialises it whole and cannot fail.
        unsafe { libc::sigfillset(mask.as_mut_ptr()) };
        for signal in FAULTS {
            // SAFETY: `mask` was initialised above, and every number is a valid signal's.
            unsafe { libc::sigdelset(mask.as_mut_ptr(), signal) };
        }
        // SAFETY: initialised above.
        SignalMask(unsafe { mask.assume_init() })
    }

    /// Returns `true` if it blocks no signal.
    pub(crate) fn is_empty(&self) -> bool {
        // SAFETY: `self.0` is an initialised mask, and every number is a valid signal's or refused.
        (1..=64).all(|signal| unsafe { libc::sigismember(&self.0, signal) } != 1)
    }

    /// Makes this the mask of the calling thread, and returns the one before.
    pub(crate) fn set(&self) -> SignalMask {
        let mut old = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: `self.0` is an initialised mask and `old` is valid to write to. SIG_SETMASK is a valid request, the
        // only thing the call could refuse.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, old.as_mut_ptr()) };
        // SAFETY: as in `current`.
        SignalMask(unsafe { old.assume_init() })
    }

    /// Runs `code` under this mask, and puts the thread's own back however it ends.
    pub(crate) fn with<R>(&self, code: impl FnOnce() -> R) -> R {
        struct PutBack(SignalMask);
        impl Drop for PutBack {
            fn drop(&mut self) {
                self.0.set();
            }
        }
        let _put_back = PutBack(self.set());
        code()
    }

    fn blocks(&self, signal: libc::c_int) -> bool {
        // SAFETY: the mask is initialised; a number that is no signal's gives -1.
        unsafe { libc::sigismember(&self.0, signal) == 1 }
    }
}

/// Has the calling thread block `SIGCHLD` only while somebody handles it.
///
/// The kernel drops a signal that nobody handles, unless it is sent to a thread that blocks it; and that of a child is sent to the
/// thread that has started it. Blocked there, it interrupts another thread of the host for nothing, and a system call
/// that is not restarted, such as `recv(2)` on a socket with a timeout (signal(7)), fails with `EINTR`. It costs two system calls.
///
/// While a child is being started, the C library blocks every signal (`posix_spawn(3)`): the end of one that ends before its
/// start has returned interrupts as ever, as it does for whoever starts a process on any thread.
pub(crate) fn block_only_handled_ends() {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action changes nothing, and `action` is valid to write the old one to.
    unsafe { libc::sigaction(libc::SIGCHLD, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: a sigaction is plain integers and an optional function, for which zeroes are valid too.
    let action = unsafe { action.assume_init() };
    let is_handled = action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN;
    let how = if is_handled { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    let mut ends = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `ends` is valid to write to; the call initialises it whole and cannot fail.
    unsafe { libc::sigemptyset(ends.as_mut_ptr()) };
    // SAFETY: `ends` was initialised above, and the number is a valid signal's.
    unsafe { libc::sigaddset(ends.as_mut_ptr(), libc::SIGCHLD) };
    // SAFETY: `ends` was initialised above, and a null old mask is allowed.
    unsafe { libc::pthread_sigmask(how, ends.as_ptr(), ptr::null_mut()) };
}

impl fmt::Debug for SignalMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries((1..=64).filter(|&signal| self.blocks(signal))).finish()
    }
}

/// Has a command start its program under an empty mask, whatever the thread that starts it blocks. The program is then
/// started by `fork(2)`, which a program with much memory pays for.
pub(crate) fn unblock_in(command: &mut Command) {
    let unblock = || {
        let mut mask = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: `mask` is valid to write to; the call initialises it whole and cannot fail.
        unsafe { libc::sigemptyset(mask.as_mut_ptr()) };
        // SAFETY: `mask` was initialised above, and a null pointer asks for no old one.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask.as_ptr(), ptr::null_mut()) };
        Ok(())
    };
    // SAFETY: between `fork` and `exec` it makes async-signal-safe calls alone, and touches no memory of others.
    unsafe { command.pre_exec(unblock) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_never_blocked_and_the_rest_is() {
        let mask = SignalMask::all_but_faults();
        assert!(FAULTS.iter().all(|&signal| !mask.blocks(signal)));
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD, libc::SIGHUP, libc::SIGALRM, libc::SIGPIPE] {
            assert!(mask.blocks(signal), "{signal}");
        }
    }

    #[test]
    fn the_mask_is_put_back_after_a_panic() {
        let before = format!("{:?}", SignalMask::current());
        let result = std::panic::catch_unwind(|| {
            SignalMask::all_but_faults().with(|| {
                assert!(SignalMask::current().blocks(libc::SIGTERM));
                std::panic::panic_any(());
            });
        });
        assert!(result.is_err());
        assert_eq!(format!("{:?}", SignalMask::current()), before);
    }
}
