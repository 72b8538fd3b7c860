//! The host's processes: kept together, cleaned up after, and ended, without touching anybody else's.
//!
//! Decisions are made from what was seen earlier, never from names or guesses, and every signal goes to an identity,
//! never to a bare number.

mod ancestry; // who was seen below whom; reads nothing
mod endings; // orphans between their two signals; sends none itself
mod individual; // a process and no other ever, however fast numbers are given away
mod kill; // the end of everything; never touches what is not below this process
mod manager; // what the host holds
mod registry; // what is known in one process, and how one of its processes is signalled
mod table; // one look at the process table; decides nothing
mod target; // checks of numbers and signals, and what the log is told
mod watched; // a child whose status the host has asked for; takes no other

pub use self::kill::{KillOnDrop, KillReport};
pub use self::manager::ProcessGroupManager;
