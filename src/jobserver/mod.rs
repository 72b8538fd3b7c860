//! The jobserver: builds below this process start no more at once than the gate allows.
//!
//! - `account`: who has how many tokens. `slot_cost`: what one is taken to cost. `tally`: what became of them. `held_back`:
//!   why the next one is not let out.
//! - `makeflags`: how clients are told, and how this process is. `channel`: the descriptors of one job.
//! - `outer`: the jobserver that this process is itself a client of.
//! - `client`: a job with its channel and its tokens. `offers`: which of them a token is let out to. `learning`: the cost of a
//!   slot, from what jobs use.
//! - `server`: all of them together. `thread`: the thread that lets tokens out. `face`: what the host holds.

mod account;
mod channel;
mod client;
mod face;
mod held_back;
mod learning;
mod makeflags;
mod offers;
mod outer;
mod server;
mod slot_cost;
mod tally;
mod thread;

#[cfg(any(test, fuzzing))]
pub(crate) const LAWS: [crate::laws::Law; 2] = [("makeflags", makeflags::law), ("jobserver", channel::law)];

pub use self::face::{JobChannel, JobServer, JobServerBuilder};
pub use self::tally::TokenTally;
