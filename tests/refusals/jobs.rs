//! Jobs, their output, and tokens for their builds.

use std::process::Command;
use std::sync::{Arc, Mutex};

use highwater::{ErrorKind, Grouping, Job, JobHandle, JobOutput, Jobs, MemoryScope, Outcome, ResourceMonitor};
use nix::sys::prctl::{get_child_subreaper, set_child_subreaper};

use crate::common::ms;
use crate::gate::{is, lean, wide};
use crate::trial::{comes_true, Trial};

fn running() -> ResourceMonitor {
    let monitor = lean(wide(), MemoryScope::Tree).build().unwrap();
    monitor.start(ms(4)).unwrap();
    monitor
}

/// What the system refuses is said so.
fn is_refusal(error: &highwater::Error) -> Result<(), String> {
    is(
        matches!(error.kind(), ErrorKind::Process | ErrorKind::Thread | ErrorKind::Read),
        format_args!("{:?}: {error}", error.kind()),
    )
}

/// A job either ends with what it does, or was never started.
fn job_ends(job: &JobHandle) -> Result<bool, String> {
    let mut ended = None;
    comes_true("the job has an end", || {
        ended = ended.take().or_else(|| job.wait_timeout(ms(1)));
        ended.is_some()
    })?;
    match ended {
        Some(Outcome::Ended(status)) => is(status.code() == Some(7), status).map(|()| true),
        Some(Outcome::NotStarted(error)) => is(error.raw_os_error().is_some(), &error).map(|()| false),
        ended => Err(format!("the job has ended so: {ended:?}")),
    }
}

/// A job that writes a line, from the making of what runs it to its end.
pub fn run(trial: &Trial) -> Result<(), String> {
    let monitor = running();
    let written: Arc<Mutex<String>> = Arc::default();
    let made = trial.refusing(|| -> Result<(Jobs, JobOutput, JobHandle), highwater::Error> {
        let written = Arc::clone(&written);
        let output = JobOutput::new(Grouping::Whole, move |_, text| {
            text.read_to_string(&mut written.lock().unwrap()).map(drop)
        })?;
        let server = monitor.jobserver().tokens(2).build()?;
        let jobs = monitor.jobs().width(2).output(&output).jobserver(&server).build()?;
        let mut sh = Command::new("sh");
        sh.args(["-c", "echo line; exit 7"]);
        let job = jobs.submit(Job::new(sh))?;
        // Or it waits for what is refused.
        let _ = job.wait_timeout(ms(8));
        Ok((jobs, output, job))
    });
    match made {
        Ok((jobs, output, job)) => {
            let has_run = job_ends(&job)?;
            comes_true("what it wrote is handed over", || output.wait(ms(5)))?;
            let text = written.lock().unwrap().clone();
            is(text == if has_run { "line\n" } else { "" }, format_args!("it has written {text:?}"))?;
            trial.refusing(|| drop((jobs, output, job)));
        }
        Err(error) => {
            is_refusal(&error)?;
            let is_subreaper = get_child_subreaper().unwrap();
            is(!is_subreaper, "there are no jobs, and this process adopts orphans")?;
        }
    }
    // Jobs leave it so.
    set_child_subreaper(false).unwrap();
    Ok(())
}

/// A command that has a channel of a jobserver, and takes no token.
pub fn serve(trial: &Trial, is_fifo: bool) -> Result<(), String> {
    let monitor = running();
    let folder = tempfile::tempdir().unwrap();
    let mut children = Vec::new();
    let made = trial.refusing(|| -> Result<_, highwater::Error> {
        let builder = monitor.jobserver().tokens(2);
        let server = if is_fifo { builder.fifos_in(folder.path()) } else { builder }.build()?;
        let mut command = Command::new("true");
        let channel = server.attach(&mut command)?;
        if let Ok(child) = command.spawn() {
            let served = channel.serve(child.id());
            children.push(child);
            served?;
        }
        Ok((server, channel))
    });
    for mut child in children {
        child.wait().unwrap();
    }
    match made {
        Ok((server, channel)) => {
            is(channel.tokens() == 0, "a token that nobody has taken")?;
            trial.refusing(|| drop((server, channel)));
        }
        Err(error) => is_refusal(&error)?,
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.path()).collect();
    is(left.is_empty(), format_args!("left are {left:?}"))
}
