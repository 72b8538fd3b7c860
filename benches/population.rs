//! What one full check costs in the populations that hosts live in, beside other ways to find the same: the table and
//! the plot of `benches/README.md`, from one command.
//!
//! ```sh
//! cargo bench --manifest-path benches/Cargo.toml --bench population
//! ```
//!
//! Every way has its turn in every round, so that all of them see the same machine. It is asked twice in a row, and the
//! second time counts: the first one finds the caches as the way before it has left them. Medians of the rounds are
//! printed. psutil is measured where python3 has it, and system calls where strace is installed.

use std::alloc::System;
use std::fs;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use highwater::{ResourceLimits, ResourceMonitor, SystemProbe};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use peers::{ByProcfs, BySysinfo, Children};
use plotters::prelude::*;
use stats_alloc::{Region, StatsAlloc, INSTRUMENTED_SYSTEM};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROUNDS: usize = 21;

const PLOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/population.svg");

/// Names the depth of the tree that a copy of this program is to grow.
const GROW: &str = "HIGHWATER_BENCH_GROW";

fn main() {
    if let Ok(depth) = std::env::var(GROW) {
        return grow(depth.parse().unwrap());
    }
    // Built and listed by cargo as a test, it has nothing to do.
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    println!("{}\n", peers::machine());

    println!("Medians of {ROUNDS} rounds, in microseconds.\n");
    println!("| population | processes | {} |", Way::ALL.map(Way::name).join(" | "));
    println!("| --- | --: |{}", " --: |".repeat(Way::ALL.len()));
    let mut rest = Vec::new();
    for population in [Population::B, Population::C, Population::D, Population::E] {
        let _processes = population.build();
        let measured = Measured::new(population.descendants());
        println!("| {} | {} | {} |", population.name(), processes(), measured.times().join(" | "));
        let budget = budget();
        rest.push((population, measured, budget));
    }

    println!("\nAgainst each, and what a check of highwater costs besides.\n");
    println!(
        "| population | sysinfo | procfs | heap allocations | system calls | share of a core, asked without pause |"
    );
    println!("| --- | --: | --: | --: | --: | --: |");
    for (population, measured, budget) in &rest {
        println!(
            "| {} | {:.0} x | {:.0} x | {:.1} | {} | {:.2} % |",
            population.name(),
            measured.ratio(Way::Sysinfo),
            measured.ratio(Way::Procfs),
            measured.allocations,
            measured.system_calls.map_or("strace is not installed".to_string(), |calls| format!("{calls:.0}")),
            100.0 * budget,
        );
    }
    plot();
    println!("\nplotted to benches/population.svg");
}

/// Who is there, named as in the field's notes.
#[derive(Clone, Copy)]
enum Population {
    B,
    C,
    D,
    E,
}

impl Population {
    fn name(self) -> &'static str {
        match self {
            Population::B => "b: 50 children",
            Population::C => "c: 1,000 children",
            Population::D => "d: 10 x 10 x 10 tree",
            Population::E => "e: 50 children, 5,000 strangers",
        }
    }

    fn descendants(self) -> usize {
        match self {
            Population::B | Population::E => 50,
            Population::C => 1000,
            Population::D => 1110,
        }
    }

    fn build(self) -> (Children, Option<Tree>, Option<Strangers>) {
        match self {
            Population::B => (Children::sleepers(50), None, None),
            Population::C => (Children::sleepers(1000), None, None),
            Population::D => (Children::sleepers(0), Some(Tree::new()), None),
            Population::E => (Children::sleepers(50), None, Some(Strangers::new(5000))),
        }
    }
}

/// Ten copies of this program, with ten copies each, with ten sleepers each.
struct Tree(Vec<Child>);

impl Tree {
    fn new() -> Tree {
        let tree = Tree(branches(2));
        let probe = SystemProbe::new();
        while probe.child_count().unwrap() < 1110 {
            thread::sleep(Duration::from_millis(20));
        }
        tree
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // Each ends with its standard input, and ends its own first.
        for child in &mut self.0 {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

fn grow(depth: u32) {
    let _branches = match depth {
        0 => None,
        1 => Some((Children::sleepers(10), Tree(Vec::new()))),
        _ => Some((Children::sleepers(0), Tree(branches(depth - 1)))),
    };
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

fn branches(depth: u32) -> Vec<Child> {
    let branch = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(GROW, depth.to_string()).stdin(Stdio::piped()).spawn().unwrap()
    };
    (0..10).map(|_| branch()).collect()
}

/// Sleepers that do not descend from us: their parent was handed to init.
struct Strangers(Pid);

impl Strangers {
    fn new(count: usize) -> Strangers {
        let holder = format!(
            "trap 'trap \"\" TERM; kill -TERM 0; wait; exit' TERM; i=0; \
             while [ $i -lt {count} ]; do sleep 1000 & i=$((i + 1)); done; echo $$; wait"
        );
        let script = "sh -c \"$0\" & exit";
        let mut shell = Command::new("sh");
        // In a group of their own, so that the holder's signal to its group ends them and not us.
        shell.args(["-c", script, &holder]).process_group(0).stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let mut pid = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        shell.wait().unwrap();
        Strangers(Pid::from_raw(pid.trim().parse().unwrap()))
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGTERM);
        while kill(self.0, None).is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A way to find own memory, descendants and zombies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Highwater,
    PlainScan,
    Procfs,
    Sysinfo,
    Psutil,
}

impl Way {
    const ALL: [Way; 5] = [Way::Highwater, Way::PlainScan, Way::Procfs, Way::Sysinfo, Way::Psutil];

    fn name(self) -> &'static str {
        match self {
            Way::Highwater => "highwater",
            Way::PlainScan => "plain scan (`SystemProbe`)",
            Way::Procfs => "procfs",
            Way::Sysinfo => "sysinfo",
            Way::Psutil => "psutil",
        }
    }
}

/// Everything that the ways keep between checks.
struct Ways {
    monitor: ResourceMonitor,
    probe: SystemProbe,
    procfs: ByProcfs,
    sysinfo: BySysinfo,
    psutil: Option<Psutil>,
}

impl Ways {
    fn new() -> Ways {
        Ways {
            monitor: peers::monitor(),
            probe: SystemProbe::new(),
            procfs: ByProcfs::open(),
            sysinfo: BySysinfo::open(),
            psutil: Psutil::start(),
        }
    }

    /// Checks once: how many descendants were found, and how long it took. `None` where the way is not there.
    fn check(&mut self, way: Way) -> Option<(usize, Duration)> {
        let began = Instant::now();
        let found = match way {
            Way::Highwater => black_box(self.monitor.check_now()).child_process_count?,
            Way::PlainScan => {
                black_box(self.probe.memory_bytes().unwrap());
                self.probe.child_count().unwrap()
            }
            Way::Procfs => black_box(self.procfs.check()).descendants,
            Way::Sysinfo => black_box(self.sysinfo.check()).descendants,
            Way::Psutil => return self.psutil.as_mut().map(Psutil::check),
        };
        Some((found, began.elapsed()))
    }
}

/// What was measured in one population.
struct Measured {
    medians: Vec<Option<Duration>>,
    allocations: f64,
    system_calls: Option<f64>,
}

impl Measured {
    fn new(descendants: usize) -> Measured {
        let mut ways = Ways::new();
        // A Python that waits to be asked is a child of ours too.
        let expected = descendants + usize::from(ways.psutil.is_some());
        let mut times = vec![Vec::new(); Way::ALL.len()];
        for round in 0..ROUNDS + 2 {
            for (way, times) in Way::ALL.into_iter().zip(&mut times) {
                ways.check(way);
                let Some((found, time)) = ways.check(way) else { continue };
                assert_eq!(found, expected, "{}", way.name());
                // The first two fill buffers and caches.
                if round >= 2 {
                    times.push(time);
                }
            }
        }
        let region = Region::new(ALLOCATOR);
        (0..ROUNDS).for_each(|_| drop(black_box(ways.monitor.check_now())));
        let change = region.change();
        let allocations = (change.allocations + change.reallocations) as f64 / ROUNDS as f64;
        let system_calls = system_calls(&ways.monitor);
        Measured { medians: times.into_iter().map(median).collect(), allocations, system_calls }
    }

    fn median(&self, way: Way) -> Option<Duration> {
        Way::ALL.into_iter().zip(&self.medians).find(|(one, _)| *one == way).and_then(|(_, median)| *median)
    }

    fn times(&self) -> Vec<String> {
        let micros = |median: &Option<Duration>| {
            median.map_or("not installed".to_string(), |median| format!("{:.0}", median.as_secs_f64() * 1e6))
        };
        self.medians.iter().map(micros).collect()
    }

    fn ratio(&self, to: Way) -> f64 {
        let seconds = |way| self.median(way).unwrap().as_secs_f64();
        seconds(to) / seconds(Way::Highwater)
    }
}

fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// A Python with psutil that checks its parent when it is told to, and says how long that took.
struct Psutil {
    python: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Psutil {
    const SCRIPT: &'static str = "
import os, sys, time, psutil
host = psutil.Process(os.getppid())
print('ready', flush=True)
for line in sys.stdin:
    began = time.perf_counter_ns()
    host.memory_info().rss
    children = host.children(recursive=True)
    zombies = [child.pid for child in children if child.status() == psutil.STATUS_ZOMBIE]
    print(len(children), time.perf_counter_ns() - began, flush=True)
";

    fn start() -> Option<Psutil> {
        let mut command = Command::new("python3");
        command.args(["-c", Psutil::SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut python = command.spawn().ok()?;
        let ask = python.stdin.take()?;
        let mut answers = BufReader::new(python.stdout.take()?);
        let mut ready = String::new();
        answers.read_line(&mut ready).ok()?;
        if ready.trim() != "ready" {
            let _ = python.wait();
            return None;
        }
        Some(Psutil { python, ask, answers })
    }

    fn check(&mut self) -> (usize, Duration) {
        writeln!(self.ask, "check").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let (found, nanos) = answer.trim().split_once(' ').unwrap();
        (found.parse().unwrap(), Duration::from_nanos(nanos.parse().unwrap()))
    }
}

impl Drop for Psutil {
    fn drop(&mut self) {
        let _ = self.python.kill();
        let _ = self.python.wait();
    }
}

/// System calls of one check, as strace counts them: those of 20 checks less those of 10, by 10.
fn system_calls(monitor: &ResourceMonitor) -> Option<f64> {
    let count = |checks: usize| -> Option<f64> {
        let thread = nix::unistd::gettid().to_string();
        let mut command = Command::new("strace");
        command.args(["-c", "-U", "calls,name", "-p", &thread]).stderr(Stdio::piped());
        let mut strace = command.spawn().ok()?;
        let mut report = BufReader::new(strace.stderr.take()?);
        // It says so when it is attached.
        report.read_line(&mut String::new()).ok()?;
        (0..checks).for_each(|_| drop(monitor.check_now()));
        kill(Pid::from_raw(strace.id() as i32), Signal::SIGINT).ok()?;
        let total = report.lines().map_while(Result::ok).find(|line| line.ends_with(" total"))?;
        strace.wait().ok()?;
        total.split_whitespace().next()?.parse().ok()
    };
    Some((count(20)? - count(10)?) / 10.0)
}

/// The share of one core that the check thread takes at the default budget, while a caller asks without pause.
fn budget() -> f64 {
    const AT_LEAST: (Duration, usize) = (Duration::from_secs(10), 60);
    let limits = ResourceLimits::builder().max_memory_mb(1 << 20).max_processes(1 << 30).build().unwrap();
    // All checks on that thread, whose CPU time nothing else adds to. The gap is the same for those that callers take.
    let monitor = ResourceMonitor::builder(limits).inline_check(Duration::ZERO).build().unwrap();
    monitor.start(Duration::from_secs(15)).unwrap();
    let readiness = monitor.readiness();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Relaxed) {
                black_box(readiness.is_accepting_work());
            }
        });
        let mut snapshots = monitor.snapshots();
        // From one check to another, a whole number of rounds: the first check, which reads everything, is over.
        let began = snapshots.next().unwrap().timestamp;
        let before = check_thread_cpu();
        let (mut at, mut checks) = (began, 0);
        while at - began < AT_LEAST.0 || checks < AT_LEAST.1 {
            at = snapshots.next().unwrap().timestamp;
            checks += 1;
        }
        let share = (check_thread_cpu() - before).as_secs_f64() / (at - began).as_secs_f64();
        ended.store(true, Relaxed);
        share
    })
}

/// The CPU time of our own check thread, from `schedstat` (proc(5)): nanoseconds are its first field.
fn check_thread_cpu() -> Duration {
    let thread = fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|task| task.unwrap().path())
        .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "highwater\n"));
    let schedstat = fs::read_to_string(thread.unwrap().join("schedstat")).unwrap();
    Duration::from_nanos(schedstat.split_whitespace().next().unwrap().parse().unwrap())
}

/// Draws the cost of a check against the number of children.
fn plot() {
    const CHILDREN: [usize; 6] = [10, 30, 100, 300, 1000, 2000];
    let mut lines = vec![Vec::new(); Way::ALL.len()];
    for count in CHILDREN {
        let _children = Children::sleepers(count);
        for (median, line) in Measured::new(count).medians.into_iter().zip(&mut lines) {
            line.extend(median.map(|median| (count as f64, median.as_secs_f64() * 1e6)));
        }
    }
    let top = lines.iter().flatten().map(|point| point.1).fold(0.0, f64::max) * 1.5;
    let root = SVGBackend::new(PLOT, (900, 560)).into_drawing_area();
    root.fill(&WHITE).unwrap();
    let mut chart = ChartBuilder::on(&root)
        .caption("One full check", ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((10.0..2000.0_f64).log_scale(), (10.0..top).log_scale())
        .unwrap();
    let mesh = &mut chart.configure_mesh();
    let whole = &|number: &f64| format!("{number:.0}");
    mesh.x_label_formatter(whole).y_label_formatter(whole);
    mesh.x_desc("children").y_desc("microseconds").label_style(("sans-serif", 14)).draw().unwrap();
    for (index, (way, line)) in Way::ALL.into_iter().zip(lines).enumerate() {
        let color = Palette99::pick(index).stroke_width(2);
        let series = LineSeries::new(line.clone(), color).point_size(4);
        let legend = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color);
        if !line.is_empty() {
            chart.draw_series(series).unwrap().label(way.name().replace('`', "")).legend(legend);
        }
    }
    let labels = &mut chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperLeft).border_style(BLACK).background_style(WHITE).draw().unwrap();
    root.present().unwrap();
}

fn processes() -> usize {
    let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())).count()
}
