//! What the gate costs from C, beside the same question from Rust: `hw_is_accepting_work` called by a program in C,
//! which this bench builds with the system's compiler and the static library. And the same for a permit that is granted at
//! once and finished, asked for with and without the readiness to wait.
//!
//! And at what rate an HTTP handler answers `/readyz` under load that asks a monitor, which checks at its demand rate
//! meanwhile, beside the same handler that does not.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use highwater::{Permit, Readiness, ResourceLimits, ResourceMonitor, Work};
use tiny_http::{Response, Server};

const CALLS: u32 = 10_000_000;
const PERMITS: u32 = 1_000_000;
const ROUNDS: usize = 61;
const CLIENTS: usize = 4;
/// As long as what a verdict says.
const TEXT: &str = "accepting work: memory 12.4 MB (no limit), processes 0 (no limit), open files 13 of 1024 (1.3 %)";

const PROGRAM: &str = r#"
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <time.h>
#include "highwater.h"

int main(int argc, char **argv)
{
    hw_monitor *monitor = hw_monitor_new(NULL);
    if (argc != 2 || !monitor || hw_monitor_start(monitor, 1000) != 0)
        return 1;
    struct timespec began, ended;
    volatile bool accepting;
    hw_work work = HW_WORK_INIT;
    work.processes = 1;
    int calls = *argv[1] == 'i' ? CALLS : PERMITS;
    clock_gettime(CLOCK_MONOTONIC, &began);
    if (*argv[1] == 'i')
        for (int call = 0; call < calls; call++)
            accepting = hw_is_accepting_work(monitor);
    else if (*argv[1] == 't')
        for (int call = 0; call < calls; call++)
            hw_permit_finish(hw_try_admit(monitor, &work));
    else
        for (int call = 0; call < calls; call++)
            hw_permit_finish(hw_admit(monitor, &work, HW_FOREVER));
    clock_gettime(CLOCK_MONOTONIC, &ended);
    (void)accepting;
    printf("%f\n", ((ended.tv_sec - began.tv_sec) * 1e9 + (ended.tv_nsec - began.tv_nsec)) / calls);
    hw_monitor_free(monitor);
    return 0;
}
"#;

fn main() {
    // `cargo bench` passes options for criterion, which has no part in this.
    let folder = tempfile::tempdir().unwrap();
    let program = built_in_c(folder.path());
    let from_c = |function: &str| run(Command::new(&program).arg(function)).trim().parse().unwrap();
    let compare = |function: &str, from_rust: fn() -> f64| {
        let (from_rust, from_c) = in_turn(from_rust, || from_c(function));
        let ratio = from_c / from_rust;
        println!(
            "{:<19} {from_rust:.1} ns from Rust, {from_c:.1} ns from C: {ratio:.2} x (medians of {ROUNDS})",
            format!("{function}:")
        );
    };
    compare("is_accepting_work", gate_from_rust);
    compare("try_admit", || permits_from_rust(|readiness, work| readiness.try_admit(work).unwrap()));
    compare("admit", || permits_from_rust(|readiness, work| readiness.admit(work, Duration::MAX).unwrap()));

    let (without, with) = in_turn(|| rate(None), || rate(Some(&started())));
    let share = with / without * 100.0;
    println!(
        "/readyz:            {without:.0} a second without a monitor, {with:.0} with one: {share:.0} % (medians of {ROUNDS})"
    );
}

/// The medians of both, taken in turn, so that both see the same machine.
fn in_turn(mut one: impl FnMut() -> f64, mut other: impl FnMut() -> f64) -> (f64, f64) {
    let (ones, others) = (0..ROUNDS).map(|_| (one(), other())).unzip();
    (median(ones), median(others))
}

fn started() -> ResourceMonitor {
    let monitor = ResourceMonitor::new(ResourceLimits::builder().build().unwrap());
    monitor.start(Duration::from_secs(1)).unwrap();
    monitor
}

fn permits_from_rust(admit: impl Fn(&Readiness, Work) -> Permit) -> f64 {
    let monitor = started();
    let readiness = monitor.readiness();
    let began = Instant::now();
    for _ in 0..PERMITS {
        admit(black_box(&readiness), Work::new().processes(1)).finish();
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(PERMITS)
}

fn gate_from_rust() -> f64 {
    let monitor = started();
    let readiness = monitor.readiness();
    let began = Instant::now();
    for _ in 0..CALLS {
        black_box(black_box(&readiness).is_accepting_work());
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

fn built_in_c(folder: &Path) -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi");
    let library = ["rustc", "--locked", "--release", "--features", "capi", "--crate-type", "staticlib", "--target-dir"];
    run(Command::new("cargo").args(library).arg(&target).current_dir(root));
    let (source, program) = (folder.join("calls.c"), folder.join("calls"));
    std::fs::write(&source, PROGRAM.replace("CALLS", &CALLS.to_string()).replace("PERMITS", &PERMITS.to_string()))
        .unwrap();
    let include = format!("-I{root}/src/capi");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", &include, "-o"]).arg(&program).arg(&source);
    run(compiler.arg(target.join("release/libhighwater.a")).args(["-lpthread", "-ldl", "-lm"]));
    program
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Requests a second that are answered to clients which keep their connections and every core busy.
fn rate(monitor: Option<&ResourceMonitor>) -> f64 {
    let server = Server::http("127.0.0.1:0").unwrap();
    let url = format!("http://{}/readyz", server.server_addr());
    let readiness = monitor.map(ResourceMonitor::readiness);
    let (began, answered, done) = (Instant::now(), AtomicU32::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let servers: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    while let Ok(request) = server.recv() {
                        let (status, text) = match &readiness {
                            Some(readiness) => {
                                let verdict = readiness.verdict();
                                (if verdict.is_accepting() { 200 } else { 503 }, verdict.to_string())
                            }
                            None => (200, TEXT.to_owned()),
                        };
                        let _ = request.respond(Response::from_string(text).with_status_code(status));
                    }
                })
            })
            .collect();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let agent = ureq::agent();
                    while !done.load(Relaxed) {
                        let text = agent.get(&url).call().unwrap().into_string().unwrap();
                        assert!(text.starts_with("accepting work: "));
                        answered.fetch_add(1, Relaxed);
                    }
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(250));
        done.store(true, Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
        let rate = f64::from(answered.load(Relaxed)) / began.elapsed().as_secs_f64();
        servers.iter().for_each(|_| server.unblock());
        rate
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
