//! The outside: every `unsafe` block and every libc call of the monitor, behind safe signatures.
#![allow(unsafe_code)]

pub(crate) mod bell;
pub(crate) mod child;
pub(crate) mod clock;
pub(crate) mod file;
pub(crate) mod fork;
pub(crate) mod mount;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod reserve;
pub(crate) mod rlimit;
pub(crate) mod signal;
pub(crate) mod socket;

pub(crate) use self::bell::Bell;
pub(crate) use self::clock::{coarse_now, fine_now, thread_cpu_time};
pub(crate) use self::fork::{generation, PerProcess};
pub(crate) use self::signal::SignalMask;
