//! A thread of ours that can be stopped without waiting for the host's code.

use std::cell::Cell;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::host::contained;
use crate::sys::fork::{Condvar, Mutex};
use crate::sys::thread::{spawn, STACK};
use crate::sys::{ProcessMark, SignalMask};
use crate::vocabulary::Error;

thread_local! {
    /// The worker of this thread, if it has one; only ever compared. The standard library's own name for a thread would
    /// be made for each thread of the host's that asks, and never unmade in the first.
    static CURRENT: Cell<*const Worker> = const { Cell::new(std::ptr::null()) };
}

/// One thread, from before it is spawned until after it was joined or left behind.
#[derive(Debug)]
pub(crate) struct Worker {
    name: &'static str,
    /// Of the process that its thread belongs to.
    mark: ProcessMark,
    state: Mutex<WorkerState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct WorkerState {
    stopping: bool,
    in_hook: bool,
    thread: Thread,
}

#[derive(Debug, Default)]
enum Thread {
    #[default]
    NotSpawned,
    Running(JoinHandle<()>),
    /// Its code has returned; the handle is there until someone joins.
    Done(Option<JoinHandle<()>>),
}

impl Worker {
    pub(crate) fn new(name: &'static str) -> Arc<Worker> {
        Arc::new(Worker { name, mark: ProcessMark::here(), state: Mutex::default(), changed: Condvar::default() })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Spawns the thread, deaf to every signal but the synchronous faults from its first instruction on, unless it was
    /// told to stop already.
    pub(crate) fn spawn(self: &Arc<Self>, body: impl FnOnce(&Arc<Worker>) + Send + 'static) -> Result<(), Error> {
        // Held until the handle is stored, so that a body that returns at once finds it there.
        let mut state = self.state.lock();
        if state.stopping {
            return Ok(());
        }
        let worker = Arc::clone(self);
        let spawned = spawn(self.name, STACK, move || {
            let finished = Finished(worker);
            CURRENT.with(|current| current.set(Arc::as_ptr(&finished.0)));
            body(&finished.0);
        });
        let handle = spawned.map_err(|error| Error::thread(self.name, error))?;
        state.thread = Thread::Running(handle);
        Ok(())
    }

    /// From now on no hook begins.
    pub(crate) fn stop(&self) {
        self.state.lock().stopping = true;
    }

    /// Whether its code has returned. False before it is spawned.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state.lock().thread, Thread::Done(_))
    }

    /// Whether its code is running. It never will be if the worker was stopped before it was spawned.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state.lock().thread, Thread::Running(_))
    }

    /// Whether the calling thread is this worker's.
    pub(crate) fn is_current(&self) -> bool {
        std::ptr::eq(CURRENT.with(Cell::get), self)
    }

    /// Whether this is the copy of the thread that a hook made which forked and then returned in the child too. Such a
    /// copy ends without another hook, and without the worker's lock, which may have been held at the fork.
    pub(crate) fn is_copy(&self) -> bool {
        self.mark.is_inherited()
    }

    /// Runs the host's code on this worker's thread, under the host's signal mask; `None` if the worker was stopped
    /// first, or if this thread is a copy. A panic becomes its message.
    pub(crate) fn hook<R>(&self, mask: SignalMask, code: impl FnOnce() -> R) -> Option<Result<R, String>> {
        if self.is_copy() || !self.enter_hook(|state| !state.stopping) {
            return None;
        }
        let result = mask.with(|| contained(code));
        self.leave_hook().then_some(result)
    }

    /// Drops a handle of the host's, which may be the last one: the host's code, even when no hook may begin any more.
    /// Returns the message of a panic.
    pub(crate) fn drop_contained<T>(&self, mask: SignalMask, handle: T) -> Result<(), String> {
        if self.is_copy() {
            // The handle is the parent's to drop.
            std::mem::forget(handle);
            return Ok(());
        }
        self.enter_hook(|_| true);
        let result = mask.with(|| contained(|| drop(handle)));
        self.leave_hook();
        result
    }

    fn enter_hook(&self, may: impl FnOnce(&WorkerState) -> bool) -> bool {
        let mut state = self.state.lock();
        state.in_hook = may(&state);
        state.in_hook
    }

    /// Returns false in a copy.
    fn leave_hook(&self) -> bool {
        if self.is_copy() {
            return false;
        }
        self.state.lock().in_hook = false;
        self.changed.notify_all();
        true
    }

    /// Joins the stopped thread, waiting for our own code as long as it takes and for the host's until `deadline`.
    /// Returns false when the thread was left in the host's code; it ends by itself.
    pub(crate) fn join(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        loop {
            if let Thread::Done(handle) = &mut state.thread {
                let handle = handle.take();
                drop(state);
                if let Some(handle) = handle {
                    // Its panic, if any, was contained and reported on the thread itself.
                    let _ = handle.join();
                }
                return true;
            }
            if matches!(state.thread, Thread::NotSpawned) {
                return true;
            }
            if !state.in_hook {
                state = self.changed.wait(state);
                continue;
            }
            let (guard, too_late) = self.changed.wait_until(state, deadline);
            state = guard;
            if too_late && state.in_hook && !matches!(state.thread, Thread::Done(_)) {
                return false;
            }
        }
    }
}

/// Marks the worker done when its code returns, however it does.
struct Finished(Arc<Worker>);

impl Drop for Finished {
    fn drop(&mut self) {
        if self.0.is_copy() {
            return;
        }
        let mut state = self.0.state.lock();
        state.in_hook = false;
        state.thread = match std::mem::take(&mut state.thread) {
            Thread::Running(handle) => Thread::Done(Some(handle)),
            other => other,
        };
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn joining_waits_for_the_hosts_code_until_the_deadline_only() {
        let worker = Worker::new("test");
        let (entered, in_hook) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        worker
            .spawn(move |worker| {
                worker.hook(SignalMask::current(), || {
                    entered.send(()).unwrap();
                    let _ = released.recv();
                });
                assert!(worker.hook(SignalMask::current(), || ()).is_none());
            })
            .unwrap();
        in_hook.recv_timeout(Duration::from_secs(120)).unwrap();
        worker.stop();
        assert!(!worker.join(Instant::now() + Duration::from_millis(20)));
        assert!(!worker.is_done());
        drop(release);
        assert!(worker.join(Instant::now() + Duration::from_secs(120)));
        assert!(worker.is_done());
    }

    #[test]
    fn a_worker_stopped_before_it_is_spawned_never_runs() {
        let worker = Worker::new("test");
        worker.stop();
        worker.spawn(|_| unreachable!()).unwrap();
        assert!(worker.join(Instant::now()));
    }

    #[test]
    fn a_panicking_body_is_done_and_joined() {
        let worker = Worker::new("test");
        worker.spawn(|_| panic!("out of the loop")).unwrap();
        assert!(worker.join(Instant::now() + Duration::from_secs(120)));
    }
}
