//! Two servers under Prometheus.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::common::wait_until;
use crate::instance::{ask, deploy, get, Instance, Running};

#[test]
#[ignore = "run by .ci/run fleet, which installs Prometheus"]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let instance = Instance::start("a", &[]);
    let page = get(&instance.url("/metrics")).1;
    let mut command = Command::new("promtool");
    let mut checking = command.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    checking.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = checking.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "run by .ci/run fleet, which installs Prometheus"]
fn prometheus_scrapes_both_and_returns_what_they_report() {
    let (a, b) = (Instance::start("a", &[]), Instance::start("b", &[]));
    let folder = tempfile::tempdir().unwrap();
    for file in ["prometheus.yml", "alerts.yml"] {
        fs::copy(deploy(file), folder.path().join(file)).unwrap();
    }
    let instances = serde_json::json!([{ "targets": [a.address, b.address] }]);
    fs::write(folder.path().join("instances.json"), instances.to_string()).unwrap();
    let mut prometheus = Running(
        Command::new("prometheus")
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut says = BufReader::new(prometheus.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let listening = says.find(|line| line.contains("msg=\"Listening on\"")).unwrap();
    let address = listening.rsplit_once("address=").unwrap().1.to_owned();
    thread::spawn(move || says.for_each(drop));
    let api = |path: &str, query: &str| -> Vec<Value> {
        let answer = ask(minreq::get(format!("http://{address}/api/v1/{path}")).with_param("query", query));
        let page: Value =
            answer.ok().and_then(|answer| serde_json::from_slice(answer.as_bytes()).ok()).unwrap_or_default();
        page["data"].get("result").or(page["data"].get("groups")).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let values = |query: &str| {
        let value = |instance: &Instance| {
            let found =
                api("query", query).into_iter().find(|one| one["metric"]["instance"] == instance.address.as_str());
            found.and_then(|one| one["value"][1].as_str()?.parse::<f64>().ok())
        };
        [value(&a), value(&b)]
    };
    let accepting = "highwater_accepting_work";
    wait_until("both are scraped", || values(accepting) == [Some(1.0); 2]);
    assert_eq!(values("highwater_memory_limit_bytes"), [Some(209_715_200.0); 2]);
    wait_until("checks are recent", || {
        values("time() - highwater_last_check_timestamp_seconds < 10").iter().all(Option::is_some)
    });
    let _filling = a.fill();
    wait_until("the full one is seen to be full", || values(accepting) == [Some(0.0), Some(1.0)]);
    let alerts = fs::read_to_string(deploy("alerts.yml")).unwrap().matches("- alert:").count();
    wait_until("the alerts are evaluated", || {
        let rules: Vec<_> =
            api("rules", "").iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect();
        rules.len() == alerts && rules.iter().all(|rule| rule["health"] == "ok")
    });
}
