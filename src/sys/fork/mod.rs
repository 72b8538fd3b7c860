//! The rules of fork, and what the rest of the crate keeps them with.
//!
//! # The need
//!
//! Hosts fork: a daemon after `start`, a server before each worker, a threaded program at any instant. The child is a
//! copy of its parent's memory in which one thread goes on. It has locks that threads held which are not there any
//! more, handles of such threads, and descriptors whose offsets it shares with its parent. Every call of this crate
//! must work there, and none may wait for the parent.
//!
//! # The obvious way, and why not
//!
//! `pthread_atfork(3)` takes all locks before a fork and releases them on both sides. It makes each fork of the host
//! wait for each lock of ours, a check in progress included; it is not called for a `clone(2)`; and it cannot be taken
//! back. The other way, to forbid everything but `exec` in the child, is what most libraries say, and what
//! `start(); daemon();` breaks.
//!
//! # What is done instead
//!
//! Nothing happens at a fork. The child finds out when it next calls, uses nothing of its parent's that a thread could
//! have been changing, and makes its own. So:
//!
//! 1. State that needs a lock lives in a [`PerProcess`], which a child renews. It is not reached around it.
//! 2. Of its parent's state the child reads only atomics, what never changes, and [`ForkCell`]s. The renewed state is
//!    made of these alone.
//! 3. A lock that somebody waits for is a [`Mutex`] of this module. `parking_lot` serves where nobody waits, because
//!    its waiters share a table of the whole process.
//! 4. What was handed out (a permit, a subscription, a guard, a thread) carries a [`ProcessMark`]. Where that is
//!    inherited it does nothing when it is dropped: no join, no release, no signal.
//! 5. Nothing inherited is dropped if the drop could take a lock, wait, or run the host's code. It is leaked instead.
//! 6. No inherited descriptor is used, not even to rewind a listing: the offset is the parent's as well. But for that of a
//!    ledger, which is shared on purpose: it is locked by each process for itself, and never read at an offset.
//!
//! # The cost
//!
//! A load and a comparison per call. A child leaks its parent's state, once per fork in a line of descent, and holds
//! its descriptors until it execs or ends. A child that uses a monitor of its parent's makes everything anew.
//!
//! # What it rests on
//!
//! `getpid(2)` would tell a child from its parent for 140 ns a call. A page that the kernel hands to a forked child as
//! zeroes (`MADV_WIPEONFORK`, `madvise(2)`, Linux 4.14) does so for a load; where there is none, the pid does. The
//! allocator must work in a forked child, as those of glibc and musl do. A child of `vfork(2)` or `posix_spawn(3)`
//! shares its parent's memory until it execs; it must call nothing of this crate, and the standard library's calls
//! nothing.
//!
//! # Orders of memory
//!
//! A fork copies memory at one instant of the thread that forks: what that thread has written or acquired is in the
//! copy, whole. What other threads were writing may be there by half. So an address is published with Release after
//! what it leads to was written, and read with Acquire, here and in [`PerProcess`] and [`ForkCell`]: in a copy of any
//! instant it leads to something whole, or is not there yet. The number of a generation is its own message: Relaxed.

mod cell;
mod list;
mod lock;

use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

pub(crate) use self::cell::ForkCell;
pub(crate) use self::list::GrowingList;
pub(crate) use self::lock::{Condvar, Mutex, PatientMutex};

/// The page, once it is there: one for the process and for its forked descendants, never freed.
static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

/// Generations handed out so far. It lies in ordinary memory, so a forked child goes on from its parent's count.
static GENERATIONS: AtomicU64 = AtomicU64::new(0);

/// The process in which something was made: a load to make, a load and a comparison to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessMark(u64);

impl ProcessMark {
    /// The mark of the calling process.
    #[inline]
    pub(crate) fn here() -> ProcessMark {
        ProcessMark(generation())
    }

    /// Whether the calling process was forked from the one that made this, since then.
    #[inline]
    pub(crate) fn is_inherited(self) -> bool {
        self != ProcessMark::here()
    }
}

/// A number that differs between this process and each of the processes it was forked from. Never 0.
#[inline]
fn generation() -> u64 {
    // Acquire: the page is mapped and marked before its address is stored.
    let page = PAGE.load(Ordering::Acquire);
    // SAFETY: a non-null address is that of a page that was mapped for good, aligned and readable, with nothing but
    // this atomic in it.
    let generation = match unsafe { page.as_ref() } {
        // Relaxed: the number is the whole message.
        Some(generation) => generation.load(Ordering::Relaxed),
        None => 0,
    };
    if generation != 0 {
        generation
    } else {
        first_call()
    }
}

/// The first call in this process: after it started, or after it was forked.
#[cold]
fn first_call() -> u64 {
    let Some(page) = page() else {
        // No such page on this kernel. A pid is never 0, and differs from that of every living ancestor.
        return u64::from(std::process::id());
    };
    // Numbers may be skipped when threads race here; none is handed out twice along a line of descent, because the
    // count was raised before the number could be stored. Relaxed: no other memory is involved.
    let next = GENERATIONS.fetch_add(1, Ordering::Relaxed) + 1;
    match page.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => next,
        Err(winner) => winner,
    }
}

fn page() -> Option<&'static AtomicU64> {
    // Acquire: as in `generation`.
    let mut page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        let mapped = map_wiped_on_fork()?;
        // Release: see `generation`. No lock: a thread of the parent may have been here at the fork.
        page = match PAGE.compare_exchange(ptr::null_mut(), mapped, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => mapped,
            Err(winner) => {
                unmap(mapped);
                winner
            }
        };
    }
    // SAFETY: as in `generation`.
    unsafe { page.as_ref() }
}

const PAGE_BYTES: usize = std::mem::size_of::<AtomicU64>();

fn map_wiped_on_fork() -> Option<*mut AtomicU64> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh private mapping at an address of the kernel's choice touches no memory that exists.
    let page = unsafe { libc::mmap(ptr::null_mut(), PAGE_BYTES, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    let page = page.cast::<AtomicU64>();
    // SAFETY: the range is the mapping made above, private and anonymous as this advice requires.
    if unsafe { libc::madvise(page.cast(), PAGE_BYTES, libc::MADV_WIPEONFORK) } != 0 {
        unmap(page);
        return None;
    }
    Some(page)
}

fn unmap(page: *mut AtomicU64) {
    // SAFETY: the caller mapped it and gave its address to nobody.
    unsafe { libc::munmap(page.cast(), PAGE_BYTES) };
}

/// A value of one process. A forked child finds its parent's, and makes its own from it.
///
/// The values of a line of descent are a list: each process appends one, with a single exchange and no lock, so a child
/// forked at any moment can go on. A child walks past those of its ancestors at each call.
#[derive(Debug)]
pub(crate) struct PerProcess<T> {
    mark: ProcessMark,
    value: ManuallyDrop<T>,
    /// The value of a forked child, or of a child of that one: null until there is one, then never changed.
    successor: AtomicPtr<PerProcess<T>>,
}

impl<T> PerProcess<T> {
    pub(crate) fn new(value: T) -> PerProcess<T> {
        PerProcess {
            mark: ProcessMark::here(),
            value: ManuallyDrop::new(value),
            successor: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The value, if it was made in this process.
    #[inline]
    pub(crate) fn own(&self) -> Option<&T> {
        (!self.mark.is_inherited()).then(|| &*self.value)
    }

    /// The value of this process, wherever in the line of descent it was made; `None` if there is none yet.
    pub(crate) fn current(&self) -> Option<&T> {
        let here = ProcessMark::here();
        let mut node = self;
        while node.mark != here {
            node = node.successor()?;
        }
        Some(&*node.value)
    }

    /// The value of this process, made now from that of the nearest ancestor if there is none.
    pub(crate) fn current_or_renew(&self, renew: impl FnOnce(&T) -> T) -> &T {
        let here = ProcessMark::here();
        let mut node = self;
        while node.mark != here {
            node = match node.successor() {
                Some(successor) => successor,
                None => {
                    let own = Box::into_raw(Box::new(PerProcess::new(renew(&node.value))));
                    // Release: the value is written before its address. Acquire: the winner's was too.
                    return match node.successor.compare_exchange(
                        ptr::null_mut(),
                        own,
                        Ordering::AcqRel,
                        Ordering::Acquire,
                    ) {
                        // SAFETY: it lives for as long as `self`, which owns it from now on and frees it when dropped.
                        Ok(_) => unsafe { &(*own).value },
                        Err(winner) => {
                            // SAFETY: it came from `Box::into_raw` above, and nobody else was given it.
                            drop(unsafe { Box::from_raw(own) });
                            // SAFETY: as above; another thread of this process put it there.
                            unsafe { &(*winner).value }
                        }
                    };
                }
            };
        }
        &node.value
    }

    fn successor(&self) -> Option<&PerProcess<T>> {
        // Acquire: see `current_or_renew`.
        let successor = self.successor.load(Ordering::Acquire);
        // SAFETY: null, or from `Box::into_raw`, and freed by our own drop only.
        unsafe { successor.as_ref() }
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        if !self.mark.is_inherited() {
            // SAFETY: dropped here, once, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
        // An inherited value is lost on purpose: its drop might take a lock that a thread of the parent held at the
        // fork.
        let successor = *self.successor.get_mut();
        if !successor.is_null() {
            // SAFETY: it came from `Box::into_raw`, and nobody can use it through `self` any more.
            drop(unsafe { Box::from_raw(successor) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusty_fork::rusty_fork_test;

    /// Forks; the child exits with whether `body` returned true.
    fn true_in_child(body: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child has the calling thread only, which leaves through `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let code = i32::from(!body());
            // SAFETY: ends the process, without running anything of the parent's.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: `status` is valid to write to, and the child is ours.
        unsafe { libc::waitpid(child, &mut status, 0) };
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }

    rusty_fork_test! {
        #![rusty_fork(timeout_ms = 600_000)]

        #[test]
        fn every_generation_of_forked_children_differs_from_those_above_it() {
            let own = generation();
            assert_eq!(generation(), own);
            assert!(true_in_child(|| {
                let child = generation();
                child != own && child == generation() && true_in_child(|| ![own, child, 0].contains(&generation()))
            }));
            assert_eq!(generation(), own);
        }

        #[test]
        fn a_forked_child_makes_its_own_from_its_parents_and_drops_only_that() {
            struct Loud(u32);
            impl Drop for Loud {
                fn drop(&mut self) {
                    assert_eq!(self.0, std::process::id(), "dropped in a process that did not make it");
                }
            }
            let make = |_: &Loud| Loud(std::process::id());
            let value = PerProcess::new(Loud(std::process::id()));
            assert!(true_in_child(move || {
                let own = std::process::id();
                let renewed = value.own().is_none() && value.current().is_none();
                let renewed = renewed && value.current_or_renew(make).0 == own;
                let renewed = renewed && value.current().map(|value| value.0) == Some(own);
                let grandchild = true_in_child(|| value.current().is_none() && value.current_or_renew(make).0 != own);
                drop(value);
                renewed && grandchild
            }));
        }
    }

    #[test]
    fn threads_that_race_get_one_value() {
        let value = PerProcess::new(String::from("mine"));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(value.current_or_renew(|_| unreachable!()), "mine"));
            }
        });
    }
}
