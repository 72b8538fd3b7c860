//! The C interface as a C programmer meets it: the header, the two libraries, and a server that is linked with one of
//! them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use common::{wait_until, DEADLINE};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Where the libraries are built, beside what this test was built from.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi")
}

#[track_caller]
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    output
}

/// Builds the example server, and the library that it is linked with: by the commands in `src/guide/c.md`, with other
/// folders.
fn make(goal: &str) {
    let variables = ["OUT", "TARGET_DIR"].map(|name| format!("{name}={}", target().display()));
    let mut make = Command::new("make");
    make.args(["-C", "examples/c", "--silent", "WERROR=-Werror", goal]).args(variables).current_dir(ROOT);
    run(&mut make);
}

/// The example server with the static library, beside it.
fn busy_server() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        make("all");
        target().join("busy_server")
    })
}

/// The folder with the shared library, and the server that is linked with it in the one above.
fn shared_library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        make("shared");
        target().join("release")
    })
}

/// A program of this folder, with the static library.
fn program(name: &str) -> PathBuf {
    busy_server();
    let [source, include] = [format!("tests/capi/{name}.c"), "src/capi".into()].map(|path| Path::new(ROOT).join(path));
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c11", "-g", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"]).arg(include).arg("-o");
    compiler.arg(target().join(name)).arg(source).arg(target().join("release/libhighwater.a"));
    run(compiler.args(["-lpthread", "-ldl", "-lm"]));
    target().join(name)
}

fn host() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| program("host"))
}

fn guest() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    Command::new(BUILT.get_or_init(|| program("guest")))
}

/// Runs one of the tests in `waiting.c`.
#[track_caller]
fn waiting(name: &str) {
    run(Command::new(waiting_program()).arg(name));
}

fn waiting_program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| program("waiting"))
}

/// Runs one of the tests in `jobs.c`.
#[track_caller]
fn jobs(name: &str) {
    run(Command::new(jobs_program()).arg(name));
}

fn jobs_program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| program("jobs"))
}

/// Valgrind, to run what comes next; what it finds is an exit status of 99, and in the log. What is only possibly lost
/// is the C library's: a thread that has not quite ended when the process does.
fn valgrind(log: &Path) -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--leak-check=full", "--errors-for-leak-kinds=definite,indirect", "--error-exitcode=99"]);
    valgrind.arg("--child-silent-after-fork=yes").arg(format!("--log-file={}", log.display()));
    valgrind
}

fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: no {tool}");
    }
    found
}

#[test]
fn the_header_and_the_exports_agree() {
    let symbols = run(Command::new("nm").args(["-D", "--defined-only"]).arg(shared_library().join("libhighwater.so")));
    let symbols = String::from_utf8(symbols.stdout).unwrap();
    let exported: BTreeSet<_> = symbols.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    let header = fs::read_to_string(Path::new(ROOT).join("src/capi/highwater.h")).unwrap();
    let declared: BTreeSet<_> = header
        .lines()
        // A declaration begins at the left and is not a comment.
        .filter(|line| line.starts_with(|first: char| first.is_ascii_alphabetic()) && line.contains('('))
        .filter_map(|line| line.split_once('(')?.0.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("hw_"))
        .collect();
    assert!(declared.len() > 15, "{declared:?}");
    assert_eq!(declared, exported);
}

#[test]
fn the_header_is_c11_and_cpp17_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let include = format!("-I{ROOT}/src/capi");
    let body = "#include \"highwater.h\"\nint main(void) { hw_limits l = HW_LIMITS_INIT; hw_work w = HW_WORK_INIT; \
                hw_snapshot s = HW_SNAPSHOT_INIT; hw_callbacks c = HW_CALLBACKS_INIT; \
                hw_settings t = HW_SETTINGS_INIT; hw_reason r = HW_REASON_INIT; hw_holder h = HW_HOLDER_INIT; \
                hw_work_usage u = HW_WORK_USAGE_INIT; hw_jobs_settings j = HW_JOBS_SETTINGS_INIT; \
                hw_job_options o = HW_JOB_OPTIONS_INIT; hw_outcome e = HW_OUTCOME_INIT; \
                return (int)(l.size + w.size + s.size + c.size + t.size + r.size + h.size + u.size + j.size + o.size + e.size) & \
                hw_is_accepting_work(NULL); }\n";
    for (compiler, standard, file) in [("cc", "-std=c11", "all.c"), ("c++", "-std=c++17", "all.cpp")] {
        let source = folder.path().join(file);
        fs::write(&source, body).unwrap();
        let warnings = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"];
        run(Command::new(compiler).arg(standard).args(warnings).arg(&include).arg(&source));
    }
    // Programs that use it are both as well.
    for program in
        ["examples/c/busy_server.c", "examples/c/prefork_server.c", "tests/capi/waiting.c", "tests/capi/jobs.c"]
    {
        let program = Path::new(ROOT).join(program);
        for (compiler, options) in [("cc", ["-std=c11", "-xc"]), ("c++", ["-std=c++17", "-xc++"])] {
            let warnings = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"];
            run(Command::new(compiler).args(options).args(warnings).arg(&include).arg(&program));
        }
    }
}

/// The example server, ended with the test.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(command: &mut Command) -> Server {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("port ").unwrap().parse().unwrap();
        Server { process, port }
    }

    fn ask(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // One that is refused at once may have closed its end already.
        let _ = writeln!(stream, "{request}");
        stream
    }

    fn answer(mut stream: TcpStream) -> String {
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.trim().to_owned()
    }

    fn resident_megabytes(&self) -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.process.id())).unwrap();
        let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        (pages * 4096) >> 20
    }

    fn terminate(&self) {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM).unwrap();
    }

    /// Asks it to end, and returns whether it was content with that.
    fn end(mut self) -> bool {
        self.terminate();
        let mut status = None;
        wait_until("the server has ended", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Fills the server up, has it refuse, and lets it recover.
fn fill_up(server: &Server, megabytes: u64) {
    assert_eq!(Server::answer(server.ask("1 1")), "done");
    assert!(Server::answer(server.ask("nonsense")).starts_with("expected: "));
    assert!(Server::answer(server.ask("17592186044416 1")).starts_with("expected: "));
    let too_much = Server::answer(server.ask(&format!("{} 1", megabytes * 2)));
    assert!(too_much.starts_with("busy: refused: memory ") && too_much.ends_with("it could never fit"), "{too_much}");

    // Each holds its memory until it hangs up: an eighth at a time does not jump over the warning threshold.
    let mut holding = Vec::new();
    let mut refusal = String::new();
    wait_until("memory that is really there closes the gate", || {
        refusal = Server::answer(server.ask("1 1"));
        if refusal == "done" {
            holding.push(server.ask(&format!("{} 3600000", megabytes / 8)));
        }
        refusal.starts_with("busy: not accepting work: memory ") && !refusal.contains("reserved")
    });
    assert!(refusal.contains("warning threshold of 80 %"), "{refusal}");
    for stream in &holding {
        // One that was refused has been hung up on already.
        let _ = stream.shutdown(Shutdown::Write);
    }
    let answers: Vec<_> = holding.into_iter().map(Server::answer).collect();
    assert!(answers.iter().filter(|answer| *answer == "done").count() >= 4, "{answers:?}");
    assert!(answers.iter().all(|answer| answer == "done" || answer.starts_with("busy: ")), "{answers:?}");
    wait_until("the gate opens again", || Server::answer(server.ask("1 1")) == "done");
}

#[test]
fn a_server_in_c_answers_busy_near_its_limit_and_recovers() {
    let server = Server::start(Command::new(busy_server()).args(["0", "160"]));
    fill_up(&server, 160);
    assert!(server.end());
}

/// Structs have grown since, and functions have come: neither concerns a program that knows of none of it.
#[test]
fn a_program_built_with_the_header_of_0_1_0_runs_with_this_library() {
    let source = Path::new(ROOT).join("tests/capi/of_0_1_0");
    let program = target().join("busy_server_of_0_1_0");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-I"]).arg(&source).arg("-o").arg(&program);
    compiler.arg(source.join("busy_server.c")).arg("-L").arg(shared_library());
    run(compiler.args(["-lhighwater", "-lpthread"]));
    let server = Server::start(Command::new(program).env("LD_LIBRARY_PATH", shared_library()).args(["0", "160"]));
    fill_up(&server, 160);
    assert!(server.end());
}

/// Asks for what does not fit beside what is held, and makes sure that this waits.
fn ask_in_vain(server: &Server, request: &str) -> TcpStream {
    let waiting = server.ask(request);
    waiting.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    if waiting.peek(&mut [0]).is_ok() {
        panic!("answered at once: {}", Server::answer(waiting));
    }
    waiting.set_read_timeout(Some(DEADLINE)).unwrap();
    waiting
}

#[test]
fn a_request_to_the_server_waits_for_room_until_another_ends_it_is_tired_or_the_server_stops() {
    let server = Server::start(Command::new(busy_server()).args(["0", "160"]));
    let hold = || {
        let holding = server.ask("100 3600000");
        wait_until("the memory is there", || server.resident_megabytes() >= 100);
        wait_until("a check has seen it, and it is reserved no more", || {
            let refusal = Server::answer(server.ask("320 1"));
            refusal.starts_with("busy: refused: memory 10") && !refusal.contains("reserved")
        });
        holding
    };
    let holding = hold();
    let waiting = ask_in_vain(&server, "60 1");
    holding.shutdown(Shutdown::Write).unwrap();
    assert_eq!((Server::answer(waiting), Server::answer(holding)), ("done".to_owned(), "done".to_owned()));

    let holding = hold();
    let refusal = Server::answer(ask_in_vain(&server, "60 1"));
    assert!(refusal.starts_with("busy: refused: memory ") && refusal.contains("; waited "), "{refusal}");

    let waiting = ask_in_vain(&server, "60 1");
    server.terminate();
    let refusal = Server::answer(waiting);
    assert!(refusal.starts_with("busy: not accepting work: the monitor is stopped"), "{refusal}");
    holding.shutdown(Shutdown::Write).unwrap();
    assert_eq!(Server::answer(holding), "done");
    assert!(server.end());
}

#[test]
fn workers_that_are_forked_in_c_keep_one_limit_together_and_are_replaced() {
    let server = busy_server().with_file_name("prefork_server");
    common::serves_below_its_limit(Command::new(server).args(["0", "8", "400", "60"]));
}

#[test]
fn the_same_with_the_shared_library() {
    let mut server = Command::new(shared_library().with_file_name("busy_server_shared"));
    let server = Server::start(server.env("LD_LIBRARY_PATH", shared_library()).args(["0", "160"]));
    fill_up(&server, 160);
    assert!(server.end());
}

#[test]
fn the_same_under_valgrind_has_no_leak_and_no_error() {
    if !has("valgrind") {
        return;
    }
    let log = target().join("server.log");
    let server = Server::start(valgrind(&log).arg(busy_server()).args(["0", "400"]));
    fill_up(&server, 400);
    let text = || fs::read_to_string(&log).unwrap_or_default();
    assert!(server.end(), "{}", text());
    assert!(text().contains("ERROR SUMMARY: 0 errors"), "{}", text());
}

#[test]
fn a_host_in_c_is_asked_to_shed_reloads_waits_and_forks() {
    let output = run(&mut Command::new(host()));
    let log = String::from_utf8(output.stdout).unwrap();
    assert!(log.lines().all(|line| line.contains(" event=monitor.")), "a line for each event: {log}");
    for line in [
        "3 monitor started event=monitor.started interval_seconds=0.05",
        "event=monitor.pause_failed_falling_back_to_cancel job_id=\"jöb\\n7\"",
        "event=monitor.limits_updated",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
}

#[test]
fn the_same_host_under_valgrind_has_no_leak_and_no_error() {
    if !has("valgrind") {
        return;
    }
    let log = target().join("host.log");
    let output = valgrind(&log).arg(host()).output().unwrap();
    let text = fs::read_to_string(&log).unwrap_or_default();
    assert!(output.status.success(), "{}{text}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("ERROR SUMMARY: 0 errors"), "{text}");
}

#[test]
fn a_peer_that_hangs_up_ends_nobody() {
    run(guest().arg("socket"));
}

#[test]
fn a_cancelled_thread_ends_before_or_after_a_function_and_never_in_it() {
    run(guest().arg("cancel"));
}

#[test]
fn no_function_changes_errno() {
    run(guest().arg("errno"));
}

#[test]
fn a_waiter_is_served_by_a_finish_and_refused_at_its_deadline() {
    waiting("served");
}

#[test]
fn a_class_has_a_threshold_of_its_own() {
    waiting("classes");
}

#[test]
fn a_cancelled_waiter_loses_no_room_and_others_are_served() {
    waiting("cancel");
}

#[test]
fn a_forked_child_has_no_waiter_and_those_of_its_parent_are_served() {
    waiting("fork");
}

#[test]
fn an_attached_child_is_measured_and_not_reserved() {
    waiting("attach");
}

#[test]
fn a_stop_ends_every_wait_and_permits_outlive_their_monitor() {
    waiting("stop");
}

#[test]
fn a_check_of_the_callers_own_changes_neither_errno_nor_cancellation() {
    waiting("own-check");
}

#[test]
fn holders_are_listed_with_their_labels() {
    waiting("holders");
}

#[test]
fn a_reason_has_the_numbers_that_were_compared() {
    waiting("reasons");
}

#[test]
fn settings_are_those_of_the_monitor() {
    waiting("settings");
}

#[test]
fn a_gauge_of_the_hosts_is_judged_like_what_is_read() {
    waiting("gauges");
}

#[test]
fn processes_that_share_a_ledger_count_each_others_reservations_in_c() {
    waiting("ledger");
}

#[test]
fn floors_and_thresholds_of_one_resource_are_limits() {
    waiting("floors");
}

#[test]
fn a_job_from_c_ends_with_its_code_or_its_signal_and_is_told_once() {
    jobs("ended");
}

#[test]
fn a_job_has_the_folder_the_environment_and_the_output_that_it_was_given() {
    jobs("options");
}

#[test]
fn a_status_that_the_host_has_not_kept_is_lost() {
    jobs("lost");
}

#[test]
fn what_cannot_be_started_says_why_and_the_others_run() {
    jobs("not-started");
}

#[test]
fn a_job_that_takes_too_long_is_ended_and_killed_if_it_is_deaf() {
    jobs("timeout");
}

#[test]
fn jobs_are_cancelled_one_by_one_or_all_whether_they_run_or_wait() {
    jobs("cancel");
}

#[test]
fn a_job_that_is_too_large_never_fits_or_is_given_up_with_its_numbers() {
    jobs("large");
}

#[test]
fn a_bad_argument_of_jobs_is_an_error_and_runs_nothing() {
    jobs("arguments");
}

#[test]
fn a_forked_child_has_no_jobs_and_those_of_its_parent_run_on() {
    jobs("fork");
}

#[test]
fn a_cancelled_thread_ends_after_its_wait_for_a_job() {
    jobs("cancelled-thread");
}

#[test]
fn a_spawn_waits_for_its_start_and_ends_when_all_are_cancelled() {
    jobs("spawn");
}

#[test]
fn costs_are_kept_in_a_file_and_jobs_outlive_their_monitor() {
    jobs("costs");
}

#[test]
fn waiting_has_no_leak_and_no_error_under_valgrind() {
    if !has("valgrind") {
        return;
    }
    let log = target().join("waiting.log");
    let output = valgrind(&log).arg(waiting_program()).output().unwrap();
    let text = fs::read_to_string(&log).unwrap_or_default();
    assert!(output.status.success(), "{}{text}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("ERROR SUMMARY: 0 errors"), "{text}");
}

#[test]
fn jobs_have_no_leak_and_no_error_under_valgrind() {
    if !has("valgrind") {
        return;
    }
    let log = target().join("jobs.log");
    // But for `not-started`, because valgrind makes of vfork(2) a fork(2), which hides from posix_spawn(3) that a program is
    // not there; and `fork`, because what a child leaves to its parent is lost in the child.
    let names =
        ["ended", "options", "lost", "timeout", "cancel", "large", "arguments", "cancelled-thread", "spawn", "costs"];
    let output = valgrind(&log).arg(jobs_program()).args(names).output().unwrap();
    let text = fs::read_to_string(&log).unwrap_or_default();
    assert!(output.status.success(), "{}{text}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("ERROR SUMMARY: 0 errors"), "{text}");
}
