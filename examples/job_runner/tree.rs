//! A process and all that is below it.

use procfs::process::Process;

/// The process, if it is there, and all that is below it. One that has ended meanwhile is left out, and so are those that it
/// has left behind, which are children of this process by then.
pub(crate) fn below(pid: u32) -> impl Iterator<Item = Process> {
    let mut pids = vec![pid];
    std::iter::from_fn(move || loop {
        let Ok(process) = Process::new(pids.pop()? as i32) else { continue };
        let threads = process.tasks().into_iter().flatten().flatten();
        pids.extend(threads.flat_map(|thread| thread.children().unwrap_or_default()));
        return Some(process);
    })
}

/// How many threads it has.
pub(crate) fn threads(process: &Process) -> u64 {
    process.stat().map_or(0, |stat| stat.num_threads as u64)
}
