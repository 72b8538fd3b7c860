//! The jobserver: real builds, and clients that do everything wrong, under the limits of a monitor.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{is_there, ms, ninja, wait_until, wait_within, QuietJobs, DEADLINE};
use highwater::{Job, JobChannel, JobServer, MemoryScope, Resource, ResourceLimits, ResourceMonitor, Work};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use rusty_fork::rusty_fork_test;

/// A jobserver under limits that allow everything, until a test changes them. One at a time: what another starts are
/// descendants of this process as well.
struct Host {
    server: JobServer,
    monitor: ResourceMonitor,
    folder: tempfile::TempDir,
    is_fifo: bool,
    has_clients: std::cell::Cell<bool>,
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

fn processes(most: u64) -> ResourceLimits {
    ResourceLimits::builder().max_processes(most).build().unwrap()
}

impl Host {
    fn new(tokens: usize, is_fifo: bool) -> Host {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let monitor = ResourceMonitor::builder(processes(10_000)).memory_scope(MemoryScope::Tree);
        // A test that leaves none would close the gate.
        let monitor = monitor.ignore(Resource::OpenFiles).build().unwrap();
        let builder = monitor.jobserver().tokens(tokens);
        let server = if is_fifo { builder.fifos_in(folder.path()) } else { builder }.build().unwrap();
        monitor.start(Duration::from_secs(1)).unwrap();
        Host { server, monitor, folder, is_fifo, has_clients: false.into(), _alone: alone }
    }

    fn pipes(tokens: usize) -> Host {
        Host::new(tokens, false)
    }

    /// Starts a command with a channel of its own, in the folder of the host.
    fn spawn(&self, command: &mut Command) -> (Child, JobChannel) {
        let channel = self.server.attach(command.current_dir(&self.folder)).unwrap();
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        channel.serve(child.id()).unwrap();
        (child, channel)
    }

    /// A made client: a program that sleeps, whose channel is in the hands of the test.
    fn client(&self) -> Client {
        let mut sleep = Command::new("sleep");
        sleep.arg("1000");
        let (child, channel) = self.spawn(&mut sleep);
        let ends = Ends::of(&child, self.is_fifo);
        let mut client = Client { child, channel, ends };
        if !self.has_clients.replace(true) {
            // What a step costs is known once one has ended.
            client.take(1);
            wait_until("it is counted", || client.channel.tokens() == 1);
            client.ends.give(b"+");
            wait_until("it is back", || client.channel.tokens() == 0);
        }
        client
    }

    fn tokens_held(&self) -> usize {
        let holders = self.monitor.holders();
        holders.iter().filter(|holder| holder.label == Some("jobserver token")).count()
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.path().join(file), text).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The steps that run now, and the most that ever ran at once, by a log of `+` and `-`.
    fn steps(&self) -> (usize, usize) {
        self.log().chars().filter(|c| "+-".contains(*c)).fold((0, 0), |(now, most), sign| {
            let now = if sign == '+' { now + 1 } else { now - 1 };
            (now, most.max(now))
        })
    }
}

/// The ends of a channel as a client has them.
struct Ends {
    reader: fs::File,
    writer: fs::File,
}

impl Ends {
    /// Those that a process has inherited.
    fn of(child: &Child, is_fifo: bool) -> Ends {
        let mut environment = String::new();
        // A program is told to have begun a moment before it has an environment.
        wait_until("the program has begun", || {
            environment = fs::read_to_string(format!("/proc/{}/environ", child.id())).unwrap();
            !environment.is_empty()
        });
        let flags = environment.split('\0').find_map(|variable| variable.strip_prefix("MAKEFLAGS=")).unwrap();
        let option = if is_fifo { "--jobserver-aut=" } else { "--jobserver-auth=" };
        let (_, address) = flags.split_once(option).unwrap();
        let (reader, writer) = address.split_once(',').unwrap();
        let path = |number: &str| format!("/proc/{}/fd/{}", child.id(), number.parse::<RawFd>().unwrap());
        let open = |path: String, write: bool| fs::OpenOptions::new().read(!write).write(write).open(path).unwrap();
        Ends { reader: open(path(reader), false), writer: open(path(writer), true) }
    }

    fn take(&mut self) -> u8 {
        let mut byte = [0];
        self.reader.read_exact(&mut byte).unwrap();
        byte[0]
    }

    fn give(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).unwrap();
    }

    /// Whether a token is on offer, asked without taking it.
    fn is_offered(&self) -> bool {
        let mut fds = [PollFd::new(self.reader.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }
}

struct Client {
    child: Child,
    channel: JobChannel,
    ends: Ends,
}

impl Client {
    fn take(&mut self, tokens: usize) {
        for _ in 0..tokens {
            self.ends.take();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const STEP: &str = "printf + >> log; sleep 0.2; printf - >> log";

fn makefile(steps: usize) -> String {
    let names: Vec<String> = (0..steps).map(|step| format!("s{step}")).collect();
    let names = names.join(" ");
    format!("all: {names}\n{names}:\n\t@{STEP}\n")
}

fn build_ninja(steps: usize) -> String {
    let rules: String = (0..steps).map(|step| format!("build s{step}: step\n")).collect();
    format!("rule step\n  command = {STEP}\n{rules}")
}

#[test]
fn make_runs_as_many_steps_as_there_are_tokens_and_one() {
    if !is_there("make") {
        return;
    }
    for is_fifo in [false, true] {
        let host = Host::new(3, is_fifo);
        host.write("Makefile", &makefile(24));
        let (mut make, channel) = host.spawn(&mut Command::new("make"));
        assert!(make.wait().unwrap().success());
        wait_until("all tokens are back", || channel.tokens() == 0);
        assert_eq!(host.steps(), (0, 4));
        assert_eq!(host.server.tally().most_out, 3);
        drop(channel);
        assert_eq!(host.tokens_held(), 0);
        assert_eq!(fs::read_dir(host.folder.path()).unwrap().count(), 2, "the fifo is gone");
    }
}

#[test]
fn ninja_runs_as_many_steps_as_there_are_tokens_and_one() {
    let Some(ninja) = ninja() else { return };
    for is_fifo in [false, true] {
        let host = Host::new(3, is_fifo);
        host.write("build.ninja", &build_ninja(24));
        let (mut child, channel) = host.spawn(Command::new(&ninja).stdout(Stdio::null()));
        assert!(child.wait().unwrap().success());
        wait_until("all tokens are back", || channel.tokens() == 0);
        let (now, most) = host.steps();
        assert!(now == 0 && (3..=4).contains(&most), "{most} at once");
    }
}

/// A workspace of programs whose build scripts are the steps.
fn workspace(host: &Host, crates: usize) {
    let names: Vec<String> = (0..crates).map(|number| format!("\"c{number}\"")).collect();
    host.write("Cargo.toml", &format!("[workspace]\nresolver = \"2\"\nmembers = [{}]\n", names.join(", ")));
    let log = host.folder.path().join("log");
    for number in 0..crates {
        let folder = format!("c{number}");
        fs::create_dir_all(host.folder.path().join(&folder).join("src")).unwrap();
        host.write(&format!("{folder}/src/lib.rs"), "");
        host.write(
            &format!("{folder}/Cargo.toml"),
            &format!("[package]\nname = \"c{number}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n"),
        );
        let script = format!(
            "use std::io::Write;\nfn main() {{\n\
             let mut log = std::fs::OpenOptions::new().append(true).create(true).open({log:?}).unwrap();\n\
             log.write_all(b\"+\").unwrap();\n\
             std::thread::sleep(std::time::Duration::from_millis(300));\n\
             log.write_all(b\"-\").unwrap();\n}}\n"
        );
        host.write(&format!("{folder}/build.rs"), &script);
    }
}

#[test]
fn cargo_runs_as_many_steps_as_there_are_tokens_and_one() {
    if !is_there("cargo") {
        return;
    }
    let host = Host::pipes(2);
    workspace(&host, 8);
    let (mut cargo, channel) = host.spawn(Command::new("cargo").args(["build", "--offline", "--quiet"]));
    assert!(cargo.wait().unwrap().success());
    wait_until("all tokens are back", || channel.tokens() == 0);
    let (now, most) = host.steps();
    assert!(now == 0 && (2..=3).contains(&most), "{most} at once");
}

#[test]
fn what_a_command_says_for_make_is_kept() {
    let host = Host::pipes(1);
    host.write("Makefile", "all: ; @echo $(X) $(MAKEFLAGS)\n");
    if !is_there("make") {
        return;
    }
    let mut make = Command::new("make");
    make.env("MAKEFLAGS", "k -j9 -- X=1").stdout(Stdio::piped());
    let (make, _channel) = host.spawn(&mut make);
    let output = make.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("1 k ") && text.contains("--jobserver-auth="), "{text}");
    assert_eq!(output.stderr, b"");
}

#[test]
fn a_client_that_gives_back_more_than_it_took_gains_nothing() {
    for is_fifo in [false, true] {
        let host = Host::new(3, is_fifo);
        let mut client = host.client();
        client.take(2);
        wait_until("both are counted", || client.channel.tokens() == 2);
        // Bytes of any kind, and more than fit into what is read at once.
        client.ends.give(&[b'x', 0, 255].repeat(400));
        wait_until("they are back", || client.channel.tokens() == 0);
        client.take(3);
        wait_until("three are counted", || client.channel.tokens() == 3);
        assert!(!client.ends.is_offered());
        assert_eq!(host.tokens_held(), 3);
        // A client that gave back too much may take from that what the server has not read yet, and no more.
        client.ends.give(b"+");
        wait_until("another is offered", || client.ends.is_offered());
        assert_eq!(host.server.tally().most_out, 3);
    }
}

#[test]
fn a_client_that_never_reads_keeps_nobody_from_the_other_tokens() {
    let host = Host::pipes(2);
    let silent = host.client();
    let mut other = host.client();
    // The second one is on offer to the other until that has waited for it in vain.
    other.take(2);
    wait_until("both are counted", || other.channel.tokens() == 2);
    assert!(!silent.ends.is_offered());
    other.ends.give(b"+");
    wait_until("it is offered to the one that holds fewest", || silent.ends.is_offered());
}

#[test]
fn a_token_is_offered_to_the_job_that_holds_fewest() {
    let host = Host::pipes(4);
    let (mut first, mut second) = (host.client(), host.client());
    first.take(3);
    second.take(1);
    wait_until("all are out", || first.channel.tokens() == 3 && second.channel.tokens() == 1);
    first.ends.give(b"++");
    second.take(2);
    wait_until("they have moved", || first.channel.tokens() == 1 && second.channel.tokens() == 3);
}

#[test]
fn a_token_that_was_kept_since_its_kind_was_not_known_stands_for_what_is_known_now() {
    let host = Host::pipes(2);
    let mut sh = Command::new("sh");
    sh.args(["-c", "for i in 1 2 3 4 5 6 7; do sleep 2 & done; wait; exec sleep 1000"]);
    let (child, channel) = host.spawn(&mut sh);
    let ends = Ends::of(&child, false);
    let mut client = Client { child, channel, ends };
    client.take(1);
    wait_until("its step has ended, and the next token is on offer", || client.ends.is_offered());
    // Of two slots one process is there, and one more slot is on offer.
    let slot = || {
        let costs = host.monitor.holders().into_iter().filter_map(|holder| {
            let work = format!("{:?}", holder.work);
            work.split_once("processes: ")?.1.split_once(',')?.0.parse::<u64>().ok()
        });
        costs.max().unwrap()
    };
    wait_until("each slot counts as much", || {
        host.monitor.check_now();
        // Whatever else there is below this process, of what other tests have started.
        let text = format!(" + {} reserved of ", 3 * slot() - 1);
        slot() > 1 && host.monitor.verdict().to_string().contains(&text)
    });
}

#[test]
fn tokens_of_a_killed_job_are_back_within_a_tenth_of_a_second() {
    for is_fifo in [false, true] {
        let host = Host::new(4, is_fifo);
        let (mut killed, mut other) = (host.client(), host.client());
        killed.take(3);
        other.take(1);
        wait_until("all are out", || killed.channel.tokens() == 3 && other.channel.tokens() == 1);
        let began = Instant::now();
        killed.child.kill().unwrap();
        other.take(3);
        assert!(began.elapsed() < ms(100), "{:?}", began.elapsed());
        wait_until("they are counted", || other.channel.tokens() == 4 && killed.channel.tokens() == 0);
    }
}

#[test]
fn a_stopped_client_keeps_its_tokens_and_holds_up_nobody() {
    let host = Host::pipes(3);
    let (mut stopped, mut other) = (host.client(), host.client());
    stopped.take(1);
    kill(Pid::from_raw(stopped.child.id() as i32), Signal::SIGSTOP).unwrap();
    other.take(2);
    wait_until("they are counted", || stopped.channel.tokens() == 1 && other.channel.tokens() == 2);
}

#[test]
fn a_client_that_closes_its_ends_is_like_one_that_wants_nothing() {
    let host = Host::pipes(2);
    let mut sh = Command::new("bash");
    sh.args(["-c", "for fd in /proc/$$/fd/*; do n=${fd##*/}; ((n > 2)) && eval \"exec $n>&-\"; done; sleep 1000"]);
    let (mut closed, channel) = host.spawn(&mut sh);
    let mut other = host.client();
    other.take(2);
    assert_eq!(channel.tokens(), 0);
    closed.kill().unwrap();
    closed.wait().unwrap();
}

#[test]
fn a_daemon_that_keeps_the_ends_of_an_ended_job_holds_nothing_and_is_offered_nothing() {
    for is_fifo in [false, true] {
        let host = Host::new(2, is_fifo);
        let mut sh = Command::new("sh");
        sh.args(["-c", "sleep 1000 & echo $!; read line"]).stdout(Stdio::piped());
        let channel = host.server.attach(&mut sh).unwrap();
        let mut job = sh.stdin(Stdio::piped()).spawn().unwrap();
        channel.serve(job.id()).unwrap();
        let mut daemon = String::new();
        while !daemon.ends_with('\n') {
            let mut byte = [0];
            job.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
            daemon.push(byte[0].into());
        }
        let mut ends = Ends::of(&job, is_fifo);
        ends.take();
        wait_until("it is counted", || channel.tokens() == 1);
        drop(job.stdin.take());
        job.wait().unwrap();
        wait_until("nothing is out", || channel.tokens() == 0 && host.tokens_held() == 0 && !ends.is_offered());
        // What the daemon gives back goes nowhere.
        ends.give(b"+++");
        let mut next = host.client();
        next.take(2);
        assert!(!ends.is_offered() || is_fifo);
        kill(Pid::from_raw(daemon.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    }
}

#[test]
fn a_gate_that_closes_takes_back_what_was_not_taken_and_offers_again_when_it_opens() {
    let host = Host::pipes(4);
    let (mut client, idle) = (host.client(), host.client());
    client.take(2);
    wait_until("both are offered one more", || client.ends.is_offered() && idle.ends.is_offered());
    host.monitor.update_limits(processes(1));
    wait_until("nothing is offered", || !client.ends.is_offered() && !idle.ends.is_offered());
    assert_eq!((client.channel.tokens(), host.tokens_held()), (2, 2));
    wait_until("it says why", || host.server.held_back().is_some());
    client.ends.give(b"+");
    wait_until("it is back", || host.tokens_held() == 1);
    host.monitor.check_now();
    assert!(!client.ends.is_offered());
    host.monitor.update_limits(processes(10_000));
    wait_until("both are offered one", || client.ends.is_offered() && idle.ends.is_offered());
    client.take(2);
    host.monitor.stop();
    wait_until("a stopped monitor offers nothing", || !client.ends.is_offered() && !idle.ends.is_offered());
    let tally = host.server.tally();
    assert_eq!(tally.most_out, 3);
    assert!(tally.held_back.iter().any(|(reason, _)| reason == "processes"), "{tally:?}");
}

/// From the moment at which the gate closes to that at which no more than one step runs.
fn time_to_implicit_slot(command: &mut Command, host: &Host) -> Duration {
    let (mut child, _channel) = host.spawn(command);
    // Not each client is ever as wide as it may be: ninja asks for a token only when one of its steps ends.
    wait_until("it runs wide", || host.steps().0 >= 3);
    host.monitor.update_limits(processes(1));
    let began = Instant::now();
    wait_until("it runs one step", || host.steps().0 <= 1);
    let took = began.elapsed();
    // It stays there.
    let so_far = host.log().len();
    wait_until("steps go on", || host.log().len() >= so_far + 6);
    let (_, most) = host.log()[so_far..].chars().fold((0_i32, 0), |(now, most), sign| {
        let now = now + if sign == '+' { 1 } else { -1 };
        (now, most.max(now))
    });
    assert!(most <= 1, "{}", host.log());
    host.monitor.update_limits(processes(10_000));
    assert!(child.wait().unwrap().success());
    took
}

#[test]
fn make_is_at_its_implicit_slot_a_step_after_the_gate_has_closed() {
    if is_there("make") {
        comes_down_to_its_implicit_slot(Command::new("make"));
    }
}

#[test]
fn ninja_is_at_its_implicit_slot_a_step_after_the_gate_has_closed() {
    if let Some(ninja) = ninja() {
        comes_down_to_its_implicit_slot(Command::new(ninja));
    }
}

fn comes_down_to_its_implicit_slot(mut build: Command) {
    let host = Host::pipes(4);
    host.write("Makefile", &makefile(60));
    host.write("build.ninja", &build_ninja(60));
    let took = time_to_implicit_slot(build.stdout(Stdio::null()), &host);
    println!("{:?}: {took:?} with steps of 0.2 s", build.get_program());
    assert!(took < ms(200 + 500), "{took:?}");
}

#[test]
fn a_killed_make_loses_no_token() {
    if !is_there("make") {
        return;
    }
    let host = Host::pipes(3);
    host.write("Makefile", &makefile(60).replace("sleep 0.2", "sleep 5"));
    let (mut make, channel) = host.spawn(Command::new("make").process_group(0));
    wait_until("one is out", || channel.tokens() >= 1);
    let group = Pid::from_raw(-(make.id() as i32));
    kill(group, Signal::SIGKILL).unwrap();
    let began = Instant::now();
    wait_within(ms(100), "they are back", || channel.tokens() == 0 && host.tokens_held() == 0);
    println!("back after {:?}", began.elapsed());
    make.wait().unwrap();
}

#[test]
fn a_job_beside_others_may_have_a_channel_and_its_kind_costs_what_a_slot_does() {
    if !is_there("make") {
        return;
    }
    let host = Host::pipes(3);
    host.write("Makefile", &makefile(12));
    let jobs = host.monitor.jobs().width(usize::MAX).jobserver(&host.server).build().unwrap();
    let make = || {
        let mut make = Command::new("make");
        make.current_dir(&host.folder);
        make
    };
    let first = jobs.submit(Job::new(make())).unwrap();
    assert!(first.wait().is_success());
    let both = [(); 2].map(|()| jobs.submit(Job::new(make()).jobserver(&host.server)).unwrap());
    assert!(both.iter().all(|job| job.wait().is_success()));
    let (now, most) = host.steps();
    assert!(now == 0 && (4..=5).contains(&most), "{most} at once, of two jobs and three tokens");
    assert_eq!(host.tokens_held(), 0);
    let costs = jobs.costs().to_string();
    assert!(costs.starts_with("make: "), "{costs}");
}

#[test]
fn a_job_that_waits_for_room_is_not_kept_from_it_by_offers_that_nobody_takes() {
    let host = Host::pipes(3);
    let jobs = host.monitor.jobs().width(usize::MAX).jobserver(&host.server).build().unwrap();
    let clients: Vec<Client> = (0..3).map(|_| host.client()).collect();
    wait_until("each has an offer", || host.tokens_held() == 3);
    // Below three clients, room for three more processes: a token takes one.
    host.monitor.check_now();
    host.monitor.update_limits(processes(8));
    let job = jobs.submit(Job::new(Command::new("true")).work(Work::new().processes(3))).unwrap();
    assert!(job.wait().is_success());
    drop(clients);
}

/// A server of its own process, which runs a build.
fn build_gate(host: &Host, options: &[&str]) -> Command {
    let mut gate = common::build_example("build_gate").command();
    // A server that is killed leaves its fifo.
    gate.env("TMPDIR", host.folder.path());
    gate.args(options).current_dir(&host.folder).stdin(Stdio::null()).stdout(Stdio::null());
    gate
}

#[test]
fn clients_of_a_server_that_is_killed_end_or_go_on_with_one_slot() {
    let mut builds =
        vec![("make".to_owned(), is_there("make")), ("cargo build --offline -q".to_owned(), is_there("cargo"))];
    builds.extend(ninja().map(|ninja| (ninja.display().to_string(), true)));
    for (build, _) in builds.into_iter().filter(|(_, is_there)| *is_there) {
        for is_fifo in [false, true] {
            let host = Host::pipes(1);
            host.write("Makefile", &makefile(16));
            host.write("build.ninja", &build_ninja(16));
            workspace(&host, 8);
            let options: Vec<&str> = is_fifo.then_some("--fifo").into_iter().chain(["--tokens", "3"]).collect();
            let words: Vec<&str> = options.into_iter().chain(build.split(' ')).collect();
            let mut gate = build_gate(&host, &words).process_group(0).spawn().unwrap();
            wait_until("it runs wide", || host.steps().0 >= 2);
            let build_pid = children_of(gate.id());
            gate.kill().unwrap();
            gate.wait().unwrap();
            wait_until("the build has ended", || build_pid.iter().all(|pid| !is_alive(*pid)));
            let (now, most) = host.steps();
            println!("{build}, fifo {is_fifo}: {} steps, {most} at once", host.log().len() / 2);
            assert!(now <= 1 && most <= 4, "{}", host.log());
            let _ = kill(Pid::from_raw(-(gate.id() as i32)), Signal::SIGKILL);
        }
    }
}

fn children_of(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !matches!(stat.rsplit_once(") ").map(|(_, state)| state.starts_with('Z')), None | Some(true))
}

#[test]
fn a_gated_build_ends_as_the_build_does_and_hears_its_signals() {
    let host = Host::pipes(1);
    let status = |script: &str| build_gate(&host, &["--", "sh", "-c", script]).status().unwrap();
    assert_eq!(status("exit 7").code(), Some(7));
    assert_eq!(status("kill -9 $$").code(), Some(128 + 9));
    assert_eq!(
        build_gate(&host, &["--", "./no-such-program"]).stderr(Stdio::null()).status().unwrap().code(),
        Some(127)
    );
    let mut gate =
        build_gate(&host, &["sh", "-c", "trap 'exit 5' TERM; printf + >> log; while :; do sleep 0.05; done"]);
    let mut gate = gate.spawn().unwrap();
    wait_until("it runs", || host.steps().0 == 1);
    kill(Pid::from_raw(gate.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(gate.wait().unwrap().code(), Some(5));
}

/// The times that a thread of this process has gone to sleep, and its CPU time in ticks.
fn sleeps_of(thread: &str) -> (u64, u64) {
    let task = task_of(thread).unwrap();
    let status = fs::read_to_string(task.join("status")).unwrap();
    let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    let stat = fs::read_to_string(task.join("stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let cpu: u64 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    (sleeps.trim().parse().unwrap(), cpu)
}

/// The folder of the thread of this name, while there is one.
fn task_of(thread: &str) -> Option<PathBuf> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let mut tasks = tasks.filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == thread));
    tasks.next()
}

/// For a minute with `HIGHWATER_IDLE_SECONDS=60`.
#[test]
fn eight_idle_channels_wake_nobody() {
    let seconds = std::env::var("HIGHWATER_IDLE_SECONDS").map_or(2, |seconds| seconds.parse().unwrap());
    let host = Host::pipes(8);
    let clients: Vec<Client> = (0..8).map(|_| host.client()).collect();
    wait_until("each has an offer", || clients.iter().all(|client| client.ends.is_offered()));
    let settled = std::cell::Cell::new(sleeps_of("highwater-token"));
    wait_until("it sleeps", || {
        let now = sleeps_of("highwater-token");
        std::thread::sleep(ms(50));
        settled.replace(now) == now && sleeps_of("highwater-token") == now
    });
    let before = sleeps_of("highwater-token");
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        std::thread::sleep(until - Instant::now());
    }
    assert_eq!(sleeps_of("highwater-token"), before);
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn without_descriptors_no_channel_is_made_and_the_others_go_on() {
        use nix::sys::resource::{setrlimit, Resource};
        let host = Host::pipes(3);
        let mut client = host.client();
        client.take(1);
        let open = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        setrlimit(Resource::RLIMIT_NOFILE, open + 2, open + 2).unwrap();
        let error = host.server.attach(&mut Command::new("true")).unwrap_err();
        assert!(error.to_string().starts_with("could not make a channel of the jobserver: Too many open files"), "{error}");
        client.take(1);
        client.ends.give(b"++");
        wait_until("they are back", || client.channel.tokens() == 0);
        host.monitor.update_limits(processes(1));
        wait_until("nothing is offered", || !client.ends.is_offered());
        drop(client);
    }

    #[test]
    fn a_thread_that_drops_the_last_handle_of_its_own_server_ends() {
        let panics = Arc::new(AtomicUsize::new(0));
        let (count, usual) = (Arc::clone(&panics), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            count.fetch_add(1, SeqCst);
            usual(panic);
        }));
        let monitor = ResourceMonitor::builder(processes(10_000)).memory_scope(MemoryScope::Tree).build().unwrap();
        monitor.start(Duration::from_secs(1)).unwrap();
        let server = monitor.jobserver().tokens(1).build().unwrap();
        let mut sleep = Command::new("sleep");
        let channel = Arc::new(server.attach(sleep.arg("1000")).unwrap());
        let mut child = sleep.spawn().unwrap();

        // The thread asks the manager for its counts before it lets a token out. It has the only handle of the manager when that
        // answers, and the manager has the only one of the server.
        let ((asked, is_asked), (answer, may_answer)) = (mpsc::channel(), mpsc::channel());
        let (held, may_answer) = ((server, Arc::clone(&channel)), Mutex::new(may_answer));
        let manager = QuietJobs::new().counting(move || {
            let _ = &held;
            if std::thread::current().name() == Some("highwater-token") {
                asked.send(()).unwrap();
                may_answer.lock().unwrap().recv_timeout(DEADLINE).unwrap();
            }
            0
        });
        monitor.set_manager(manager.shared());
        channel.serve(child.id()).unwrap();
        is_asked.recv_timeout(DEADLINE).unwrap();
        monitor.set_manager(QuietJobs::new().shared());
        drop(channel);
        answer.send(()).unwrap();
        wait_until("its thread has ended", || task_of("highwater-token").is_none());
        assert_eq!(panics.load(SeqCst), 0);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_jobserver_above_is_obeyed_and_gets_back_what_it_lent() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let (mut reader, mut writer) = (fs::File::from(reader), fs::File::from(writer));
        use std::os::fd::AsRawFd;
        let flags = format!(" -j4 --jobserver-auth={},{}", reader.as_raw_fd(), writer.as_raw_fd());
        std::env::set_var("MAKEFLAGS", flags);
        std::env::remove_var("CARGO_MAKEFLAGS");
        writer.write_all(b"abc").unwrap();
        let host = Host::pipes(9);
        let mut first = host.client();
        // The second job has one of the three for its slot.
        let mut second = host.client();
        first.take(1);
        second.take(1);
        wait_until("both are counted", || first.channel.tokens() == 1 && second.channel.tokens() == 1);
        let error = host.server.attach(&mut Command::new("true")).unwrap_err();
        assert!(error.to_string().contains("no token for another job"), "{error}");
        assert!(!first.ends.is_offered() && !second.ends.is_offered());
        assert_eq!(host.tokens_held(), 2);
        // One that comes back there is offered here, for a while, and then there again.
        first.ends.give(b"+");
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
        assert!(b"abc".contains(&byte[0]), "each byte goes back as it came");
        writer.write_all(&byte).unwrap();
        first.take(1);
        drop((first, second));
        let mut bytes = [0; 3];
        reader.read_exact(&mut bytes).unwrap();
        bytes.sort_unstable();
        assert_eq!(&bytes, b"abc");
    }

    #[test]
    fn a_jobserver_above_that_cannot_be_used_lends_nothing() {
        std::env::set_var("MAKEFLAGS", " -j4 --jobserver-auth=900,901");
        std::env::remove_var("CARGO_MAKEFLAGS");
        let host = Host::pipes(9);
        host.has_clients.set(true);
        let client = host.client();
        wait_until("it says why", || host.server.tally().held_back.iter().any(|(reason, _)| reason == "the jobserver above"));
        assert!(!client.ends.is_offered());
    }
}
