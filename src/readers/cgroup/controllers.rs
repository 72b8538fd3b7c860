//! `/proc/cgroups`, cgroups(7): the controllers of this kernel, and which of them are switched on.
//!
//! ```text
//! #subsys_name hierarchy num_cgroups enabled
//! memory 0 82 1
//! ```
//!
//! The fields are set apart by tabs. The surprise: newer kernels (about 6.14) leave out a controller that is built for
//! version 2 alone. So one that is not listed may be there all the same.

/// Returns `true` if the kernel says that the controller was switched off when it was started: no group limits anything
/// by it.
pub(crate) fn is_switched_off(text: &[u8], controller: &str) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| {
        let mut fields = line.split(u8::is_ascii_whitespace);
        fields.next() == Some(controller.as_bytes()) && fields.nth(2) == Some(b"0")
    })
}

/// Off is what a line says that names the controller, whatever other lines there are.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let is_off = is_switched_off(bytes, "memory");
    let is_named = |line: &[u8]| line.starts_with(b"memory");
    assert!(!is_off || bytes.split(|byte| *byte == b'\n').any(is_named));
    assert_eq!(is_switched_off(&crate::laws::after_a_line("pids\t0\t1\t0", bytes), "memory"), is_off);
    assert!(is_switched_off(&crate::laws::after_a_line("memory\t0\t1\t0", bytes), "memory"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_said_to_be_off_is() {
        let text = b"#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t0\t1\nmemory\t0\t1\t0\npids\t0\t1";
        assert_eq!(
            ["cpu", "memory", "pids", "hugetlb"].map(|name| is_switched_off(text, name)),
            [false, true, false, false]
        );
    }

    proptest! {
        #[test]
        fn the_law_holds(bytes: Vec<u8>) {
            law(&bytes);
        }
    }
}
