//! The content of `memory.stat`: `Documentation/admin-guide/cgroup-v2.rst`, section "Memory Interface Files", and
//! `Documentation/admin-guide/cgroup-v1/memory.rst`.
//!
//! ```text
//! anon 209715200
//! file 8192
//! shmem 0
//! inactive_file 209723392
//! ```
//!
//! The surprise, in this sample: what is `inactive_file` need not be file. Anonymous memory that was marked `MADV_FREE`
//! and written again is listed there, and cannot be dropped. And a count that is kept apart by each CPU may fall below
//! zero, which is printed as a number near 2^64, or be that of groups which were removed, and be larger than all that
//! is charged. And it may lag behind what is charged by seconds ([`super::level`] says where).

use super::limit::NO_LIMIT;
use super::membership::Version;
use crate::readers::number::parse_u64;

/// The charge of a group by kind, in bytes. A kind that the kernel does not tell is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MemoryStat {
    anon: u64,
    /// Page cache, `shmem` included.
    file: u64,
    shmem: u64,
    /// Both lists of page cache, which are without what is locked or in memory alone.
    file_lists: u64,
    slab_reclaimable: u64,
    /// Memory of the kernel, reclaimable slab included. Version 1 does not tell it here.
    kernel: u64,
    /// Memory that was swapped out. Of version 1, where a limit counts it together with the rest.
    swap: u64,
    /// The least limits from this group up, those of groups included that cannot be seen. Of version 1.
    least_limit: Option<u64>,
    least_limit_with_swap: Option<u64>,
}

impl MemoryStat {
    pub(crate) fn parse(text: &[u8], version: Version) -> MemoryStat {
        let mut stat = MemoryStat::default();
        let (mut kernel, mut kernel_parts) = (None, 0_u64);
        for line in text.split(|byte| *byte == b'\n') {
            let mut fields = line.splitn(2, |byte| *byte == b' ');
            let (Some(name), Some(value)) = (fields.next(), fields.next().and_then(parse_u64)) else { continue };
            // Below zero.
            let value = if value > i64::MAX as u64 { 0 } else { value };
            let limit = Some(value).filter(|limit| *limit < NO_LIMIT);
            match (version, name) {
                // Of version 1, the sums with the groups below: usage is a sum as well.
                (Version::V1, b"total_rss") | (Version::V2, b"anon") => stat.anon = value,
                (Version::V1, b"total_cache") | (Version::V2, b"file") => stat.file = value,
                (Version::V1, b"total_shmem") | (Version::V2, b"shmem") => stat.shmem = value,
                (Version::V1, b"total_inactive_file" | b"total_active_file")
                | (Version::V2, b"inactive_file" | b"active_file") => {
                    stat.file_lists = stat.file_lists.saturating_add(value);
                }
                (Version::V1, b"total_swap") => stat.swap = value,
                (Version::V1, b"hierarchical_memory_limit") => stat.least_limit = limit,
                (Version::V1, b"hierarchical_memsw_limit") => stat.least_limit_with_swap = limit,
                (Version::V2, b"kernel") => kernel = Some(value),
                (Version::V2, b"slab_reclaimable") => stat.slab_reclaimable = value,
                // The parts, for a kernel before 5.18, which does not tell their sum.
                (Version::V2, b"slab" | b"kernel_stack" | b"pagetables" | b"percpu" | b"vmalloc") => {
                    kernel_parts = kernel_parts.saturating_add(value);
                }
                _ => {}
            }
        }
        stat.kernel = kernel.unwrap_or(kernel_parts);
        stat
    }

    /// The part of what is charged that cannot be given back: all but what the kernel's `MemAvailable` takes for
    /// reclaimable, which are both lists of page cache and reclaimable slab. Never more than is charged, and never less
    /// than anonymous, shared and other kernel memory together, or what of a group below is, where that is what is charged.
    pub(crate) fn judged_usage(&self, raw: u64, fixed_below: u64) -> u64 {
        let lists = self.file_lists.min(self.file.saturating_sub(self.shmem));
        let fixed = self.fixed().max(fixed_below);
        let reclaimable = lists.saturating_add(self.slab_reclaimable).min(raw.saturating_sub(fixed));
        raw - reclaimable
    }

    /// Anonymous, shared and other kernel memory together; in a group of version 1 without that of the kernel, unless it is
    /// [told](Self::with_reclaimable_kernel).
    pub(crate) fn fixed(&self) -> u64 {
        let other_kernel = self.kernel.saturating_sub(self.slab_reclaimable);
        self.anon.saturating_add(self.shmem).saturating_add(other_kernel)
    }

    /// The memory of the kernel in a group of version 1, which its `memory.stat` does not tell: what is left of the
    /// rest.
    pub(crate) fn left_for_kernel(&self, raw: u64) -> u64 {
        raw.saturating_sub(self.anon).saturating_sub(self.file)
    }

    /// The same with so much of the kernel's memory as reclaimable, in a group of version 1.
    pub(crate) fn with_reclaimable_kernel(self, raw: u64, reclaimable: u64) -> MemoryStat {
        let kernel = self.left_for_kernel(raw);
        MemoryStat { kernel, slab_reclaimable: reclaimable.min(kernel), ..self }
    }

    pub(crate) fn least_limit(&self) -> Option<u64> {
        self.least_limit
    }

    /// The limit on memory and swap together, and what of that was swapped out; `None` where there is no such limit.
    pub(crate) fn limit_with_swap(&self) -> Option<(u64, u64)> {
        self.least_limit_with_swap.map(|limit| (limit, self.swap))
    }
}

/// No more than is charged counts, and at least what cannot be given back; what else the file says changes nothing.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let (raw, text) = crate::laws::number_first(bytes);
    for version in [Version::V1, Version::V2] {
        let stat = MemoryStat::parse(text, version);
        assert_eq!(MemoryStat::parse(&crate::laws::after_a_line("pgfault 18446744073709551616", text), version), stat);
        let fixed = stat.anon.saturating_add(stat.shmem);
        for stat in [stat, stat.with_reclaimable_kernel(raw, raw), stat.with_reclaimable_kernel(raw, 0)] {
            assert!((raw.min(fixed)..=raw).contains(&stat.judged_usage(raw, 0)));
            assert!((raw / 2..=raw).contains(&stat.judged_usage(raw, raw / 2)));
        }
        assert!(stat.left_for_kernel(raw) <= raw && stat.least_limit().map_or(true, |limit| limit < NO_LIMIT));
        assert!(version == Version::V1 || stat.least_limit().is_none() && stat.limit_with_swap().is_none());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn judged(raw: u64, text: &str, version: Version) -> u64 {
        MemoryStat::parse(text.as_bytes(), version).judged_usage(raw, 0)
    }

    /// The lines of these names, values in MiB.
    fn stat(lines: &[(&str, u64)]) -> String {
        lines.iter().map(|(name, mib)| format!("{name} {}\n", mib * MIB)).collect()
    }

    #[test]
    fn only_what_can_be_given_back_is_taken_off() {
        type Case<'a> = (&'a str, u64, &'a [(&'a str, u64)], u64);
        let cases: [Case<'_>; 9] = [
            ("a file that was read once", 300, &[("anon", 50), ("file", 240), ("inactive_file", 230)], 70),
            ("and twice", 300, &[("anon", 50), ("file", 240), ("active_file", 200), ("inactive_file", 30)], 70),
            ("locked, or in memory alone", 300, &[("anon", 50), ("file", 240), ("unevictable", 240)], 300),
            ("MADV_FREE, written again", 200, &[("anon", 200), ("file", 0), ("inactive_file", 199)], 200),
            ("shared memory is file", 300, &[("anon", 50), ("file", 240), ("shmem", 200), ("inactive_file", 230)], 260),
            ("names that do not exist", 220, &[("anon", 5), ("kernel", 210), ("slab_reclaimable", 205)], 15),
            ("pipes", 220, &[("anon", 5), ("kernel", 210), ("slab_reclaimable", 2)], 218),
            ("before 5.18", 220, &[("anon", 5), ("slab", 30), ("pagetables", 180), ("slab_reclaimable", 25)], 195),
            ("a count that lags behind", 100, &[("anon", 110), ("inactive_file", 20), ("file", 20)], 100),
        ];
        for (what, raw, lines, expected) in cases {
            assert_eq!(judged(raw * MIB, &stat(lines), Version::V2), expected * MIB, "{what}");
        }
    }

    #[test]
    fn of_version_1_the_sums_count() {
        let text = "cache 1\nrss 1\ninactive_file 1\ntotal_cache 240\ntotal_rss 50\ntotal_shmem 0\n\
                    total_inactive_file 100\ntotal_active_file 130\n";
        assert_eq!(judged(300, text, Version::V1), 70);
    }

    #[test]
    fn of_version_1_the_kernels_part_is_what_is_left_and_as_reclaimable_as_is_said() {
        let stat = MemoryStat::parse(b"total_cache 20\ntotal_rss 10\ntotal_inactive_file 20\n", Version::V1);
        assert_eq!(stat.left_for_kernel(230), 200);
        for (reclaimable, expected) in [(0, 210), (150, 60), (900, 10)] {
            assert_eq!(stat.with_reclaimable_kernel(230, reclaimable).judged_usage(230, 0), expected, "{reclaimable}");
        }
    }

    #[test]
    fn counts_of_removed_groups_are_never_more_than_is_charged() {
        // 600 MiB are charged; the lists, and then the anonymous memory, are said to be 9 GiB.
        let lists = stat(&[("anon", 200), ("file", 9216), ("inactive_file", 9216)]);
        assert_eq!(judged(600 * MIB, &lists, Version::V2), 200 * MIB);
        let anon = stat(&[("anon", 9216), ("file", 100), ("inactive_file", 100), ("shmem", 9216)]);
        assert_eq!(judged(600 * MIB, &anon, Version::V2), 600 * MIB);
    }

    #[test]
    fn a_count_below_zero_is_none() {
        let text = "anon 18446744073709543424\nfile 50\nshmem 18446744073709551615\ninactive_file 50\n";
        assert_eq!(judged(300, text, Version::V2), 250);
        let text = "anon 200\nfile 18446744073709543424\ninactive_file 18446744073709543424\nactive_file 9\n";
        assert_eq!(judged(300, text, Version::V2), 300);
    }

    #[test]
    fn limits_of_groups_above_are_told_by_version_1() {
        let limits = |text: &str| {
            let stat = MemoryStat::parse(text.as_bytes(), Version::V1);
            (stat.least_limit(), stat.limit_with_swap())
        };
        let text = "hierarchical_memory_limit 268435456\nhierarchical_memsw_limit 536870912\ntotal_swap 7\n";
        assert_eq!(limits(text), (Some(256 * MIB), Some((512 * MIB, 7))));
        let text = "hierarchical_memory_limit 9223372036854771712\nhierarchical_memsw_limit 9223372036854771712\n";
        assert_eq!(limits(text), (None, None));
    }

    #[test]
    fn what_is_not_said_is_not_taken_off() {
        for text in ["", "inactive_file 90", "file\ninactive_file x\n", "xfile 90\nxinactive_file 90\n", "file 90\n"] {
            assert_eq!(judged(100, text, Version::V2), 100, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn judged_usage_is_at_most_what_is_charged_and_at_least_what_cannot_go(
            raw: u64, anon: u64, shmem: u64, file: u64, lists: u64, kernel: u64, slab: u64,
        ) {
            let text = format!(
                "anon {anon}\nfile {file}\nshmem {shmem}\nkernel {kernel}\nslab_reclaimable {slab}\n\
                 active_file {lists}\ninactive_file {lists}\n"
            );
            let judged = judged(raw, &text, Version::V2);
            let counted = |count: u64| if count > i64::MAX as u64 { 0 } else { count };
            let fixed = counted(anon).saturating_add(counted(shmem));
            prop_assert!(judged <= raw && judged >= raw.min(fixed));
        }

        #[test]
        fn the_law_holds(raw: [u8; 8], bytes: Vec<u8>, text in "[a-z_]{0,12} [0-9 \n-]{0,40}") {
            law(&bytes);
            law(&[&raw, text.as_bytes()].concat());
        }
    }
}
