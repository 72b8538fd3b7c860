//! Guides: what the pages of single items do not say, a page for each question.
//!
//! - [`asking`]: which of the questions a program asks, and when it is not this crate that it needs.
//! - [`waiting`]: how work waits for room, in which order it is served, and how a permit ends.
//! - [`starting`]: in which order a program starts a monitor, detaches, changes its root and drops its privileges.
//! - [`what_is_judged`]: each resource, its source in the kernel, and what it does not see.
//! - [`settings`]: every setting and its default, and what a root that is set instead of `/proc` must hold.
//! - [`containers`]: limits that somebody else has set, found without being told.
//! - [`freed_memory`]: memory that the allocator keeps after it was freed, and how it is given back.
//! - [`left_behind`]: processes whose parents have gone.
//! - [`starting_processes`]: programs run as jobs, as many at a time as fit.
//! - [`several_processes`]: workers and programs of one container that share a ledger.
//! - [`several_machines`]: workers that take from one queue what each can bear.
//! - [`which_job_runner`]: the example `job_runner` beside `xargs`, GNU parallel, `make` and queues.
//! - [`builds`]: `make`, `ninja` and `cargo` that start no more than fits.
//! - [`load_balancers`]: health checks, metrics, alerts, and asking from async code.
//! - [`c`]: how C and C++ build, link and ask.
//! - [`log_events`]: every event and its keys.
//! - [`manners`]: what the library does to the process that it lives in, and what it never does.
//! - [`from_the_original`]: what differs from the Python monitor that this crate began as.

#[cfg(doc)]
use crate::*;

#[doc = include_str!("asking.md")]
pub mod asking {}

#[doc = include_str!("builds.md")]
pub mod builds {}

#[doc = include_str!("c.md")]
pub mod c {}

#[doc = include_str!("containers.md")]
pub mod containers {}

#[doc = include_str!("freed_memory.md")]
pub mod freed_memory {}

#[doc = include_str!("from_the_original.md")]
pub mod from_the_original {}

#[doc = include_str!("left_behind.md")]
pub mod left_behind {}

#[doc = include_str!("load_balancers.md")]
pub mod load_balancers {}

#[doc = include_str!("log_events.md")]
pub mod log_events {}

#[doc = include_str!("manners.md")]
pub mod manners {}

#[doc = include_str!("settings.md")]
pub mod settings {}

#[doc = include_str!("several_machines.md")]
pub mod several_machines {}

#[doc = include_str!("several_processes.md")]
pub mod several_processes {}

#[doc = include_str!("starting.md")]
pub mod starting {}

#[doc = include_str!("starting_processes.md")]
pub mod starting_processes {}

#[doc = include_str!("waiting.md")]
pub mod waiting {}

#[doc = include_str!("what_is_judged.md")]
pub mod what_is_judged {}

#[doc = include_str!("which_job_runner.md")]
pub mod which_job_runner {}
