//! The readiness server by itself, and a fleet of two behind the real HAProxy and under the real Prometheus, on loopback. The
//! latter are for CI, which installs them; what needs a program that is not there says so and is skipped.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::{build_example, ms, wait_until, DEADLINE};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::Value;

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A readiness server with 200 MB.
struct Instance {
    process: Running,
    address: String,
    agent: String,
    _says: BufReader<ChildStdout>,
}

impl Instance {
    fn start(name: &str, more: &[&str]) -> Instance {
        let fixed = ["--listen", "127.0.0.1:0", "--agent", "127.0.0.1:0", "--max-memory-mb", "200", "--name", name];
        let mut command = build_example("readiness_server").command();
        let mut process = command.args(fixed).args(more).stdout(Stdio::piped()).spawn().unwrap();
        let mut says = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        says.read_line(&mut line).unwrap();
        let (address, agent) = line.trim().strip_prefix("listening on ").unwrap().split_once(", agent on ").unwrap();
        Instance { process: Running(process), address: address.to_owned(), agent: agent.to_owned(), _says: says }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn agent_says(&self) -> String {
        let mut line = String::new();
        TcpStream::connect(&self.agent).unwrap().read_to_string(&mut line).unwrap();
        line
    }

    /// Holds memory until the gate has closed, for so long.
    fn fill(&self, hold: Duration) -> thread::JoinHandle<()> {
        let url = self.url(&format!("/work?mb=165&ms={}", hold.as_millis()));
        // Beside other requests it may be too much at first.
        let filling = thread::spawn(move || wait_until("it is filled", || get(&url).0 == 200));
        wait_until("the gate closes", || get(&self.url("/readyz")).0 == 503);
        filling
    }
}

/// Status, body, and who has answered.
fn get(url: &str) -> (u16, String, String) {
    get_as(url, "*/*")
}

fn get_as(url: &str, accept: &str) -> (u16, String, String) {
    let answer = match ureq::get(url).set("Accept", accept).timeout(DEADLINE).call() {
        Ok(answer) | Err(ureq::Error::Status(_, answer)) => answer,
        Err(error) => return (0, error.to_string(), String::new()),
    };
    let (status, instance) = (answer.status(), answer.header("X-Instance").unwrap_or_default().to_owned());
    (status, answer.into_string().unwrap(), instance)
}

fn has(tool: &str, version: &str) -> bool {
    let found = Command::new(tool).arg(version).output().is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: no {tool}");
    }
    found
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn deploy(file: &str) -> String {
    format!("{}/examples/deploy/{file}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn readiness_comes_and_goes_and_liveness_stays() {
    let instance = Instance::start("a", &[]);
    assert_eq!(get(&instance.url("/work?mb=1&ms=1")), (200, "held 1 MB for 1 ms\n".into(), "a".into()));
    let (status, text, _) = get(&instance.url("/readyz"));
    assert!(status == 200 && text.starts_with("accepting work: memory "), "{text}");
    assert!(instance.agent_says().starts_with("ready up "), "{}", instance.agent_says());

    let filling = instance.fill(ms(1500));
    let (status, text, _) = get_as(&instance.url("/readyz"), "application/json");
    let page: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status, &page["ready"], &page["resource"]),
        (503, &Value::from(false), &Value::from("memory")),
        "{page}"
    );
    assert!(page["reason"].as_str().unwrap().contains(" of 200.0 MB ("), "{page}");
    assert_eq!(instance.agent_says(), "drain\n");
    assert_eq!(get(&instance.url("/livez")).0, 200);
    let refused = ureq::get(&instance.url("/work?mb=1&ms=1")).call();
    let Err(ureq::Error::Status(503, refused)) = refused else { panic!("{refused:?}") };
    assert_eq!(refused.header("Retry-After"), Some("1"));
    filling.join().unwrap();
    wait_until("it is ready again", || get(&instance.url("/readyz")).0 == 200);

    assert_eq!(get(&instance.url("/work?mb=many")).0, 400);
    assert!(get(&instance.url("/work?mb=999999999")).1.contains("it could never fit"));
    assert_eq!(get(&instance.url("/else")).0, 404);
}

#[test]
fn sigterm_drains_first_and_then_stops() {
    let mut instance = Instance::start("a", &["--drain-ms", "1000"]);
    let url = instance.url("/work?mb=1&ms=1500");
    let in_flight = thread::spawn(move || get(&url).0);
    wait_until("the request is being served", || get(&instance.url("/metrics")).1.contains("highwater_processes 1"));
    instance.process.signal(Signal::SIGTERM);
    wait_until("it says no", || get(&instance.url("/readyz")) == (503, "draining\n".into(), "a".into()));
    assert_eq!(instance.agent_says(), "drain\n");
    assert_eq!(get(&instance.url("/work?mb=1&ms=1")).0, 200, "served while it drains");
    assert_eq!(in_flight.join().unwrap(), 200);
    let mut status = None;
    wait_until("it has ended", || {
        status = instance.process.0.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success());
}

#[test]
fn metrics_are_what_promtool_expects_and_many_paths_are_one_label() {
    let instance = Instance::start("a", &[]);
    for path in 0..50 {
        get(&instance.url(&format!("/{path}")));
    }
    let page = get(&instance.url("/metrics")).1;
    assert!(page.contains("http_requests_total{code=\"404\",path=\"other\"} 50"), "{page}");
    assert!(page.contains("highwater_accepting_work 1") && page.contains("highwater_memory_limit_bytes 209715200"));
    if !has("promtool", "--version") {
        return;
    }
    let mut checked = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    checked.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = checked.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "for CI, which installs the programs: cargo test --test fleet -- --include-ignored"]
fn haproxy_sends_traffic_away_from_a_full_instance_and_back_and_no_client_sees_an_error() {
    if !has("haproxy", "-v") {
        return;
    }
    let (a, b) = (Instance::start("a", &[]), Instance::start("b", &[]));
    let front = format!("127.0.0.1:{}", free_port());
    let port = |address: &str| address.rsplit(':').next().unwrap().to_owned();
    let _haproxy = Running(
        Command::new("haproxy")
            .args(["-db", "-f", &deploy("haproxy.cfg")])
            .envs([("HW_FRONT", &front), ("HW_A", &a.address), ("HW_B", &b.address)])
            .envs([("HW_A_AGENT", port(&a.agent)), ("HW_B_AGENT", port(&b.agent))])
            .spawn()
            .unwrap(),
    );
    // Without memory: what was admitted is reserved until the next check, and a hundred requests come between two.
    let url = format!("http://{front}/work?mb=0&ms=5");
    wait_until("the fleet serves", || get(&url).0 == 200);

    let done = AtomicBool::new(false);
    let served = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let count = |instance: usize| served[instance].load(Ordering::Relaxed);
    // So many more requests, by whomever.
    let after = |more: usize, what: &str| {
        let before = count(0) + count(1);
        wait_until(what, || count(0) + count(1) >= before + more);
    };
    thread::scope(|scope| {
        struct Raise<'a>(&'a AtomicBool);
        impl Drop for Raise<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _done = Raise(&done);
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let (status, text, instance) = get(&url);
                    assert_eq!(status, 200, "a client sees an error: {text}");
                    served[usize::from(instance == "b")].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        wait_until("both serve", || count(0) > 20 && count(1) > 20);
        let filling = a.fill(Duration::from_secs(4));
        // The checks of HAProxy come every 200 ms; until then what reaches the full one is tried on the other.
        wait_until("the full one gets nothing any more", || {
            let before = count(0);
            after(40, "the fleet serves");
            count(0) == before
        });
        filling.join().unwrap();
        let before = count(0);
        wait_until("traffic comes back", || count(0) > before + 20);
    });
}

#[test]
#[ignore = "for CI, which installs the programs: cargo test --test fleet -- --include-ignored"]
fn prometheus_scrapes_both_and_returns_what_they_report() {
    if !has("prometheus", "--version") {
        return;
    }
    let (a, b) = (Instance::start("a", &[]), Instance::start("b", &[]));
    let folder = tempfile::tempdir().unwrap();
    fs::copy(deploy("prometheus.yml"), folder.path().join("prometheus.yml")).unwrap();
    let instances = serde_json::json!([{ "targets": [a.address, b.address] }]);
    fs::write(folder.path().join("instances.json"), instances.to_string()).unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let data = folder.path().join("data");
    let _prometheus = Running(
        Command::new("prometheus")
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .spawn()
            .unwrap(),
    );
    let query = |query: &str| -> Vec<(String, f64)> {
        let (status, text, _) = get(&format!("http://{address}/api/v1/query?query={query}"));
        let page: Value = if status == 200 { serde_json::from_str(&text).unwrap() } else { Value::Null };
        let results = page["data"]["result"].as_array().cloned().unwrap_or_default();
        let parse = |result: &Value| {
            let value = result["value"][1].as_str().unwrap().parse().unwrap();
            (result["metric"]["instance"].as_str().unwrap().to_owned(), value)
        };
        results.iter().map(parse).collect()
    };
    let accepting = |instance: &Instance| {
        let found = query("highwater_accepting_work");
        found.into_iter().find(|(address, _)| *address == instance.address).map(|(_, value)| value)
    };
    wait_until("both are scraped", || accepting(&a) == Some(1.0) && accepting(&b) == Some(1.0));
    let filling = a.fill(Duration::from_secs(4));
    wait_until("the full one is seen to be full", || accepting(&a) == Some(0.0) && accepting(&b) == Some(1.0));
    let limits = query("highwater_memory_limit_bytes");
    assert!(limits.len() == 2 && limits.iter().all(|(_, limit)| *limit == 209_715_200.0), "{limits:?}");
    filling.join().unwrap();
}

#[test]
fn the_deployment_files_are_what_the_tests_use_or_parse() {
    if has("haproxy", "-v") {
        let mut command = Command::new("haproxy");
        command.args(["-c", "-f", &deploy("haproxy.cfg")]);
        for (name, value) in
            [("FRONT", "127.0.0.1:1"), ("A", "127.0.0.1:2"), ("A_AGENT", "3"), ("B", "127.0.0.1:4"), ("B_AGENT", "5")]
        {
            command.env(format!("HW_{name}"), value);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for file in ["readiness-server.service", "pod.yaml"] {
        assert!(fs::read_to_string(deploy(file)).unwrap().contains("--listen"), "{}", Path::new(file).display());
    }
}
