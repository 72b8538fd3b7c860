//! The host's handle: the manager, and the methods that only ask or prepare.

use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::individual::Individual;
use super::registry::{Before, Registry, State};
use super::target::{call_logger, checked_pid, checked_signal, io_error, report_denied};
use super::watched::Watched;
use crate::host::events;
use crate::host::ProcessGroup;
use crate::sys::child::{self, Child};
use crate::sys::fork::PerProcess;
use crate::sys::process;
use crate::vocabulary::Error;

/// How long an orphan has to end by itself, unless the host says otherwise.
const GRACE: Duration = Duration::from_secs(5);

/// The keeper of the host's processes: it ends those that were orphaned, and leaves the host every exit status that is
/// its own.
///
/// Hosts that start helpers which start helpers leak processes: a parent dies, and its children live on. Guessing whose
/// they are by their names, or by their parent being 1, has ended user sessions. The manager goes by what it has seen:
/// an orphan is a process that was seen below a [tracked backend](Self::track_backend_pid), whose backend is gone, and
/// that was handed to this process, the [subreaper](#what-a-subreaper-changes). It is signalled through a handle
/// (`pidfd_open(2)`) after its identity was compared, which no reuse of its number can confuse. All others are left
/// alone: the host's own children, daemons that it started on purpose, strangers, and processes that were given the
/// number of an orphan.
///
/// Nothing is changed before [`setup`](Self::setup). Set with
/// [`set_process_group`](crate::ResourceMonitor::set_process_group), it cleans up once per interval of the monitor and
/// takes note of ancestry after its checks; a host without a monitor calls [`observe`](ProcessGroup::observe),
/// [`cleanup_orphans`](ProcessGroup::cleanup_orphans) and
/// [`reap_orphaned_backends`](ProcessGroup::reap_orphaned_backends) itself. All methods may be called from any thread.
/// A look costs about what a check does; [`kill_all_children`](Self::kill_all_children) looks at every process on the
/// machine, some 10 us each. In a forked child the manager knows nothing and ends nothing of its parent's.
///
/// ```no_run
/// use std::process::Command;
/// use std::sync::Arc;
/// use highwater::{ProcessGroupManager, ResourceLimits, ResourceMonitor};
///
/// let group = Arc::new(ProcessGroupManager::new());
/// group.setup()?;
/// let monitor = ResourceMonitor::new(ResourceLimits::detect()?);
/// monitor.set_process_group(group.clone());
/// let _guard = group.kill_on_drop(15, std::time::Duration::from_secs(5));
///
/// let backend = Command::new("backend").spawn()?;
/// group.track_backend_pid(backend.id())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What a subreaper changes
///
/// `PR_SET_CHILD_SUBREAPER` makes orphaned descendants children of this process, instead of init's, so that they stay
/// countable. With it come duties and surprises:
///
/// - `wait` for *any* child (`waitpid(-1)`, `Process.wait` of some languages) also returns adopted ones;
/// - adopted zombies stay until somebody collects them:
///   [`reap_orphaned_backends`](ProcessGroup::reap_orphaned_backends) does for those that were seen with another parent
///   before. One that was adopted and ended between two looks cannot be told from a child that the host has forked, and
///   is left to the host;
/// - daemons that detach on purpose by a double fork now hang from this process too, and are counted. They are not
///   ended, unless they were seen below a tracked backend;
/// - `getppid` in an orphan is not 1, which some daemons test for.
///
/// Do not use one ([`with_subreaper(false)`](Self::with_subreaper)) in a program that waits for any child, in one that
/// starts daemons for others to own, or where a supervisor above counts on adopting orphans.
///
/// # Processes that may not be looked at
///
/// Behind `hidepid` (proc(5)) or a security module nobody can say when such a process started. It is known by the inode
/// of its handle, which the kernel gives to one process ever (Linux 6.9), and dealt with like any other. Before that it
/// is told from no other, and is left alone, but for [`kill_all_children`](Self::kill_all_children). One that was seen
/// before it was concealed is reached only if that was within the clock tick of its start.
///
/// # Old kernels
///
/// Before Linux 6.9 a look that meets a process within the clock tick of its start waits for the end of the tick, at
/// most 10 ms, since two holders of one number could not be told apart within one. Before 5.3 there are no handles: a
/// signal then goes to a number right after its start time was compared, and a process that ends, and whose number is
/// given away, within those microseconds is mistaken. Without a subreaper (Linux 3.4) orphans go to init, and are
/// neither counted nor ended.
pub struct ProcessGroupManager {
    own_group: bool,
    subreaper: bool,
    grace: Duration,
    registry: PerProcess<Registry>,
}

impl ProcessGroupManager {
    /// A manager that has changed and read nothing yet. [`setup`](Self::setup) will lead a process group and be a
    /// subreaper.
    pub fn new() -> ProcessGroupManager {
        ProcessGroupManager {
            own_group: true,
            subreaper: true,
            grace: GRACE,
            registry: PerProcess::new(Registry::default()),
        }
    }

    /// Sets whether `setup` makes this process leader of its own process group, if it does not lead one. A program that
    /// runs in the foreground of a terminal, in a pipeline that it does not lead, gets no Ctrl-C any more once it has
    /// left that group.
    #[must_use]
    pub fn with_own_group(mut self, own_group: bool) -> Self {
        self.own_group = own_group;
        self
    }

    /// Sets whether `setup` makes this process a [child subreaper](#what-a-subreaper-changes).
    #[must_use]
    pub fn with_subreaper(mut self, subreaper: bool) -> Self {
        self.subreaper = subreaper;
        self
    }

    /// Sets the time that an orphan has between `SIGTERM` and `SIGKILL`. Default: 5 s.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Makes this process leader of its own process group (`setpgid(2)`) and a child subreaper (`prctl(2)`), as far as
    /// that was not opted out of, and opens the descriptors that a shutdown will take, six at most. Calling it again,
    /// or when it is so already, is fine.
    ///
    /// # Errors
    /// [`Process`](crate::ErrorKind::Process), with the system's error; all that was changed by then is changed back.
    pub fn setup(&self) -> Result<(), Error> {
        let registry = self.registry();
        let mut state = registry.state.lock();
        if state.before_setup.is_some() {
            return Ok(());
        }
        let own = std::process::id();
        let before = Before { group: process::own_group(), subreaper: process::is_subreaper().unwrap_or(false) };
        let outcome = self.change(own, before);
        if outcome.is_ok() {
            state.before_setup = Some(before);
        }
        drop(state);
        registry.prepare();
        match &outcome {
            Ok(()) => {
                if self.own_group && before.group == own {
                    call_logger(|| events::group_already_led(own));
                }
                call_logger(|| events::group_set_up(process::own_group(), self.subreaper));
            }
            Err(error) => call_logger(|| events::group_setup_failed(error)),
        }
        outcome
    }

    fn change(&self, own: u32, before: Before) -> Result<(), Error> {
        if self.own_group && before.group != own {
            process::join_group(own).map_err(|error| Error::system("could not lead a process group", error))?;
        }
        if self.subreaper {
            if let Err(error) = process::set_subreaper(true) {
                let _ = process::join_group(before.group);
                return Err(Error::system("could not become a child subreaper", error));
            }
        }
        Ok(())
    }

    /// Undoes what [`setup`](Self::setup) changed: it is subreaper as before, and goes back to the process group that
    /// it was in. Processes that were adopted meanwhile stay. Without a `setup` nothing happens.
    ///
    /// # Errors
    /// [`Process`](crate::ErrorKind::Process): the group is gone, so that there is no way back into it.
    pub fn restore(&self) -> Result<(), Error> {
        let Some(before) = self.registry().state.lock().before_setup.take() else { return Ok(()) };
        if self.subreaper && !before.subreaper {
            process::set_subreaper(false).map_err(|error| Error::system("could not cease to be a subreaper", error))?;
        }
        if process::own_group() == before.group {
            return Ok(());
        }
        let message = || format!("could not go back to process group {}", before.group);
        process::join_group(before.group).map_err(|error| Error::system(message(), error))
    }

    /// Takes charge of a process and of all that is seen below it, now and later, until it is
    /// [untracked](Self::untrack_backend_pid) or all of it has ended. By identity: a process that is given the same
    /// number later is another one. It costs a look.
    ///
    /// # Errors
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) for a number that is 0, 1, this process's own, or negative
    /// in the kernel's eyes; [`Process`](crate::ErrorKind::Process) when it does not descend from this process, or is
    /// not there; else as [`look`](Self::look).
    pub fn track_backend_pid(&self, pid: u32) -> Result<(), Error> {
        let pid = checked_pid(pid)?;
        let tracked = self.registry().look(|state, table| {
            state.ancestry.track(table.holder(pid)?);
            // All that is below it already was seen in this look, too.
            state.ancestry.observe(table);
            Some(())
        })?;
        tracked.ok_or_else(|| Error::process(format!("process {pid} does not descend from this process")))
    }

    /// Lets go of a tracked process and of all that was seen below it: none of that is an orphan from now on. Returns
    /// `true` if it was tracked.
    pub fn untrack_backend_pid(&self, pid: u32) -> bool {
        self.registry().state.lock().ancestry.untrack(pid)
    }

    /// Takes note of the processes there are now. A host whose backends come and go faster than its monitor checks
    /// calls this as often as it must know; [`observe`](ProcessGroup::observe), which a monitor calls, minds a budget.
    ///
    /// # Errors
    /// [`Read`](crate::ErrorKind::Read) or [`Malformed`](crate::ErrorKind::Malformed), naming the file.
    pub fn look(&self) -> Result<(), Error> {
        self.registry().look(|_, _| ())
    }

    /// The processes that were seen below a tracked backend and were there at the last look, ascending. Zombies
    /// included.
    ///
    /// # Errors
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) as for [`track_backend_pid`](Self::track_backend_pid), and
    /// [`Process`](crate::ErrorKind::Process) when it is not tracked.
    pub fn backend_pids(&self, pid: u32) -> Result<Vec<u32>, Error> {
        let mut pids: Vec<_> = self.below(pid)?.1.into_iter().map(Individual::pid).collect();
        pids.sort_unstable();
        Ok(pids)
    }

    /// Looks, and sends a signal to a tracked backend and to everything that was seen below it, whatever process group
    /// or session that is in. Returns the process ids that it reached.
    ///
    /// # Errors
    /// As [`backend_pids`](Self::backend_pids), and [`InvalidSetting`](crate::ErrorKind::InvalidSetting) for a signal
    /// that does not exist. A process that ends meanwhile is no error, and one that may not be signalled is logged.
    pub fn signal_backend(&self, pid: u32, signal: i32) -> Result<Vec<u32>, Error> {
        checked_signal(signal)?;
        checked_pid(pid)?;
        self.look()?;
        let (backend, below) = self.below(pid)?;
        let mut reached = Vec::new();
        for process in std::iter::once(backend).chain(below) {
            match self.registry().send(process, signal) {
                Ok(()) => reached.push(process.pid()),
                Err(error) => report_denied(&error, process.pid(), signal),
            }
        }
        Ok(reached)
    }

    fn below(&self, pid: u32) -> Result<(Individual, Vec<Individual>), Error> {
        let pid = checked_pid(pid)?;
        let state = self.registry().state.lock();
        let backend = state.ancestry.tracked(pid);
        let backend = backend.ok_or_else(|| Error::process(format!("process {pid} is not tracked")))?;
        let below = state.ancestry.below(backend).collect();
        Ok((backend, below))
    }

    /// Asks for the exit status of one child to be collected when it ends, for [`exit_status`](Self::exit_status) to
    /// tell. Nothing else is ever reaped: a child that the host waits for itself must not be given here. Only its end
    /// is taken: stops of a child, traced ones included, stay the host's to wait for.
    ///
    /// # Errors
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) as for [`track_backend_pid`](Self::track_backend_pid);
    /// [`Process`](crate::ErrorKind::Process) when it is no child of this process, or
    /// [can be told from no other](#processes-that-may-not-be-looked-at).
    pub fn watch_child(&self, pid: u32) -> Result<(), Error> {
        let registry = self.registry();
        // A stranger that a thread of this process traces can be waited for as well; it has another parent.
        let child = registry.child(checked_pid(pid)?)?.filter(|_| child::find(pid) != Child::Unknown);
        let child = child.ok_or_else(|| Error::process(format!("process {pid} is not a child of this process")))?;
        registry.state.lock().watched.insert(pid, Watched::new(child));
        Ok(())
    }

    /// The exit status of a [watched](Self::watch_child) child; `None` while it runs, when it is not watched, and for
    /// good when somebody else has taken its status. Looks for itself; it need not have been reaped before.
    pub fn exit_status(&self, pid: u32) -> Option<ExitStatus> {
        let registry = self.registry();
        let mut state = registry.state.lock();
        let watched = state.watched.get_mut(&pid)?;
        watched.collect(registry);
        watched.status()
    }

    /// Ceases to watch a child, and returns its exit status if it has ended. One that runs on is the host's to wait
    /// for.
    pub fn unwatch_child(&self, pid: u32) -> Option<ExitStatus> {
        let status = self.exit_status(pid);
        self.registry().state.lock().watched.remove(&pid);
        status
    }

    /// Makes a call that opens something, if need be with the descriptors that are set aside for a shutdown.
    pub(crate) fn with_room<T>(&self, call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        self.registry().reserve.lend(call, io::Error::raw_os_error)
    }

    pub(super) fn registry(&self) -> &Registry {
        self.registry.current_or_renew(|_inherited| Registry::default())
    }
}

impl ProcessGroup for ProcessGroupManager {
    /// Tells orphans to end: `SIGTERM` when they are first found, and `SIGKILL` when the grace is over. It does not
    /// wait for them; those that have ended by now are collected. Returns the process ids that it has told, or
    /// collected.
    fn cleanup_orphans(&self) -> io::Result<Vec<u32>> {
        let registry = self.registry();
        let due = registry.look(|State { ancestry, endings, .. }, table| {
            endings.due(&ancestry.orphans(table).collect::<Vec<_>>(), self.grace)
        });
        let due = due.map_err(io_error)?;
        let mut dealt_with = registry.reap().map_err(io_error)?;
        for signal in [libc::SIGTERM, libc::SIGKILL] {
            let mut told = Vec::new();
            for &(process, _) in due.iter().filter(|(_, due)| *due == signal) {
                let sent = registry.send(process, signal);
                // A signal that could not even be tried is tried again.
                if sent.as_ref().map_or_else(|error| error.os_error() == Some(libc::EPERM), |()| true) {
                    registry.state.lock().endings.note(process, signal);
                }
                match sent {
                    Ok(()) => told.push(process.pid()),
                    Err(error) => report_denied(&error, process.pid(), signal),
                }
            }
            if !told.is_empty() {
                call_logger(|| events::orphans_ended(signal, &told));
            }
            dealt_with.extend(told);
        }
        Ok(dealt_with)
    }

    /// Collects the status of those that were handed to this process and have ended, and of the
    /// [watched](ProcessGroupManager::watch_child) children.
    fn reap_orphaned_backends(&self) -> io::Result<Vec<u32>> {
        self.registry().reap().map_err(io_error)
    }

    /// Takes at most a hundredth of one core: it does nothing until a hundred times as long as the last look took has
    /// gone by.
    fn observe(&self) -> io::Result<()> {
        let registry = self.registry();
        let began = Instant::now();
        if registry.state.lock().observed_until.is_some_and(|until| began < until) {
            return Ok(());
        }
        registry.look(|_, _| ()).map_err(io_error)?;
        let cost = began.elapsed();
        registry.state.lock().observed_until = began.checked_add(cost.saturating_mul(100));
        Ok(())
    }
}

impl Default for ProcessGroupManager {
    fn default() -> ProcessGroupManager {
        ProcessGroupManager::new()
    }
}

impl fmt::Debug for ProcessGroupManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProcessGroupManager { own_group, subreaper, grace, .. } = self;
        let mut shown = f.debug_struct("ProcessGroupManager");
        shown.field("own_group", own_group).field("subreaper", subreaper).field("grace", grace);
        shown.finish_non_exhaustive()
    }
}
