//! `/proc/meminfo`, proc_meminfo(5): the memory of the machine.
//!
//! ```text
//! MemTotal:       24684084 kB
//! MemFree:        22189160 kB
//! MemAvailable:   23345678 kB
//! ```
//!
//! The surprise: `kB` are 1024 bytes.

use crate::readers::number::parse_u64;

/// The memory that the kernel can use, in bytes.
pub(crate) fn total(text: &[u8]) -> Result<u64, &'static str> {
    // No machine has none: what says so stands in for the kernel's, and knows nothing.
    entry(text, "MemTotal:").filter(|total| *total > 0).ok_or("it does not say MemTotal in kB")
}

/// The memory that new programs can have without swapping, in bytes: not told before Linux 3.14.
pub(crate) fn available(text: &[u8]) -> Result<u64, &'static str> {
    entry(text, "MemAvailable:").ok_or("it does not say MemAvailable in kB")
}

/// The memory that is neither free, nor on a list of pages, nor reclaimable slab, in bytes: no more than that of the
/// kernel's own memory is there for good. `None` where a part is not told.
pub(crate) fn beyond_reclaim(text: &[u8]) -> Option<u64> {
    let parts = ["MemFree:", "Active:", "Inactive:", "Unevictable:", "SReclaimable:"];
    let rest = parts.iter().try_fold(entry(text, "MemTotal:")?, |rest, part| rest.checked_sub(entry(text, part)?));
    // Set aside, and charged elsewhere.
    Some(rest?.saturating_sub(entry(text, "Hugetlb:").unwrap_or(0)))
}

/// The value of one line, in bytes.
fn entry(text: &[u8], name: &str) -> Option<u64> {
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name.as_bytes()))?;
    let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    parse_u64(fields.next()?).filter(|_| fields.next() == Some(b"kB"))?.checked_mul(1024)
}

/// Amounts are whole kilobytes, none is more than the total where it is a part of that, and other lines change nothing.
#[cfg(any(test, fuzzing))]
pub(crate) fn law(bytes: &[u8]) {
    let told = |text: &[u8]| [total(text).ok(), available(text).ok(), beyond_reclaim(text)];
    let [total, available, beyond] = told(bytes);
    assert!([total, available, beyond].into_iter().flatten().all(|bytes| bytes % 1024 == 0));
    assert!(total != Some(0) && beyond <= entry(bytes, "MemTotal:"));
    assert_eq!(told(&crate::laws::after_a_line("Percpu: 7 kB", bytes)), [total, available, beyond]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_total_is_in_units_of_1024_bytes() {
        assert_eq!(total(b"MemTotal:       24684084 kB\nMemFree:        22189160 kB\n"), Ok(24_684_084 * 1024));
        for text in [
            "",
            "MemTotal:\n",
            "MemTotal: 12 MB\n",
            "MemTotal: -1 kB\n",
            "MemFree: 12 kB\n",
            "MemTotal: 12",
            "MemTotal: 0 kB",
        ] {
            assert!(total(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(total(format!("MemTotal: {} kB", u64::MAX).as_bytes()).is_err());
    }

    #[test]
    fn what_is_available_may_be_nothing_and_is_not_told_by_old_kernels() {
        assert_eq!(available(b"MemTotal: 12 kB\nMemAvailable:       5 kB\n"), Ok(5 * 1024));
        assert_eq!(available(b"MemAvailable: 0 kB\n"), Ok(0));
        assert!(available(b"MemTotal: 12 kB\nMemFree: 5 kB\n").is_err());
    }

    #[test]
    fn the_kernels_own_is_what_is_left_of_all_that_can_be_had() {
        let text = "MemTotal: 1000 kB\nMemFree: 300 kB\nActive: 200 kB\nInactive: 250 kB\nActive(anon): 90 kB\n\
                    Unevictable: 20 kB\nSReclaimable: 130 kB\nHugetlb: 40 kB\n";
        assert_eq!(beyond_reclaim(text.as_bytes()), Some(60 * 1024));
        assert_eq!(beyond_reclaim(text.replace("Inactive", "Other").as_bytes()), None);
        assert_eq!(beyond_reclaim(text.replace("1000", "800").as_bytes()), None, "these do not add up");
    }

    proptest! {
        #[test]
        fn the_law_holds(bytes: Vec<u8>, text in "MemTotal:[ 0-9]{0,24}( kB)?") {
            law(&bytes);
            law(text.as_bytes());
        }
    }
}
