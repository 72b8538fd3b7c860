//! `hw_jobs`: programs that are run under the limits of a monitor.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, CStr, OsStr};
use std::iter::from_fn;
use std::mem::{forget, size_of};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::ptr::NonNull;
use std::time::Duration;

use super::border::{self, Failure, Versioned};
use super::permit::patience;
use super::settings::given;
use super::work::{self, Work};
use super::{Monitor, MONITOR};
use crate::jobs::{self, Job, JobHandle, JobsBuilder};
use crate::sys::fork::Mutex;
use crate::sys::ProcessMark;
use crate::vocabulary::Error;

const JOBS: &str = "jobs";

/// `HW_OUTCOME_TEXT_SIZE`.
pub(super) const OUTCOME_TEXT_SIZE: usize = 512;

/// `hw_jobs`.
#[derive(Debug)]
pub(super) struct Jobs {
    jobs: jobs::Jobs,
    /// The jobs whose end has not been told yet, by their numbers.
    untold: Mutex<BTreeMap<u64, JobHandle>>,
    mark: ProcessMark,
}

const _: fn() = || {
    fn for_any_thread<T: Send + Sync>() {}
    for_any_thread::<Jobs>();
};

impl Jobs {
    /// The jobs behind a handle, if they are those of this process: a child uses nothing of them, not even a lock.
    ///
    /// # Safety
    /// NULL, or a handle that is not freed for as long as the reference lives.
    unsafe fn here<'a>(handle: *const Jobs) -> Result<&'a Jobs, Failure> {
        // SAFETY: as the caller says.
        let jobs = unsafe { border::given(handle, JOBS) }?;
        if jobs.mark.is_inherited() {
            return Err(
                Error::process("this process was forked since the jobs were made, which are its parent's").into()
            );
        }
        Ok(jobs)
    }

    fn untold(&self, id: u64) -> Result<JobHandle, Failure> {
        let job = self.untold.lock().get(&id).cloned();
        job.ok_or_else(|| Failure::Invalid(format!("there is no job {id}, or its end has been told")))
    }
}

/// `hw_jobs_settings`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct JobsSettings {
    pub(super) size: usize,
    pub(super) costs_file: Option<NonNull<c_char>>,
    pub(super) grace_ms: u64,
    pub(super) width: u64,
    pub(super) sole_parent: u64,
}

// SAFETY: `repr(C)`, a `usize` first, a pointer that may be null, and integers.
unsafe impl Versioned for JobsSettings {
    const NAME: &'static str = "hw_jobs_settings";
    const FIRST_SIZE: usize = size_of::<JobsSettings>();
}

impl JobsSettings {
    /// # Safety
    /// The path is NULL or ends with a NUL.
    pub(super) unsafe fn set(self, mut builder: JobsBuilder) -> JobsBuilder {
        if let Some(grace) = given(self.grace_ms) {
            builder = builder.grace(Duration::from_millis(grace));
        }
        if self.width > 0 {
            builder = builder.width(usize::try_from(self.width).unwrap_or(usize::MAX));
        }
        if let Some(path) = self.costs_file {
            // SAFETY: as the caller says.
            let path = unsafe { CStr::from_ptr(path.as_ptr()) };
            builder = builder.costs_file(OsStr::from_bytes(path.to_bytes()));
        }
        builder.sole_parent(self.sole_parent != 0)
    }
}

/// `hw_job_options`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct JobOptions {
    pub(super) size: usize,
    pub(super) kind: Option<NonNull<c_char>>,
    pub(super) folder: Option<NonNull<c_char>>,
    pub(super) environment: *const *mut c_char,
    pub(super) work: *const Work,
    pub(super) stdout_fd: i32,
    pub(super) stderr_fd: i32,
    pub(super) tries: u64,
    pub(super) timeout_ms: u64,
}

// SAFETY: `repr(C)`, a `usize` first, pointers that may be null, and integers, the last ones of 64 bits.
unsafe impl Versioned for JobOptions {
    const NAME: &'static str = "hw_job_options";
    const FIRST_SIZE: usize = size_of::<JobOptions>();
}

impl Default for JobOptions {
    /// `HW_JOB_OPTIONS_INIT`.
    fn default() -> JobOptions {
        JobOptions {
            size: size_of::<JobOptions>(),
            kind: None,
            folder: None,
            environment: std::ptr::null(),
            work: std::ptr::null(),
            stdout_fd: -1,
            stderr_fd: -1,
            tries: 0,
            timeout_ms: 0,
        }
    }
}

/// The strings of an array that ends with a NULL.
///
/// # Safety
/// Such an array, which is there for as long as the strings are used.
unsafe fn strings<'a>(first: *const *mut c_char) -> impl Iterator<Item = &'a OsStr> {
    let mut next = first;
    from_fn(move || {
        // SAFETY: the NULL at the end has not been met, so an element is there.
        let string = NonNull::new(unsafe { next.read() })?;
        // SAFETY: it was not the last element.
        next = unsafe { next.add(1) };
        // SAFETY: as the caller says.
        Some(OsStr::from_bytes(unsafe { CStr::from_ptr(string.as_ptr()) }.to_bytes()))
    })
}

/// The environment of a job: the strings of `environment`, or for NULL those of this process. They are copied now: the
/// thread that starts the job would read `environ` while the host changes it.
///
/// # Safety
/// NULL, or an array of strings that ends with a NULL.
unsafe fn set_environment(command: &mut Command, environment: *const *mut c_char) -> Result<(), Failure> {
    command.env_clear();
    if environment.is_null() {
        command.envs(std::env::vars_os());
        return Ok(());
    }
    // SAFETY: as the caller says.
    let entries: Vec<&OsStr> = unsafe { strings(environment) }.collect();
    // Of two with the same name the first one holds, as for `getenv`.
    for entry in entries.into_iter().rev() {
        let end = entry.as_bytes().iter().position(|byte| *byte == b'=').filter(|end| *end > 0);
        let Some(end) = end else {
            return Err(Failure::Invalid(format!("{entry:?} in the environment of a job is not NAME=VALUE")));
        };
        let (name, value) = (&entry.as_bytes()[..end], &entry.as_bytes()[end + 1..]);
        command.env(OsStr::from_bytes(name), OsStr::from_bytes(value));
    }
    Ok(())
}

/// The place of a job's output: -1 for that of this process.
///
/// # Safety
/// A number, which stays open during the call if it is that of a descriptor.
unsafe fn output(name: &str, descriptor: i32) -> Result<Stdio, Failure> {
    if descriptor == -1 {
        return Ok(Stdio::inherit());
    }
    let closed = || Failure::Invalid(format!("{name} {descriptor} is no open descriptor"));
    if descriptor < 0 {
        return Err(closed());
    }
    // SAFETY: it is not -1, and stays open if it is open. If it is not, the copy below fails.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    match borrowed.try_clone_to_owned() {
        Ok(copy) => Ok(copy.into()),
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => Err(closed()),
        Err(error) => Err(Error::system(format!("could not copy {name} {descriptor}"), error).into()),
    }
}

impl JobOptions {
    /// The job that runs `argv` with these options.
    ///
    /// # Safety
    /// NULL or an array of strings that ends with a NULL, and options in which each pointer is NULL or as the header says.
    pub(super) unsafe fn job(self, argv: *const *mut c_char) -> Result<Job, Failure> {
        if argv.is_null() {
            return Err("there is no argv: it is NULL".into());
        }
        // SAFETY: as the caller says.
        let mut arguments = unsafe { strings(argv) };
        let mut command = Command::new(arguments.next().ok_or("argv names no program: it is empty")?);
        command.args(arguments);
        if let Some(folder) = self.folder {
            // SAFETY: as the caller says.
            command.current_dir(OsStr::from_bytes(unsafe { CStr::from_ptr(folder.as_ptr()) }.to_bytes()));
        }
        // SAFETY: as the caller says.
        unsafe { set_environment(&mut command, self.environment) }?;
        // SAFETY: as the caller says.
        command.stdout(unsafe { output("stdout_fd", self.stdout_fd) }?);
        // SAFETY: as the caller says.
        command.stderr(unsafe { output("stderr_fd", self.stderr_fd) }?);
        let mut job = Job::new(command);
        if let Some(kind) = self.kind {
            // SAFETY: as the caller says.
            let kind = unsafe { CStr::from_ptr(kind.as_ptr()) }.to_str();
            job = job.kind(kind.map_err(|_| "the kind of a job is not UTF-8")?);
        }
        if self.tries > 0 {
            job = job.tries(u32::try_from(self.tries).unwrap_or(u32::MAX));
        }
        // One that is longer than the clock can name is none.
        if !matches!(self.timeout_ms, 0 | super::permit::FOREVER) {
            job = job.timeout(Duration::from_millis(self.timeout_ms));
        }
        // Last: it keeps a label, and nothing can fail after it.
        if !self.work.is_null() {
            // SAFETY: as the caller says.
            job = job.work(unsafe { work::declared(self.work) }?);
        }
        Ok(job)
    }
}

/// `hw_outcome`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Outcome {
    pub(super) size: usize,
    pub(super) kind: i64,
    pub(super) exit_code: i64,
    pub(super) signal: i64,
    pub(super) error_number: i64,
    pub(super) tries: u64,
    pub(super) peak_memory_bytes: u64,
    pub(super) peak_processes: u64,
    pub(super) text: [c_char; OUTCOME_TEXT_SIZE],
}

// SAFETY: `repr(C)`, a `usize` first, integers, and characters that fill whole words.
unsafe impl Versioned for Outcome {
    const NAME: &'static str = "hw_outcome";
    const FIRST_SIZE: usize = size_of::<Outcome>();
}

/// `HW_OUTCOME_ENDED` and so on.
pub(super) fn outcome_number(outcome: &jobs::Outcome) -> i64 {
    match outcome {
        jobs::Outcome::Ended(_) => 1,
        jobs::Outcome::NotStarted(_) => 2,
        jobs::Outcome::NeverFits(_) => 3,
        jobs::Outcome::Shed(_) => 4,
        jobs::Outcome::KilledForMemory(_) => 5,
        jobs::Outcome::TimedOut(_) => 6,
        jobs::Outcome::Cancelled => 7,
        jobs::Outcome::Lost(_) => 8,
        jobs::Outcome::WantsTerminal => 9,
        // One that has no number yet.
        #[allow(unreachable_patterns)]
        _ => OTHER_OUTCOME,
    }
}

/// `HW_OUTCOME_OTHER`.
pub(super) const OTHER_OUTCOME: i64 = 255;

impl Outcome {
    fn new(job: &JobHandle, outcome: &jobs::Outcome) -> Outcome {
        let (status, error) = match outcome {
            jobs::Outcome::Ended(status) => (Some(status), None),
            jobs::Outcome::NotStarted(error) => (None, error.raw_os_error()),
            // As `waitpid` says it of a child whose status somebody else has taken.
            jobs::Outcome::Lost(_) => (None, Some(libc::ECHILD)),
            _ => (None, None),
        };
        let usage = job.usage();
        let mut text = [0; OUTCOME_TEXT_SIZE];
        // SAFETY: it has room for as many bytes.
        unsafe { border::write_text(&outcome.to_string(), text.as_mut_ptr(), OUTCOME_TEXT_SIZE) };
        Outcome {
            size: size_of::<Outcome>(),
            kind: outcome_number(outcome),
            exit_code: status.and_then(|status| status.code()).map_or(-1, i64::from),
            signal: status.and_then(|status| status.signal()).map_or(0, i64::from),
            error_number: error.map_or(0, i64::from),
            tries: job.tries().into(),
            peak_memory_bytes: usage.peak_memory_bytes,
            peak_processes: usage.peak_processes,
            text,
        }
    }
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_jobs_new(monitor: *mut Monitor, settings: *const JobsSettings) -> *mut Jobs {
    border::handed_over(|| {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        let monitor = unsafe { border::given(monitor, MONITOR) }?;
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        let settings = unsafe { border::read(settings) }?.unwrap_or_default();
        // SAFETY: the caller passes NULL or a string for the path.
        let builder = unsafe { settings.set(monitor.0.jobs()) };
        Ok(Jobs { jobs: builder.build()?, untold: Mutex::default(), mark: ProcessMark::here() })
    })
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_jobs_free(jobs: *mut Jobs) {
    let end = |jobs: Jobs| {
        // A thread of the parent's may have been changing them.
        if jobs.mark.is_inherited() {
            forget(jobs);
        }
    };
    // SAFETY: a handle is freed once, and was made by `hw_jobs_new`.
    unsafe { border::taken_back(jobs, end) };
}

/// The body of the two functions that give a job to the jobs.
///
/// # Safety
/// As the header says of these.
unsafe fn given_job(
    jobs: *mut Jobs,
    argv: *const *mut c_char,
    options: *const JobOptions,
    id: *mut u64,
    give: fn(&jobs::Jobs, Job) -> Result<JobHandle, Error>,
) -> c_int {
    border::status(|| {
        // SAFETY: the caller passes NULL or a handle that is not freed before this returns.
        let jobs = unsafe { Jobs::here(jobs) }?;
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        let options = unsafe { border::read(options) }?.unwrap_or_default();
        // SAFETY: the caller passes NULL or arrays and strings.
        let job = give(&jobs.jobs, unsafe { options.job(argv) }?)?;
        // Nobody can ask for the end of a job whose number is not wanted: it is not kept.
        if !id.is_null() {
            // SAFETY: the caller passes a place for one number.
            unsafe { id.write(job.id()) };
            jobs.untold.lock().insert(job.id(), job);
        }
        Ok(0)
    })
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_jobs_submit(
    jobs: *mut Jobs,
    argv: *const *mut c_char,
    options: *const JobOptions,
    id: *mut u64,
) -> c_int {
    // SAFETY: as the caller says.
    unsafe { given_job(jobs, argv, options, id, jobs::Jobs::submit) }
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_jobs_spawn(
    jobs: *mut Jobs,
    argv: *const *mut c_char,
    options: *const JobOptions,
    id: *mut u64,
) -> c_int {
    // SAFETY: as the caller says.
    unsafe { given_job(jobs, argv, options, id, jobs::Jobs::spawn) }
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_jobs_wait(
    jobs: *mut Jobs,
    id: u64,
    timeout_ms: u64,
    outcome: *mut Outcome,
) -> c_int {
    border::status(|| {
        // SAFETY: the caller passes NULL or a handle that is not freed before this returns.
        let jobs = unsafe { Jobs::here(jobs) }?;
        // SAFETY: the caller passes NULL or a struct that is as long as it says.
        let outcome = unsafe { border::destination(outcome) }?;
        let job = jobs.untold(id)?;
        let Some(end) = job.wait_timeout(patience(timeout_ms)) else { return Ok(0) };
        jobs.untold.lock().remove(&id);
        outcome.fill(&Outcome::new(&job, &end));
        Ok(1)
    })
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_jobs_cancel(jobs: *mut Jobs, id: u64) -> c_int {
    border::status(|| {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        unsafe { Jobs::here(jobs) }?.untold(id)?.cancel();
        Ok(0)
    })
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_jobs_cancel_all(jobs: *mut Jobs) -> c_int {
    border::status(|| {
        // SAFETY: the caller passes NULL or a handle that is not freed yet.
        unsafe { Jobs::here(jobs) }?.jobs.cancel_all();
        Ok(0)
    })
}

/// The body of the two functions that count: 0 where there are no jobs of this process.
///
/// # Safety
/// NULL, or a handle that is not freed yet.
unsafe fn counted(jobs: *const Jobs, count: fn(&jobs::Jobs) -> usize) -> u64 {
    border::guarded(0, || {
        // SAFETY: as the caller says.
        unsafe { Jobs::here(jobs) }.map_or(0, |jobs| count(&jobs.jobs) as u64)
    })
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_jobs_running(jobs: *const Jobs) -> u64 {
    // SAFETY: the caller passes NULL or a handle that is not freed yet.
    unsafe { counted(jobs, jobs::Jobs::running) }
}

#[no_mangle]
pub(super) unsafe extern "C" fn hw_jobs_waiting(jobs: *const Jobs) -> u64 {
    // SAFETY: the caller passes NULL or a handle that is not freed yet.
    unsafe { counted(jobs, jobs::Jobs::waiting) }
}
