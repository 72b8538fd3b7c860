//! Tells a blocking Linux program how much more work it can take.
//!
//! # When to use it
//!
//! In a program with threads and no async runtime that starts processes, or takes on work whose memory is hard to
//! foresee: a job runner, a build daemon, a server with a thread per connection. To look at *other* processes or at the
//! whole machine, use the `sysinfo` or `procfs` crate; to *enforce* a limit, a cgroup or an rlimit; to bound work whose
//! need is known exactly, a counter ([`guide::asking`] tells the cases apart).
//!
//! # How it works
//!
//! A [`ResourceMonitor`] watches the process it is linked into. One thread reads its resident memory and its
//! descendants from `/proc`, and what its control groups allow, once per interval, sooner when callers ask, usage
//! climbs or memory stalls, and judges them against [`ResourceLimits`]. Any thread asks a [`Readiness`] whether to take
//! on more work. Near a limit (80 %) the answer is no, and the [`Verdict`] says why; at 95 % the host is asked to shed
//! work through its [`JobManager`]. What is not known is refused: before the first check, after one that failed, when
//! the last is too old, after a stop, in a forked child.
//!
//! ```
//! use std::time::Duration;
//! use highwater::{ResourceLimits, ResourceMonitor, Work};
//!
//! let limits = ResourceLimits::builder().max_memory_mb(8192).max_processes(50).build()?;
//! let monitor = ResourceMonitor::new(limits);
//! monitor.start(Duration::from_secs(15))?;
//!
//! let readiness = monitor.readiness();
//! match readiness.try_admit(Work::new().processes(2).memory_mb(256)) {
//!     Ok(permit) => drop(permit), // held until what it declared can be seen by a check
//!     Err(verdict) => println!("{verdict}"),
//! }
//! # Ok::<(), highwater::Error>(())
//! ```
//!
//! # Two questions
//!
//! [`is_accepting_work`](Readiness::is_accepting_work) is a state, for lights and load balancers: between asking and
//! starting, a hundred threads can all have been told yes. [`try_admit`](Readiness::try_admit) decides over work, and
//! [`admit`](Readiness::admit) waits for its turn: the [`Permit`] that they grant reserves the declared [`Work`] until it
//! has ended, or a check can see it.
//!
//! # Guides
//!
//! | page | on |
//! | --- | --- |
//! | [asking](guide::asking) | which question to ask; a counter, the gate, or both |
//! | [waiting for room](guide::waiting) | how work waits, in which order it is served, how a permit ends |
//! | [starting](guide::starting) | the order of `daemon`, `start`, `chroot` and `setuid`; fork |
//! | [settings](guide::settings) | every setting and its default; the layout that `proc_root` expects |
//! | [containers](guide::containers) | limits that somebody else has set |
//! | [freed memory](guide::freed_memory) | what an allocator keeps after `free`, and how it is given back |
//! | [starting processes](guide::starting_processes) | programs run as jobs, as many at a time as fit |
//! | [several processes](guide::several_processes) | workers and programs of one container that share a ledger |
//! | [several machines](guide::several_machines) | workers that take from one queue what each can bear |
//! | [builds](guide::builds) | `make`, `ninja` and `cargo` that start no more than fits |
//! | [left behind](guide::left_behind) | processes whose parents have gone |
//! | [load balancers](guide::load_balancers) | health checks, metrics, alerts, async code |
//! | `testing`, with the feature of that name | testing a host without memory, processes or time |
//! | [C](guide::c) | building, linking and asking from C and C++ |
//! | [log events](guide::log_events) | every event and its keys |
//! | [manners](guide::manners) | what it does to its host, and what it does not do |
//! | [from the original](guide::from_the_original) | what differs from the Python monitor that this began as |
#![cfg_attr(docsrs, feature(doc_cfg))]

// The layers, from below to above. tests/layers.rs holds which imports from which.

/// The words that all others speak.
mod vocabulary;

/// Every system call, and every `unsafe` block but those of the C interface.
mod sys;

/// The meaning of checks: a pure state machine.
mod judgement;

/// The readings of the kernel.
mod readers;

/// The calls of the host.
mod host;

/// The threads.
mod engine;

/// The host's processes.
mod pgroup;

/// Tokens for the builds that jobs run.
mod jobserver;

/// Programs that the host has run.
mod jobs;

/// Reservations that processes share.
mod ledger;

/// The objects that the host holds.
mod monitor;

/// The same from C.
#[cfg(feature = "capi")]
mod capi;

#[cfg(feature = "testing")]
pub mod testing;

/// What holds of parsers, for the fuzzers.
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod laws;

#[cfg(doc)]
pub mod guide;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

pub use crate::{
    host::{BoxError, JobManager, ProcessGroup, Snapshots},
    jobs::{
        Extent, Grouping, HeldBack, Job, JobEvent, JobHandle, JobOutput, JobPermit, JobStep, Jobs, JobsBuilder,
        Limiter, Limiters, Origin, Outcome, Progress, Remaining, Stream, Summary, Tally, TaskShortage, Tries,
    },
    jobserver::{JobChannel, JobServer, JobServerBuilder, TokenTally},
    ledger::Ledger,
    monitor::{Gauge, Permit, Readiness, ResourceMonitor, ResourceMonitorBuilder},
    pgroup::{KillOnDrop, KillReport, ProcessGroupManager},
    readers::SystemProbe,
    vocabulary::{
        CgroupMemory, CgroupPids, Class, DiskSpace, Error, ErrorKind, Exhaustion, GaugeName, GaugeReading, Holder,
        MachineMemory, MemoryPressure, MemoryScope, OpenFiles, RecentPressure, Resource, ResourceLimits,
        ResourceLimitsBuilder, ResourceSnapshot, Verdict, Work, WorkUsage,
    },
};
