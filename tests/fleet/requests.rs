//! What the server answers to whom.

use std::thread;

use minreq::{Method, Request};
use serde_json::Value;

use crate::common::{build_example, wait_until};
use crate::instance::{ask, get, Instance, ANY_PORTS};

#[test]
fn readiness_comes_and_goes_and_liveness_stays() {
    let instance = Instance::start("a", &[]);
    let work = instance.url("/work?mb=1&ms=1");
    assert_eq!(get(&work), (200, "held 1 MB for 1 ms\n".into(), "a".into()));
    let (status, text, _) = get(&instance.url("/readyz"));
    assert!(status == 200 && text.starts_with("accepting work: memory "), "{text}");
    assert!(instance.agent_says().starts_with("ready up "), "{}", instance.agent_says());

    let filling = instance.fill();
    assert_eq!(instance.agent_says(), "drain\n");
    assert_eq!(get(&instance.url("/livez")).0, 200);
    let refused = ask(minreq::get(&work)).unwrap();
    assert_eq!((refused.status_code, refused.header("Retry-After")), (503, Some("1")));
    instance.let_go();
    assert_eq!(filling.join().unwrap(), 500, "its process was killed");
    wait_until("it is ready again", || get(&instance.url("/readyz")).0 == 200);
    wait_until("it works again", || get(&work).0 == 200);
}

#[test]
fn readyz_is_text_or_json_whichever_is_preferred() {
    let instance = Instance::start("a", &[]);
    let readyz = |accept: &str| ask(minreq::get(instance.url("/readyz")).with_header("Accept", accept)).unwrap();
    let (text, json) = ("text/plain; charset=UTF-8", "application/json");
    let cases = [
        ("*/*", text),
        ("", text),
        ("application/json", json),
        ("Application/JSON; charset=utf-8", json),
        ("text/html, application/json;q=0.9", json),
        ("text/plain;q=0.5, application/json; q=0.9", json),
        ("text/plain, application/json;q=0.9", text),
        ("application/json;q=0, */*", text),
        ("application/*, text/*;q=0.1", json),
        ("application/jsonp", text),
    ];
    for (accept, expected) in cases {
        let answer = readyz(accept);
        let found = ["Content-Type", "Vary", "Retry-After"].map(|header| answer.header(header));
        assert_eq!((answer.status_code, found), (200, [Some(expected), Some("Accept"), None]), "{accept}");
    }

    let _filling = instance.fill();
    for (accept, expected) in [("*/*", text), ("application/json", json)] {
        let answer = readyz(accept);
        let found = ["Content-Type", "Vary", "Retry-After"].map(|header| answer.header(header));
        assert_eq!((answer.status_code, found), (503, [Some(expected), Some("Accept"), Some("1")]), "{accept}");
    }
    let page: Value = serde_json::from_str(readyz("application/json").as_str().unwrap()).unwrap();
    assert_eq!((&page["ready"], &page["resource"]), (&Value::from(false), &Value::from("memory")), "{page}");
    assert!(page["reason"].as_str().unwrap().contains(" of 200.0 MB ("), "{page}");
}

#[test]
fn what_cannot_be_done_is_told_apart_from_what_cannot_be_done_now() {
    let instance = Instance::start("a", &[]);
    let cases = [
        (Method::Get, "/work?mb=many", 400, None),
        (Method::Get, "/work?mb=2049", 400, None),
        (Method::Get, "/work?mb=18446744073709551615", 400, None),
        (Method::Get, "/work?ms=600001", 400, None),
        (Method::Get, "/work?mb=2048", 422, None),
        (Method::Get, "/else", 404, None),
        (Method::Post, "/readyz", 405, Some("GET, HEAD")),
        (Method::Delete, "/work", 405, Some("GET, HEAD, POST")),
        (Method::Post, "/work?ms=1", 200, None),
        (Method::Head, "/livez", 200, None),
    ];
    for (method, path, status, allow) in cases {
        let answer = ask(Request::new(method.clone(), instance.url(path))).unwrap();
        assert_eq!((answer.status_code, answer.header("Allow")), (status, allow), "{method:?} {path}");
        assert_eq!(answer.header("Retry-After"), None, "{method:?} {path}");
    }
    assert!(get(&instance.url("/work?mb=2048")).1.contains("it could never fit"));
}

#[test]
fn work_in_progress_leaves_threads_for_probes() {
    let instance = Instance::start("a", &["--threads", "6"]);
    let holding = [instance.hold(0), instance.hold(0)];
    let refused: Vec<_> =
        (0..8).map(|_| instance.url("/work?ms=600000")).map(|url| thread::spawn(move || get(&url).0)).collect();
    for refused in refused {
        assert_eq!(refused.join().unwrap(), 503);
    }
    assert_eq!(instance.metric("work_in_progress"), 2.0);
    assert_eq!(get(&instance.url("/livez")).0, 200);
    assert_eq!(instance.agent_says(), "drain\n");
    let (status, text, _) = get(&instance.url("/readyz"));
    assert_eq!((status, text.as_str()), (503, "as many requests are in progress as there may be\n"));
    let refused = ask(minreq::get(instance.url("/work"))).unwrap();
    assert_eq!((refused.status_code, refused.header("Retry-After")), (503, Some("1")));
    instance.let_go();
    for holding in holding {
        assert_eq!(holding.join().unwrap(), 500);
    }
    wait_until("it is ready again", || get(&instance.url("/readyz")).0 == 200);
}

#[test]
fn memory_of_work_that_has_ended_is_given_back() {
    let mut command = build_example("readiness_server").command();
    command.args(ANY_PORTS).args(["--max-memory-mb", "256"]);
    let instance = Instance::run(command);
    for _ in 0..40 {
        // What has ended is reserved until the next check.
        wait_until("there is room again", || get(&instance.url("/work?mb=16&ms=1")).0 == 200);
    }
    wait_until("it is ready", || get(&instance.url("/readyz")).0 == 200);
    wait_until("little is resident", || instance.metric("highwater_memory_bytes") < f64::from(64 << 20));
}

#[test]
fn the_weight_is_what_the_nearest_resource_leaves() {
    let instance = Instance::start("a", &["--max-processes", "1000"]);
    let _holding = instance.hold(80);
    let weight =
        || instance.agent_says().strip_prefix("ready up ").and_then(|text| text.trim().strip_suffix('%')?.parse().ok());
    // Half of the 160 MB at which the gate closes is left, but for what the server itself takes.
    wait_until("half is left", || weight().is_some_and(|percent: u8| 0 < percent && percent <= 55));
    let _more = instance.hold(1);
    assert_eq!(instance.metric("highwater_processes_limit"), 1000.0);
    for (usage, limit) in [("memory_bytes", "memory_limit_bytes"), ("open_files", "open_files_limit")] {
        let (usage, limit) = (format!("highwater_{usage}"), format!("highwater_{limit}"));
        assert!(0.0 < instance.metric(&usage) && instance.metric(&usage) < instance.metric(&limit), "{usage}");
    }
}

#[test]
fn the_machine_a_disk_and_what_the_service_counts_are_limits_and_metrics() {
    let limits = ["--min-free-disk-mb", "1", "--disk", "/proc", "--min-available-mb", "1", "--max-requests", "5"];
    let instance = Instance::start("a", &limits);
    let floor_of_machine = instance.metric("highwater_machine_memory_floor_bytes");
    let available = instance.metric("highwater_machine_memory_available_bytes");
    assert_eq!(floor_of_machine, f64::from(1 << 20));
    assert!(floor_of_machine < available && available < instance.metric("highwater_machine_memory_total_bytes"));
    // A file system without any room.
    wait_until("the disk is judged", || get(&instance.url("/readyz")).1.contains("disk space"));
    assert_eq!(get(&instance.url("/readyz")).0, 503);
    assert_eq!(instance.metric("highwater_disk_floor_bytes"), f64::from(1 << 20));

    let instance = Instance::start("b", &["--max-requests", "5"]);
    let holding: Vec<_> = (0..4).map(|_| instance.hold(1)).collect();
    wait_until("four of five are too many", || {
        let (status, reason, _) = get(&instance.url("/readyz"));
        status == 503 && reason.contains("requests 4 of 5 (80.0 %)")
    });
    wait_until("a check has taken them over", || instance.metric("highwater_gauge{name=\"requests\"}") == 4.0);
    assert_eq!(instance.metric("highwater_gauge_limit{name=\"requests\"}"), 5.0);
    instance.let_go();
    for holding in holding {
        holding.join().unwrap();
    }
    wait_until("there is room again", || get(&instance.url("/readyz")).0 == 200);
}

#[test]
fn many_paths_are_one_label() {
    let instance = Instance::start("a", &[]);
    for path in 0..50 {
        get(&instance.url(&format!("/{path}")));
    }
    assert_eq!(instance.metric("http_requests_total{code=\"404\",path=\"other\"}"), 50.0);
    assert_eq!(instance.metric("highwater_memory_limit_bytes"), 209_715_200.0);
}
