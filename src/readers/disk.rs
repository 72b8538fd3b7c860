//! The room in a file system, asked for on a thread of its own.
//!
//! `statvfs` of a file system on a server waits until the server answers, and no deadline can be given to it. So a
//! thread asks, and a check waits for the answer for no longer than [`PATIENCE`]; while the thread hangs, no check waits
//! at all. A thread that hangs where nobody looks any more is left behind: it ends when it is answered.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sys::file_system::{file_system, FileSystem};
use crate::sys::fork::{Condvar, Mutex};
use crate::sys::{fine_now, thread};
use crate::vocabulary::{DiskSpace, Error, ErrorKind, ReadOptional};

/// The time that the check waits which has asked: a disk answers within microseconds, and the thread may have to wait for
/// a processor.
const PATIENCE: Duration = Duration::from_millis(10);

/// An answer is good for this long. Older than that it is nobody's word on how much is free now.
const GOOD_FOR: Duration = Duration::from_secs(2);

/// Until this age of the last answer, nobody asks again: callers can take a check every few milliseconds.
const FRESH_FOR: Duration = Duration::from_millis(20);

const THREAD: &str = "highwater-disk";

/// The stack of the thread, which calls one function.
const STACK: usize = 256 << 10;

type Ask = fn(&CStr) -> io::Result<FileSystem>;

/// The reader of one file system at a time.
#[derive(Debug)]
pub(crate) struct DiskReader {
    exchange: Arc<Exchange>,
    ask: Ask,
}

/// The place where checks and the thread meet.
#[derive(Debug, Default)]
struct Exchange {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    question: Option<Question>,
    answer: Option<Answer>,
    /// The thread that answers; one with a lower number is left behind.
    thread: u64,
    has_thread: bool,
    /// Nobody will ask any more.
    over: bool,
}

#[derive(Debug)]
struct Question {
    path: Arc<Path>,
    at: Duration,
}

#[derive(Debug)]
struct Answer {
    path: Arc<Path>,
    at: Duration,
    read: Result<FileSystem, Arc<Error>>,
}

impl DiskReader {
    pub(crate) fn new() -> DiskReader {
        DiskReader::asking(file_system)
    }

    fn asking(ask: Ask) -> DiskReader {
        DiskReader { exchange: Arc::default(), ask }
    }

    /// Has the thread ask, unless it is at it. It answers while the check reads other things.
    pub(crate) fn begin(&self, path: &Arc<Path>) {
        let mut state = self.exchange.state.lock();
        let now = fine_now();
        let is_fresh = |answer: &Answer| answer.path == *path && now.saturating_sub(answer.at) < FRESH_FOR;
        match &state.question {
            Some(question) if question.path == *path => return,
            // It hangs where nobody looks any more.
            Some(_) => state.has_thread = false,
            None if state.answer.as_ref().is_some_and(is_fresh) => return,
            None => {}
        }
        state.question = Some(Question { path: Arc::clone(path), at: now });
        if !state.has_thread {
            state.thread += 1;
            match self.spawn(state.thread) {
                Ok(()) => state.has_thread = true,
                Err(error) => state.give(Err(Error::thread(THREAD, error))),
            }
        }
        self.exchange.changed.notify_all();
    }

    /// The room in the file system now, or what was answered a moment ago.
    pub(crate) fn finish(&self, path: &Arc<Path>) -> ReadOptional<DiskSpace> {
        let patience = |state: &State| {
            let asked = state.question.as_ref()?.at;
            PATIENCE.checked_sub(fine_now().saturating_sub(asked)).filter(|left| !left.is_zero())
        };
        let mut state = self.exchange.state.lock();
        while let Some(left) = patience(&state) {
            (state, _) = self.exchange.changed.wait_until(state, Instant::now() + left);
        }
        let now = fine_now();
        if let Some(Answer { at, read, .. }) = state.answer.as_ref().filter(|answer| answer.path == *path) {
            if now.saturating_sub(*at) <= GOOD_FOR {
                return read.clone().map(|found| Some(DiskSpace::new(path, &found)));
            }
        }
        let waited = state.question.as_ref().map_or(Duration::ZERO, |question| now.saturating_sub(question.at));
        let text = format!("the file system of {} has not answered for {:.1} s", path.display(), waited.as_secs_f64());
        Err(Arc::new(Error::new(ErrorKind::Read, text)))
    }

    fn spawn(&self, number: u64) -> io::Result<()> {
        let (exchange, ask) = (Arc::clone(&self.exchange), self.ask);
        thread::spawn(THREAD, STACK, move || exchange.answer_all(number, ask)).map(drop)
    }
}

impl Exchange {
    /// Answers one question after the other, until nobody asks this thread any more.
    fn answer_all(&self, number: u64, ask: Ask) {
        // As the system takes it, and kept, so that one answer after the other allocates nothing.
        let mut known: Option<(Arc<Path>, CString)> = None;
        let mut state = self.state.lock();
        while !state.over && state.thread == number {
            let Some(path) = state.question.as_ref().map(|question| Arc::clone(&question.path)) else {
                state = self.changed.wait(state);
                continue;
            };
            drop(state);
            let read = match &known {
                Some((known, name)) if *known == path => ask(name),
                _ => CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from).and_then(|name| {
                    let (_, name) = known.insert((Arc::clone(&path), name));
                    ask(name)
                }),
            };
            let read = read.map_err(|error| Error::read(path.to_path_buf(), error));
            state = self.state.lock();
            if state.thread == number {
                state.give(read);
                self.changed.notify_all();
            }
        }
    }
}

impl State {
    fn give(&mut self, read: Result<FileSystem, Error>) {
        let path = self.question.take().map(|question| question.path);
        self.answer = path.map(|path| Answer { path, at: fine_now(), read: read.map_err(Arc::new) });
    }
}

impl Drop for DiskReader {
    fn drop(&mut self) {
        self.exchange.state.lock().over = true;
        self.exchange.changed.notify_all();
    }
}

impl DiskSpace {
    fn new(path: &Arc<Path>, found: &FileSystem) -> DiskSpace {
        let is_usable = !found.is_out_of_inodes && !found.is_read_only;
        let free_bytes = if is_usable { found.free_bytes.min(found.total_bytes) } else { 0 };
        DiskSpace { path: Arc::clone(path), free_bytes, total_bytes: found.total_bytes }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use super::*;

    const ROOM: FileSystem =
        FileSystem { total_bytes: 100, free_bytes: 60, is_out_of_inodes: false, is_read_only: false };

    fn path(path: &str) -> Arc<Path> {
        Path::new(path).into()
    }

    fn read(reader: &DiskReader, place: &Arc<Path>) -> ReadOptional<DiskSpace> {
        reader.begin(place);
        reader.finish(place)
    }

    /// The answer, however long the thread waits for a processor.
    fn read_patiently(reader: &DiskReader, place: &Arc<Path>) -> ReadOptional<DiskSpace> {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            match read(reader, place) {
                Err(error) if error.to_string().contains("not answered") && Instant::now() < deadline => {}
                read => return read,
            }
        }
    }

    #[test]
    fn a_file_system_that_no_file_can_be_made_in_has_no_room() {
        let place = path("/data");
        let free = |found: FileSystem| DiskSpace::new(&place, &found).free_bytes;
        assert_eq!(free(ROOM), 60);
        assert_eq!(free(FileSystem { is_out_of_inodes: true, ..ROOM }), 0);
        assert_eq!(free(FileSystem { is_read_only: true, ..ROOM }), 0);
        assert_eq!(free(FileSystem { free_bytes: 500, ..ROOM }), 100);
    }

    #[test]
    fn answers_are_those_of_the_path_that_was_asked_for() {
        let reader = DiskReader::new();
        let root = read_patiently(&reader, &path("/")).unwrap().unwrap();
        assert!(root.free_bytes <= root.total_bytes && &*root.path == Path::new("/"));
        assert!(read_patiently(&reader, &path("/a\0b")).is_err());
        let error = read_patiently(&reader, &path("/nonexistent")).unwrap_err();
        assert_eq!(error.path(), Some(Path::new("/nonexistent")));
        assert!(read_patiently(&reader, &path("/")).is_ok());
    }

    #[test]
    fn a_file_system_that_hangs_delays_nobody_twice_and_another_is_read_meanwhile() {
        static GATE: StdMutex<()> = StdMutex::new(());
        let closed = GATE.lock().unwrap();
        let reader = DiskReader::asking(|path| {
            if path.to_bytes() == b"/hangs" {
                drop(GATE.lock());
            }
            Ok(ROOM)
        });
        let (hangs, answers) = (path("/hangs"), path("/answers"));
        let error = read(&reader, &hangs).unwrap_err();
        assert!(error.to_string().starts_with("the file system of /hangs has not answered for 0."), "{error}");
        // The question of before is still open, so there is no patience left.
        let question = |reader: &DiskReader| reader.exchange.state.lock().question.as_ref().map(|question| question.at);
        let asked = question(&reader);
        assert!(asked.is_some() && read(&reader, &hangs).is_err());
        assert_eq!(question(&reader), asked, "nobody asks a second time");
        assert!(read_patiently(&reader, &answers).is_ok());
        drop(closed);
        assert!(read_patiently(&reader, &hangs).is_ok());
    }

    #[test]
    fn a_thread_ends_with_its_reader() {
        let reader = DiskReader::new();
        read_patiently(&reader, &path("/")).unwrap();
        let exchange = Arc::downgrade(&reader.exchange);
        drop(reader);
        let deadline = Instant::now() + Duration::from_secs(120);
        while exchange.strong_count() > 0 {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }
}
