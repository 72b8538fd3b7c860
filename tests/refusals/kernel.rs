//! The functions of the C library by which the crate and the standard library reach the kernel, and which may refuse.
//!
//! The program is linked with these in the place of those of the C library, which calls the kernel past them in its own
//! functions. Those that take variable arguments are defined with fixed ones: where a number and a pointer are passed in
//! the same registers either way, which holds of Linux on x86-64 and AArch64 and not of every machine. A caller that
//! passes fewer has the rest passed on as it is found there, and nobody looks at it.
//!
//! Not refused is what gives back (`close`, `munmap`, `unlink`), what tells of a file that is open (`fstat`) or of our own
//! children (`waitid`), what only takes time (`futex`, `clock_gettime`), and what the standard library panics without
//! (`getrandom`, the stack for signals of a new thread, a pipe of its own that cannot be read): the kernel does not refuse
//! it, or nobody here could help it.

use std::ffi::{c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use nix::libc::{self, EACCES, EAGAIN, EINVAL, EIO, EMFILE, ENFILE, ENOLCK, ENOMEM, ENOSPC, EPERM};

use crate::turn;

/// The function of the C library, found when it is first called.
pub struct Real(AtomicPtr<c_void>);

impl Real {
    pub const fn new() -> Real {
        Real(AtomicPtr::new(null_mut()))
    }

    /// Its name ends in a NUL.
    pub fn find(&self, name: &'static str) -> *mut c_void {
        let mut found = self.0.load(Relaxed);
        if found.is_null() {
            assert!(name.ends_with('\0'));
            // SAFETY: a text that ends in a NUL, and is only read.
            found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr().cast()) };
            if found.is_null() {
                // SAFETY: it ends the process.
                unsafe { libc::abort() };
            }
            self.0.store(found, Relaxed);
        }
        found
    }
}

fn fail(errno: c_int) {
    // SAFETY: the address is that of this thread's own number, which lives as long as the thread.
    unsafe { *libc::__errno_location() = errno };
}

/// The bits of a file's mode that say what it is, asked past the functions below; 0 for what has no name.
fn kind_of(fd: c_int) -> libc::mode_t {
    static REAL: Real = Real::new();
    let real = REAL.find("fstat64\0");
    // SAFETY: it is the function of this type, which is there in glibc 2.33 and later.
    let real: unsafe extern "C" fn(c_int, *mut libc::stat64) -> c_int = unsafe { std::mem::transmute(real) };
    let mut status = MaybeUninit::<libc::stat64>::zeroed();
    // SAFETY: it writes one `stat64` to `status`.
    unsafe { real(fd, status.as_mut_ptr()) };
    // SAFETY: plain integers, for which zeroes are valid too.
    unsafe { status.assume_init() }.st_mode & libc::S_IFMT
}

/// The errors of reading or writing a file: pipes and what only the process itself makes ready do not fail.
fn of_file(fd: c_int, errors: &'static [c_int]) -> &'static [c_int] {
    match kind_of(fd) {
        libc::S_IFREG | libc::S_IFDIR => errors,
        _ => &[],
    }
}

fn of_system_call(number: c_long) -> &'static [c_int] {
    match number {
        libc::SYS_getdents64 => &[ENOMEM, EIO],
        libc::SYS_pidfd_open => &[EMFILE, ENOMEM, EPERM],
        libc::SYS_statx => &[ENOMEM, EACCES],
        _ => &[],
    }
}

fn of_command(command: c_int) -> &'static [c_int] {
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => &[EMFILE],
        libc::F_SETPIPE_SZ => &[EPERM, ENOMEM],
        libc::F_SETLK => &[ENOLCK],
        libc::F_ADD_SEALS => &[EPERM],
        _ => &[],
    }
}

/// The status of an open file is in memory, and never refused.
fn of_status(flags: c_int) -> &'static [c_int] {
    match flags & libc::AT_EMPTY_PATH {
        0 => &[ENOMEM, EACCES],
        _ => &[],
    }
}

fn of_interest(operation: c_int) -> &'static [c_int] {
    match operation {
        libc::EPOLL_CTL_ADD => &[ENOSPC, ENOMEM],
        _ => &[],
    }
}

/// New memory without a file is for the standard library: its new threads panic without.
fn of_mapping(flags: c_int) -> &'static [c_int] {
    match flags & libc::MAP_ANONYMOUS {
        0 => &[ENOMEM, EPERM],
        _ => &[],
    }
}

macro_rules! refusable {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) -> $result:ty, $errors:expr, $refused:expr;)*) => {$(
        #[no_mangle]
        unsafe extern "C" fn $name($($argument: $kind),*) -> $result {
            static REAL: Real = Real::new();
            let real = REAL.find(concat!(stringify!($name), "\0"));
            if let Some(errno) = turn::error(&stringify!($name), $errors) {
                let refuse: fn(c_int) -> $result = $refused;
                return refuse(errno);
            }
            // SAFETY: it is the function of this type.
            let real: unsafe extern "C" fn($($kind),*) -> $result = unsafe { std::mem::transmute(real) };
            // SAFETY: the caller's business.
            unsafe { real($($argument),*) }
        }
    )*};
}

/// Minus one, and the reason in `errno`.
fn minus_one<T: From<i8>>(errno: c_int) -> T {
    fail(errno);
    T::from(-1)
}

fn no_mapping(errno: c_int) -> *mut c_void {
    fail(errno);
    libc::MAP_FAILED
}

/// The reason itself, of functions that leave `errno` alone.
fn reason(errno: c_int) -> c_int {
    errno
}

type Path = *const c_char;
type Untyped = *mut c_void;

refusable! {
    fn open(path: Path, flags: c_int, mode: c_uint) -> c_int, &[EMFILE, ENOMEM, EACCES], minus_one;
    fn open64(path: Path, flags: c_int, mode: c_uint) -> c_int, &[EMFILE, ENOMEM, EACCES], minus_one;
    fn openat(at: c_int, path: Path, flags: c_int, mode: c_uint) -> c_int, &[EMFILE, ENOMEM, EACCES], minus_one;
    fn openat64(at: c_int, path: Path, flags: c_int, mode: c_uint) -> c_int, &[EMFILE, ENOMEM, EACCES], minus_one;
    fn read(fd: c_int, to: Untyped, count: usize) -> isize, of_file(fd, &[EIO, ENOMEM]), minus_one;
    fn pread(fd: c_int, to: Untyped, count: usize, at: i64) -> isize, of_file(fd, &[EIO, ENOMEM]), minus_one;
    fn pread64(fd: c_int, to: Untyped, count: usize, at: i64) -> isize, of_file(fd, &[EIO, ENOMEM]), minus_one;
    fn write(fd: c_int, from: Untyped, count: usize) -> isize, of_file(fd, &[ENOSPC, EIO, EPERM]), minus_one;
    fn lseek(fd: c_int, offset: i64, whence: c_int) -> i64, &[EIO], minus_one;
    fn lseek64(fd: c_int, offset: i64, whence: c_int) -> i64, &[EIO], minus_one;
    fn stat64(path: Path, to: Untyped) -> c_int, &[ENOMEM, EACCES], minus_one;
    fn lstat64(path: Path, to: Untyped) -> c_int, &[ENOMEM, EACCES], minus_one;
    fn fstatat(at: c_int, path: Path, to: Untyped, flags: c_int) -> c_int, &[ENOMEM, EACCES], minus_one;
    fn fstatat64(at: c_int, path: Path, to: Untyped, flags: c_int) -> c_int, &[ENOMEM, EACCES], minus_one;
    fn statx(at: c_int, path: Path, flags: c_int, mask: c_uint, to: Untyped) -> c_int, of_status(flags), minus_one;
    fn fstatfs(fd: c_int, to: Untyped) -> c_int, &[EIO], minus_one;
    fn statvfs(path: Path, to: Untyped) -> c_int, &[EIO, ENOMEM], minus_one;
    fn readlinkat(at: c_int, path: Path, to: Untyped, count: usize) -> isize, &[ENOMEM, EACCES], minus_one;
    fn readlink(path: Path, to: Untyped, count: usize) -> isize, &[ENOMEM, EACCES], minus_one;
    fn ftruncate64(fd: c_int, length: i64) -> c_int, &[ENOMEM, EIO], minus_one;
    fn mkdir(path: Path, mode: c_uint) -> c_int, &[ENOSPC, ENOMEM], minus_one;
    fn mkfifo(path: Path, mode: c_uint) -> c_int, &[ENOSPC, ENOMEM], minus_one;
    fn linkat(from_at: c_int, from: Path, at: c_int, path: Path, flags: c_int) -> c_int, &[ENOSPC, EPERM], minus_one;
    fn fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int, of_command(command), minus_one;
    fn memfd_create(name: Path, flags: c_uint) -> c_int, &[EMFILE, ENOMEM], minus_one;
    fn eventfd(count: c_uint, flags: c_int) -> c_int, &[EMFILE, ENOMEM], minus_one;
    fn epoll_create1(flags: c_int) -> c_int, &[EMFILE, ENOMEM], minus_one;
    fn epoll_ctl(epoll: c_int, operation: c_int, fd: c_int, event: Untyped) -> c_int, of_interest(operation), minus_one;
    fn ppoll(fds: Untyped, count: c_ulong, time: Untyped, mask: Untyped) -> c_int, &[EINVAL, ENOMEM], minus_one;
    fn pipe2(ends: Untyped, flags: c_int) -> c_int, &[EMFILE, ENFILE], minus_one;
    fn socketpair(domain: c_int, kind: c_int, protocol: c_int, ends: Untyped) -> c_int, &[EMFILE, ENOMEM], minus_one;
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int, &[EMFILE, ENOMEM], minus_one;
    fn getrlimit(resource: c_uint, to: Untyped) -> c_int, &[EPERM], minus_one;
    fn sched_getaffinity(pid: c_int, size: usize, to: Untyped) -> c_int, &[EPERM], minus_one;
    fn fork() -> c_int, &[EAGAIN, ENOMEM], minus_one;
    fn mmap(to: Untyped, length: usize, protection: c_int, flags: c_int, fd: c_int, offset: i64) -> Untyped,
        of_mapping(flags), no_mapping;
    fn mmap64(to: Untyped, length: usize, protection: c_int, flags: c_int, fd: c_int, offset: i64) -> Untyped,
        of_mapping(flags), no_mapping;
    fn pthread_create(thread: Untyped, attributes: Untyped, start: Untyped, argument: Untyped) -> c_int,
        &[EAGAIN], reason;
    fn posix_spawnp(pid: Untyped, file: Path, actions: Untyped, attributes: Untyped, arguments: Untyped,
        environment: Untyped) -> c_int, &[EAGAIN, ENOMEM], reason;
    fn syscall(number: c_long, a: c_long, b: c_long, c: c_long, d: c_long, e: c_long, f: c_long) -> c_long,
        of_system_call(number), minus_one;
}
