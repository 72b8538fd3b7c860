//! Limits of this process, `getrlimit(2)`. `/proc/self/limits` says the same, for a descriptor and three system calls.

use std::mem::MaybeUninit;

use super::syscall;

/// The soft limit on open file descriptors; `None` is unlimited.
pub(crate) fn open_files() -> Option<u64> {
    soft(libc::RLIMIT_NOFILE)
}

/// The soft limit on the threads that the real user of this process may have; `None` is unlimited. The superuser is not
/// held to it.
pub(crate) fn user_tasks() -> Option<u64> {
    soft(libc::RLIMIT_NPROC)
}

// Its type differs between C libraries.
#[cfg(target_env = "gnu")]
type Which = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Which = libc::c_int;

fn soft(resource: Which) -> Option<u64> {
    let mut limit = MaybeUninit::<libc::rlimit>::zeroed();
    // SAFETY: the kernel writes one `rlimit` to `limit`.
    let known = syscall(|| unsafe { libc::getrlimit(resource, limit.as_mut_ptr()) }).is_ok();
    // SAFETY: an `rlimit` is plain integers, for which zeroes are valid too.
    let soft = unsafe { limit.assume_init() }.rlim_cur;
    // The width differs from machine to machine.
    #[allow(clippy::unnecessary_cast)]
    (known && soft != libc::RLIM_INFINITY).then_some(soft as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_what_the_process_has() {
        let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(open_files(), Some(soft));
        let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NPROC).unwrap();
        assert_eq!(user_tasks(), Some(soft).filter(|soft| *soft != libc::RLIM_INFINITY));
    }
}
