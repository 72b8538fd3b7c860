//! `errno(3)`, which is the caller's.

/// Runs our own code, and leaves `errno` as it was.
pub(crate) fn kept<R>(code: impl FnOnce() -> R) -> R {
    let _restore = Restore(get());
    code()
}

struct Restore(libc::c_int);

impl Drop for Restore {
    fn drop(&mut self) {
        set(self.0);
    }
}

fn get() -> libc::c_int {
    // SAFETY: the address is that of this thread's own number, which lives as long as the thread.
    unsafe { *libc::__errno_location() }
}

fn set(value: libc::c_int) {
    // SAFETY: as in `get`.
    unsafe { *libc::__errno_location() = value };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_in_our_code_is_not_seen_by_the_caller() {
        set(libc::EXDEV);
        kept(|| assert!(std::fs::File::open("/nonexistent").is_err()));
        assert_eq!(get(), libc::EXDEV);
    }
}
