//! `/proc/<pid>/statm`, proc_pid_statm(5): memory in pages, all of it on one line.
//!
//! ```text
//! 13661 1152 930 41 0 508 0
//! ```
//!
//! The surprise: the first field is the address space; what is resident is the second.

use std::io;
use std::os::fd::BorrowedFd;

use crate::readers::number::parse_u64;
use crate::sys::file::read_line;

/// Room for seven numbers of up to 20 digits, and some.
const STATM_BUFFER: usize = 256;

/// The resident set that an open file tells now, in pages; 0 for a thread that has ended.
pub(super) fn read(statm: BorrowedFd<'_>) -> io::Result<Result<u64, &'static str>> {
    let mut buffer = [0; STATM_BUFFER];
    let length = read_line(statm, &mut buffer)?;
    Ok(match buffer.get(..length) {
        Some(line) if length < STATM_BUFFER => parse(line),
        _ => Err("it is too long"),
    })
}

/// The resident set, in pages.
fn parse(bytes: &[u8]) -> Result<u64, &'static str> {
    let mut fields = bytes.split(u8::is_ascii_whitespace);
    let resident = fields.nth(1).and_then(parse_u64).ok_or("its second field is not a number of pages")?;
    // A number that nothing follows may be half a number.
    fields.next().map(|_| resident).ok_or("it ends within its second field")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_second_field_is_what_is_resident() {
        assert_eq!(parse(b"13661 1152 930 41 0 508 0\n"), Ok(1152));
        assert_eq!(parse(b"13661 18446744073709551615 0"), Ok(u64::MAX));
    }

    #[test]
    fn anything_else_is_malformed_and_no_zero() {
        let texts: [&[u8]; 8] = [
            b"",
            b"\n",
            b"13661",
            b"13661 ",
            b"13661 11",
            b"13661 -1 930",
            b"13661 18446744073709551616 930",
            b"\xff\x00 \xfe\xff \x80",
        ];
        for text in texts {
            assert!(parse(text).is_err(), "{}", text.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in "[0-9 -]{0,40}") {
            let _ = (parse(&bytes), parse(text.as_bytes()));
        }
    }
}
