//! A server that forks its workers, under clients.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use procfs::process::Process;

use super::{ms, wait_until};

const WORKERS: usize = 8;
const REQUESTS: usize = 64;
const CLIENTS: usize = 16;

/// The limit on the server, which is told to this test by nobody.
const LIMIT_MB: u64 = 400;

struct Server(Child);

impl Server {
    fn workers(&self) -> Vec<i32> {
        let of =
            |process: Process| process.stat().is_ok_and(|stat| stat.ppid as u32 == self.0.id() && stat.state != 'Z');
        let all = procfs::process::all_processes().unwrap().flatten();
        all.filter_map(|process| Some(process.pid).filter(|_| of(process))).collect()
    }

    /// What all of them use, without the pages of files that each worker shares with the others.
    fn resident_mb(&self) -> u64 {
        let statm = |pid: i32| Process::new(pid).and_then(|process| process.statm()).ok();
        let of_workers = self.workers().into_iter().filter_map(statm).map(|statm| statm.resident - statm.shared);
        let own = statm(self.0.id() as i32).map_or(0, |statm| statm.resident);
        ((own + of_workers.sum::<u64>()) * procfs::page_size()) >> 20
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The server of eight workers, with requests of 60 MB and a limit of 400 MB for all together, answers every request, but for
/// that of a worker that is killed; it replaces this one, and its room is free again. The limit is never passed.
pub fn serves_below_its_limit(command: &mut Command) {
    let mut server = Server(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = format!("http://{}/", line.trim().strip_prefix("listening on ").unwrap());
    wait_until("the workers are there", || server.workers().len() == WORKERS);

    let (asked, done, is_over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let peak = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !is_over.load(SeqCst) {
                peak = peak.max(server.resident_mb());
                thread::sleep(ms(2));
            }
            peak
        });
        let client = || {
            while asked.fetch_add(1, SeqCst) < REQUESTS {
                let answer = minreq::get(&url).with_timeout(100).send();
                let text = answer.map_or_else(|error| error.to_string(), |answer| answer.as_str().unwrap().to_owned());
                match text.as_str() {
                    "done\n" => drop(done.fetch_add(1, SeqCst)),
                    text => println!("{text}"),
                }
            }
        };
        let clients = [(); CLIENTS].map(|()| scope.spawn(client));
        wait_until("a quarter is done", || done.load(SeqCst) >= REQUESTS / 4);
        let killed = server.workers()[0];
        kill(Pid::from_raw(killed), Signal::SIGKILL).unwrap();
        wait_until("it is replaced", || {
            let workers = server.workers();
            workers.len() == WORKERS && !workers.contains(&killed)
        });
        clients.into_iter().for_each(|client| client.join().unwrap());
        is_over.store(true, SeqCst);
        watch.join().unwrap()
    });
    println!("{} of {REQUESTS} done, at most {peak} MB", done.load(SeqCst));
    assert!(done.load(SeqCst) >= REQUESTS - 1);
    assert!(peak > 100 && peak <= LIMIT_MB, "{peak} MB");
    kill(Pid::from_raw(server.0.id() as i32), Signal::SIGTERM).unwrap();
    assert!(server.0.wait().unwrap().success());
}
