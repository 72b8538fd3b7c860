//! The readiness server by itself, and a fleet of two behind the real HAProxy and under the real Prometheus, on
//! loopback. What needs programs that may not be there is for CI, which installs them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
mod deployment;
mod ending;
mod haproxy;
mod instance;
mod prometheus;
mod requests;
