//! The example `prefork_server`, under clients. That in C is one of the tests of the C interface.
#![allow(clippy::unwrap_used)]

mod common;

#[test]
fn workers_that_are_forked_keep_one_limit_together_and_are_replaced() {
    let mut server = common::build_example("prefork_server").command();
    common::serves_below_its_limit(server.args(["--port", "0", "--workers", "8", "--limit-mb", "400"]));
}
