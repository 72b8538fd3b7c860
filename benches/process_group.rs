//! The cost of a look of `ProcessGroupManager`, and of the clean-up when all backends have ended at once, by the number
//! of backends, beside what other crates take to list the same processes with their parents: the table of
//! `benches/README.md`, from one command.
//!
//! ```sh
//! cargo bench --manifest-path benches/Cargo.toml --bench process_group
//! ```
//!
//! Each backend has one process below it. Every way has its turn in every round, so that all of them see the same
//! machine. Medians of the rounds are printed.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use highwater::{ProcessGroup, ProcessGroupManager};
use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;
use peers::{ByProcfs, BySysinfo};

const ROUNDS: usize = 21;

const BACKENDS: [usize; 4] = [250, 500, 1_000, 2_000];

fn main() {
    // Built and listed by cargo as a test, it has nothing to do.
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    println!("Medians of {ROUNDS} rounds, in microseconds; in brackets, for each of the processes.\n");
    println!("| backends | processes | look | procfs | sysinfo | clean-up of all orphans |");
    println!("| --: | --: | --: | --: | --: | --: |");
    for count in BACKENDS {
        let measured = Measured::with(count);
        let processes = 2 * count;
        let shown = |micros: f64| format!("{micros:.0} ({:.2})", micros / processes as f64);
        let Measured { look, procfs, sysinfo, cleanup } = measured;
        println!(
            "| {count} | {processes} | {} | {} | {} | {cleanup:.0} ({:.2}) |",
            shown(look),
            shown(procfs),
            shown(sysinfo),
            cleanup / count as f64
        );
    }
}

struct Measured {
    look: f64,
    procfs: f64,
    sysinfo: f64,
    cleanup: f64,
}

impl Measured {
    fn with(count: usize) -> Measured {
        let group = ProcessGroupManager::new();
        group.setup().unwrap();
        let mut backends: Vec<_> = (0..count).map(|_| Backend::start()).collect();
        for backend in &backends {
            group.track_backend_pid(backend.0.id()).unwrap();
        }
        let procfs = ByProcfs::open();
        let mut sysinfo = BySysinfo::open();
        let mut times: [Vec<Duration>; 3] = Default::default();
        for _ in 0..ROUNDS {
            times[0].push(time(|| group.look().unwrap()));
            times[1].push(time(|| assert!(procfs.check().descendants >= 2 * count)));
            times[2].push(time(|| assert!(sysinfo.check().descendants >= 2 * count)));
        }
        for backend in &backends {
            assert_eq!(group.backend_pids(backend.0.id()).unwrap().len(), 1);
        }
        backends.iter_mut().for_each(Backend::end);
        let cleanup = time(|| assert_eq!(group.cleanup_orphans().unwrap().len(), count));
        let [look, procfs, sysinfo] = times.map(median);
        let left = group.kill_all_children(9, Duration::from_secs(60)).unwrap();
        assert!(left.survivors.is_empty());
        Measured { look, procfs, sysinfo, cleanup: micros(cleanup) }
    }
}

/// A shell, and a process below it.
struct Backend(Child);

impl Backend {
    fn start() -> Backend {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 1000 >/dev/null & echo ready; wait"]).stdout(Stdio::piped());
        let mut shell = shell.process_group(0).spawn().unwrap();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        Backend(shell)
    }

    /// Ends the shell, and orphans the other.
    fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // It has ended, but where a measurement failed.
        let _ = killpg(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

fn time(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    micros(times[times.len() / 2])
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
