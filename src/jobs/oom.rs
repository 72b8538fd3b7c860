//! The kernel's kills for want of memory, counted.
//!
//! `oom_kill` of `/proc/vmstat` (Linux 4.13) counts those of the whole machine, of control groups as well, and
//! `memory.events` or `memory.oom_control` those of one group. Who was killed is not said: a job that was killed within
//! seconds of a count is taken to be meant. What was killed may be something that the job has started, as a compiler of a build,
//! and the job then fails in its own way: one that has failed is taken to be meant by a kill in its own group that no
//! other job has died of (in version 1 that is the group of what was killed, and none above it).

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a count is taken. A process with much memory takes tens of milliseconds from the count of its kill to its end,
/// and seconds where many others want the CPUs.
const WINDOW: Duration = Duration::from_secs(5);

/// The last two counts. A kill counts for five to ten seconds while jobs run.
#[derive(Debug, Default)]
pub(super) struct OomKills {
    before: Kills,
    latest: Kills,
    looked: Option<Instant>,
    /// The kills since the first count that jobs have died of.
    explained: u64,
}

/// Numbers of kills.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kills {
    in_group: u64,
    /// Those of the group may be among them, or not.
    elsewhere: u64,
}

impl OomKills {
    /// Forgets all that was, as a job is about to start and none runs. Some 100 us, every 5 s.
    pub(super) fn begin(&mut self, now: Instant, group: Option<&Path>) {
        if self.is_due(now) {
            self.latest = count(group);
            (self.before, self.looked, self.explained) = (self.latest, Some(now), 0);
        }
    }

    /// Takes a count while jobs run, if the last is old, so that a kill of long ago is not taken for that of a job. Costs as
    /// much.
    pub(super) fn look(&mut self, now: Instant, group: Option<&Path>) {
        if self.is_due(now) {
            let forgotten = self.latest.since(self.before).in_group;
            self.before = std::mem::replace(&mut self.latest, count(group));
            (self.looked, self.explained) = (Some(now), self.explained.saturating_sub(forgotten));
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.looked.map_or(true, |looked| now - looked >= WINDOW)
    }

    /// The kills of late. Some 100 us.
    pub(super) fn recent(&self, group: Option<&Path>) -> Kills {
        count(group).since(self.before)
    }

    /// Whether a job that ended while there were these kills died of one; then no other has died of that one. `was_killed`
    /// says that it was killed itself.
    pub(super) fn explain(&mut self, recent: Kills, was_killed: bool) -> bool {
        let is_meant = recent.in_group > self.explained || (was_killed && recent != Kills::default());
        self.explained += u64::from(is_meant);
        is_meant
    }
}

impl Kills {
    fn since(self, before: Kills) -> Kills {
        Kills {
            in_group: self.in_group.saturating_sub(before.in_group),
            elsewhere: self.elsewhere.saturating_sub(before.elsewhere),
        }
    }
}

fn count(group: Option<&Path>) -> Kills {
    let files = group.into_iter().flat_map(|group| [group.join("memory.events"), group.join("memory.oom_control")]);
    let in_group = files.map(|file| count_in(&file)).fold(0, u64::wrapping_add);
    Kills { in_group, elsewhere: count_in(Path::new("/proc/vmstat")) }
}

fn count_in(file: &Path) -> u64 {
    fs::read(file).map(|text| parse(&text)).unwrap_or_default()
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
    fn only_kills_of_the_last_seconds_count_and_each_for_one_job() {
        let group = tempfile::tempdir().unwrap();
        let set = |count: u64| fs::write(group.path().join("memory.events"), format!("oom_kill {count}\n")).unwrap();
        let in_group = |kills: &OomKills| kills.recent(Some(group.path())).in_group;
        let (mut kills, now) = (OomKills::default(), Instant::now());
        set(7);
        kills.begin(now, Some(group.path()));
        assert_eq!(in_group(&kills), 0);
        set(9);
        assert_eq!(in_group(&kills), 2);
        // However late the first look after it comes, it remembers the count before.
        for (after, counted) in [(WINDOW / 2, 2), (5 * WINDOW, 2), (6 * WINDOW, 0)] {
            kills.look(now + after, Some(group.path()));
            assert_eq!(in_group(&kills), counted, "after {after:?}");
        }
        // While no job ran nobody has looked.
        set(10);
        kills.begin(now + 60 * WINDOW, Some(group.path()));
        assert_eq!(in_group(&kills), 0);
    }

    #[test]
    fn a_job_that_fails_is_meant_by_a_kill_in_its_group_that_no_other_has_died_of() {
        let kills = |in_group, elsewhere| Kills { in_group, elsewhere };
        let (killed, failed) = (true, false);
        let mut one = OomKills::default();
        assert!(!one.explain(kills(0, 0), killed) && !one.explain(kills(0, 5), failed));
        assert!(one.explain(kills(1, 5), failed));
        assert!(!one.explain(kills(1, 5), failed), "explained");
        assert!(one.explain(kills(1, 5), killed), "one that was killed itself says more");
        let mut two = OomKills::default();
        assert!(two.explain(kills(2, 0), killed) && two.explain(kills(2, 0), failed));
        assert!(!two.explain(kills(2, 0), failed));
        assert!(OomKills::default().explain(kills(0, 1), killed), "where the group counts none");
    }
}
