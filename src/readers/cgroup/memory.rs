//! What the files of the memory controller say: `Documentation/admin-guide/cgroup-v2.rst`, section "Memory Interface
//! Files", and `Documentation/admin-guide/cgroup-v1/memory.rst`.
//!
//! ```text
//! anon 209715200
//! file 8192
//! shmem 0
//! inactive_file 209723392
//! ```
//!
//! The surprise, in this sample: what is `inactive_file` need not be file. Anonymous memory that was marked `MADV_FREE`
//! and written again is listed there, and cannot be dropped.

use super::membership::Version;
use crate::readers::number::parse_u64;

/// What is charged but for what would be given back before more is refused. Between anonymous and shared memory
/// together and all that is charged. What `stat` does not say is not taken off.
pub(crate) fn judged_usage(raw: u64, stat: &[u8], version: Version) -> u64 {
    // Of version 1, the sums with the groups below: usage is a sum as well.
    let [anon, file, shmem, inactive_file] = match version {
        Version::V1 => ["total_rss", "total_cache", "total_shmem", "total_inactive_file"],
        Version::V2 => ["anon", "file", "shmem", "inactive_file"],
    }
    .map(|name| entry(stat, name.as_bytes()).unwrap_or(0));
    let reclaimable = inactive_file.min(file.saturating_sub(shmem));
    raw.saturating_sub(reclaimable).max(anon.saturating_add(shmem))
}

fn entry(stat: &[u8], name: &[u8]) -> Option<u64> {
    stat.split(|byte| *byte == b'\n').find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(b" ")?;
        parse_u64(value)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn judged(raw: u64, anon: u64, file: u64, shmem: u64, inactive_file: u64) -> u64 {
        let stat = format!(
            "anon {anon}\nfile {file}\nkernel 5\nshmem {shmem}\ninactive_anon 9\ninactive_file {inactive_file}\n"
        );
        judged_usage(raw, stat.as_bytes(), Version::V2)
    }

    #[test]
    fn only_what_can_be_dropped_is_taken_off() {
        let cases = [
            // Page cache of a file that was read once.
            ([300, 50, 240, 0, 230], 70),
            // In use: active, or mapped.
            ([300, 50, 240, 0, 0], 300),
            // MADV_FREE, written again.
            ([200, 200, 0, 0, 199], 200),
            // Shared memory is in `file` and cannot be dropped.
            ([300, 50, 240, 200, 230], 260),
            // A count that lags behind.
            ([100, 110, 0, 0, 0], 110),
        ];
        for ([raw, anon, file, shmem, inactive_file], expected) in cases {
            assert_eq!(
                judged(raw * MIB, anon * MIB, file * MIB, shmem * MIB, inactive_file * MIB),
                expected * MIB,
                "{raw} {anon} {file} {shmem} {inactive_file}"
            );
        }
    }

    #[test]
    fn of_version_1_the_sums_count() {
        let stat =
            b"cache 1\nrss 1\ninactive_file 1\ntotal_cache 240\ntotal_rss 50\ntotal_shmem 0\ntotal_inactive_file 230\n";
        assert_eq!(judged_usage(300, stat, Version::V1), 70);
    }

    #[test]
    fn what_is_not_said_is_not_taken_off() {
        for stat in ["", "inactive_file 90", "file\ninactive_file x\n", "xfile 90\nxinactive_file 90\n", "file 90\n"] {
            assert_eq!(judged_usage(100, stat.as_bytes(), Version::V2), 100, "{stat:?}");
        }
    }

    proptest! {
        #[test]
        fn judged_usage_is_between_anonymous_and_shared_memory_and_all_that_is_charged(
            raw: u64, anon in 0..u64::MAX / 2, file: u64, shmem in 0..u64::MAX / 2, inactive_file: u64,
        ) {
            let least = anon + shmem;
            let judged = judged(raw, anon, file, shmem, inactive_file);
            prop_assert!(judged >= least && judged <= raw.max(least));
        }

        #[test]
        fn no_bytes_panic(raw: u64, bytes: Vec<u8>, text in "[a-z_]{0,12} [0-9 \n-]{0,40}") {
            for text in [&bytes[..], text.as_bytes()] {
                let _ = (judged_usage(raw, text, Version::V1), judged_usage(raw, text, Version::V2));
            }
        }
    }
}
