//! The threads of a monitor, and the state that they share with its callers.
//!
//! # Who runs where
//!
//! | thread | from | to | does |
//! | --- | --- | --- | --- |
//! | any thread of the host's | | | asks the gate ([`asking`]), waits for room ([`admission`]), takes checks with `start`, `check_now` and admission ([`caller`]) |
//! | `highwater` ([`checker`]) | `start` | `stop` | sleeps until a check is due, takes it, logs what came of it |
//! | `highwater-act` ([`actions`]) | the first check with a manager or a process group set, or with a look into the allocator due | `stop` | calls the host: counts, sheds, keeps house; trims the allocator |
//!
//! A check is judged and published by whoever takes it; what it asks to be done goes through an inbox of one place to
//! the action thread, so that no hook of the host's delays a check. The logger is called on whichever thread has
//! something to say.
//!
//! # Files
//!
//! From below to above; each imports only from those before it.
//!
//! | file | what it is | what it never does |
//! | --- | --- | --- |
//! | `worker` | one thread, which can be stopped without waiting for the host's code | know of monitors |
//! | `hooks` | what the host has set, and how it is called | call or drop anything of it under a lock |
//! | `run` | the state of a run, and the inbox of its action thread | start a thread by itself |
//! | `holders` | the permits that live | know what they have reserved |
//! | `gate_watch` | those who are told when the gate opens or closes | wait for them |
//! | `core` | the state of a monitor in one process | call any of the host's code |
//! | `ledger` | the place among the processes that share a ledger | wait for one of them |
//! | `waiters` | the threads that wait for room, and how they are served | wait |
//! | `permits` | granted work, its attachment and its end | wait for a check |
//! | `gauges` | what the host pushes | take a check |
//! | `checks` | one check, whoever takes it | wait for the host |
//! | `asking` | the questions to the gate, and what keeps their answers young | call the host, wait for a check |
//! | `actions` | the action thread | take a check |
//! | `handover` | the way from a check to the action thread | wait for that thread |
//! | `caller` | the checks that callers take on their own threads | start any thread but the action thread |
//! | `admission` | the admission of work, at once or after a wait | start any thread but the action thread |
//! | `sleeper` | the sleep of the check thread, and what ends it | judge |
//! | `checker` | the check thread | call a hook |
//! | `lifecycle` | `start` and `stop` | hold a lock while it joins a thread |
//! | `stepping` | the time of a monitor whose clock a test moves (feature `testing`) | judge |
//!
//! # Locks
//!
//! Taken in this order, and never the other way round. None is held while the host's code runs or is dropped.
//!
//! 1. `RunState` ([`run`]): which run is on, and who was left behind. Held over the opening and the closing of the
//!    gate.
//! 2. `Core::single_flight`: the buffers of a check, and the right to take one on the monitor's behalf. The only lock
//!    that is held across a reading; callers wait for it no longer than a reading may be old.
//! 3. `Core::judgement`: what checks, limits and permits mean. The words that readers see are written under it.
//! 4. `Core::queue`: the threads that wait for room. Under the judgement's lock alone.
//! 5. `Core::publisher`: the last snapshot, and who subscribed.
//!
//! Each of the others is taken alone, or last: `ActionThread` (held while the thread is spawned, over `WorkerState`),
//! `Inbox`, `Hooks::shedding`, `Core::reports`, the lists of `Holders`, the bells of `GateWatch`, `WorkerState` (one thread's life), and the
//! writers' lock in each `ForkCell`. A forked child has a core of its own, and takes no lock that a thread of the
//! parent's may hold.

mod actions;
mod admission;
mod asking;
mod caller;
mod checker;
mod checks;
mod core;
mod gate_watch;
mod gauges;
mod handover;
mod holders;
mod hooks;
mod ledger;
mod lifecycle;
mod permits;
mod run;
mod sleeper;
#[cfg(feature = "testing")]
mod stepping;
mod waiters;
mod worker;

pub(crate) use self::admission::{admit, try_admit};
pub(crate) use self::caller::check_now;
pub(crate) use self::core::{Config, Core, Shared};
pub(crate) use self::gauges::PushedGauge;
pub(crate) use self::ledger::{Astray, SharedLedger, TakenSlot};
pub(crate) use self::lifecycle::{start, stop};
pub(crate) use self::permits::{
    attach, declare_memory, expect_long, finish, hold_nothing, is_attached_to, is_too_much_memory, join, release,
    set_least, usage, usage_of, Grant,
};

#[cfg(test)]
mod tests;
