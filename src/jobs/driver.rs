//! The thread of the jobs (`highwater-jobs`): it alone starts them, and sees their ends. All of them are its children, so
//! it lives for as long as any of them does.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::table::{JobTable, BELL};
use crate::sys::signal;
use crate::sys::thread::{spawn, STACK};
use crate::vocabulary::Error;

const NAME: &str = "highwater-jobs";

/// How long it sleeps where it cannot wait for descriptors.
const BLIND: Duration = Duration::from_millis(10);

/// Starts it, deaf to every signal but the synchronous faults, and the ends of children while nobody handles those. Jobs are
/// started under an empty mask all the same.
pub(super) fn start(table: Arc<JobTable>) -> Result<JoinHandle<()>, Error> {
    spawn(NAME, STACK, move || run(&table)).map_err(|error| Error::thread(NAME, error))
}

fn run(table: &JobTable) {
    let mut readable = Vec::new();
    loop {
        // Whoever handles it may come and go.
        signal::block_only_handled_ends();
        table.look(&readable);
        table.start_waiting();
        if table.is_over() {
            return table.conclude();
        }
        if table.epoll.wait(&mut readable, table.next_timeout()).is_err() {
            thread::sleep(BLIND);
        }
        if readable.contains(&BELL) {
            table.hear_bell();
        }
    }
}
