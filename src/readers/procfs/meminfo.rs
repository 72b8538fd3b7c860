//! `/proc/meminfo`, proc_meminfo(5): the memory of the machine.
//!
//! ```text
//! MemTotal:       24684084 kB
//! MemFree:        22189160 kB
//! ```
//!
//! The surprise: `kB` are 1024 bytes.

use crate::readers::number::parse_u64;

/// The memory that the kernel can use, in bytes.
pub(crate) fn total(text: &[u8]) -> Result<u64, &'static str> {
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"MemTotal:"));
    let kilobytes = line.and_then(|line| {
        let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
        parse_u64(fields.next()?).filter(|_| fields.next() == Some(b"kB"))
    });
    kilobytes.and_then(|kilobytes| kilobytes.checked_mul(1024)).ok_or("it does not say MemTotal in kB")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_total_is_in_units_of_1024_bytes() {
        assert_eq!(total(b"MemTotal:       24684084 kB\nMemFree:        22189160 kB\n"), Ok(24_684_084 * 1024));
        for text in ["", "MemTotal:\n", "MemTotal: 12 MB\n", "MemTotal: -1 kB\n", "MemFree: 12 kB\n", "MemTotal: 12"] {
            assert!(total(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(total(format!("MemTotal: {} kB", u64::MAX).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in "MemTotal:[ 0-9]{0,24}( kB)?") {
            let _ = (total(&bytes), total(text.as_bytes()));
        }
    }
}
