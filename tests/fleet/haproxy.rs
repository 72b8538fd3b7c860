//! Two servers behind HAProxy.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::common::wait_until;
use crate::instance::{ask, deploy, get, Instance, Running};

/// HAProxy as it is deployed, and the socket through which it tells of itself.
struct Haproxy {
    _process: Running,
    front: String,
    folder: TempDir,
}

impl Haproxy {
    fn before(a: &Instance, b: &Instance) -> Haproxy {
        let folder = tempfile::tempdir().unwrap();
        let admin = folder.path().join("admin.cfg");
        let socket = folder.path().join("admin");
        fs::write(&admin, format!("global\n    stats socket {} level admin\n", socket.display())).unwrap();
        // It takes over a socket that is bound already, so that nobody else gets the port meanwhile.
        let front = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = front.local_addr().unwrap();
        let port = |address: &str| address.rsplit(':').next().unwrap().to_owned();
        let process = Command::new("haproxy")
            .args(["-db", "-f", &deploy("haproxy.cfg"), "-f"])
            .arg(admin)
            .envs([("HW_FRONT", "fd@0"), ("HW_A", &a.address), ("HW_B", &b.address)])
            .envs([("HW_A_AGENT", port(&a.agent)), ("HW_B_AGENT", port(&b.agent))])
            .stdin(OwnedFd::from(front))
            .spawn();
        let haproxy = Haproxy { _process: Running(process.unwrap()), front: format!("http://{address}"), folder };
        wait_until("HAProxy tells of itself", || UnixStream::connect(&socket).is_ok());
        wait_until("both are up", || ["a", "b"].iter().all(|server| !haproxy.knows(server, "last_agt").is_empty()));
        haproxy
    }

    fn tell(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(self.folder.path().join("admin")).unwrap();
        writeln!(stream, "{command}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A column of its table of servers.
    fn knows(&self, server: &str, column: &str) -> String {
        let table = self.tell("show stat");
        let place = table.lines().next().unwrap().split(',').position(|name| name == column).unwrap();
        let line = table.lines().find(|line| line.starts_with(&format!("instances,{server},"))).unwrap();
        line.split(',').nth(place).unwrap().to_owned()
    }

    fn weight(&self, server: &str) -> u32 {
        self.knows(server, "weight").parse().unwrap()
    }
}

/// Clients that ask again and again, and may see no error.
struct Traffic {
    done: AtomicBool,
    /// By `a` and by `b`.
    served: [AtomicUsize; 2],
}

impl Traffic {
    fn during(haproxy: &Haproxy, test: impl FnOnce(&Traffic)) {
        let traffic = Traffic { done: AtomicBool::new(false), served: [AtomicUsize::new(0), AtomicUsize::new(0)] };
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        // Without memory: what was admitted is reserved until the next check, and a hundred requests come between two.
        let url = format!("{}/work?ms=5", haproxy.front);
        thread::scope(|scope| {
            let _done = Done(&traffic.done);
            for _ in 0..4 {
                scope.spawn(|| {
                    while !traffic.done.load(Ordering::Relaxed) {
                        let (status, text, instance) = get(&url);
                        assert_eq!(status, 200, "a client sees an error: {text}");
                        let by = ["a", "b"].iter().position(|name| *name == instance).expect("an instance");
                        traffic.served[by].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            wait_until("both serve", || traffic.count(0) > 20 && traffic.count(1) > 20);
            test(&traffic);
        });
    }

    fn count(&self, instance: usize) -> usize {
        self.served[instance].load(Ordering::Relaxed)
    }

    /// Waits until so many more are served by this one.
    fn more(&self, instance: usize, more: usize) {
        let before = self.count(instance);
        wait_until("it serves", || self.count(instance) >= before + more);
    }
}

#[test]
#[ignore = "run by .ci/run fleet, which installs HAProxy"]
fn the_agent_steers_traffic_away_from_a_full_instance_and_back() {
    let (a, b) = (Instance::start("a", &[]), Instance::start("b", &[]));
    let haproxy = Haproxy::before(&a, &b);
    Traffic::during(&haproxy, |traffic| {
        let half = a.hold(80);
        wait_until("it is given less", || (1..=55).contains(&haproxy.weight("a")));
        assert!(haproxy.weight("b") > haproxy.weight("a"));
        let rest = a.hold(85);
        wait_until("it is drained", || haproxy.knows("a", "status") == "DRAIN (agent)");
        wait_until("it gets nothing any more", || {
            let before = traffic.count(0);
            traffic.more(1, 40);
            traffic.count(0) == before
        });
        a.let_go();
        assert_eq!([half, rest].map(|held| held.join().unwrap()), [500, 500]);
        traffic.more(0, 20);
        assert!(haproxy.knows("a", "status").starts_with("UP"));
    });
}

#[test]
#[ignore = "run by .ci/run fleet, which installs HAProxy"]
fn what_a_full_instance_refuses_is_tried_on_the_other_one_if_it_may_be_done_twice() {
    let (a, b) = (Instance::start("a", &[]), Instance::start("b", &[]));
    let haproxy = Haproxy::before(&a, &b);
    // As in the moment between a gate that closes and the agent that says so.
    haproxy.tell("disable agent instances/a");
    Traffic::during(&haproxy, |traffic| {
        let _filling = a.fill();
        let refused = || a.metric("http_requests_total{code=\"503\",path=\"/work\"}");
        let before = refused();
        wait_until("it refuses what others then serve", || refused() > before + 20.0);
        assert!(haproxy.knows("a", "status").starts_with("UP"));
        traffic.more(1, 20);
        // The clients above see no error; who posts does.
        wait_until("what was posted is refused", || {
            let answer = ask(minreq::post(format!("{}/work?ms=5", haproxy.front))).unwrap();
            let by_a = answer.header("X-Instance") == Some("a");
            assert!(answer.status_code == if by_a { 503 } else { 200 }, "{answer:?}");
            by_a
        });
    });
}

#[test]
#[ignore = "run by .ci/run fleet, which installs HAProxy"]
fn clients_see_no_error_while_an_instance_is_stopped() {
    let (mut a, b) = (Instance::start("a", &[]), Instance::start("b", &[]));
    let haproxy = Haproxy::before(&a, &b);
    Traffic::during(&haproxy, |traffic| {
        a.process.signal(Signal::SIGTERM);
        assert!(a.process.ended().success());
        traffic.more(1, 100);
        wait_until("it is known to be gone", || haproxy.knows("a", "status").starts_with("DOWN"));
    });
}
