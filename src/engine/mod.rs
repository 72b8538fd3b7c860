//! The threads: what they share, how they start and stop, and what each of them does.

mod actor;
mod checker;
mod core;
mod lifecycle;
mod worker;

pub(crate) use self::core::{Config, Core, Shared};
pub(crate) use self::lifecycle::{start, stop};

#[cfg(test)]
mod tests;
