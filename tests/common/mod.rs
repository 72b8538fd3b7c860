//! What the tests share: deadlines, real children, forked children, laid-out process tables, captured log events.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

pub mod groups;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use escargot::{CargoBuild, CargoRun};
use log::kv::{Key, Value, VisitSource};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::{fork, ForkResult, Pid};
use parking_lot::Mutex;
use tempfile::TempDir;

/// Long enough for a loaded machine, and for a virtual one whose host stops it for most of a minute; reached only by a
/// failure.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Waits for a condition, and fails when it does not come true in time.
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_within(DEADLINE, what, condition);
}

/// The same, for what may take longer or must come sooner.
#[track_caller]
pub fn wait_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        thread::sleep(ms(2));
    }
}

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An example, built if it is not yet: cargo builds none when it is asked for one test target alone.
pub fn build_example(name: &str) -> CargoRun {
    CargoBuild::new().example(name).current_release().run().unwrap()
}

/// Real children, killed and waited for at the end.
#[derive(Default)]
pub struct Children(pub Vec<Child>);

impl Children {
    pub fn sleepers(count: usize) -> Children {
        let mut children = Children::default();
        children.spawn(count);
        children
    }

    pub fn spawn(&mut self, count: usize) {
        for _ in 0..count {
            self.0.push(sleeper());
        }
    }

    pub fn end(&mut self, count: usize) {
        for mut child in self.0.drain(..count) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.end(self.0.len());
    }
}

pub fn sleeper() -> Child {
    Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap()
}

/// Runs `body` in a forked child, which must return a success within the deadline.
pub fn in_forked_child(body: impl FnOnce() -> Result<(), String>) {
    // SAFETY: the child runs code that may allocate, which glibc allows after fork; it leaves with `_exit`.
    #[allow(unsafe_code)]
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => exit_after(body),
        ForkResult::Parent { child } => {
            assert_eq!(wait_with_deadline(child), WaitStatus::Exited(child, 0));
        }
    }
}

/// Ends this process with what came of `body`.
fn exit_after(body: impl FnOnce() -> Result<(), String>) -> ! {
    let code = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(message)) => {
            eprintln!("forked child: {message}");
            1
        }
        Err(_) => 2,
    };
    // SAFETY: `_exit` ends the process and touches nothing.
    #[allow(unsafe_code)]
    unsafe {
        nix::libc::_exit(code)
    }
}

/// In a forked child: ends its first thread, and then the process with what came of `body` on another one.
pub fn without_first_thread(body: impl FnOnce() -> Result<(), String> + Send + 'static) -> ! {
    thread::spawn(|| {
        let has_ended = || fs::read_to_string("/proc/self/stat").unwrap().contains(") Z ");
        wait_until("the first thread has ended", has_ended);
        exit_after(body)
    });
    // SAFETY: it ends this thread alone, as `pthread_exit` does, but for its stack, which stays.
    #[allow(unsafe_code)]
    unsafe {
        nix::libc::syscall(nix::libc::SYS_exit, 0)
    };
    unreachable!("the first thread has ended")
}

/// A forked child, killed and waited for at the end.
pub struct Forked(pub Pid);

impl Forked {
    /// One that runs `body` and then waits for its end.
    pub fn run(body: impl FnOnce() -> Result<(), String>) -> Forked {
        // SAFETY: the child runs code that may allocate, which glibc allows after fork; it leaves with `_exit`.
        #[allow(unsafe_code)]
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => exit_after(|| {
                body()?;
                loop {
                    thread::sleep(DEADLINE);
                }
            }),
            ForkResult::Parent { child } => Forked(child),
        }
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        kill(self.0, Signal::SIGKILL).unwrap();
        waitpid(self.0, None).unwrap();
    }
}

/// Memory that is resident, and of this process alone.
pub fn touched(bytes: usize) -> Vec<u8> {
    std::hint::black_box(vec![1; bytes])
}

fn wait_with_deadline(child: Pid) -> WaitStatus {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap() {
            WaitStatus::StillAlive if Instant::now() < deadline => thread::sleep(ms(1)),
            WaitStatus::StillAlive => {
                let threads = threads_of(child);
                kill(child, Signal::SIGKILL).unwrap();
                panic!("the forked child hangs: {threads}");
            }
            status => return status,
        }
    }
}

/// Where each thread of a process is in the kernel, as far as we may know.
fn threads_of(process: Pid) -> String {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let of = |task: &fs::DirEntry, file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
    tasks
        .map(|task| ["comm", "wchan", "syscall"].map(|file| of(&task, file).trim().to_owned()).join("; "))
        .collect::<Vec<_>>()
        .join("\n")
}

/// For a child's `body`: what must be true there.
pub fn ensure(condition: bool, what: &str) -> Result<(), String> {
    if condition {
        Ok(())
    } else {
        Err(what.to_string())
    }
}

/// A `/proc` laid out in a folder.
pub struct ProcTree {
    dir: TempDir,
}

impl ProcTree {
    pub const OWN_PID: u32 = 100;

    /// Init and a process of ours with this many resident pages.
    pub fn new(resident_pages: u64) -> ProcTree {
        let tree = ProcTree { dir: tempfile::tempdir().unwrap() };
        symlink(Self::OWN_PID.to_string(), tree.root().join("self")).unwrap();
        tree.process(1, 0).process(Self::OWN_PID, 1);
        tree.set_resident_pages(resident_pages);
        tree
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn process(&self, pid: u32, parent: u32) -> &ProcTree {
        self.stat(pid, stat_line(pid, "job", 'S', parent, 1, 1000).as_bytes())
    }

    pub fn stat(&self, pid: u32, bytes: &[u8]) -> &ProcTree {
        let folder = self.root().join(pid.to_string());
        fs::create_dir_all(&folder).unwrap();
        // In two steps, as a reader may come between: no reader ever sees half a file.
        let new = self.root().join("stat.new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, folder.join("stat")).unwrap();
        self
    }

    pub fn remove(&self, pid: u32) {
        fs::remove_dir_all(self.root().join(pid.to_string())).unwrap();
    }

    /// Rewritten in place and at its old length, for readers that keep the file open.
    pub fn set_resident_pages(&self, pages: u64) {
        self.write_statm(format!("{:012} {pages:012} 0 0 0 0 0\n", pages * 2).as_bytes(), false);
    }

    pub fn write_statm(&self, bytes: &[u8], truncate: bool) {
        let path = self.root().join(Self::OWN_PID.to_string()).join("statm");
        let mut file = fs::OpenOptions::new().create(true).write(true).truncate(truncate).open(path).unwrap();
        file.write_all(bytes).unwrap();
    }
}

pub fn stat_line(pid: u32, comm: &str, state: char, parent: u32, threads: u32, start: u64) -> String {
    format!(
        "{pid} ({comm}) {state} {parent} {pid} {pid} 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 {threads} 0 {start} 1000000 250 \
         18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    )
}

pub const PAGE: u64 = 4096;

/// The log events of this process, for tests that have a process of their own.
pub struct LogCapture {
    records: Mutex<Vec<Event>>,
}

#[derive(Debug, Clone)]
pub struct Event {
    pub name: String,
    pub level: log::Level,
    pub keys: BTreeMap<String, String>,
    pub numbers: BTreeMap<String, f64>,
}

static LOG: LogCapture = LogCapture { records: Mutex::new(Vec::new()) };

impl LogCapture {
    pub fn install() -> &'static LogCapture {
        log::set_logger(&LOG).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        &LOG
    }

    pub fn events(&self) -> Vec<Event> {
        self.records.lock().clone()
    }

    pub fn named(&self, name: &str) -> Vec<Event> {
        self.events().into_iter().filter(|event| event.name == name).collect()
    }
}

impl log::Log for LogCapture {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target() == "highwater"
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        struct Collect(BTreeMap<String, String>, BTreeMap<String, f64>);
        impl<'kvs> VisitSource<'kvs> for Collect {
            fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
                if let Some(number) = value.to_f64().or_else(|| value.to_u64().map(|number| number as f64)) {
                    self.1.insert(key.to_string(), number);
                }
                self.0.insert(key.to_string(), value.to_string());
                Ok(())
            }
        }
        let mut collect = Collect(BTreeMap::new(), BTreeMap::new());
        record.key_values().visit(&mut collect).unwrap();
        let name = collect.0.remove("event").unwrap_or_default();
        let event = Event { name, level: record.level(), keys: collect.0, numbers: collect.1 };
        self.records.lock().push(event);
    }

    fn flush(&self) {}
}
