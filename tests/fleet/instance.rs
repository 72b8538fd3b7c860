//! A readiness server, and what asks it.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;

use minreq::{Request, Response};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use procfs::process::all_processes;

use crate::common::{build_example, wait_until};

/// A process that ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("it has ended", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A readiness server.
pub(crate) struct Instance {
    pub(crate) process: Running,
    pub(crate) address: String,
    pub(crate) agent: String,
    _says: BufReader<ChildStdout>,
}

pub(crate) const ANY_PORTS: [&str; 4] = ["--listen", "127.0.0.1:0", "--agent", "127.0.0.1:0"];

impl Instance {
    /// One with 200 MB.
    pub(crate) fn start(name: &str, more: &[&str]) -> Instance {
        let mut command = build_example("readiness_server").command();
        command.args(ANY_PORTS).args(["--max-memory-mb", "200", "--max-ms", "600000", "--name", name]).args(more);
        Instance::run(command)
    }

    pub(crate) fn run(mut command: Command) -> Instance {
        // In a group of its own, which can be signalled.
        let mut process = Running(command.stdout(Stdio::piped()).process_group(0).spawn().unwrap());
        let mut says = BufReader::new(process.0.stdout.take().unwrap());
        let mut line = String::new();
        says.read_line(&mut line).unwrap();
        let (address, agent) = line.trim().strip_prefix("listening on ").unwrap().split_once(", agent on ").unwrap();
        Instance { process, address: address.to_owned(), agent: agent.to_owned(), _says: says }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn agent_says(&self) -> String {
        let mut line = String::new();
        TcpStream::connect(&self.agent).unwrap().read_to_string(&mut line).unwrap();
        line
    }

    /// The number behind this on the page of metrics.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = get(&self.url("/metrics")).1;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Holds memory until it is let go.
    pub(crate) fn hold(&self, mb: u32) -> thread::JoinHandle<u16> {
        let url = self.url(&format!("/work?mb={mb}&ms=600000"));
        let before = self.sleepers().len();
        let holding = thread::spawn(move || {
            let mut status = 0;
            // Beside other requests it may be too much at first.
            wait_until("it is held", || {
                status = get(&url).0;
                status != 503
            });
            status
        });
        wait_until("it is held", || self.sleepers().len() > before);
        holding
    }

    pub(crate) fn fill(&self) -> thread::JoinHandle<u16> {
        let filling = self.hold(165);
        wait_until("the gate closes", || get(&self.url("/readyz")).0 == 503);
        filling
    }

    /// The processes of requests that are held.
    pub(crate) fn sleepers(&self) -> Vec<Pid> {
        self.sleepers_for("600")
    }

    /// The processes of requests that take so many seconds.
    pub(crate) fn sleepers_for(&self, seconds: &str) -> Vec<Pid> {
        let own = self.process.pid().as_raw();
        let processes = all_processes().unwrap().flatten();
        let children = processes.filter(|process| process.stat().is_ok_and(|stat| stat.ppid == own));
        let sleepers = children.filter(|process| process.cmdline().is_ok_and(|words| words == ["sleep", seconds]));
        sleepers.map(|process| Pid::from_raw(process.pid)).collect()
    }

    /// Ends what is held.
    pub(crate) fn let_go(&self) {
        for sleeper in self.sleepers() {
            let _ = kill(sleeper, Signal::SIGKILL);
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.let_go();
    }
}

pub(crate) fn ask(request: Request) -> Result<Response, minreq::Error> {
    // Longer than anything is held.
    request.with_timeout(700).send()
}

/// Status, body, and who has answered.
pub(crate) fn get(url: &str) -> (u16, String, String) {
    match ask(minreq::get(url)) {
        Ok(answer) => {
            let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
            (answer.status_code, text(answer.as_str().ok()), text(answer.header("X-Instance")))
        }
        Err(error) => (0, error.to_string(), String::new()),
    }
}

pub(crate) fn deploy(file: &str) -> String {
    format!("{}/examples/deploy/{file}", env!("CARGO_MANIFEST_DIR"))
}
