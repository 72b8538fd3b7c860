//! HAProxy's agent-check: one line for each connection (HAProxy configuration manual, "agent-check").

use std::io::Write;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use crate::service::Service;

/// Answers for ever.
pub(crate) fn answer(listener: &TcpListener, service: &Service) {
    for stream in listener.incoming() {
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                // Without descriptors it would fail again at once, and for as long as there are none.
                log::error!("the agent could not accept a connection: {error}");
                thread::sleep(Duration::from_secs(1));
                continue;
            }
        };
        let line = match service.weight() {
            // `ready` takes back an earlier `drain`.
            Some(percent) => format!("ready up {percent}%\n"),
            None => "drain\n".to_owned(),
        };
        // Who has gone away meanwhile needs no answer.
        let _ = stream.write_all(line.as_bytes());
    }
}
