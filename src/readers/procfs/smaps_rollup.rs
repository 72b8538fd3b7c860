//! `/proc/<pid>/smaps_rollup`, proc_pid_smaps(5), since Linux 4.14: the resident memory of a process by who shares it.
//!
//! ```text
//! 55a53c8e4000-7ffc6a3f8000 ---p 00000000 00:00 0                          [rollup]
//! Rss:              206012 kB
//! Pss:               23410 kB
//! Private_Clean:         0 kB
//! Private_Dirty:       496 kB
//! ```
//!
//! `Pss` counts a page that nine processes map as a ninth of a page. The surprise is the price: the kernel goes through
//! all pages, 9 ms for 1 GiB, and holds up `mmap` in that process meanwhile. It lets those look who may trace it.

use std::io;
use std::os::fd::BorrowedFd;

use crate::readers::number::parse_u64;
use crate::sys::file::read_at_start;

/// Room for the thirty lines that there are, and some.
const ROLLUP_BUFFER: usize = 4096;

/// The resident memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rollup {
    pub(super) resident: u64,
    /// Each page divided by the number of those that map it.
    pub(super) proportional: u64,
    /// The pages that nobody else maps.
    pub(super) private: u64,
}

pub(super) fn read(file: BorrowedFd<'_>) -> io::Result<Option<Rollup>> {
    let mut buffer = [0; ROLLUP_BUFFER];
    let length = read_at_start(file, &mut buffer)?;
    Ok(buffer.get(..length).and_then(parse))
}

fn parse(text: &[u8]) -> Option<Rollup> {
    let bytes = |name: &[u8]| {
        let value = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))?;
        let mut fields = value.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
        let kilobytes = parse_u64(fields.next()?)?;
        fields.next().filter(|unit| *unit == b"kB")?;
        kilobytes.checked_mul(1024)
    };
    Some(Rollup {
        resident: bytes(b"Rss:")?,
        proportional: bytes(b"Pss:")?,
        private: bytes(b"Private_Clean:")?.checked_add(bytes(b"Private_Dirty:")?)?,
    })
}

/// Sums are whole kilobytes, and other lines change nothing.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let rollup = parse(bytes);
    let sums = rollup.iter().flat_map(|rollup| [rollup.resident, rollup.proportional, rollup.private]);
    assert!(sums.into_iter().all(|bytes| bytes % 1024 == 0));
    assert_eq!(parse(&crate::laws::after_a_line("Pss_Dirty: 7 kB", bytes)), rollup);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rollup_is_three_sums_in_units_of_1024_bytes_and_nothing_else() {
        let text = "1000-2000 ---p 00000000 00:00 0 [rollup]\nRss:    206012 kB\nPss:     23410 kB\nPss_Dirty:  1 kB\n\
                    Private_Clean:       4 kB\nPrivate_Dirty:     496 kB\n";
        let rollup = Rollup { resident: 206_012 * 1024, proportional: 23_410 * 1024, private: 500 * 1024 };
        assert_eq!(parse(text.as_bytes()), Some(rollup));
        for (from, to) in
            [("Rss:", "Rsz:"), ("23410 kB", "23410 MB"), ("496", "-1"), ("206012", "99999999999999999999")]
        {
            assert_eq!(parse(text.replacen(from, to, 1).as_bytes()), None, "{to}");
        }
    }

    proptest! {
        #[test]
        fn the_law_holds(bytes: Vec<u8>, text in "(Rss:[0-9 ]{0,24}kB\n|Pss:[0-9 ]{0,24}kB\n){0,4}") {
            law(&bytes);
            law(text.as_bytes());
        }
    }
}
