//! Files of one number: `memory.max`, `memory.current`, `pids.max`, `pids.current`, and what version 1 calls them
//! (`Documentation/admin-guide/cgroup-v2.rst`, `Documentation/admin-guide/cgroup-v1/memory.rst`).
//!
//! ```text
//! 536870912
//! ```
//!
//! The surprise: "no limit" is the word `max` in version 2 and in both of `pids.max`, and a number near 2^63 in version
//! 1.

use crate::readers::number::parse_u64;

/// From here on a limit of version 1 means that there is none: it is the most whole pages that fit in 63 bits, and a
/// page has at most 64 KiB.
pub(crate) const NO_LIMIT: u64 = (1 << 63) - (64 << 10);

/// The limit in a file of either version; `None` is no limit.
pub(crate) fn parse(text: &[u8]) -> Result<Option<u64>, &'static str> {
    match parse_number(text) {
        Some(limit) => Ok(Some(limit).filter(|limit| *limit < NO_LIMIT)),
        None if text.strip_suffix(b"\n") == Some(b"max") => Ok(None),
        None => Err("it is neither a number nor max"),
    }
}

/// The amount that is charged. A count that has fallen below zero, which kernels have had, is printed as a number near
/// 2^64.
pub(crate) fn parse_charge(text: &[u8]) -> Option<u64> {
    parse_number(text).map(|charge| if charge > i64::MAX as u64 { 0 } else { charge })
}

/// A number on a line of its own.
fn parse_number(text: &[u8]) -> Option<u64> {
    // Without its end it may be half a number.
    parse_u64(text.strip_suffix(b"\n")?)
}

/// A limit is one that the kernel could mean, a charge none that has fallen below zero, and either is a whole line.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let (limit, charge) = (parse(bytes), parse_charge(bytes));
    assert!(limit.is_err() || bytes.ends_with(b"\n"));
    match (limit, charge) {
        (Ok(Some(limit)), charge) => assert!(limit < NO_LIMIT && charge == Some(limit)),
        (Ok(None), Some(charge)) => assert!(charge == 0 || (NO_LIMIT..=i64::MAX as u64).contains(&charge)),
        (Ok(None), None) => assert_eq!(bytes, b"max\n"),
        (Err(_), charge) => assert_eq!(charge, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_limit_is_said_in_two_ways_and_zero_is_a_limit() {
        let cases = [
            ("max\n", Some(None)),
            ("9223372036854771712\n", Some(None)),
            ("9223372036854710272\n", Some(None)),
            ("0\n", Some(Some(0))),
            ("4096\n", Some(Some(4096))),
            ("4096", None),
            ("", None),
            ("-1\n", None),
            ("maximum\n", None),
            ("12 34\n", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text.as_bytes()).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_charge_below_zero_is_nothing() {
        let charges = ["7\n", "18446744073709543424\n", "7", "-1\n"].map(|text| parse_charge(text.as_bytes()));
        assert_eq!(charges, [Some(7), Some(0), None, None]);
    }

    proptest! {
        #[test]
        fn the_law_holds(bytes: Vec<u8>, text in "[a-z]{0,4}[0-9 \n-]{0,22}") {
            law(&bytes);
            law(text.as_bytes());
        }
    }
}
