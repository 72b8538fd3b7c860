//! The example `job_runner`: started with a mark, by which everything that it has started is found, and at a terminal.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use escargot::CargoRun;
use nix::pty::{openpty, OpenptyResult, Winsize};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use procfs::process::{all_processes, Process};
use tempfile::TempDir;

use super::{build_example, wait_until};

/// In the environment of a runner and of everything it starts: the folder that they run in.
pub const MARK: &str = "HIGHWATER_TEST_RUN";

/// A runner, for which a signal is ignored only where a test has it so.
pub fn job_runner() -> Command {
    // A shell that was to start these tests with `&`, or `nohup`, has signals ignored, and so they would stay.
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGTSTP] {
        // SAFETY: the default runs no code of this process.
        #[allow(unsafe_code)]
        unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) }.unwrap();
    }
    static BUILT: OnceLock<CargoRun> = OnceLock::new();
    BUILT.get_or_init(|| build_example("job_runner")).command()
}

/// Every process that carries the mark of this folder and is more than a zombie.
pub fn processes_of(folder: &Path) -> Vec<Process> {
    let is_marked = |process: &Process| {
        process
            .environ()
            .is_ok_and(|environ| environ.get(OsStr::new(MARK)).is_some_and(|mark| mark == folder.as_os_str()))
    };
    all_processes().unwrap().flatten().filter(is_marked).collect()
}

/// A shell with job control at a terminal of its own, in the folder of a run that it shall start.
pub struct Terminal {
    master: File,
    shell: Child,
    folder: TempDir,
    pub shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    pub fn new() -> Terminal {
        let folder = tempfile::tempdir().unwrap();
        let OpenptyResult { master, slave } =
            openpty(&Winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }, None).unwrap();
        let slave = || Stdio::from(slave.try_clone().unwrap());
        let shell = Command::new("setsid")
            .args(["--ctty", "dash", "-i"])
            .current_dir(&folder)
            .env(MARK, folder.path())
            .env("RUNNER", job_runner().get_program())
            .env_remove("RUST_LOG")
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .unwrap();
        let master = File::from(master);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut from, into) = (master.try_clone().unwrap(), Arc::clone(&shown));
        // Ends with an error once nobody has the terminal any more.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut bytes) {
                into.lock().unwrap().extend_from_slice(&bytes[..length]);
            }
        });
        Terminal { master, shell, folder, shown }
    }

    /// Has the shell start a runner of these jobs.
    pub fn run(&self, options: &str, jobs: &str) {
        self.write("jobs", jobs);
        self.press(&format!("\"$RUNNER\" {options}; echo ended with $?\n"));
    }

    /// Ctrl and a letter are one byte.
    pub fn press(&self, keys: &str) {
        (&self.master).write_all(keys.as_bytes()).unwrap();
    }

    pub fn shows(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).contains(text)
    }

    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        wait_until(&format!("the terminal shows `{text}`"), || self.shows(text));
    }

    pub fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.path().join(file), text).unwrap();
    }

    pub fn text(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap_or_default()
    }

    pub fn has(&self, file: &str) -> bool {
        self.folder.path().join(file).exists()
    }

    /// The one process of this name, shells of jobs aside.
    pub fn process(&self, name: &str) -> Process {
        let mut found = processes_of(self.folder.path()).into_iter();
        found.find(|process| process.stat().is_ok_and(|stat| stat.comm == name)).unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        for process in processes_of(self.folder.path()) {
            let _ = kill(Pid::from_raw(process.pid()), Signal::SIGKILL);
        }
    }
}

/// Whether it is there and stands still. A shell that has just started a program by `vfork` cannot be stopped (`D`): it waits
/// for that, which was.
pub fn is_stopped(process: &Process) -> bool {
    process.stat().is_ok_and(|stat| ['T', 'D'].contains(&stat.state))
}
