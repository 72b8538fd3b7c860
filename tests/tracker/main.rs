//! A monitor that remembers processes from check to check says what a plain scan says, whatever processes do.
//!
//! `HIGHWATER_SEED` repeats a run, `HIGHWATER_STEPS` is the number of steps in all tests together.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod actor;
#[path = "../common/mod.rs"]
mod common;
mod driver;
mod model;
mod ops;
mod random;

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use driver::{Driver, Plan};
use rusty_fork::rusty_fork_test;

fn number_from_env(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Takes a share of all steps, in percent, and compares after each.
fn compare(percent: u64, plan: Plan) {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number_from_env("HIGHWATER_SEED").unwrap_or_else(clock);
    let steps = number_from_env("HIGHWATER_STEPS").unwrap_or(10_000) * percent / 100;
    actor::on_stage(|stage| {
        // Where everybody's processes are scanned, a step may cost ten times as much.
        let steps = if stage.is_isolated {
            steps
        } else {
            println!("no pid namespace: process ids are not reused by force, and a tenth of the steps is taken");
            steps / 10
        };
        Driver::new(stage, plan, seed).run(steps);
    });
}

const SMALL: Plan = Plan { is_subreaper: false, most_descendants: 18, crowd: 0 };
const LARGE: Plan = Plan { most_descendants: 60, ..SMALL };

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn a_small_tree_that_loses_its_orphans_is_counted() {
        compare(20, SMALL);
    }

    #[test]
    fn a_small_tree_that_keeps_its_orphans_is_counted() {
        compare(20, Plan { is_subreaper: true, ..SMALL });
    }

    #[test]
    fn a_large_tree_that_loses_its_orphans_is_counted() {
        compare(25, LARGE);
    }

    #[test]
    fn a_large_tree_that_keeps_its_orphans_is_counted() {
        compare(25, Plan { is_subreaper: true, ..LARGE });
    }

    #[test]
    fn a_small_tree_among_many_strangers_is_counted() {
        compare(5, Plan { crowd: 600, ..SMALL });
    }

    #[test]
    fn a_small_tree_that_keeps_its_orphans_among_many_strangers_is_counted() {
        compare(5, Plan { is_subreaper: true, crowd: 600, ..SMALL });
    }
}
