//! Threads of ours in a host's process.

use std::io;
use std::thread::{Builder, JoinHandle};

use super::SignalMask;

/// The stack of a thread of ours: what the standard library gives by default. Said here, because it would look for another
/// size in the environment, under a lock that a forked child may find held for ever.
pub(crate) const STACK: usize = 2 << 20;

/// Spawns a thread that is deaf to every signal but the synchronous faults from its first instruction on. The kernel keeps
/// 15 bytes of its name (pthread_setname_np(3)).
pub(crate) fn spawn<T: Send + 'static>(
    name: &'static str,
    stack: usize,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    SignalMask::all_but_faults().with(|| Builder::new().name(name.into()).stack_size(stack).spawn(run))
}
