//! How the server ends.

use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Instant;

use nix::sys::signal::{kill, killpg, Signal};

use crate::common::{build_example, ms, wait_until};
use crate::instance::{get, Instance, ANY_PORTS};

#[test]
fn it_drains_and_stops_once_no_work_is_in_progress() {
    let mut instance = Instance::start("a", &["--drain-ms", "0"]);
    let holding = instance.hold(1);
    instance.process.signal(Signal::SIGTERM);
    wait_until("it says no", || get(&instance.url("/readyz")) == (503, "draining\n".into(), "a".into()));
    assert_eq!(instance.agent_says(), "drain\n");
    assert_eq!(get(&instance.url("/livez")).0, 200);
    assert_eq!(get(&instance.url("/work?mb=1&ms=1")).0, 200, "served while it drains");
    instance.let_go();
    assert_eq!(holding.join().unwrap(), 500, "answered before it ends");
    assert!(instance.process.ended().success());
}

#[test]
fn it_drains_for_as_long_as_it_was_told() {
    let mut instance = Instance::start("a", &["--drain-ms", "500"]);
    let signalled = Instant::now();
    instance.process.signal(Signal::SIGTERM);
    assert!(instance.process.ended().success());
    assert!(signalled.elapsed() >= ms(500));
}

#[test]
fn work_that_does_not_end_is_waited_for_no_longer_than_told() {
    let mut instance = Instance::start("a", &["--drain-ms", "0", "--stop-ms", "200"]);
    let _holding = instance.hold(1);
    let sleepers = instance.sleepers();
    instance.process.signal(Signal::SIGTERM);
    assert_eq!(instance.process.ended().code(), Some(1));
    for left in sleepers {
        let _ = kill(left, Signal::SIGKILL);
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut instance = Instance::start("a", &["--drain-ms", "600000"]);
    instance.process.signal(Signal::SIGTERM);
    wait_until("it says no", || get(&instance.url("/readyz")).0 == 503);
    instance.process.signal(Signal::SIGINT);
    assert_eq!(instance.process.ended().code(), Some(1));
}

#[test]
fn a_signal_to_the_whole_group_does_not_end_work_in_progress() {
    let mut instance = Instance::start("a", &["--drain-ms", "0"]);
    let url = instance.url("/work?mb=1&ms=5000");
    let working = thread::spawn(move || get(&url));
    // On a very slow machine it may have ended before it is seen.
    wait_until("it is at work", || !instance.sleepers_for("5").is_empty() || working.is_finished());
    killpg(instance.process.pid(), Signal::SIGTERM).unwrap();
    assert_eq!(working.join().unwrap().0, 200);
    assert!(instance.process.ended().success());
}

#[test]
fn a_server_that_cannot_accept_any_more_ends_with_an_error() {
    // Of an odd and an even number of descriptors one runs out in `accept` and the other where the socket is cloned.
    for descriptors in [60, 61] {
        let server = build_example("readiness_server");
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"")).arg(server.path());
        command.args(ANY_PORTS).args(["--drain-ms", "0"]);
        let mut instance = Instance::run(command);
        let _connections: Vec<_> = (0..descriptors).map(|_| TcpStream::connect(&instance.address)).collect();
        assert_eq!(instance.process.ended().code(), Some(1));
    }
}
