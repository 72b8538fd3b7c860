//! The jobserver: builds below this process start no more at once than the gate allows.
//!
//! - `account`: who has how many tokens. `slot_cost`: what one is taken to cost. `tally`: what became of them.
//! - `makeflags`: how clients are told, and how this process is. `channel`: the descriptors of one job.
//! - `outer`: the jobserver that this process is itself a client of.
//! - `server`: all of them together. `thread`: the thread that lets tokens out. `face`: what the host holds.

mod account;
mod channel;
mod face;
mod makeflags;
mod outer;
mod server;
mod slot_cost;
mod tally;
mod thread;

pub use self::face::{JobChannel, JobServer, JobServerBuilder};
pub use self::tally::TokenTally;
