//! What the gate costs from C, beside the same question from Rust: `hw_is_accepting_work` called by a program in C, which this
//! bench builds with the system's compiler and the static library. Needs the feature `capi`.
//!
//! And at what rate an HTTP handler answers `/readyz` that asks a monitor, which checks at its demand rate meanwhile, beside the
//! same handler that does not.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use highwater::{Readiness, ResourceLimits, ResourceMonitor};
use tiny_http::{Response, Server};

const CALLS: u32 = 20_000_000;
const ROUNDS: usize = 7;

const PROGRAM: &str = r#"
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <time.h>
#include "highwater.h"

int main(void)
{
    hw_monitor *monitor = hw_monitor_new(NULL);
    if (!monitor || hw_monitor_start(monitor, 1000) != 0)
        return 1;
    for (int round = 0; round < ROUNDS; round++) {
        struct timespec began, ended;
        volatile bool accepting;
        clock_gettime(CLOCK_MONOTONIC, &began);
        for (int call = 0; call < CALLS; call++)
            accepting = hw_is_accepting_work(monitor);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        (void)accepting;
        printf("%f\n", ((ended.tv_sec - began.tv_sec) * 1e9 + (ended.tv_nsec - began.tv_nsec)) / CALLS);
    }
    hw_monitor_free(monitor);
    return 0;
}
"#;

fn main() {
    // `cargo bench` passes options for criterion, which has no part in this.
    let (from_rust, from_c) = (nanoseconds_from_rust(), nanoseconds_from_c());
    let ratio = from_c / from_rust;
    println!(
        "is_accepting_work:  {from_rust:.1} ns from Rust, {from_c:.1} ns from C: {ratio:.2} x (medians of {ROUNDS})"
    );

    let monitor = started();
    // In turn, so that both see the same machine.
    let rates: Vec<_> = (0..5).map(|_| (rate(None), rate(Some(monitor.readiness())))).collect();
    let without = median(rates.iter().map(|(without, _)| *without).collect());
    let with = median(rates.iter().map(|(_, with)| *with).collect());
    let share = with / without * 100.0;
    println!(
        "/readyz:            {without:.0} a second without a monitor, {with:.0} with one: {share:.0} % (medians of 5)"
    );
}

fn started() -> ResourceMonitor {
    let monitor = ResourceMonitor::new(ResourceLimits::builder().build().unwrap());
    monitor.start(Duration::from_secs(1)).unwrap();
    monitor
}

fn nanoseconds_from_rust() -> f64 {
    let monitor = started();
    let readiness = monitor.readiness();
    let round = |_| {
        let began = Instant::now();
        for _ in 0..CALLS {
            black_box(black_box(&readiness).is_accepting_work());
        }
        began.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    median((0..ROUNDS).map(round).collect())
}

fn nanoseconds_from_c() -> f64 {
    let root = env!("CARGO_MANIFEST_DIR");
    let folder = tempfile::tempdir().unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi");
    let library = ["rustc", "--locked", "--release", "--features", "capi", "--crate-type", "staticlib", "--target-dir"];
    run(Command::new("cargo").args(library).arg(&target).current_dir(root));
    let (source, program) = (folder.path().join("calls.c"), folder.path().join("calls"));
    let text = PROGRAM.replace("ROUNDS", &ROUNDS.to_string()).replace("CALLS", &CALLS.to_string());
    std::fs::write(&source, text).unwrap();
    let include = format!("-I{root}/src/capi");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", &include, "-o"]).arg(&program).arg(&source);
    run(compiler.arg(target.join("release/libhighwater.a")).args(["-lpthread", "-ldl", "-lm"]));
    let output = run(&mut Command::new(&program));
    median(output.lines().map(|line| line.parse().unwrap()).collect())
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Answers a second of requests of one client that keeps its connection.
fn rate(readiness: Option<Readiness>) -> f64 {
    let server = Arc::new(Server::http("127.0.0.1:0").unwrap());
    let url = format!("http://{}/readyz", server.server_addr());
    let serving = {
        let server = Arc::clone(&server);
        thread::spawn(move || {
            while let Ok(request) = server.recv() {
                let (status, text) = match &readiness {
                    Some(readiness) => {
                        let verdict = readiness.verdict();
                        (if verdict.is_accepting() { 200 } else { 503 }, verdict.to_string())
                    }
                    None => (200, "accepting work: memory 12.0 MB (no limit), processes 0 (no limit)".to_owned()),
                };
                let _ = request.respond(Response::from_string(text).with_status_code(status));
            }
        })
    };
    let agent = ureq::agent();
    let (began, mut answered) = (Instant::now(), 0_u32);
    while began.elapsed() < Duration::from_secs(1) {
        assert_eq!(agent.get(&url).call().unwrap().into_string().unwrap().split(':').next(), Some("accepting work"));
        answered += 1;
    }
    let rate = f64::from(answered) / began.elapsed().as_secs_f64();
    server.unblock();
    serving.join().unwrap();
    rate
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
