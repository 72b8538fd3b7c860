//! Runs one build, no wider than its surroundings allow: what `make`, `ninja`, `cargo` and others start at once below it is
//! up to the memory and the processes that there are.
//!
//! ```sh
//! cargo run --release --example build_gate -- make
//! cargo run --release --example build_gate -- --tokens 16 cargo build
//! ```
//!
//! Without a `-j` of their own, which would switch the jobserver off. Ends as the build ends: with its status, or 128 plus the
//! number of the signal that ended it. Signals are passed on.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use clap::Parser;
use highwater::{BoxError, MemoryScope, ResourceLimits, ResourceMonitor, Work};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

#[derive(Parser)]
struct Options {
    /// The most that run at once beside the first [default: one fewer than there are CPUs]
    #[arg(long)]
    tokens: Option<usize>,
    /// A fifo instead of two pipes, for clients that know nothing else
    #[arg(long)]
    fifo: bool,
    /// The build
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("warn"));
    match run(&Options::parse()) {
        Ok(status) => {
            let code = status.code().or_else(|| Some(128 + status.signal()?));
            ExitCode::from(code.and_then(|code| code.try_into().ok()).unwrap_or(1))
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(127)
        }
    }
}

fn run(options: &Options) -> Result<ExitStatus, BoxError> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    let monitor = ResourceMonitor::builder(ResourceLimits::detect()?).memory_scope(MemoryScope::Tree).build()?;
    let mut server = monitor.jobserver();
    if let Some(tokens) = options.tokens {
        server = server.tokens(tokens);
    }
    if options.fifo {
        server = server.fifos_in(std::env::temp_dir());
    }
    let server = server.build()?;
    monitor.start(Duration::from_secs(1))?;

    let mut build = Command::new(&options.command[0]);
    let channel = server.attach(build.args(&options.command[1..]))?;
    // The build itself runs in any case, if only a step at a time.
    let permit = monitor.try_admit(Work::new().label("build")).ok();
    let mut child = build.spawn()?;
    if let Some(Err(error)) = permit.as_ref().map(|permit| permit.attach(child.id())) {
        log::warn!("the build counts twice: {error}");
    }
    channel.serve(child.id())?;
    let pid = Pid::from_raw(child.id().try_into()?);
    std::thread::spawn(move || {
        let signals = signals.forever().filter_map(|signal| Signal::try_from(signal).ok());
        signals.for_each(|signal| kill(pid, signal).unwrap_or_default());
    });
    let status = child.wait()?;
    log::info!("{:?}", server.tally());
    Ok(status)
}
