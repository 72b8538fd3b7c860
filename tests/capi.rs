//! The C interface as a C programmer meets it: the header, the two libraries, and a server that is linked with one of them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

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

/// The documented command, with another target folder.
fn library(kind: &str, file: &str) -> PathBuf {
    let arguments = ["rustc", "--locked", "--release", "--features", "capi", "--crate-type", kind, "--target-dir"];
    run(Command::new("cargo").args(arguments).arg(target()).current_dir(ROOT));
    target().join("release").join(file)
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
    let shared = library("cdylib", "libhighwater.so");
    let symbols = run(Command::new("nm").args(["-D", "--defined-only"]).arg(shared));
    let symbols = String::from_utf8(symbols.stdout).unwrap();
    let exported: BTreeSet<_> =
        symbols.lines().filter_map(|line| line.rsplit(' ').next()).filter(|name| name.starts_with("hw_")).collect();
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
                return (int)(l.size + w.size + s.size + c.size) & hw_is_accepting_work(NULL); }\n";
    for (compiler, standard, file) in [("cc", "-std=c11", "all.c"), ("c++", "-std=c++17", "all.cpp")] {
        let source = folder.path().join(file);
        fs::write(&source, body).unwrap();
        let warnings = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"];
        run(Command::new(compiler).arg(standard).args(warnings).arg(&include).arg(&source));
    }
    // The server is both as well.
    let server = Path::new(ROOT).join("examples/c/busy_server.c");
    for (compiler, options) in [("cc", ["-std=c11", "-xc"]), ("c++", ["-std=c++17", "-xc++"])] {
        let warnings = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"];
        run(Command::new(compiler).args(options).args(warnings).arg(&include).arg(&server));
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

    /// Asks it to end, and returns whether it was content with that.
    fn end(mut self) -> bool {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM).unwrap();
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

fn busy_server() -> PathBuf {
    let make = ["-C", "examples/c", "--silent"];
    let variables = [format!("OUT={}", target().display()), format!("TARGET_DIR={}", target().display())];
    fs::create_dir_all(target()).unwrap();
    run(Command::new("make").args(make).args(variables).current_dir(ROOT));
    target().join("busy_server")
}

/// Fills the server up, has it refuse, and lets it recover.
fn fill_up(server: &Server, megabytes: u64) {
    assert_eq!(Server::answer(server.ask("1 1")), "done");
    assert!(Server::answer(server.ask("nonsense")).starts_with("expected: "));
    let too_much = Server::answer(server.ask(&format!("{} 1", megabytes * 2)));
    assert!(too_much.starts_with("busy: refused: memory ") && too_much.ends_with("it could never fit"), "{too_much}");
    let holding: Vec<_> = (0..8).map(|_| server.ask(&format!("{} 3000", megabytes / 8))).collect();
    let mut refusal = String::new();
    wait_until("the gate closes", || {
        refusal = Server::answer(server.ask("1 1"));
        refusal.starts_with("busy: not accepting work: ")
    });
    assert!(refusal.contains("memory ") && refusal.contains("warning threshold of 80 %"), "{refusal}");
    let answers: Vec<_> = holding.into_iter().map(Server::answer).collect();
    assert!(answers.iter().any(|answer| answer == "done"), "{answers:?}");
    assert!(answers.iter().all(|answer| answer == "done" || answer.starts_with("busy: ")), "{answers:?}");
    wait_until("the gate opens again", || Server::answer(server.ask("1 1")) == "done");
}

#[test]
fn a_server_in_c_answers_busy_near_its_limit_and_recovers() {
    let server = Server::start(Command::new(busy_server()).args(["0", "160"]));
    fill_up(&server, 160);
    assert!(server.end());
}

#[test]
fn the_same_under_valgrind_has_no_leak_and_no_error() {
    if !has("valgrind") {
        return;
    }
    let log = target().join("valgrind.log");
    let server = busy_server();
    let options = ["--leak-check=full", "--show-leak-kinds=definite,indirect,possible", "--error-exitcode=99"];
    let mut command = Command::new("valgrind");
    command.args(options).arg(format!("--log-file={}", log.display())).arg(server).args(["0", "400"]);
    let server = Server::start(&mut command);
    fill_up(&server, 400);
    let text = || fs::read_to_string(&log).unwrap_or_default();
    assert!(server.end(), "{}", text());
    assert!(text().contains("ERROR SUMMARY: 0 errors"), "{}", text());
}
