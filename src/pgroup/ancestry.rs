//! Ancestry: which process was seen below which backend. The kernel forgets a parent when it is gone, so that whose an
//! orphan was must have been seen before. Nothing is read here.

use std::collections::HashSet;

use crate::readers::procfs::climb::{Climb, Parent};
use crate::readers::procfs::descendants::parent_index;
use crate::readers::procfs::stat::Process;
use crate::vocabulary::Identity;

/// What earlier looks at the process table have shown.
#[derive(Debug, Default)]
pub(super) struct Ancestry {
    backends: Vec<Backend>,
    /// Seen with a parent other than us: whichever of them are children of ours now were handed to us, and nobody in
    /// this process has forked them.
    fostered: HashSet<Identity>,
    /// Untracked by the host, and what was seen below those: nobody's, whatever is above them.
    disowned: HashSet<Identity>,
}

/// A process that the host has put us in charge of.
#[derive(Debug)]
struct Backend {
    process: Identity,
    /// Seen below it, at any depth, and in the table ever since.
    seen: HashSet<Identity>,
    is_gone: bool,
}

/// Where a process of the table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A descendant of ours, or ourselves; what it starts is below this backend.
    Ours(Option<usize>),
    Foreign,
}

impl Ancestry {
    pub(super) fn track(&mut self, process: Identity) {
        self.disowned.remove(&process);
        if !self.is_tracked(process) {
            self.backends.push(Backend { process, seen: HashSet::new(), is_gone: false });
        }
    }

    /// Returns whether it was tracked. What was seen below it is nobody's from now on.
    pub(super) fn untrack(&mut self, pid: u32) -> bool {
        let (gone, kept): (Vec<_>, _) =
            std::mem::take(&mut self.backends).into_iter().partition(|backend| backend.process.pid == pid);
        self.backends = kept;
        for backend in &gone {
            self.disowned.insert(backend.process);
            self.disowned.extend(&backend.seen);
        }
        for backend in &mut self.backends {
            backend.seen.retain(|process| !self.disowned.contains(process));
        }
        !gone.is_empty()
    }

    /// The backends that have this number, the newest first.
    pub(super) fn tracked(&self, pid: u32) -> Option<Identity> {
        self.backends.iter().rev().map(|backend| backend.process).find(|process| process.pid == pid)
    }

    fn is_tracked(&self, process: Identity) -> bool {
        self.backends.iter().any(|backend| backend.process == process)
    }

    /// Takes note of a table that has every descendant of `own`, this process, and may have others, ascending by
    /// process id.
    pub(super) fn observe(&mut self, table: &[Process], own: u32) {
        let mut climb = Climb::default();
        let parent = |index: usize| match parent_index(table, &table[index]) {
            _ if table[index].parent == own => Parent::Elsewhere(Place::Ours(None)),
            Some(parent) => Parent::At(parent),
            None => Parent::Elsewhere(Place::Foreign),
        };
        climb.place(table.len(), Place::Foreign, parent, |index, above| self.place_below(&table[index], above));
        let places: Vec<_> = (0..table.len()).map(|index| climb.get(index).unwrap_or(Place::Foreign)).collect();
        let mut alive = HashSet::with_capacity(table.len());
        for (process, place) in table.iter().zip(&places) {
            let identity = process.identity();
            if !process.is_zombie() {
                alive.insert(identity);
            }
            if process.pid == own || !matches!(place, Place::Ours(_)) {
                continue;
            }
            if process.parent != own {
                self.fostered.insert(identity);
            }
            // A backend is below another, if at all, and not below itself.
            let below = match *place {
                Place::Ours(_) if self.is_tracked(identity) => parent_index(table, process).map(|above| places[above]),
                place => Some(place),
            };
            if let Some(Place::Ours(Some(backend))) = below {
                for (index, tracked) in self.backends.iter_mut().enumerate() {
                    if index == backend {
                        tracked.seen.insert(identity);
                    } else {
                        tracked.seen.remove(&identity);
                    }
                }
            }
        }
        let listed: HashSet<_> = table.iter().map(Process::identity).collect();
        self.fostered.retain(|process| listed.contains(process));
        self.disowned.retain(|process| listed.contains(process));
        for backend in &mut self.backends {
            backend.seen.retain(|process| listed.contains(process));
            // Its children have another parent from the moment it ends, whoever waits for it.
            backend.is_gone = !alive.contains(&backend.process);
        }
        self.backends.retain(|backend| !backend.is_gone || !backend.seen.is_empty());
    }

    /// The place of a process whose parent has the place `above`.
    fn place_below(&self, process: &Process, above: Place) -> Place {
        let Place::Ours(above) = above else { return Place::Foreign };
        let process = process.identity();
        let above = above.filter(|_| !self.disowned.contains(&process));
        // The nearest backend above; what was seen before counts when there is none any more.
        Place::Ours(self.backend_at(process).or(above).or_else(|| self.seen_below(process)))
    }

    fn backend_at(&self, process: Identity) -> Option<usize> {
        self.backends.iter().rposition(|backend| backend.process == process)
    }

    fn seen_below(&self, process: Identity) -> Option<usize> {
        self.backends.iter().position(|backend| backend.seen.contains(&process))
    }

    /// Those that were seen below a backend that is gone, and are children of ours now. Not those that have ended, and
    /// not those that are tracked themselves.
    pub(super) fn orphans<'a>(&'a self, table: &'a [Process], own: u32) -> impl Iterator<Item = Identity> + 'a {
        let handed_to_us = table.iter().filter(move |process| process.parent == own && !process.is_zombie());
        handed_to_us.map(Process::identity).filter(|process| {
            let backend = self.backends.iter().find(|backend| backend.seen.contains(process));
            backend.is_some_and(|backend| backend.is_gone) && !self.is_tracked(*process)
        })
    }

    /// Those that have ended and were handed to us: nobody else can wait for them.
    pub(super) fn adopted_zombies<'a>(&'a self, table: &'a [Process], own: u32) -> impl Iterator<Item = Identity> + 'a {
        let ended = table.iter().filter(move |process| process.parent == own && process.is_zombie());
        ended.map(Process::identity).filter(|process| self.fostered.contains(process))
    }

    /// Those that were seen below a backend, as far as they were there when last looked at.
    pub(super) fn below(&self, backend: Identity) -> impl Iterator<Item = Identity> + '_ {
        let backend = self.backends.iter().find(move |tracked| tracked.process == backend);
        backend.into_iter().flat_map(|backend| backend.seen.iter().copied())
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.backends.is_empty() && self.fostered.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::fixture::{process, Line};
    use crate::readers::procfs::stat;

    const OWN: u32 = 10;

    /// A table of whoever is there besides init and us.
    fn table(lines: impl IntoIterator<Item = Line>) -> Vec<Process> {
        let mut table: Vec<_> = lines.into_iter().map(|line| stat::parse(line.line().as_bytes()).unwrap()).collect();
        table.sort_unstable_by_key(|process| process.pid);
        table
    }

    /// The process of that number that started at the tick of its number.
    fn of(pid: u32) -> Identity {
        Identity { pid, start_ticks: pid.into() }
    }

    fn pids(found: impl Iterator<Item = Identity>) -> Vec<u32> {
        let mut pids: Vec<_> = found.map(|process| process.pid).collect();
        pids.sort_unstable();
        pids
    }

    /// An ancestry after these looks, with 20 tracked, and the orphans and adopted zombies of the last.
    fn after(looks: &[Vec<Process>]) -> (Ancestry, Vec<u32>, Vec<u32>) {
        let mut ancestry = Ancestry::default();
        ancestry.track(of(20));
        for look in looks {
            ancestry.observe(look, OWN);
        }
        let last = looks.last().unwrap();
        let (orphans, zombies) = (pids(ancestry.orphans(last, OWN)), pids(ancestry.adopted_zombies(last, OWN)));
        (ancestry, orphans, zombies)
    }

    #[test]
    fn with_us_and_init_in_the_table_it_is_all_the_same() {
        let all = |lines: [Line; 2]| table([process(1, 0), process(OWN, 1)].into_iter().chain(lines));
        let (ancestry, ..) = after(&[all([process(20, OWN), process(30, 20)])]);
        assert_eq!(pids(ancestry.below(of(20))), [30]);
        let handed_over = all([process(30, OWN), process(50, OWN)]);
        assert_eq!(after(&[all([process(20, OWN), process(30, 20)]), handed_over]).1, [30]);
    }

    #[test]
    fn who_was_seen_below_a_backend_that_is_gone_is_an_orphan() {
        let before = table([process(20, OWN), process(30, 20), process(40, 30)]);
        assert_eq!(after(std::slice::from_ref(&before)).1, [0_u32; 0]);
        let (ancestry, orphans, _) = after(&[before.clone(), table([process(30, OWN), process(40, 30)])]);
        assert_eq!(orphans, [30], "40 has a parent still");
        assert_eq!(pids(ancestry.below(of(20))), [30, 40]);
        // A backend that nobody has waited for is gone all the same.
        let ended = table([process(20, OWN).state('Z'), process(30, OWN)]);
        assert_eq!(after(&[before.clone(), ended]).1, [30]);
        let leader_ended = table([process(20, OWN).state('Z').threads(2), process(30, 20)]);
        assert_eq!(after(&[before, leader_ended]).1, [0_u32; 0]);
    }

    #[test]
    fn what_an_orphan_starts_after_its_backend_is_gone_is_one_too() {
        let before = table([process(20, OWN), process(30, 20)]);
        let starts = table([process(30, OWN), process(40, 30)]);
        assert_eq!(after(&[before, starts, table([process(40, OWN)])]).1, [40]);
    }

    #[test]
    fn whoever_was_not_seen_below_one_is_left_alone() {
        // The host's own child, one of an untracked backend, a stranger, and one that was never seen before.
        let before = table([process(20, OWN), process(50, OWN), process(60, OWN), process(61, 60), process(70, 1)]);
        let after = after(&[before, table([process(50, OWN), process(61, OWN), process(70, 1), process(80, OWN)])]);
        assert_eq!(after.1, [0_u32; 0]);
    }

    #[test]
    fn whoever_escaped_to_init_does_not_hang_from_us() {
        let before = table([process(20, OWN), process(30, 20)]);
        assert_eq!(after(&[before, table([process(30, 1)])]).1, [0_u32; 0]);
    }

    #[test]
    fn a_reused_number_is_another_process() {
        let before = table([process(20, OWN), process(30, 20)]);
        let reused = table([process(30, OWN).started(99)]);
        let (ancestry, orphans, _) = after(&[before.clone(), reused]);
        assert_eq!(orphans, [0_u32; 0]);
        assert!(ancestry.is_empty());
        // A backend's number in other hands is a backend that is gone.
        let reused = table([process(20, 1).started(99), process(30, OWN)]);
        assert_eq!(after(&[before, reused]).1, [30]);
    }

    #[test]
    fn a_backend_below_a_backend_is_no_orphan_and_keeps_its_own() {
        let mut ancestry = Ancestry::default();
        ancestry.track(of(20));
        ancestry.track(of(30));
        ancestry.observe(&table([process(20, OWN), process(30, 20), process(40, 30)]), OWN);
        let look = table([process(30, OWN), process(40, 30)]);
        ancestry.observe(&look, OWN);
        assert_eq!(pids(ancestry.orphans(&look, OWN)), [0_u32; 0]);
        let look = table([process(40, OWN)]);
        ancestry.observe(&look, OWN);
        assert_eq!(pids(ancestry.orphans(&look, OWN)), [40]);
        ancestry.untrack(30);
        assert_eq!(pids(ancestry.orphans(&look, OWN)), [0_u32; 0]);
    }

    #[test]
    fn what_was_disowned_is_nobodys_whatever_is_above_it() {
        let family = table([process(20, OWN), process(30, 20), process(40, 30)]);
        for outer_ends_first in [false, true] {
            let mut ancestry = Ancestry::default();
            ancestry.track(of(20));
            // Seen below the one before it is tracked itself.
            ancestry.observe(&family, OWN);
            ancestry.track(of(30));
            ancestry.observe(&family, OWN);
            if outer_ends_first {
                ancestry.observe(&table([process(30, OWN), process(40, 30)]), OWN);
            }
            assert!(ancestry.untrack(30));
            ancestry.observe(&family, OWN);
            let look = table([process(30, OWN), process(40, OWN)]);
            ancestry.observe(&look, OWN);
            assert_eq!(pids(ancestry.orphans(&look, OWN)), [0_u32; 0], "{outer_ends_first}");
        }
    }

    #[test]
    fn only_zombies_that_were_handed_to_us_are_ours_to_collect() {
        let before = table([process(20, OWN), process(30, 20), process(50, OWN)]);
        let later = table([process(30, OWN).state('Z'), process(50, OWN).state('Z'), process(60, OWN).state('Z')]);
        assert_eq!(after(&[before, later]).2, [30]);
    }

    #[test]
    fn a_circle_of_parents_ends_and_nothing_is_kept_for_ever() {
        let (ancestry, ..) =
            after(&[table([process(20, OWN), process(30, 20)]), table([process(40, 41), process(41, 40).started(40)])]);
        assert!(ancestry.is_empty());
    }
}
