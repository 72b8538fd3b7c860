//! Ancestry: which process was seen below which backend. The kernel forgets a parent when it is gone, so that whose an
//! orphan was must have been seen before. Nothing is read here.
//!
//! Each process is below one backend at most, so one map from process to backend holds it all, and a look costs the
//! same for each process, however many backends there are.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::individual::Individual;
use super::table::Table;
use crate::readers::procfs::climb::{Climb, Parent};
use crate::readers::procfs::descendants::parent_index;

/// The findings of earlier looks at the process table.
#[derive(Debug, Default)]
pub(super) struct Ancestry {
    backends: BTreeMap<Individual, Backend>,
    /// The backend that a process was last seen below, at any depth. For as long as the process is listed.
    backend_of: HashMap<Individual, Individual>,
    /// Seen with a parent other than us. Those of them that are children of ours now were handed to us, and nobody in
    /// this process has forked them.
    fostered: HashSet<Individual>,
    /// Untracked by the host, and all that was seen below those: nobody's, whatever is above them.
    disowned: HashSet<Individual>,
}

/// A process that the host has put us in charge of.
#[derive(Debug, Default)]
struct Backend {
    is_gone: bool,
}

/// The place of a process in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A descendant of ours, or ourselves; its children are below this backend.
    Ours(Option<Individual>),
    Foreign,
}

impl Ancestry {
    pub(super) fn track(&mut self, process: Individual) {
        self.disowned.remove(&process);
        self.backends.entry(process).or_default();
    }

    /// Returns whether it was tracked. All that was seen below it is nobody's from now on.
    pub(super) fn untrack(&mut self, pid: u32) -> bool {
        let untracked: Vec<_> = self.backends.range(Individual::all_of(pid)).map(|(backend, _)| *backend).collect();
        for backend in &untracked {
            self.backends.remove(backend);
            self.backend_of.remove(backend);
            self.disowned.insert(*backend);
        }
        let Ancestry { backends, backend_of, disowned, .. } = self;
        backend_of.retain(|process, backend| {
            let is_kept = backends.contains_key(backend);
            if !is_kept {
                disowned.insert(*process);
            }
            is_kept
        });
        !untracked.is_empty()
    }

    /// The tracked process of this number; of several, the one that started last.
    pub(super) fn tracked(&self, pid: u32) -> Option<Individual> {
        self.backends.range(Individual::all_of(pid)).next_back().map(|(backend, _)| *backend)
    }

    /// Takes note of a table that has every descendant of this process, and may have others.
    pub(super) fn observe(&mut self, table: &Table) {
        let mut climb = Climb::default();
        let processes = table.processes();
        let parent = |index: usize| match parent_index(processes, &processes[index]) {
            _ if processes[index].parent == table.own() => Parent::Elsewhere(Place::Ours(None)),
            Some(parent) => Parent::At(parent),
            None => Parent::Elsewhere(Place::Foreign),
        };
        climb.place(processes.len(), Place::Foreign, parent, |index, above| self.place_below(table.who(index), above));
        for (index, process) in processes.iter().enumerate() {
            let place = climb.get(index).unwrap_or(Place::Foreign);
            if process.pid == table.own() || place == Place::Foreign {
                continue;
            }
            let individual = table.who(index);
            if process.parent != table.own() {
                self.fostered.insert(individual);
            }
            // A backend is below another, if at all, and not below itself.
            let place = match parent_index(processes, process) {
                _ if !self.is_tracked(individual) => Some(place),
                Some(parent) => climb.get(parent),
                None => None,
            };
            if let Some(Place::Ours(Some(backend))) = place {
                self.backend_of.insert(individual, backend);
            }
        }
        self.forget_ended(table);
    }

    fn forget_ended(&mut self, table: &Table) {
        self.fostered.retain(|process| table.find(*process).is_some());
        self.disowned.retain(|process| table.find(*process).is_some());
        self.backend_of.retain(|process, _| table.find(*process).is_some());
        for (backend, state) in &mut self.backends {
            // Its children have another parent from the moment it ends, whoever waits for it.
            state.is_gone = match table.find(*backend) {
                Some(process) => process.is_zombie(),
                // A process that may not be looked at any more has no start time to be known by.
                None => !table.has_concealed(backend.pid()),
            };
        }
        let still_needed: HashSet<_> = self.backend_of.values().collect();
        self.backends.retain(|backend, state| !state.is_gone || still_needed.contains(backend));
    }

    /// The place of a process whose parent has the place `above`.
    fn place_below(&self, process: Individual, above: Place) -> Place {
        let Place::Ours(above) = above else { return Place::Foreign };
        if self.is_tracked(process) {
            return Place::Ours(Some(process));
        }
        // The nearest backend above; where there is none any more, the one that was seen there.
        let above = above.filter(|_| !self.disowned.contains(&process));
        Place::Ours(above.or_else(|| self.backend_of.get(&process).copied()))
    }

    fn is_tracked(&self, process: Individual) -> bool {
        self.backends.contains_key(&process)
    }

    /// The children of ours that were seen below a backend that is gone. None that has ended, and none that is tracked
    /// itself.
    pub(super) fn orphans<'a>(&'a self, table: &'a Table) -> impl Iterator<Item = Individual> + 'a {
        let handed_to_us = table.children().filter(|(process, _)| !process.is_zombie()).map(|(_, who)| who);
        handed_to_us.filter(|who| {
            let backend = self.backend_of.get(who).and_then(|backend| self.backends.get(backend));
            backend.is_some_and(|backend| backend.is_gone) && !self.is_tracked(*who)
        })
    }

    /// The children of ours that have ended and were handed to us: nobody else can wait for them.
    pub(super) fn adopted_zombies<'a>(&'a self, table: &'a Table) -> impl Iterator<Item = Individual> + 'a {
        let ended = table.children().filter(|(process, _)| process.is_zombie()).map(|(_, who)| who);
        ended.filter(|who| self.fostered.contains(who))
    }

    /// All that was seen below a backend and was there at the last look.
    pub(super) fn below(&self, backend: Individual) -> impl Iterator<Item = Individual> + '_ {
        self.backend_of.iter().filter(move |(_, above)| **above == backend).map(|(process, _)| *process)
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.backends.is_empty() && self.backend_of.is_empty() && self.fostered.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::fixture::{process, Line};
    use crate::readers::procfs::stat::{self, Process};
    use crate::vocabulary::Identity;

    const OWN: u32 = 10;

    /// A table of those that are there besides init and us.
    fn table(lines: impl IntoIterator<Item = Line>) -> Vec<Process> {
        let mut table: Vec<_> = lines.into_iter().map(|line| stat::parse(line.line().as_bytes()).unwrap()).collect();
        table.sort_unstable_by_key(|process| process.pid);
        table
    }

    fn look_at(processes: Vec<Process>) -> Table {
        let settled = |process: &Process| Ok::<_, ()>(Some(Individual { identity: process.identity(), inode: None }));
        Table::new(OWN, processes, settled).unwrap()
    }

    /// The process of that number that started at the tick of its number.
    fn of(pid: u32) -> Individual {
        Individual { identity: Identity { pid, start_ticks: pid.into() }, inode: None }
    }

    fn pids(found: impl Iterator<Item = Individual>) -> Vec<u32> {
        let mut pids: Vec<_> = found.map(Individual::pid).collect();
        pids.sort_unstable();
        pids
    }

    /// An ancestry after these looks, with 20 tracked, and the orphans and adopted zombies of the last.
    fn after(looks: &[Vec<Process>]) -> (Ancestry, Vec<u32>, Vec<u32>) {
        let mut ancestry = Ancestry::default();
        ancestry.track(of(20));
        for look in looks {
            ancestry.observe(&look_at(look.clone()));
        }
        let last = &look_at(looks.last().unwrap().clone());
        let (orphans, zombies) = (pids(ancestry.orphans(last)), pids(ancestry.adopted_zombies(last)));
        (ancestry, orphans, zombies)
    }

    #[test]
    fn a_backend_that_may_not_be_looked_at_any_more_is_not_gone() {
        let before = table([process(20, OWN), process(30, 20)]);
        let own = stat::parse(process(OWN, 1).line().as_bytes()).unwrap();
        let with = |backend: Process| [vec![backend], table([process(30, OWN)])].concat();
        let concealed = with(Process::concealed(20, &own, false));
        assert_eq!(after(&[before.clone(), concealed.clone()]).1, [0_u32; 0]);
        let ended = with(Process::concealed(20, &own, true));
        assert_eq!(after(&[before.clone(), concealed, ended]).1, [30]);
        // Another one has its number.
        assert_eq!(after(&[before, table([process(20, OWN).started(25), process(30, OWN)])]).1, [30]);
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
        ancestry.observe(&look_at(table([process(20, OWN), process(30, 20), process(40, 30)])));
        let look = look_at(table([process(30, OWN), process(40, 30)]));
        ancestry.observe(&look);
        assert_eq!(pids(ancestry.orphans(&look)), [0_u32; 0]);
        let look = look_at(table([process(40, OWN)]));
        ancestry.observe(&look);
        assert_eq!(pids(ancestry.orphans(&look)), [40]);
        ancestry.untrack(30);
        assert_eq!(pids(ancestry.orphans(&look)), [0_u32; 0]);
    }

    #[test]
    fn what_was_disowned_is_nobodys_whatever_is_above_it() {
        let family = table([process(20, OWN), process(30, 20), process(40, 30)]);
        for outer_ends_first in [false, true] {
            let mut ancestry = Ancestry::default();
            ancestry.track(of(20));
            // Seen below the one before it is tracked itself.
            ancestry.observe(&look_at(family.clone()));
            ancestry.track(of(30));
            ancestry.observe(&look_at(family.clone()));
            if outer_ends_first {
                ancestry.observe(&look_at(table([process(30, OWN), process(40, 30)])));
            }
            assert!(ancestry.untrack(30));
            ancestry.observe(&look_at(family.clone()));
            let look = look_at(table([process(30, OWN), process(40, OWN)]));
            ancestry.observe(&look);
            assert_eq!(pids(ancestry.orphans(&look)), [0_u32; 0], "{outer_ends_first}");
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
