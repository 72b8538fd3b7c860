//! `/proc/zoneinfo`, proc_zoneinfo(5): the machine's pages by zone.
//!
//! ```text
//!   pagesets
//!     cpu: 0
//!               count:    23275
//!               high:     24530
//! ```
//!
//! The surprise: free pages that wait in the lists of a CPU, a hundred megabytes for each, are in no sum of `meminfo`,
//! not even in `MemFree`.

use crate::readers::number::parse_u64;

/// The free pages that wait in the lists of the CPUs. Of a text that was cut off, those that it tells.
pub(crate) fn waiting_pages(text: &[u8]) -> u64 {
    let ended = text.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    let counts = text[..ended].split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
        (fields.next() == Some(b"count:")).then(|| parse_u64(fields.next()?)).flatten()
    });
    counts.fold(0, u64::saturating_add)
}

/// A part tells no more than all of it.
#[cfg(any(test, fuzzing))]
pub(crate) fn law(bytes: &[u8]) {
    let pages = waiting_pages(bytes);
    assert!(crate::laws::beginnings(bytes).all(|part| waiting_pages(part) <= pages));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_waits_for_each_cpu_is_added_up_to_where_the_text_ends() {
        let text =
            "Node 0, zone Normal\n  pages free 7\n    cpu: 0\n              count:    20\n              high: 9\n    \
                    cpu: 1\n              count:    3\n";
        assert_eq!(waiting_pages(text.as_bytes()), 23);
        assert_eq!(waiting_pages(text.trim_end().as_bytes()), 20, "this may be a part of the number");
        assert_eq!(waiting_pages(b""), 0);
    }

    proptest! {
        #[test]
        fn the_law_holds(bytes: Vec<u8>, text in "( *count: [0-9]{0,22}\n){0,3}") {
            law(&bytes);
            law(text.as_bytes());
        }
    }
}
