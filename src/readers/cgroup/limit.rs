//! Files of one number: `memory.max`, `memory.current`, `pids.max`, `pids.current`, and what version 1 calls them
//! (`Documentation/admin-guide/cgroup-v2.rst`, `Documentation/admin-guide/cgroup-v1/memory.rst`).
//!
//! ```text
//! 536870912
//! ```
//!
//! The surprise: "no limit" is the word `max` in version 2 and in both of `pids.max`, and a number near 2^63 in version 1.

use crate::readers::number::parse_u64;

/// The limit in a file of either version; `None` is no limit.
pub(crate) fn parse(text: &[u8]) -> Result<Option<u64>, &'static str> {
    /// The most that version 1 can express is the most pages that fit in 63 bits, and means none; a page has at most so
    /// many bytes.
    const SENTINEL: u64 = (1 << 63) - (64 << 10);
    match parse_amount(text) {
        Some(limit) => Ok(Some(limit).filter(|limit| *limit < SENTINEL)),
        None if text.strip_suffix(b"\n") == Some(b"max") => Ok(None),
        None => Err("it is neither a number nor max"),
    }
}

/// A number on a line of its own: what is charged.
pub(crate) fn parse_amount(text: &[u8]) -> Option<u64> {
    // Without its end it may be half a number.
    parse_u64(text.strip_suffix(b"\n")?)
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

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in "[a-z]{0,4}[0-9 \n-]{0,22}") {
            for text in [&bytes[..], text.as_bytes()] {
                let _ = (parse(text), parse_amount(text));
            }
        }
    }
}
