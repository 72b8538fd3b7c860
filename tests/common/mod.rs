//! What the tests share, a file for each thing.
#![allow(dead_code, unreachable_pub, unused_imports, clippy::unwrap_used, clippy::expect_used)]

mod children;
mod clients;
mod forked;
pub mod groups;
mod jobs;
mod log_capture;
mod prefork;
mod proc_tree;
pub mod runner;
mod waiting;

pub use children::*;
pub use clients::*;
pub use forked::*;
pub use jobs::*;
pub use log_capture::*;
pub use prefork::*;
pub use proc_tree::*;
pub use waiting::*;

use escargot::{CargoBuild, CargoRun};

/// An example, built if it is not yet: cargo builds none when it is asked for one test target alone.
pub fn build_example(name: &str) -> CargoRun {
    CargoBuild::new().example(name).current_release().run().unwrap()
}
