//! An operation that is tried again and again, each time with another call refused, until it makes fewer calls than that.

use std::fmt::Display;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{ms, wait_until, DEADLINE};
use crate::turn::{self, Kind, Refused};

/// More calls than any operation makes: one that makes more asks without end.
const ENDLESS: usize = 5000;
/// As many as a call has errors that fit it.
const ERRORS: usize = 3;
/// Where all that follow are refused as well, the next trial begins so many calls later: it refuses most of the same.
const SOME: usize = 5;

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// What is tried, and since when; for the watchman.
static TRIED: Mutex<Option<(String, Instant)>> = Mutex::new(None);

/// One run of an operation, in which calls are refused.
pub struct Trial {
    refused: Refused,
    error: usize,
}

impl Trial {
    /// Runs a part of the operation in which calls are refused. What it makes is to be looked at afterwards.
    pub fn refusing<R>(&self, part: impl FnOnce() -> R) -> R {
        turn::armed(part)
    }
}

/// What a process has, and must not have more of after an operation.
#[derive(Debug, PartialEq, Eq)]
struct Belongings {
    /// Those of the library, by their names.
    threads: usize,
    descriptors: usize,
    children: usize,
}

impl Belongings {
    fn now() -> Belongings {
        let (mut threads, mut children) = (0, 0);
        for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
            let of = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            threads += usize::from(of("comm").starts_with("highwater"));
            children += of("children").split_whitespace().count();
        }
        Belongings { threads, descriptors: fs::read_dir("/proc/self/fd").unwrap().count(), children }
    }
}

/// Tries an operation in every way, and prints how often. One error at a time for each number, another one for the next;
/// with `HIGHWATER_REFUSALS=all` each of them, and all that follow from each call on.
///
/// The operation returns what was wrong, and how many descriptors it has kept on purpose.
pub fn in_turn<T: Fn(&Trial) -> Result<usize, String>>(name: &str, operation: T) {
    watch();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, SeqCst);
        usual(panic);
    }));
    // So that what is made once and kept is there.
    turn::set(Kind::SystemCall, Refused::From(usize::MAX), 0);
    operation(&Trial { refused: Refused::From(usize::MAX), error: 0 }).unwrap();
    wait_until("its threads have ended", || Belongings::now().threads == 0);
    let all = std::env::var_os("HIGHWATER_REFUSALS").is_some_and(|which| which == "all");
    let (errors, step) = if all { (ERRORS, 1) } else { (1, SOME) };
    let began = Instant::now();
    let alone: usize = (0..errors).map(|error| try_each(name, Refused::One, 1, error, &operation)).sum();
    let with_others: usize = (0..errors).map(|error| try_each(name, Refused::From, step, error, &operation)).sum();
    println!("{name}: {alone} calls refused alone, {with_others} with all that follow, {:?}", began.elapsed());
}

/// Returns how many were refused.
fn try_each<T>(name: &str, way: fn(usize) -> Refused, step: usize, error: usize, operation: &T) -> usize
where
    T: Fn(&Trial) -> Result<usize, String>,
{
    for number in 0..ENDLESS {
        let trial = Trial { refused: way(1 + number * step), error };
        let before = Belongings::now();
        *TRIED.lock().unwrap() = Some((format!("{name}, {:?}, error {error}", trial.refused), Instant::now()));
        turn::set(Kind::SystemCall, trial.refused, trial.error);
        let result = operation(&trial);
        *TRIED.lock().unwrap() = None;
        let (calls, refused) = (turn::calls(), turn::name());
        let what = format!("{name}, {:?} of {calls} calls, {refused} with error {error}", trial.refused);
        let kept = result.unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
        // What was joined may be listed for a moment.
        let allowed = Belongings { descriptors: before.descriptors + kept, ..before };
        wait_until(&format!("nothing is left: {what}: {allowed:?}, {:?}", Belongings::now()), || {
            Belongings::now() == allowed
        });
        assert_eq!(PANICS.load(SeqCst), 0, "{what}");
        if calls < trial.refused.first() {
            return number;
        }
    }
    panic!("{name} makes {ENDLESS} calls");
}

/// Says what hangs, and where, and ends the process.
fn watch() {
    thread::spawn(|| {
        turn::spare_this_thread();
        loop {
            thread::sleep(ms(200));
            let tried = TRIED.lock().unwrap();
            if let Some((what, _)) = tried.as_ref().filter(|(_, since)| since.elapsed() > DEADLINE) {
                let of =
                    |task: fs::DirEntry, file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
                let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
                let threads: Vec<_> = tasks.map(|task| of(task, "syscall")).collect();
                eprintln!("it hangs: {what}: {threads:#?}");
                std::process::abort();
            }
        }
    });
}

/// Waits for what comes about by itself once nothing is refused any more.
pub fn comes_true(what: impl Display, mut condition: impl FnMut() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + DEADLINE / 2;
    while !condition() {
        if Instant::now() > deadline {
            return Err(format!("it does not come true that {what}"));
        }
        thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}
