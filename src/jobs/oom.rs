//! The kernel's kills for want of memory, counted.
//!
//! `oom_kill` of `/proc/vmstat` (Linux 4.13) counts those of the whole machine, of control groups as well, and
//! `memory.events` or `memory.oom_control` those of one group. Who was killed is not said: a job that was killed within
//! seconds of a count is taken to be meant.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a count is taken. A process with much memory takes tens of milliseconds from the count of its kill to its end,
/// and seconds where many others want the CPUs.
const WINDOW: Duration = Duration::from_secs(5);

/// The last two counts. A kill counts for five to ten seconds while jobs run.
#[derive(Debug, Default)]
pub(super) struct OomKills {
    before: u64,
    latest: u64,
    looked: Option<Instant>,
}

impl OomKills {
    /// Forgets all that was, as a job is about to start and none runs. Some 100 us, every 5 s.
    pub(super) fn begin(&mut self, now: Instant, group: Option<&Path>) {
        if self.is_due(now) {
            self.latest = count(group);
            self.before = self.latest;
            self.looked = Some(now);
        }
    }

    /// Takes a count while jobs run, if the last is old, so that a kill of long ago is not taken for that of a job. Costs as
    /// much.
    pub(super) fn look(&mut self, now: Instant, group: Option<&Path>) {
        if self.is_due(now) {
            self.before = std::mem::replace(&mut self.latest, count(group));
            self.looked = Some(now);
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.looked.map_or(true, |looked| now - looked >= WINDOW)
    }

    /// Whether there were any of late. Some 100 us.
    pub(super) fn have_grown(&self, group: Option<&Path>) -> bool {
        self.before < count(group)
    }
}

/// Another group, or a file that is gone, is another sum.
fn count(group: Option<&Path>) -> u64 {
    let files = group.into_iter().flat_map(|group| [group.join("memory.events"), group.join("memory.oom_control")]);
    let files = files.chain([Path::new("/proc/vmstat").into()]);
    files.filter_map(|file| fs::read(file).ok()).map(|text| parse(&text)).fold(0, u64::wrapping_add)
}

fn parse(text: &[u8]) -> u64 {
    let mut lines = text.split(|byte| *byte == b'\n');
    let count = lines.find_map(|line| std::str::from_utf8(line.strip_prefix(b"oom_kill ")?).ok()?.trim().parse().ok());
    count.unwrap_or_default()
}

/// A count is that of the line of its name, whatever other lines there are.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let text = crate::laws::after_a_line("oom_kill_disable 0\nunder_oom 0", bytes);
    assert_eq!(parse(&text), parse(bytes));
    assert_eq!(parse(&crate::laws::after_a_line("oom_kill 7", bytes)), 7);
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
    fn only_growth_within_the_last_seconds_counts() {
        let group = tempfile::tempdir().unwrap();
        let set = |count: u64| fs::write(group.path().join("memory.events"), format!("oom_kill {count}\n")).unwrap();
        let (mut kills, now) = (OomKills::default(), Instant::now());
        // Many, lest those of the machine matter.
        const MANY: u64 = 1 << 40;
        set(MANY);
        kills.begin(now, Some(group.path()));
        assert!(!kills.have_grown(Some(group.path())));
        set(2 * MANY);
        assert!(kills.have_grown(Some(group.path())));
        // However late the first look after it comes, it remembers the count before.
        for (after, has_grown) in [(WINDOW / 2, true), (5 * WINDOW, true), (6 * WINDOW, false)] {
            kills.look(now + after, Some(group.path()));
            assert_eq!(kills.have_grown(Some(group.path())), has_grown, "after {after:?}");
        }
        // While no job ran nobody has looked.
        set(3 * MANY);
        kills.begin(now + 60 * WINDOW, Some(group.path()));
        assert!(!kills.have_grown(Some(group.path())));
    }
}
