//! Prints what a monitor sees, while this program takes memory and gives it back. Ends with Ctrl-C.
//!
//! ```sh
//! cargo run --release --example watch
//! ```

use std::env;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use clap::Parser;
use highwater::{BoxError, Readiness, ResourceLimits, ResourceMonitor, ResourceSnapshot};

const MAX_MEMORY_MB: u64 = 100;
const MAX_PROCESSES: u64 = 10;

/// Prints what a monitor sees, while this program takes memory and gives it back
#[derive(Parser)]
struct Options {
    /// End after this many lines instead of with Ctrl-C
    #[arg(long, value_name = "N")]
    lines: Option<usize>,
}

fn main() -> Result<(), BoxError> {
    let options = Options::parse();
    writeln!(io::stderr(), "limits of the surroundings: {}", ResourceLimits::detect()?)?;

    let limits = ResourceLimits::builder().max_memory_mb(MAX_MEMORY_MB).max_processes(MAX_PROCESSES);
    // Room on a disk is read where some of it is to stay free.
    let monitor = ResourceMonitor::new(limits.min_free_disk_mb(env::temp_dir(), 1).build()?);
    let snapshots = monitor.snapshots();
    monitor.start(Duration::from_millis(250))?;

    let readiness = monitor.readiness();
    thread::spawn(move || breathe(&readiness));

    for snapshot in snapshots.take(options.lines.unwrap_or(usize::MAX)) {
        // Rounded down, as verdicts are: what accepts work is not printed as if it had reached the threshold.
        let memory = (snapshot.memory_usage_mb() * 10.0).floor() / 10.0;
        let processes = snapshot.child_process_count.unwrap_or_default();
        let verdict = monitor.verdict();
        writeln!(
            io::stdout(),
            "memory {memory:6.1} MB {}  processes {processes:3} {}  {}  {}",
            bar(memory / MAX_MEMORY_MB as f64),
            bar(processes as f64 / MAX_PROCESSES as f64),
            others(&snapshot),
            if verdict.is_accepting() { "accepting work".into() } else { verdict.to_string() },
        )?;
    }
    Ok(())
}

/// Takes memory for as long as the gate is open, then gives half of it back, for ever.
fn breathe(readiness: &Readiness) {
    let mut held = Vec::new();
    loop {
        if readiness.is_accepting_work() {
            held.push(vec![1_u8; 4 << 20]);
        } else {
            held.truncate(held.len() / 2);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// What else was read.
fn others(snapshot: &ResourceSnapshot) -> String {
    let mb = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
    let mut shown = Vec::new();
    if let Some(threads) = snapshot.thread_count {
        shown.push(format!("threads {threads}"));
    }
    if let Some(files) = snapshot.open_files {
        let limit = files.limit.map_or("unlimited".into(), |limit| limit.to_string());
        shown.push(format!("files {}/{limit}", files.count));
    }
    if let Some(memory) = &snapshot.cgroup_memory {
        shown.push(format!("cgroup memory {:.1}/{:.1} MB", mb(memory.usage_bytes), mb(memory.limit_bytes)));
    }
    if let Some(pids) = &snapshot.cgroup_pids {
        shown.push(format!("cgroup pids {}/{}", pids.count, pids.limit));
    }
    if let Some(pressure) = snapshot.memory_pressure {
        shown.push(format!("pressure {:.2} %", pressure.some_avg10));
    }
    for (name, pressure) in [("CPU", snapshot.cpu_pressure), ("I/O", snapshot.io_pressure)] {
        if let Some(pressure) = pressure {
            shown.push(format!("{name} pressure {:.2} %", pressure.some_percent));
        }
    }
    if let Some(machine) = snapshot.machine_memory {
        shown.push(format!("machine {:.0} MB left of {:.0}", mb(machine.available_bytes), mb(machine.total_bytes)));
    }
    if let Some(disk) = &snapshot.disk_space {
        shown.push(format!("disk {:.0} MB left of {:.0}", mb(disk.free_bytes), mb(disk.total_bytes)));
    }
    shown.join("  ")
}

/// Twenty characters, filled up to `share` of them.
fn bar(share: f64) -> String {
    const WIDTH: usize = 20;
    let filled = ((share * WIDTH as f64) as usize).min(WIDTH);
    format!("[{}{}]", "#".repeat(filled), " ".repeat(WIDTH - filled))
}
