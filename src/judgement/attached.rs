//! Permits that are attached to a process: of what they declared, the part that no check has measured yet is reserved.
//!
//! A permit that is dropped once its work can be seen leaves what the work will grow to uncounted; one that is held
//! counts the work twice. An attached one does neither. A check measures the process and everything below it, and
//! reserved is the declared amount less that. Once the process has ended nothing is, but for the zombie that it is until
//! somebody waits for it: that is a process, and one that ended before any check has measured it was counted by none.

use crate::vocabulary::{Error, Identity, MemoryScope, PerResource, Resource, Subtree, Work, WorkUsage};

/// The name of an attached permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AttachedId(u64);

/// The permits that are attached, and those of them that were dropped since the last good check.
#[derive(Debug, Default)]
pub(super) struct AttachedPermits {
    /// In ascending order of their names, so that a host of thousands finds each without a walk.
    list: Vec<Attached>,
    next: u64,
    /// What readings of a resource alone have found less of since the last check. Steps of builds may have ended, which are
    /// measured still, and the next ones are to come.
    fallen: PerResource<u64>,
}

#[derive(Debug)]
struct Attached {
    id: AttachedId,
    work: Work,
    /// What the process itself is taken to need, whatever was declared.
    least: Work,
    /// What other permits have declared that are part of this one.
    joined: Work,
    root: Identity,
    /// Set if it is a child of this process, whose end the kernel tells of without a check.
    is_child: bool,
    /// The last measurement; zeros before the first. Not an `Option`, because it is compared so often that the compiler
    /// looks at the numbers before it looks whether there are any, which a C host's valgrind reports.
    usage: WorkUsage,
    is_measured: bool,
    /// The number of the check that measured it last.
    measured_by: u64,
    end: End,
    /// The number of the first check that sees all that it declared, once the permit was dropped.
    dropped: Option<u64>,
}

/// The end of an attached process, or of any child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    NotYet,
    /// It was a zombie when it was asked for, which a check may not have counted yet.
    Zombie,
    /// It is gone, or a check has seen it as the zombie that it is, and counts it.
    Over,
}

impl AttachedPermits {
    /// Adds a permit.
    ///
    /// # Errors
    /// Another permit is attached to the same process.
    pub(super) fn attach(&mut self, work: Work, root: Identity, is_child: bool) -> Result<AttachedId, Error> {
        if self.list.iter().any(|attached| attached.root == root && attached.dropped.is_none()) {
            return Err(Error::process(format!("process {} has a permit attached to it already", root.pid)));
        }
        // What a dropped one still reserves is reserved by this one now.
        self.list.retain(|attached| attached.root != root);
        self.next += 1;
        let id = AttachedId(self.next);
        self.list.push(Attached {
            id,
            work,
            least: Work::new(),
            joined: Work::new(),
            root,
            is_child,
            usage: WorkUsage::default(),
            is_measured: false,
            measured_by: 0,
            end: End::NotYet,
            dropped: None,
        });
        Ok(id)
    }

    /// The amount of a resource that attached permits have reserved.
    pub(super) fn reserved(&self, resource: Resource, scope: MemoryScope) -> u64 {
        let (mut reserved, mut hidden) = (0u64, 0u64);
        for attached in &self.list {
            reserved = reserved.saturating_add(attached.reserved(resource, scope));
            hidden = hidden.saturating_add(attached.hidden(resource, scope));
        }
        reserved.saturating_add(hidden.min(*self.fallen.get(resource)))
    }

    /// Notes that a resource was read alone.
    pub(super) fn note_alone(&mut self, resource: Resource, before: u64, now: u64) {
        let fallen = self.fallen.get_mut(resource);
        *fallen = fallen.saturating_add(before.saturating_sub(now)).saturating_sub(now.saturating_sub(before));
    }

    /// Lists the processes that are to be measured, in ascending order of process id.
    pub(super) fn list_roots(&self, into: &mut Vec<Subtree>) {
        into.clear();
        // Ended work is measured until nothing of it is left; a zombie is a process still.
        let is_there = |attached: &&Attached| attached.end != End::Over || attached.usage.processes > 0;
        let measured = self.list.iter().filter(is_there);
        into.extend(
            measured.map(|attached| Subtree { is_without_files: attached.has_steps(), ..Subtree::of(attached.root) }),
        );
        into.sort_unstable_by_key(|subtree| subtree.root);
    }

    /// Takes what a good check has measured, and forgets the dropped permits that it has seen.
    pub(super) fn record(&mut self, number: u64, subtrees: &[Subtree]) {
        self.list.retain(|attached| attached.dropped.map_or(true, |from| from > number));
        self.fallen = PerResource::default();
        for attached in &mut self.list {
            let measured = subtrees.binary_search_by_key(&attached.root, |subtree| subtree.root);
            // One that was attached since the check began was not measured.
            if let Some(subtree) = measured.ok().and_then(|index| subtrees.get(index)) {
                attached.record(number, subtree);
            }
        }
    }

    /// Notes the ends of children, as `end_of` each says. Returns `true` if anything was noted.
    pub(super) fn note_ends(&mut self, end_of: impl Fn(u32) -> End) -> bool {
        let mut noted = false;
        for attached in &mut self.list {
            noted |= attached.note_end(&end_of);
        }
        noted
    }

    pub(super) fn usage(&self, id: AttachedId) -> Option<WorkUsage> {
        self.get(id).filter(|attached| attached.is_measured).map(|attached| attached.usage)
    }

    /// Takes a permit out whose work has ended. Returns the processes that the check of this number has counted, and
    /// that are gone by now.
    pub(super) fn finish(&mut self, id: AttachedId, published: u64) -> u64 {
        let Some(index) = self.index_of(id) else { return 0 };
        let attached = self.list.remove(index);
        if attached.is_measured && attached.measured_by == published {
            attached.usage.processes
        } else {
            0
        }
    }

    /// Notes that a permit was dropped: checks numbered from here see all that it declared. `end_of` says whether
    /// a child has ended.
    pub(super) fn release(&mut self, id: AttachedId, next_number: u64, end_of: impl Fn(u32) -> End) {
        if let Some(attached) = self.list.iter_mut().find(|attached| attached.id == id) {
            attached.dropped = Some(next_number);
            attached.note_end(end_of);
        }
    }

    /// Has a permit's work declare so much memory.
    pub(super) fn declare_memory(&mut self, id: AttachedId, bytes: u64) {
        if let Some(attached) = self.list.iter_mut().find(|attached| attached.id == id) {
            attached.work = attached.work.memory_bytes(bytes);
        }
    }

    /// The amount that a permit keeps from others: what it has reserved, and what was measured of it.
    pub(super) fn held(&self, id: AttachedId, resource: Resource, scope: MemoryScope) -> u64 {
        let Some(attached) = self.get(id).filter(|_| is_counted(resource, scope)) else { return 0 };
        attached.reserved(resource, scope).saturating_add(attached.measured(resource))
    }

    /// The permit that is attached to the process of this number, unless it was dropped.
    pub(super) fn attached_to(&self, pid: u32) -> Option<AttachedId> {
        let is_it = |attached: &&Attached| attached.root.pid == pid && attached.dropped.is_none();
        self.list.iter().find(is_it).map(|attached| attached.id)
    }

    /// Adds to what a permit declared. `false` if it is there no more.
    pub(super) fn widen(&mut self, id: AttachedId, more: &Work) -> bool {
        let Some(attached) = self.get_mut(id) else { return false };
        attached.joined = attached.joined.widened(more);
        true
    }

    /// Takes off what was added to a permit. The part of the work that it stood for has ended, so it is taken off what was
    /// measured as well, up to the next check: else that would stand for whatever is added meanwhile.
    pub(super) fn narrow(&mut self, id: AttachedId, less: &Work) {
        let Some(attached) = self.get_mut(id) else { return };
        attached.joined = attached.joined.narrowed(less);
        let usage = &mut attached.usage;
        usage.memory_bytes = usage.memory_bytes.saturating_sub(less.of(Resource::Memory));
        // The process itself is there still.
        usage.processes = usage.processes.saturating_sub(less.of(Resource::Processes)).max(usage.processes.min(1));
    }

    /// Takes a process to need so much, what is added to its permit left aside, if that is more than was declared.
    pub(super) fn set_least(&mut self, id: AttachedId, least: &Work) {
        if let Some(attached) = self.get_mut(id) {
            attached.least = *least;
        }
    }

    fn get_mut(&mut self, id: AttachedId) -> Option<&mut Attached> {
        self.index_of(id).and_then(|index| self.list.get_mut(index))
    }

    fn get(&self, id: AttachedId) -> Option<&Attached> {
        self.index_of(id).and_then(|index| self.list.get(index))
    }

    fn index_of(&self, id: AttachedId) -> Option<usize> {
        self.list.binary_search_by_key(&id, |attached| attached.id).ok()
    }
}

impl Attached {
    fn record(&mut self, number: u64, subtree: &Subtree) {
        let before = self.usage;
        self.usage = WorkUsage {
            memory_bytes: subtree.memory_bytes,
            processes: subtree.processes,
            peak_memory_bytes: before.peak_memory_bytes.max(subtree.memory_bytes),
            peak_processes: before.peak_processes.max(subtree.processes),
        };
        self.is_measured = true;
        self.measured_by = number;
        if !subtree.is_alive {
            self.end = End::Over;
        }
    }

    /// Returns `true` if that changes what is reserved.
    fn note_end(&mut self, end_of: impl Fn(u32) -> End) -> bool {
        if !self.is_child || self.end == End::Over {
            return false;
        }
        let end = match (self.end, end_of(self.root.pid)) {
            // It does not live again: its number was given to another child.
            (End::Zombie, End::NotYet) => End::Over,
            (_, end) => end,
        };
        std::mem::replace(&mut self.end, end) != end
    }

    fn reserved(&self, resource: Resource, scope: MemoryScope) -> u64 {
        if !is_counted(resource, scope) {
            return 0;
        }
        let to_come = match (self.end, resource) {
            (End::NotYet, _) => self.declared(resource),
            (End::Zombie, Resource::Processes | Resource::CgroupPids) => self.declared(resource).min(1),
            (End::Zombie | End::Over, _) => 0,
        };
        to_come.saturating_sub(self.measured(resource))
    }

    /// The part of what was declared that steps stand for which a check has measured, if it is steps that were declared.
    fn hidden(&self, resource: Resource, scope: MemoryScope) -> u64 {
        if self.end == End::NotYet && self.has_steps() && is_counted(resource, scope) {
            self.declared(resource).min(self.measured(resource))
        } else {
            0
        }
    }

    /// Whether it is a build, whose steps have declared what they need.
    ///
    /// Pages of files are no part of that: those of a compiler are many, and the same for all steps. The kernel takes them
    /// back before it refuses anything, and where they stood for declared memory, the next step had room promised that
    /// was taken.
    fn has_steps(&self) -> bool {
        !self.joined.is_free() || !self.least.is_free()
    }

    fn declared(&self, resource: Resource) -> u64 {
        self.work.of(resource).max(self.least.of(resource)).saturating_add(self.joined.of(resource))
    }

    fn measured(&self, resource: Resource) -> u64 {
        resource.facts().of_others.map_or(0, |measured| measured(&self.usage))
    }
}

/// Returns `true` if work of another process adds to this resource. In scope `Own`, its memory is not held against that
/// of this process; and its open files are not this process's.
pub(super) fn is_counted(resource: Resource, scope: MemoryScope) -> bool {
    resource.facts().of_others.is_some() && (resource != Resource::Memory || scope == MemoryScope::Tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MemoryScope = MemoryScope::Own;

    fn root(pid: u32) -> Identity {
        Identity { pid, start_ticks: 5 }
    }

    fn subtree(pid: u32, memory_bytes: u64, processes: u64, is_alive: bool) -> Subtree {
        Subtree { memory_bytes, processes, is_alive, ..Subtree::of(root(pid)) }
    }

    fn work() -> Work {
        Work::new().processes(3).memory_bytes(200).open_files(2)
    }

    fn reserved(permits: &AttachedPermits, scope: MemoryScope) -> [u64; 5] {
        let resources =
            [Resource::Memory, Resource::CgroupMemory, Resource::Processes, Resource::CgroupPids, Resource::OpenFiles];
        resources.map(|resource| permits.reserved(resource, scope))
    }

    #[test]
    fn reserved_is_what_was_declared_beyond_what_is_measured() {
        let mut permits = AttachedPermits::default();
        let id = permits.attach(work(), root(7), true).unwrap();
        assert_eq!(reserved(&permits, OWN), [0, 200, 3, 3, 0]);
        assert_eq!(reserved(&permits, MemoryScope::Tree), [200, 200, 3, 3, 0]);
        permits.record(1, &[subtree(7, 150, 1, true)]);
        assert_eq!(reserved(&permits, OWN), [0, 50, 2, 2, 0]);
        permits.record(2, &[subtree(7, 300, 4, true)]);
        assert_eq!(reserved(&permits, OWN), [0; 5]);
        // It may grow again.
        permits.record(3, &[subtree(7, 20, 2, true)]);
        assert_eq!(reserved(&permits, OWN), [0, 180, 1, 1, 0]);
        let usage = permits.usage(id).unwrap();
        assert_eq!(
            (usage.memory_bytes, usage.peak_memory_bytes, usage.processes, usage.peak_processes),
            (20, 300, 2, 4)
        );
    }

    #[test]
    fn reserved_is_what_was_declared_anew_beyond_what_is_measured() {
        let mut permits = AttachedPermits::default();
        let id = permits.attach(work(), root(7), true).unwrap();
        permits.record(1, &[subtree(7, 50, 1, true)]);
        permits.declare_memory(id, 60);
        assert_eq!(reserved(&permits, MemoryScope::Tree), [10, 10, 2, 2, 0]);
        permits.declare_memory(id, 0);
        assert_eq!(reserved(&permits, MemoryScope::Tree), [0, 0, 2, 2, 0]);
    }

    #[test]
    fn a_check_that_began_before_the_attachment_measures_nothing_of_it() {
        let mut permits = AttachedPermits::default();
        let id = permits.attach(work(), root(7), true).unwrap();
        permits.record(1, &[subtree(8, 1, 1, true)]);
        assert_eq!((permits.usage(id), reserved(&permits, OWN)), (None, [0, 200, 3, 3, 0]));
    }

    #[test]
    fn one_whose_process_has_ended_reserves_nothing() {
        let mut permits = AttachedPermits::default();
        let id = permits.attach(work(), root(7), true).unwrap();
        let grandchild = permits.attach(work(), root(9), false).unwrap();
        assert!(!permits.note_ends(|_| End::NotYet) && permits.note_ends(|_| End::Over));
        assert!(!permits.note_ends(|_| End::Over));
        assert_eq!(reserved(&permits, OWN), [0, 200, 3, 3, 0], "that of no child is left to a check");
        permits.record(4, &[subtree(9, 0, 0, false)]);
        assert_eq!(reserved(&permits, OWN), [0; 5]);
        let mut roots = vec![];
        permits.list_roots(&mut roots);
        assert_eq!(roots, []);
        assert_eq!(permits.usage(grandchild).map(|usage| usage.processes), Some(0));
        assert_eq!((permits.finish(id, 4), permits.finish(id, 4)), (0, 0));
    }

    #[test]
    fn a_zombie_is_a_process_until_somebody_waits_for_it_though_no_check_has_counted_it() {
        let mut permits = AttachedPermits::default();
        let [first, second] = [7, 8].map(|pid| permits.attach(work(), root(pid), true).unwrap());
        assert!(permits.note_ends(|_| End::Zombie) && !permits.note_ends(|_| End::Zombie));
        assert_eq!(reserved(&permits, OWN), [0, 0, 2, 2, 0]);
        permits.release(first, 4, |_| End::Zombie);
        assert!(permits.note_ends(|pid| if pid == 8 { End::NotYet } else { End::Zombie }));
        assert_eq!(
            reserved(&permits, OWN),
            [0, 0, 1, 1, 0],
            "the other was waited for, and its number given away again"
        );
        permits.record(4, &[subtree(7, 0, 1, false)]);
        assert_eq!(reserved(&permits, OWN), [0; 5], "it is measured");
        permits.finish(second, 4);
        let counted = permits.attach(work(), root(9), true).unwrap();
        permits.record(5, &[subtree(9, 1, 1, true)]);
        permits.note_ends(|_| End::Zombie);
        assert_eq!(reserved(&permits, OWN), [0; 5], "it was counted while it lived");
        permits.finish(counted, 5);
        let free = permits.attach(Work::new(), root(10), true).unwrap();
        permits.note_ends(|_| End::Zombie);
        assert_eq!((permits.finish(free, 5), reserved(&permits, OWN)), (0, [0; 5]), "more than was declared never is");
    }

    #[test]
    fn one_that_has_ended_is_measured_until_nothing_of_it_is_left() {
        for end in [End::NotYet, End::Zombie, End::Over] {
            let mut permits = AttachedPermits::default();
            let id = permits.attach(work(), root(7), true).unwrap();
            permits.record(1, &[subtree(7, 150, 2, true)]);
            permits.note_ends(|_| end);
            // Nobody has waited for it yet, and then somebody has.
            for (number, processes) in [(2, 1), (3, 0)] {
                let mut roots = vec![];
                permits.list_roots(&mut roots);
                assert_eq!(roots.len(), 1);
                permits.record(number, &[subtree(7, 0, processes, false)]);
                let usage = permits.usage(id).unwrap();
                assert_eq!((usage.processes, usage.peak_processes, usage.memory_bytes), (processes, 2, 0));
            }
            let mut roots = vec![];
            permits.list_roots(&mut roots);
            assert_eq!((roots, permits.held(id, Resource::Processes, OWN)), (vec![], 0));
        }
    }

    #[test]
    fn a_dropped_one_reserves_what_is_not_measured_until_a_check_after_it() {
        let mut permits = AttachedPermits::default();
        let id = permits.attach(work(), root(7), true).unwrap();
        permits.record(1, &[subtree(7, 150, 1, true)]);
        permits.release(id, 3, |_| End::NotYet);
        permits.record(2, &[subtree(7, 150, 1, true)]);
        assert_eq!(reserved(&permits, OWN), [0, 50, 2, 2, 0]);
        permits.record(3, &[subtree(7, 150, 1, true)]);
        assert_eq!((reserved(&permits, OWN), permits.list.len()), ([0; 5], 0));
        let id = permits.attach(work(), root(7), true).unwrap();
        permits.release(id, 5, |_| End::Over);
        assert_eq!(reserved(&permits, OWN), [0; 5], "it has ended");
    }

    #[test]
    fn a_finished_one_tells_which_counted_processes_are_gone() {
        let mut permits = AttachedPermits::default();
        let [first, second] = [7, 8].map(|pid| permits.attach(work(), root(pid), true).unwrap());
        permits.record(5, &[subtree(7, 150, 2, true), subtree(8, 1, 1, true)]);
        assert_eq!(permits.finish(first, 5), 2);
        assert_eq!(permits.finish(second, 6), 0, "a later check has counted without measuring it");
    }

    #[test]
    fn what_is_added_to_a_permit_is_reserved_until_it_is_taken_off_whatever_was_measured_before() {
        let mut permits = AttachedPermits::default();
        let id = permits.attach(work(), root(7), true).unwrap();
        assert_eq!((permits.attached_to(7), permits.attached_to(8)), (Some(id), None));
        let step = Work::new().processes(1).memory_bytes(100);
        assert!(permits.widen(id, &step) && permits.widen(id, &step));
        permits.record(1, &[subtree(7, 390, 5, true)]);
        assert_eq!(reserved(&permits, OWN), [0, 10, 0, 0, 0]);
        permits.narrow(id, &step);
        assert_eq!(reserved(&permits, OWN), [0, 10, 0, 0, 0], "a step has ended, and so has its memory");
        assert!(permits.widen(id, &step));
        assert_eq!(reserved(&permits, OWN), [0, 110, 1, 1, 0], "that of the next step is to come");
        permits.record(2, &[subtree(7, 390, 5, true)]);
        assert_eq!(reserved(&permits, OWN), [0, 10, 0, 0, 0]);
        permits.set_least(id, &Work::new().memory_bytes(250));
        assert_eq!(reserved(&permits, OWN), [0, 60, 0, 0, 0], "that was declared as 200");
        permits.release(id, 9, |_| End::NotYet);
        assert_eq!(permits.attached_to(7), None);
        permits.finish(id, 2);
        assert!(!permits.widen(id, &step));
        permits.narrow(id, &step);
    }

    #[test]
    fn memory_that_falls_between_two_checks_is_that_of_steps_of_which_the_next_are_to_come() {
        let mut permits = AttachedPermits::default();
        let id = permits.attach(work(), root(7), true).unwrap();
        permits.record(1, &[subtree(7, 500, 3, true)]);
        permits.note_alone(Resource::CgroupMemory, 500, 400);
        assert_eq!(reserved(&permits, OWN), [0; 5], "it has no steps");
        let mut listed = Vec::new();
        permits.list_roots(&mut listed);
        assert!(!listed[0].is_without_files);
        assert!(permits.widen(id, &Work::new().memory_bytes(100)));
        permits.list_roots(&mut listed);
        assert!(listed[0].is_without_files, "pages of files would stand for what steps have declared");
        assert_eq!(reserved(&permits, OWN), [0, 100, 0, 0, 0]);
        permits.note_alone(Resource::CgroupMemory, 400, 430);
        assert_eq!(reserved(&permits, OWN), [0, 70, 0, 0, 0]);
        permits.note_alone(Resource::CgroupMemory, 430, 0);
        assert_eq!(reserved(&permits, OWN), [0, 300, 0, 0, 0], "no more than was declared");
        permits.record(2, &[subtree(7, 500, 3, true)]);
        assert_eq!(reserved(&permits, OWN), [0; 5]);
    }

    #[test]
    fn a_process_has_one_permit_at_a_time() {
        let mut permits = AttachedPermits::default();
        let id = permits.attach(work(), root(7), true).unwrap();
        let error = permits.attach(work(), root(7), true).unwrap_err();
        assert_eq!(error.to_string(), "process 7 has a permit attached to it already");
        permits.release(id, 9, |_| End::NotYet);
        permits.attach(Work::new().processes(1), root(7), true).unwrap();
        assert_eq!(permits.reserved(Resource::Processes, OWN), 1);
        let later = Identity { start_ticks: 6, ..root(7) };
        permits.attach(Work::new().processes(1), later, true).unwrap();
        assert_eq!(permits.reserved(Resource::Processes, OWN), 2);
    }
}
