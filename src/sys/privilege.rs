//! Whether this program may do more than whoever started it.

/// Whether the program was given privileges that its user need not have: a set-user-ID program, one with capabilities
/// of its own (`AT_SECURE`, `getauxval(3)`). Its environment is its user's, and is not to be believed.
pub(crate) fn is_privileged() -> bool {
    // SAFETY: no memory is passed; a value that the kernel did not give is 0.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}
