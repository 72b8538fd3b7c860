//! Threads of helper processes that do as they are told over a socket, and the stage that they all live on.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::mount::{mount, MsFlags};
use nix::sched::{unshare, CloneFlags};
use nix::sys::prctl;
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::{close, dup2_stdin, execvp, fork, getpid, gettid, pause, setsid, ForkResult, Pid};

/// What a thread can be told to do, with one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Forks a child, which listens at the wire of this number.
    Fork,
    /// The same, as a child of its own parent (`CLONE_PARENT`).
    ForkSibling,
    /// Starts a thread, which listens at the wire of this number.
    Thread,
    /// Ends this thread alone, be it the first of its process.
    EndThread,
    /// Ends the process.
    Exit,
    /// Becomes another program, which does nothing any more.
    Exec,
    Setsid,
    /// Kills this child, which may be a zombie already, and waits for it.
    KillAndReap,
    /// Forks this many children that end at once, one after the other, and waits for each.
    Burst,
    /// Has this many children that are told nothing.
    Crowd,
}

const VERBS: [Verb; 10] = [
    Verb::Fork,
    Verb::ForkSibling,
    Verb::Thread,
    Verb::EndThread,
    Verb::Exit,
    Verb::Exec,
    Verb::Setsid,
    Verb::KillAndReap,
    Verb::Burst,
    Verb::Crowd,
];

/// One pair of connected sockets for each thread that there can be. Every process inherits the far ends; only the
/// test's own holds the near ones, so that its end, however it comes, is the end of all who listen.
pub struct Wires(Vec<(UnixStream, UnixStream)>);

impl Wires {
    pub fn new(count: usize) -> &'static Wires {
        let pair = |_| {
            let (near, far) = UnixStream::pair().unwrap();
            near.set_nonblocking(true).unwrap();
            (near, far)
        };
        Box::leak(Box::new(Wires((0..count).map(pair).collect())))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn tell(&self, wire: usize, verb: Verb, argument: i32) {
        let mut message = [verb as u8; 5];
        message[1..].copy_from_slice(&argument.to_ne_bytes());
        (&self.0[wire].0).write_all(&message).unwrap();
    }

    /// The answer, if it has come.
    pub fn answer(&self, wire: usize) -> Option<i32> {
        let mut answer = [0; 4];
        match (&self.0[wire].0).read(&mut answer) {
            Ok(4) => Some(i32::from_ne_bytes(answer)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            other => panic!("wire {wire}: {other:?}"),
        }
    }

    fn far_end(&self, wire: usize) -> &UnixStream {
        &self.0[wire].1
    }

    /// In a process other than the test's own. It may be closed already: whoever forked this process has done so.
    fn close_near_ends(&self) {
        for (near, _) in &self.0 {
            let _ = close(near.as_raw_fd());
        }
    }
}

/// One thread that can be told to do things.
pub struct Actor {
    wires: &'static Wires,
    crowd: Vec<Pid>,
}

impl Actor {
    pub fn new(wires: &'static Wires) -> Actor {
        Actor { wires, crowd: Vec::new() }
    }

    /// Does as it is told until it is told to end this thread.
    fn listen(mut self, wire: usize) {
        let mut far_end = self.wires.far_end(wire);
        let mut message = [0; 5];
        while far_end.read_exact(&mut message).is_ok() {
            let argument = i32::from_ne_bytes(message[1..].try_into().unwrap());
            match VERBS[usize::from(message[0])] {
                Verb::EndThread => return,
                Verb::Exit => break,
                // Whatever it becomes ends when its wire does, as this would.
                Verb::Exec => {
                    let _ = dup2_stdin(far_end).and_then(|()| execvp(c"cat", &[c"cat"]));
                    break;
                }
                verb => {
                    let answer = self.perform(verb, argument);
                    if far_end.write_all(&answer.to_ne_bytes()).is_err() {
                        break;
                    }
                }
            }
        }
        exit_now(0);
    }

    /// The answer is a process id, or a negative error number.
    pub fn perform(&mut self, verb: Verb, argument: i32) -> i32 {
        let done = match verb {
            Verb::Fork => self.fork(argument as usize),
            Verb::ForkSibling => self.fork_sibling(argument as usize),
            Verb::Thread => self.start_thread(argument as usize),
            // A leader of a group cannot, and stays as it is.
            Verb::Setsid => Ok(setsid().unwrap_or(getpid())),
            Verb::KillAndReap => kill_and_reap(Pid::from_raw(argument)),
            Verb::Burst => (0..argument).try_fold(getpid(), |_, _| reap(fork_into(|| 0)?)),
            Verb::Crowd => self.crowd(argument as usize),
            Verb::EndThread | Verb::Exit | Verb::Exec => unreachable!("{verb:?} has no answer"),
        };
        done.map_or_else(|error| -(error as i32), Pid::as_raw)
    }

    fn fork(&self, wire: usize) -> Result<Pid, Errno> {
        fork_into(|| self.live(wire))
    }

    fn fork_sibling(&self, wire: usize) -> Result<Pid, Errno> {
        // SAFETY: without `CLONE_VM` and with no new stack this is a fork; the other threads of this process wait for
        // their wires meanwhile, so that no lock is held in the copy.
        #[allow(unsafe_code)]
        let answer = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_PARENT | libc::SIGCHLD, 0, 0, 0, 0) };
        match Errno::result(answer)? {
            0 => self.live(wire),
            pid => Ok(Pid::from_raw(pid as i32)),
        }
    }

    /// The life of a process that was forked.
    fn live(&self, wire: usize) -> ! {
        self.wires.close_near_ends();
        Actor::new(self.wires).listen(wire);
        // SAFETY: this ends the calling thread, which owns nothing that another one waits for.
        #[allow(unsafe_code)]
        unsafe {
            libc::syscall(libc::SYS_exit, 0);
        }
        unreachable!("this thread has ended")
    }

    fn start_thread(&self, wire: usize) -> Result<Pid, Errno> {
        // A thread that is just being made holds locks of the C library, and a sibling forked at that moment would wait
        // for them for ever: there is no answer before it has begun.
        static BEGUN: AtomicUsize = AtomicUsize::new(0);
        let (wires, before) = (self.wires, BEGUN.load(Ordering::SeqCst));
        let body = move || {
            BEGUN.fetch_add(1, Ordering::SeqCst);
            Actor::new(wires).listen(wire);
        };
        let started = thread::Builder::new().stack_size(256 << 10).spawn(body);
        while started.is_ok() && BEGUN.load(Ordering::SeqCst) == before {
            thread::yield_now();
        }
        started.map(|_| gettid()).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN)))
    }

    fn crowd(&mut self, count: usize) -> Result<Pid, Errno> {
        while self.crowd.len() < count {
            let member = fork_into(|| {
                let _ = prctl::set_pdeathsig(Signal::SIGKILL);
                self.wires.close_near_ends();
                loop {
                    pause();
                }
            })?;
            self.crowd.push(member);
        }
        for member in self.crowd.drain(count..) {
            kill_and_reap(member)?;
        }
        Ok(getpid())
    }
}

fn kill_and_reap(child: Pid) -> Result<Pid, Errno> {
    kill(child, Signal::SIGKILL)?;
    reap(child)
}

fn reap(child: Pid) -> Result<Pid, Errno> {
    waitpid(child, None).map(|_| child)
}

/// Forks a child that ends with the code that `life` returns.
fn fork_into(life: impl FnOnce() -> i32) -> Result<Pid, Errno> {
    // SAFETY: the child may allocate, which glibc allows after fork, and takes no lock of this program's.
    #[allow(unsafe_code)]
    match unsafe { fork() }? {
        ForkResult::Child => exit_now(life()),
        ForkResult::Parent { child } => Ok(child),
    }
}

fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` ends the process and touches nothing.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(code)
    }
}

/// Where a test runs: a process of its own, beside one that strangers descend from, both children of an "init" that
/// takes in orphans and reaps them at once.
pub struct Stage {
    pub wires: &'static Wires,
    pub init: Pid,
    /// Listens at wire 0.
    pub strangers: Pid,
    /// In a pid namespace, with a `/proc` of its own: nobody else forks there, and process ids can be chosen.
    pub is_isolated: bool,
}

/// The exit code of an init that could not have a namespace.
const NO_NAMESPACE: i32 = 77;

/// Runs `test` on a stage. Whatever becomes of it, nothing is left over: a pid namespace ends with its init; elsewhere
/// all wires are cut, and init waits until everybody has noticed.
pub fn on_stage(test: impl Fn(Stage)) {
    let code = match run_init(true, &test) {
        NO_NAMESPACE => run_init(false, &test),
        code => code,
    };
    assert_eq!(code, 0, "the test's own process says why");
}

fn run_init(in_namespace: bool, test: &impl Fn(Stage)) -> i32 {
    // A process with one thread: others may not enter a user namespace.
    let outer = fork_into(|| {
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        let flags = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
        if in_namespace && unshare(flags).or_else(|_| unshare(flags | CloneFlags::CLONE_NEWUSER)).is_err() {
            return NO_NAMESPACE;
        }
        exit_code(fork_into(|| be_init(in_namespace, test)))
    });
    exit_code(outer)
}

fn be_init(is_isolated: bool, test: &impl Fn(Stage)) -> i32 {
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    if is_isolated && mount_proc().is_err() {
        return NO_NAMESPACE;
    }
    prctl::set_child_subreaper(true).unwrap();
    let wires = Wires::new(110);
    let strangers = Actor::new(wires).fork(0).unwrap();
    let stage = Stage { wires, init: getpid(), strangers, is_isolated };
    let own = fork_into(|| {
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        let passed = catch_unwind(AssertUnwindSafe(|| test(stage))).is_ok();
        i32::from(!passed)
    });
    let own = own.unwrap();
    wires.close_near_ends();
    let mut code = 1;
    while let Ok(ended) = waitpid(None, None) {
        if ended.pid() == Some(own) {
            code = if ended == WaitStatus::Exited(own, 0) { 0 } else { 1 };
            if is_isolated {
                break;
            }
        }
    }
    code
}

/// `/proc` shows the namespace that it was mounted in.
fn mount_proc() -> Result<(), Errno> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>)
}

fn exit_code(child: Result<Pid, Errno>) -> i32 {
    match child.and_then(|child| waitpid(child, None)) {
        Ok(WaitStatus::Exited(_, code)) => code,
        _ => 1,
    }
}
