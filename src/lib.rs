//! Tells a blocking Linux program how much more work it can take.
//!
//! # When to use it
//!
//! In a program with threads and no async runtime that starts processes, or takes on work whose memory is hard to
//! foresee: a job runner, a build daemon, a server with a thread per connection. To look at *other* processes or at the
//! whole machine, use the `sysinfo` or `procfs` crate; to *enforce* a limit, a cgroup or an rlimit; to bound a rate or
//! a number of requests, a semaphore.
//!
//! # How it works
//!
//! A [`ResourceMonitor`] watches the process it is linked into. One thread reads its resident memory and its
//! descendants from `/proc`, and what its control groups allow, once per interval, sooner when callers ask, usage
//! climbs or memory stalls, and judges them against [`ResourceLimits`]. Any thread asks a [`Readiness`] whether to take
//! on more work, which costs a few atomic loads and a clock read. Near a limit (80 %) the answer is no, and the
//! [`Verdict`] says why; at 95 % the host is asked to shed work through its [`JobManager`]. What is not known is
//! refused: before the first check, after one that failed, when the last is too old, after a stop, in a forked child.
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
//! [`is_accepting_work`](Readiness::is_accepting_work) is a state: between asking and starting, a hundred threads can
//! all have been told yes. [`try_admit`](Readiness::try_admit) closes that gap: the [`Permit`] it grants reserves the
//! declared [`Work`] until a check could see it.
//!
//! # Fork
//!
//! In a forked child the gate is closed until the child checks for itself, and [`start`](ResourceMonitor::start) starts
//! anew, with the limits and the manager of the parent: `start(); daemon();` needs one more `start()`. No lock, thread,
//! permit, subscription or descriptor of the parent's is used there. The manager and the logger are the host's: a
//! thread of the parent's may have been in one of them at the fork, so until a call has come back only the monitor's
//! own threads call them there. Of an inherited monitor, memory and descriptors stay until the child ends, because a
//! thread of the parent's may have held them.
//!
//! # In a container
//!
//! Most hosts run where somebody else set the limit. Without being told, the monitor reads at each check
//!
//! - the memory and the tasks of the control groups of the process ([`CgroupMemory`], [`CgroupPids`]), of version 1, 2
//!   or both, from its own up to the highest that can be seen, and judges by the one whose limit leaves the least room.
//!   What the kernel would drop before it refuses more is not counted;
//! - its open descriptors against `RLIMIT_NOFILE` ([`OpenFiles`]), so that work is refused before `EMFILE`;
//! - the pressure on memory ([`MemoryPressure`]), which closes the gate only where the host has set
//!   [a limit](ResourceLimitsBuilder::max_memory_pressure_percent).
//!
//! The kernel is asked to wake the check thread when memory stalls for a twentieth of two seconds, or when a group of
//! version 2 reaches its limit; memory alone is then read at once. `MEMORY_PRESSURE_WATCH` and `MEMORY_PRESSURE_WRITE`
//! (<https://systemd.io/MEMORY_PRESSURE/>) say what to watch instead, or with `/dev/null` that nothing is to be. Where
//! nothing can be armed, the timer goes on and one line in the log says so.
//!
//! All of these are optional: what is not there is not judged; what cannot be read closes nothing, and is said in the
//! verdict and in the log. [`ignore`](ResourceMonitorBuilder::ignore) leaves one out, and [`ResourceLimits::detect`]
//! makes limits of what it finds, for a host that was given none.
//!
//! # Manners
//!
//! The monitor never reaps a child (but for those that a host has a [`ProcessGroupManager`] watch), installs no signal
//! handler, and keeps at most 16 descriptors however many processes there are and however deep the control groups. Its
//! threads (`highwater`, `highwater-act`) block every signal but the synchronous faults; the host's code runs on them
//! under the host's own mask. A hook may panic, block, or call back into the monitor, dropping it included. With `panic
//! = "abort"` a panic ends the process, and nothing can be contained. A logger that blocks blocks the check thread, and
//! the gate closes when the last check is too old.
//!
//! # What is left behind
//!
//! A [`ProcessGroupManager`] keeps the host's processes together, ends what its backends leave behind, and ends
//! everything at a shutdown, without touching a stranger: it goes by who was seen below whom, never by names or by a
//! parent of 1. It is opt-in, and so is all that it changes; its page says [what a subreaper
//! changes](ProcessGroupManager#what-a-subreaper-changes) for a host, and when not to use one.
//!
//! # From C
//!
//! With the feature `capi` the crate is a library for C and C++ as well: `src/capi/highwater.h` declares and documents
//! it. [`JobManager`] is a struct of callbacks there, and the log events come through `hw_set_log`. The README says how
//! to build and link it; `examples/c` is a blocking server that answers "busy" when its gate is closed.
//!
//! # Behind a load balancer
//!
//! A readiness probe asks the gate, and may print the [`Verdict`]; a liveness probe must not, because a full process is
//! not a dead one. `examples/readiness_server` does both, speaks HAProxy's agent-check, and says to Prometheus what
//! there is to alert on; `examples/deploy` has the configuration that CI runs it with.
//!
//! # With an async runtime
//!
//! [`is_accepting_work`](Readiness::is_accepting_work) never blocks, so a task may ask it as it is, and so may it ask
//! for the [`verdict`](Readiness::verdict), which takes a lock that is never held across a reading. What reads files on
//! the calling thread belongs where blocking is fine: [`start`](ResourceMonitor::start) and a first
//! [`check_now`](ResourceMonitor::check_now), which read every process on the machine; later ones; and
//! [`try_admit`](Readiness::try_admit), which takes a check or waits for somebody else's when the last one is old.
//!
//! ```
//! async fn answer(readiness: highwater::Readiness) -> (u16, String) {
//!     if readiness.is_accepting_work() {
//!         (200, "served".to_owned())
//!     } else {
//!         (503, readiness.verdict().to_string())
//!     }
//! }
//! ```
//!
//! # What it does not do
//!
//! It limits nothing by itself. It cannot count what it cannot see: with `/proc` mounted `hidepid=2` and no privileges,
//! descendants that run as another user are invisible, and so is whatever descends from them. It judges by
//! `memory.max`, not by `memory.high`. It is for Linux.
//!
//! # Log events
//!
//! Through the key-value API of [`log`], target `highwater`, key `event`:
//!
//! | level | event | keys |
//! | --- | --- | --- |
//! | info | `monitor.started`, `monitor.stopped` | `interval_seconds` (started) |
//! | info | `monitor.limits_updated` | `old_*` and `new_*` of each limit |
//! | info | `monitor.recovered`, `monitor.degraded_cleared`, `monitor.prune_recovered` | `after_failures` |
//! | info | `monitor.memory_normal` | `usage_mb`, `limit_mb`, `percent`, `changes` |
//! | info | `monitor.processes_normal`, `monitor.open_files_normal` | `count`, `limit`, `percent`, `changes` |
//! | info | `monitor.cgroup_memory_normal`, `monitor.cgroup_pids_normal` | as memory, as processes; and `cgroup` |
//! | info | `monitor.memory_pressure_normal` | `some_avg10`, `limit`, `percent`, `changes` |
//! | info | `monitor.<optional resource>_read_again` | |
//! | info | `monitor.pressure_not_watched` | `error` |
//! | warn | `monitor.<resource>_warning` | as normal |
//! | warn | `monitor.<optional resource>_unread` | `error` |
//! | warn | `monitor.zombies_detected` | `zombie_pids`, `count` |
//! | warn | `monitor.running_late` | `lateness_seconds`, `planned_delay_seconds` |
//! | warn | `monitor.pausing_oldest_job`, `monitor.pause_failed_falling_back_to_cancel`, `monitor.cancelling_oldest_job` | `job_id`, `reason` |
//! | warn | `monitor.no_job_to_shed` | `reason` |
//! | warn | `monitor.prune_stale_failed` | `consecutive_failures`, `error` |
//! | warn | `monitor.process_group_failed` | `hook`, `error` |
//! | error | `monitor.<resource>_critical` | as normal |
//! | error | `monitor.check_failed`, `monitor.degraded`, `monitor.prune_disabled` | `consecutive_failures`, `error` |
//! | error | `monitor.cancel_failed` | `job_id`, `error` |
//! | error | `monitor.hook_panicked` | `hook`, `error` |
//! | error | `monitor.loop_died_unexpectedly` | `thread`, `error` |
//! | error | `monitor.actions_unavailable` | `error` |
//! | debug | `monitor.process_group_cleaned` | `hook`, `pids`, `count` |
//! | info | `pgroup.setup_complete` | `pgid`, `subreaper` |
//! | info | `pgroup.orphan_cleanup` | `signal`, `pids`, `count` |
//! | warn | `pgroup.signaled_children` | `signal`, `pids`, `count`, `survivor_pids`, `survivors` |
//! | warn | `pgroup.permission_denied` | `pid`, `signal` |
//! | error | `pgroup.setup_failed` | `error` |
//! | debug | `pgroup.already_leader` | `pgid` |
//! | debug | `pgroup.reaped_zombie` | `pid`, `exit_status` |
//!
//! A level is logged when entered, `*_normal` once it has held for one settle time; but for a first `*_critical`, at
//! most one line per resource and level in 60 s, with `changes` counting what was left out.

// In the order of the layers: each imports only from those above it in this list.
mod sys;
mod vocabulary; // the words that all others speak // every `unsafe` and every libc call, behind safe signatures

mod judgement; // what checks mean: a pure state machine
mod readers; // what the kernel says

mod host; // where the host is called

mod engine; // the threads
mod pgroup; // the host's processes

mod monitor; // what the host holds

#[cfg(feature = "capi")]
mod capi; // the same from C

pub use crate::{
    host::{BoxError, JobManager, ProcessGroup, Snapshots},
    monitor::{Permit, Readiness, ResourceMonitor, ResourceMonitorBuilder},
    pgroup::{KillOnDrop, KillReport, ProcessGroupManager},
    readers::SystemProbe,
    vocabulary::{
        CgroupMemory, CgroupPids, Error, ErrorKind, MemoryPressure, MemoryScope, OpenFiles, Resource, ResourceLimits,
        ResourceLimitsBuilder, ResourceSnapshot, Verdict, Work,
    },
};
