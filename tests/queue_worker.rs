//! The example `queue_worker`, with a real Redis on a socket of its own: `.ci/run queue` runs these with none skipped.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use common::groups::{limit_memory, Groups};
use common::{build_example, is_there, wait_until};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use redis::{cmd, Connection, FromRedisValue};

/// How long nothing is heard of a worker before others take what it had.
const LEASE: &str = "2";

fn terminate(child: &Child) {
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
}

/// A Redis that writes down what it is told, and a folder for it and its jobs.
struct Redis {
    folder: tempfile::TempDir,
    server: Option<Child>,
}

impl Redis {
    fn start() -> Option<Redis> {
        if !is_there("redis-server") {
            return None;
        }
        let mut redis = Redis { folder: tempfile::tempdir().unwrap(), server: None };
        redis.run();
        Some(redis)
    }

    fn run(&mut self) {
        let mut server = Command::new("redis-server");
        server.args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--unixsocket"]);
        server.arg(self.socket()).arg("--dir").arg(self.folder.path()).stdout(Stdio::null()).stdin(Stdio::null());
        self.server = Some(server.spawn().unwrap());
        wait_until("Redis answers", || {
            let client = redis::Client::open(self.url()).unwrap();
            client.get_connection().is_ok_and(|mut connection| cmd("PING").exec(&mut connection).is_ok())
        });
    }

    fn end(&mut self) {
        if let Some(mut server) = self.server.take() {
            terminate(&server);
            server.wait().unwrap();
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn connection(&self) -> Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        let words: Vec<&str> = command.split(' ').collect();
        cmd(words[0]).arg(&words[1..]).query(&mut self.connection()).unwrap()
    }

    /// Adds an entry, and returns its name.
    fn add(&self, command: &str) -> String {
        cmd("XADD").arg(&["jobs", "*", "command", command]).query(&mut self.connection()).unwrap()
    }

    /// The fields of what was given up.
    fn dead(&self) -> Vec<Vec<String>> {
        let entries: Vec<(String, Vec<String>)> = self.ask("XRANGE jobs:dead - +");
        entries.into_iter().map(|(_, fields)| fields).collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn command(&self, consumer: &str) -> Command {
        let mut worker = build_example("queue_worker").command();
        worker.args(["--url", &self.url(), "--lease", LEASE, "--consumer", consumer]);
        worker.current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        worker
    }

    /// Runs a worker until nothing is left to do.
    fn work(&self) -> (ExitStatus, String) {
        let output = self.command("once").args(["--once", "--max-processes", "50"]).output().unwrap();
        (output.status, String::from_utf8(output.stderr).unwrap())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.end();
    }
}

/// A worker, and where it tells how many permits it holds.
struct Worker {
    child: Child,
    metrics: String,
}

impl Worker {
    fn start(command: &mut Command) -> Worker {
        Worker::run(command.args(["--metrics", "127.0.0.1:0"]))
    }

    /// One that was told where to say how many permits it holds.
    fn run(command: &mut Command) -> Worker {
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let metrics = line.trim().strip_prefix("metrics at http://").unwrap().strip_suffix("/metrics").unwrap();
        Worker { child, metrics: metrics.to_owned() }
    }

    fn metric(&self, name: &str) -> Option<u64> {
        let mut stream = TcpStream::connect(&self.metrics).ok()?;
        write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    fn ends_well(mut self) {
        let mut status = None;
        wait_until("the worker has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_entry_is_run_and_nothing_is_left() {
    let Some(redis) = Redis::start() else { return };
    let names: BTreeSet<String> = (0..20).map(|_| redis.add("echo $QUEUE_ENTRY >> log")).collect();
    let (status, said) = redis.work();
    assert!(status.success(), "{said}");
    assert_eq!(redis.log().lines().map(str::to_owned).collect::<BTreeSet<_>>(), names);
    assert_eq!((redis.ask::<u64>("XLEN jobs"), redis.dead().len()), (0, 0));
}

#[test]
fn what_cannot_be_done_goes_to_the_dead_stream_with_its_reason() {
    let Some(redis) = Redis::start() else { return };
    let failed = redis.add("exit 7");
    let without: String = redis.ask("XADD jobs * colour red");
    let (status, said) = redis.work();
    assert!(status.success(), "{said}");
    let mut dead = redis.dead();
    dead.sort();
    let expected = [
        ["colour", "red", "entry", &without, "reason", "it has no field `command`"],
        ["command", "exit 7", "entry", &failed, "reason", "exit status: 7"],
    ];
    assert_eq!(dead, expected);
    assert_eq!(redis.ask::<u64>("XLEN jobs"), 0);
}

#[test]
fn a_key_that_is_no_stream_is_refused_by_name() {
    let Some(redis) = Redis::start() else { return };
    redis.ask::<String>("SET jobs text");
    let (status, said) = redis.work();
    assert!(status.code() == Some(1) && said.contains("WRONGTYPE"), "{status}: {said}");
}

/// What stands for a name of the machine or the pod is replaced, and so are addresses, which are not there.
#[test]
fn the_arguments_in_the_deployment_files_start_a_worker() {
    let Some(redis) = Redis::start() else { return };
    let deploy = |file: &str| fs::read_to_string(Path::new("examples/deploy").join(file)).unwrap();
    let unit = deploy("queue-worker@.service");
    let command_line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let of_unit: Vec<String> = command_line.split_whitespace().skip(1).map(str::to_owned).collect();
    let set = deploy("queue-workers.yaml");
    let of_set = set.lines().find_map(|line| line.trim().strip_prefix("args: ")).unwrap();
    let of_set: Vec<String> = serde_json::from_str(of_set).unwrap();
    for arguments in [of_unit, of_set] {
        let arguments = arguments.iter().map(|argument| match argument.as_str() {
            url if url.starts_with("redis://") => redis.url(),
            "0.0.0.0:9100" => "127.0.0.1:0".to_owned(),
            name => name.replace("%H", "machine").replace("%i", "1").replace("$(NAME)", "worker-0"),
        });
        let mut command = build_example("queue_worker").command();
        command.current_dir(&redis.folder).stdin(Stdio::null()).stdout(Stdio::piped()).args(arguments);
        let worker = Worker::run(&mut command);
        redis.add("echo done >> log");
        wait_until("an entry is done", || redis.log() == "done\n");
        assert!(worker.metric("queue_permits_taken_total").is_some());
        terminate(&worker.child);
        worker.ends_well();
        fs::remove_file(redis.folder.path().join("log")).unwrap();
    }
}

#[test]
fn a_worker_waits_for_redis_and_tells_it_later_what_has_ended_meanwhile() {
    let Some(mut redis) = Redis::start() else { return };
    redis.add("echo begun >> log; while [ ! -e go ]; do sleep 0.01; done; echo ended >> log");
    redis.end();
    let worker = Worker::start(redis.command("patient").args(["--once", "--max-processes", "50"]));
    redis.run();
    wait_until("the job runs", || redis.log() == "begun\n");
    redis.end();
    fs::write(redis.folder.path().join("go"), "").unwrap();
    wait_until("the job has ended", || redis.log() == "begun\nended\n");
    redis.run();
    worker.ends_well();
    assert_eq!((redis.ask::<u64>("XLEN jobs"), redis.log().as_str()), (0, "begun\nended\n"));
}

#[test]
fn a_worker_that_is_told_to_stop_gives_back_what_does_not_end() {
    let Some(redis) = Redis::start() else { return };
    redis.add("echo begun >> log; [ -e second ] || sleep 1000");
    let worker = Worker::start(redis.command("stopped").args(["--finish", "0", "--max-processes", "50"]));
    wait_until("the job runs", || !redis.log().is_empty());
    terminate(&worker.child);
    worker.ends_well();
    fs::write(redis.folder.path().join("second"), "").unwrap();
    let began = Instant::now();
    let (status, said) = redis.work();
    assert!(status.success(), "{said}");
    println!("given back and run again after {:?}", began.elapsed());
    assert_eq!((redis.log().as_str(), redis.ask::<u64>("XLEN jobs")), ("begun\nbegun\n", 0));
}

#[test]
fn an_entry_that_ends_its_workers_is_given_up_the_third_time() {
    let Some(redis) = Redis::start() else { return };
    // Its parent is the worker.
    redis.add("kill -9 $PPID");
    for worker in ["first", "second"] {
        let status = redis.command(worker).args(["--once", "--max-processes", "50"]).status().unwrap();
        assert!(!status.success());
    }
    let (status, said) = redis.work();
    assert!(status.success(), "{said}");
    let dead = redis.dead();
    assert!(dead.len() == 1 && dead[0].last().unwrap().starts_with("delivered 2 times"), "{dead:?}");
}

/// The command, begun in a group: a shell enters it, and becomes the command.
fn in_group(command: &Command, group: &Path) -> Command {
    let mut sh = Command::new("sh");
    sh.args(["-c", &format!("echo $$ >{} && exec \"$0\" \"$@\"", group.join("cgroup.procs").display())]);
    sh.arg(command.get_program()).args(command.get_args()).current_dir(command.get_current_dir().unwrap());
    sh.stdin(Stdio::null()).stdout(Stdio::piped());
    sh
}

/// Looks, as long as workers work, whether more is delivered to one than it has permits for.
fn referee(redis: &Redis, workers: &[(&str, &Worker)]) {
    for (name, worker) in workers {
        // In this order, the permits are no fewer than they were at any time between.
        let Some(returned) = worker.metric("queue_permits_returned_total") else { continue };
        let mut pending = cmd("XPENDING");
        pending.arg(&["jobs", "workers", "-", "+", "1000", *name]);
        let Ok(mut connection) = redis::Client::open(redis.url()).unwrap().get_connection() else { continue };
        let Ok(pending) = pending.query::<Vec<redis::Value>>(&mut connection) else { continue };
        let Some(taken) = worker.metric("queue_permits_taken_total") else { continue };
        let permits = taken - returned;
        assert!(pending.len() as u64 <= permits, "{name} has {} entries and {permits} permits", pending.len());
    }
}

#[test]
#[ignore = "run by .ci/run queue"]
fn three_workers_lose_nothing_when_one_is_killed_one_has_less_room_and_redis_ends() {
    const ENTRIES: usize = 300;
    let Some(mut redis) = Redis::start() else { return };
    let mut groups = Vec::new();
    for megabytes in [400, 300, 200] {
        let Some(made) = Groups::new("memory") else { return };
        limit_memory(&made.outer, megabytes << 20);
        groups.push(made);
    }
    // From 5 to 120 MB, each held for a tenth of a second. A lock ends with the job, however that ends.
    let size = |entry: usize| 5 + entry * 47 % 116;
    for entry in 0..ENTRIES {
        let work = format!("dd if=/dev/zero bs={}M count=1 2>/dev/null | sleep 0.1; echo {entry} >> log", size(entry));
        redis.add(&format!("exec flock -n {entry}.lock sh -c '{work}' || echo {entry} at once >> log"));
    }
    let began = Instant::now();
    let names = ["a", "b", "c"];
    let mut workers: Vec<Worker> = (0..3)
        .map(|worker| {
            let mut command = redis.command(names[worker]);
            Worker::start(&mut in_group(command.arg("--once"), &groups[worker].inner))
        })
        .collect();
    let done = |redis: &Redis| redis.log().lines().count();
    let watch_until = |redis: &Redis, workers: &[Worker], ended: usize| {
        wait_until("so many have ended", || {
            let named: Vec<_> = names.into_iter().zip(workers).collect();
            referee(redis, &named);
            done(redis) >= ended
        });
    };
    watch_until(&redis, &workers, ENTRIES / 4);
    let mut killed = workers.pop().unwrap();
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    watch_until(&redis, &workers, ENTRIES / 2);
    // As soon as what is used there is less.
    let limit = groups[0].outer.join("memory.limit_in_bytes");
    wait_until("the group is half as large", || fs::write(&limit, (200_u64 << 20).to_string()).is_ok());
    redis.end();
    redis.run();
    watch_until(&redis, &workers, ENTRIES);
    workers.into_iter().for_each(Worker::ends_well);
    let took = began.elapsed();

    let log = redis.log();
    assert!(!log.contains("at once"), "{log}");
    assert_eq!((redis.ask::<u64>("XLEN jobs"), redis.dead()), (0, vec![]));
    let ended: BTreeSet<usize> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(ended.len(), ENTRIES, "some were lost");
    let work: usize = (0..ENTRIES).map(size).sum();
    println!(
        "{ENTRIES} entries of {work} MB in all in {took:.1?}, {} of them run again",
        log.lines().count() - ended.len()
    );
}
