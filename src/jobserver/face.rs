//! What the host holds of a jobserver.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::channel::Channel;
use super::makeflags::{CARGO_MAKEFLAGS, MAKEFLAGS};
use super::outer::Outer;
use super::server::{Server, Settings};
use super::tally::TokenTally;
use super::thread as tokens;
use crate::engine::Shared;
use crate::host::{contained, events};
use crate::sys::pipe;
use crate::vocabulary::{Error, Verdict, Work};

/// A jobserver of the protocol of GNU make: `make`, `ninja`, `cargo` and others that a job runs start as much at once as the
/// limits of a monitor allow.
///
/// Made by [`ResourceMonitor::jobserver`](crate::ResourceMonitor::jobserver). Each job gets a [channel](JobChannel) of its
/// own. A client starts one thing without asking, its implicit slot; for each further one it takes a token from the channel,
/// and gives it back when that has ended. The page [builds](crate::guide::builds) says what each client does.
///
/// - **Tokens are permits**: one is offered at a time in each channel, first to the job that holds fewest, if a permit for it
///   is granted: for what a slot of jobs of its kind was seen to use. They are among the
///   [holders](crate::ResourceMonitor::holders), labelled `jobserver token`. Of a kind that is not known, one token is out
///   until a step has ended.
/// - **A closed gate offers nothing**, and takes back what was offered and not taken. What is lent comes back as steps end.
/// - **Nothing is lost**: when a job ends, in whatever way, all that it had is back. What a job gives back beyond what it was
///   lent is forgotten.
/// - **A jobserver above** this process (`MAKEFLAGS` in its own environment) is obeyed: every token that is let out, and
///   every job beyond the first, holds one of its tokens.
///
/// It has one thread (`highwater-token`), which sleeps while nothing happens, and five descriptors a channel, one more while
/// the job runs. Clones are the same server; it ends with the last of them and the last channel. In a forked child it does
/// nothing.
///
/// ```
/// use std::process::Command;
/// use std::time::Duration;
/// use highwater::{MemoryScope, ResourceLimits, ResourceMonitor};
///
/// let limits = ResourceLimits::builder().max_processes(50).build()?;
/// let monitor = ResourceMonitor::builder(limits).memory_scope(MemoryScope::Tree).build()?;
/// monitor.start(Duration::from_secs(1))?;
/// let server = monitor.jobserver().tokens(3).build()?;
///
/// let mut make = Command::new("make");
/// make.arg("--version");
/// let channel = server.attach(&mut make)?;
/// # let mut make = { let mut echo = Command::new("sh"); echo.args(["-c", "true"]); echo };
/// let mut child = make.spawn()?;
/// channel.serve(child.id())?;
/// child.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct JobServer {
    owner: Arc<Owner>,
}

/// The settings of a [`JobServer`].
#[derive(Debug)]
#[must_use]
pub struct JobServerBuilder {
    engine: Arc<Shared>,
    tokens: Option<usize>,
    fifos: Option<PathBuf>,
}

/// The channel of one job. Dropping it ends the job as far as tokens are concerned: all that it had is back.
#[must_use = "a channel that is dropped lets no token out"]
pub struct JobChannel {
    owner: Arc<Owner>,
    id: u64,
}

/// The server, which ends with this.
struct Owner {
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
}

impl JobServerBuilder {
    pub(crate) fn new(engine: Arc<Shared>) -> JobServerBuilder {
        JobServerBuilder { engine, tokens: None, fifos: None }
    }

    /// The most tokens that are out at once, in all channels together. Each job has its implicit slot beside them. Default: one
    /// fewer than there are CPUs, at least one.
    pub fn tokens(mut self, tokens: usize) -> JobServerBuilder {
        self.tokens = Some(tokens);
        self
    }

    /// Makes each channel a fifo in this folder instead of two pipes, for clients that know nothing else (`ninja` as its
    /// authors release it). Clients of one fifo take each other's tokens before the server sees them, so a gate that closes
    /// holds back no more than what was not taken yet.
    pub fn fifos_in(mut self, folder: impl Into<PathBuf>) -> JobServerBuilder {
        self.fifos = Some(folder.into());
        self
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) if there are to be no tokens;
    /// [`Process`](crate::ErrorKind::Process) if there is no descriptor left; [`Thread`](crate::ErrorKind::Thread) if the
    /// thread could not be created.
    pub fn build(self) -> Result<JobServer, Error> {
        let JobServerBuilder { engine, tokens, fifos } = self;
        if tokens == Some(0) {
            return Err(Error::setting("a jobserver of 0 tokens lets none out"));
        }
        let cpus = || thread::available_parallelism().map_or(1, usize::from);
        let tokens = tokens.unwrap_or_else(|| cpus().saturating_sub(1).max(1));
        let (outer, error) = Outer::from_environment();
        let server = Server::new(engine, Settings { tokens, fifos }, outer);
        let server = Arc::new(server.map_err(|error| Error::system("could not wait for tokens", error))?);
        let thread = tokens::start(Arc::clone(&server))?;
        if let Some(error) = error {
            drop(contained(|| events::outer_jobserver_unusable(&error)));
        }
        Ok(JobServer { owner: Arc::new(Owner { server, thread: Some(thread) }) })
    }
}

impl JobServer {
    /// Makes a channel for what this command starts: the program finds it in its environment, and inherits its descriptors,
    /// which no other program does. To be called before `spawn`, once for each command, after the command's own environment
    /// was set; then [`JobChannel::serve`] lets tokens out.
    ///
    /// Options in the command's `MAKEFLAGS` are kept, but for `-j` and another jobserver. A command with a channel is started
    /// by `fork(2)`, which a program with much memory pays for.
    ///
    /// # Errors
    /// [`Process`](crate::ErrorKind::Process) if the channel could not be made, for want of descriptors; if this is not the
    /// first job, and a jobserver above this process has no token for it now; or if this process was forked since the server
    /// was made.
    pub fn attach(&self, command: &mut Command) -> Result<JobChannel, Error> {
        let kind = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let channel = self.attach_as(command, kind)?;
        channel.reserve_slot()?;
        Ok(channel)
    }

    /// As [`attach`](Self::attach), for a job of this kind, which has no slot yet.
    pub(crate) fn attach_as(&self, command: &mut Command, kind: String) -> Result<JobChannel, Error> {
        let server = &self.owner.server;
        if server.is_inherited() {
            return Err(Error::process("this process was forked since the jobserver was made, which is its parent's"));
        }
        let failed = |error| Error::system("could not make a channel of the jobserver", error);
        let id = server.next_id();
        let channel = match &server.settings.fifos {
            None => Channel::pipes(),
            Some(folder) => Channel::fifo(folder.join(format!("highwater-{}-{id}", std::process::id()))),
        };
        let channel = channel.map_err(failed)?;
        let address = channel.address();
        let slots = server.settings.tokens.saturating_add(1);
        let makeflags = address.makeflags(&variable(command, MAKEFLAGS).unwrap_or_default(), slots);
        command.env(MAKEFLAGS, makeflags).env(CARGO_MAKEFLAGS, address.cargo_makeflags());
        pipe::inherit_in(command, Arc::clone(&channel.inherited));
        server.add(id, kind, channel).map_err(failed)?;
        Ok(JobChannel { owner: Arc::clone(&self.owner), id })
    }

    /// How many tokens are and were out, and why no more.
    pub fn tally(&self) -> TokenTally {
        if self.owner.server.is_inherited() {
            return TokenTally::default();
        }
        self.owner.server.tally()
    }

    /// The refusal of the next token, if one is refused for the sake of a limit now.
    pub fn held_back(&self) -> Option<Verdict> {
        if self.owner.server.is_inherited() {
            return None;
        }
        self.owner.server.held_back()
    }
}

impl JobServer {
    /// Work that is no token waits for room.
    pub(crate) fn make_room(&self) {
        if !self.owner.server.is_inherited() {
            self.owner.server.make_room();
        }
    }
}

/// A variable as a command hands it to its program.
fn variable(command: &Command, name: &str) -> Option<OsString> {
    match command.get_envs().find(|(key, _)| *key == name) {
        Some((_, value)) => value.map(OsString::from),
        None => std::env::var_os(name),
    }
}

impl JobChannel {
    /// Lets tokens out to this process, which the command of the channel has started, and to what it starts, until it has
    /// ended (before Linux 5.3, which tells nobody of that, until the channel is dropped). A permit of the host's for it is
    /// attached before this: then its tokens are part of that permit, and what a check measures of it stands for both.
    ///
    /// # Errors
    /// [`Process`](crate::ErrorKind::Process) if the process is not there, or is no descendant of this one;
    /// [`Read`](crate::ErrorKind::Read) if that cannot be told.
    pub fn serve(&self, pid: u32) -> Result<(), Error> {
        if self.owner.server.is_inherited() {
            return Err(Error::process("this process was forked since the channel was made, which is its parent's"));
        }
        self.owner.server.serve(self.id, pid)
    }

    /// The number of tokens that the job holds, beside its implicit slot.
    pub fn tokens(&self) -> usize {
        if self.owner.server.is_inherited() {
            return 0;
        }
        self.owner.server.lent_to(self.id)
    }

    /// Has the job that is to be started hold a slot of a jobserver above this process.
    ///
    /// # Errors
    /// There is none to be had now.
    pub(crate) fn reserve_slot(&self) -> Result<(), Error> {
        if self.owner.server.is_inherited() || self.owner.server.reserve_slot(self.id) {
            return Ok(());
        }
        Err(Error::system(
            "the jobserver above has no token for another job",
            io::Error::from_raw_os_error(libc::EAGAIN),
        ))
    }

    /// The job has ended, and another may be started with this channel.
    pub(crate) fn rest(&self) {
        if !self.owner.server.is_inherited() {
            self.owner.server.rest(self.id);
        }
    }

    /// What the last job has used at most for each of its slots.
    pub(crate) fn slot(&self) -> Option<Work> {
        if self.owner.server.is_inherited() {
            return None;
        }
        self.owner.server.slot_of(self.id)
    }
}

impl Drop for JobChannel {
    fn drop(&mut self) {
        if !self.owner.server.is_inherited() {
            self.owner.server.remove(self.id);
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let thread = self.thread.take();
        if self.server.is_inherited() {
            std::mem::forget(thread);
            return;
        }
        self.server.close();
        // The thread itself drops the last handle where it has asked a manager that holds one and was replaced meanwhile. It
        // cannot wait for itself, and ends by itself.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id()) {
            // A panic of the thread was printed already.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for JobServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobServer").field("settings", &self.owner.server.settings).finish_non_exhaustive()
    }
}

impl fmt::Debug for JobChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobChannel").field("id", &self.id).finish_non_exhaustive()
    }
}
