//! The thread of the jobserver (`highwater-token`): it alone lets tokens out and sees them come back. It sleeps until a
//! channel, the end of a job or the gate says that there is something to do.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::server::Server;
use crate::sys::thread::{spawn, STACK};
use crate::vocabulary::Error;

const NAME: &str = "highwater-token";

/// How long it sleeps where it cannot wait for descriptors.
const BLIND: Duration = Duration::from_millis(10);

/// Starts it, deaf to every signal but the synchronous faults.
pub(super) fn start(server: Arc<Server>) -> Result<JoinHandle<()>, Error> {
    spawn(NAME, STACK, move || run(&server)).map_err(|error| Error::thread(NAME, error))
}

fn run(server: &Server) {
    let mut ready = Vec::new();
    loop {
        let timeout = server.turn(&ready);
        let Some(timeout) = timeout else { return };
        if server.wait(&mut ready, timeout).is_err() {
            thread::sleep(BLIND);
        }
    }
}
