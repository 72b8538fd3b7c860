//! HAProxy's agent-check: one line for each connection (HAProxy configuration manual, "agent-check").

use std::io::Write;
use std::net::TcpListener;

use crate::service::Service;

/// Answers for ever.
pub(crate) fn answer(listener: &TcpListener, service: &Service) {
    for stream in listener.incoming().flatten() {
        let line = match service.weight() {
            // `ready` takes back an earlier `drain`.
            Some(percent) => format!("ready up {percent}%\n"),
            None => "drain\n".to_owned(),
        };
        // Who has gone away meanwhile needs no answer.
        let _ = (&stream).write_all(line.as_bytes());
    }
}
