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
    read_with(statm, parse)
}

/// The same without pages of files and of shared memory.
pub(super) fn read_without_files(statm: BorrowedFd<'_>) -> io::Result<Result<u64, &'static str>> {
    read_with(statm, parse_without_files)
}

fn read_with(
    statm: BorrowedFd<'_>,
    parse: impl FnOnce(&[u8]) -> Result<u64, &'static str>,
) -> io::Result<Result<u64, &'static str>> {
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

/// The resident set less the third field, which is what of it belongs to files and to shared memory.
fn parse_without_files(bytes: &[u8]) -> Result<u64, &'static str> {
    let resident = parse(bytes)?;
    let mut fields = bytes.split(u8::is_ascii_whitespace);
    let of_files = fields.nth(2).and_then(parse_u64).ok_or("its third field is not a number of pages")?;
    fields.next().map(|_| resident.saturating_sub(of_files)).ok_or("it ends within its third field")
}

/// A part of a line is malformed or says the same, and what is without files is no more.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let (all, without_files) = (parse(bytes), parse_without_files(bytes));
    assert!(without_files.is_err() || without_files <= all);
    for part in crate::laws::beginnings(bytes) {
        assert!(parse(part).is_err() || parse(part) == all);
        assert!(parse_without_files(part).is_err() || parse_without_files(part) == without_files);
    }
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
    fn the_third_field_is_what_of_it_belongs_to_files() {
        assert_eq!(parse_without_files(b"13661 1152 930 41 0 508 0\n"), Ok(222));
        assert_eq!(parse_without_files(b"13661 30 31 41 0 508 0\n"), Ok(0));
        for text in [&b"13661 1152"[..], b"13661 1152 ", b"13661 1152 9", b"13661 1152 - 41"] {
            assert!(parse_without_files(text).is_err(), "{}", text.escape_ascii());
        }
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
        fn the_law_holds(bytes: Vec<u8>, text in "[0-9 -]{0,40}") {
            law(&bytes);
            law(text.as_bytes());
        }
    }
}
