//! The kernel's kills for want of memory, counted.
//!
//! `oom_kill` of `/proc/vmstat` (Linux 4.13) counts those of the whole machine, of control groups as well, and
//! `memory.events` or `memory.oom_control` those of one group. Who was killed is not said: a job that was killed while
//! either count grew is taken to be meant.

use std::fs;
use std::path::Path;

/// The counts as they were at the last look.
#[derive(Debug, Default)]
pub(super) struct OomKills {
    last: u64,
}

impl OomKills {
    /// Looks whether there were any since the last look. Some 100 us.
    pub(super) fn have_grown(&mut self, group: Option<&Path>) -> bool {
        let files = group.into_iter().flat_map(|group| [group.join("memory.events"), group.join("memory.oom_control")]);
        let files = files.chain([Path::new("/proc/vmstat").into()]);
        let now = files.filter_map(|file| fs::read(file).ok()).map(|text| parse(&text)).fold(0, u64::wrapping_add);
        // Another group, or a file that is gone, is another sum.
        std::mem::replace(&mut self.last, now) < now
    }
}

fn parse(text: &[u8]) -> u64 {
    let mut lines = text.split(|byte| *byte == b'\n');
    let count = lines.find_map(|line| std::str::from_utf8(line.strip_prefix(b"oom_kill ")?).ok()?.trim().parse().ok());
    count.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_found_in_each_of_the_three_files() {
        assert_eq!(parse(b"low 0\nhigh 0\nmax 3\noom 2\noom_kill 7\noom_group_kill 0\n"), 7);
        assert_eq!(parse(b"oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), 5);
        assert_eq!(parse(b"nr_free_pages 1\noom_kill 3\n"), 3);
        assert_eq!(parse(b""), 0);
        assert_eq!(parse(b"oom_kill x\n"), 0);
    }

    #[test]
    fn only_growth_is_news() {
        let group = tempfile::tempdir().unwrap();
        let count = |count: u32| fs::write(group.path().join("memory.events"), format!("oom_kill {count}\n")).unwrap();
        let mut kills = OomKills::default();
        count(1_000_000);
        assert!(kills.have_grown(Some(group.path())));
        count(2_000_000);
        assert!(kills.have_grown(Some(group.path())));
    }
}
