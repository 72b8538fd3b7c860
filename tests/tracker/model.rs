//! What the kernel does to a tree of processes, on paper.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Names one process for good, unlike its process id.
pub type Id = usize;

/// Takes in orphans and reaps them.
pub const INIT: Id = 0;
/// Whom strangers descend from.
pub const STRANGERS: Id = 1;
/// The test's own process.
pub const OWN: Id = 2;

#[derive(Debug, Clone)]
pub struct Process {
    pub pid: i32,
    pub parent: Id,
    /// None for a zombie.
    pub threads: Vec<Thread>,
    /// It has become another program, and listens no more.
    pub is_program: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thread {
    /// `None` for the one that runs the test.
    pub wire: Option<usize>,
    pub is_leader: bool,
}

impl Process {
    pub fn is_zombie(&self) -> bool {
        self.threads.is_empty()
    }

    pub fn has_leader(&self) -> bool {
        self.threads.iter().any(|thread| thread.is_leader)
    }

    pub fn can_act(&self) -> bool {
        !self.is_zombie() && !self.is_program
    }
}

pub struct Model {
    pub processes: BTreeMap<Id, Process>,
    /// Orphaned descendants become our children, and not those of `INIT`.
    is_subreaper: bool,
    next: Id,
    pub free_wires: Vec<usize>,
    /// Process ids that were free when last heard of, the latest last.
    pub freed: VecDeque<i32>,
    /// Process ids of which `/proc` says something new.
    pub changed: BTreeSet<i32>,
}

impl Model {
    /// Of init, the process that strangers descend from, and the test's own.
    pub fn new(pids: [i32; 3], wires: usize, is_subreaper: bool) -> Model {
        let mut model = Model {
            processes: BTreeMap::new(),
            is_subreaper,
            next: 0,
            // Wire 0 is the strangers'.
            free_wires: (1..wires).rev().collect(),
            freed: VecDeque::new(),
            changed: BTreeSet::new(),
        };
        for (pid, wire) in pids.into_iter().zip([None, Some(0), None]) {
            model.add(pid, INIT, wire);
        }
        model.changed.clear();
        model
    }

    pub fn descends_from(&self, mut id: Id, ancestor: Id) -> bool {
        while id != INIT {
            id = self.processes[&id].parent;
            if id == ancestor {
                return true;
            }
        }
        false
    }

    pub fn descendants(&self) -> Vec<Id> {
        self.processes.keys().copied().filter(|&id| self.descends_from(id, OWN)).collect()
    }

    /// How many descendants there are, and which of them are zombies.
    pub fn expected(&self) -> (usize, Vec<u32>) {
        let descendants = self.descendants();
        let zombies = descendants.iter().map(|id| &self.processes[id]).filter(|process| process.is_zombie());
        let mut zombies: Vec<u32> = zombies.map(|process| process.pid as u32).collect();
        zombies.sort_unstable();
        (descendants.len(), zombies)
    }

    pub fn by_pid(&self, pid: i32) -> Option<&Process> {
        self.processes.values().find(|process| process.pid == pid)
    }

    pub fn add(&mut self, pid: i32, parent: Id, wire: Option<usize>) -> Id {
        let id = self.next;
        self.next += 1;
        let threads = vec![Thread { wire, is_leader: true }];
        self.processes.insert(id, Process { pid, parent, threads, is_program: false });
        self.freed.retain(|&freed| freed != pid);
        self.changed.insert(pid);
        id
    }

    pub fn add_thread(&mut self, id: Id, wire: usize) {
        let process = self.change(id);
        process.threads.push(Thread { wire: Some(wire), is_leader: false });
    }

    pub fn end_thread(&mut self, id: Id, ended: Thread) {
        if self.processes[&id].threads.len() == 1 {
            return self.exit(id);
        }
        self.free_wires.extend(ended.wire);
        self.change(id).threads.retain(|thread| *thread != ended);
    }

    pub fn exec(&mut self, id: Id, by: Thread) {
        let process = self.change(id);
        process.is_program = true;
        let threads = std::mem::replace(&mut process.threads, vec![Thread { is_leader: true, ..by }]);
        self.free_wires.extend(threads.iter().filter(|thread| **thread != by).filter_map(|thread| thread.wire));
    }

    pub fn exit(&mut self, id: Id) {
        let reaper = if self.is_subreaper && self.descends_from(id, OWN) { OWN } else { INIT };
        let orphans: Vec<Id> = self.children(id).collect();
        for orphan in orphans {
            self.change(orphan).parent = reaper;
            self.reap_if_init_does(orphan);
        }
        let threads = std::mem::take(&mut self.change(id).threads);
        self.free_wires.extend(threads.iter().filter_map(|thread| thread.wire));
        self.reap_if_init_does(id);
    }

    fn reap_if_init_does(&mut self, id: Id) {
        let process = &self.processes[&id];
        if process.parent == INIT && process.is_zombie() {
            self.reap(id);
        }
    }

    pub fn reap(&mut self, id: Id) {
        let pid = self.change(id).pid;
        self.processes.remove(&id);
        self.freed.push_back(pid);
        if self.freed.len() > 20 {
            self.freed.pop_front();
        }
    }

    pub fn children(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        self.processes.iter().filter(move |(child, process)| process.parent == id && **child != INIT).map(|(id, _)| *id)
    }

    fn change(&mut self, id: Id) -> &mut Process {
        let process = self.processes.get_mut(&id).unwrap();
        self.changed.insert(process.pid);
        process
    }
}
