//! What can be done to processes. An operation picks whom to do it to, and is `None` when there is nobody.

use crate::actor::Verb;
use crate::driver::Driver;
use crate::model::{Id, Process, Thread, INIT, OWN, STRANGERS};

type Op = fn(&mut Driver) -> Option<()>;

/// All there are, each with how often it is tried.
const OPS: [(Op, usize); 16] = [
    (fork, 14),
    (fork_several, 5),
    (fork_sibling, 4),
    (daemon, 4),
    (start_thread, 10),
    (end_thread, 6),
    (end_leader, 4),
    (exit, 8),
    (exit_of_a_parent, 4),
    (exit_and_reap, 6),
    (reap, 12),
    (replace, 8),
    (exec, 3),
    (setsid, 2),
    (burst, 4),
    (crowd, 2),
];

const MOST_STRANGERS: usize = 12;

/// Does something to somebody.
pub fn apply_one(driver: &mut Driver) {
    let apply = |driver: &mut Driver| {
        let mut drawn = driver.random.below(OPS.iter().map(|(_, weight)| weight).sum());
        OPS.iter().find_map(|(op, weight)| match drawn.checked_sub(*weight) {
            Some(rest) => {
                drawn = rest;
                None
            }
            None => Some(op(driver)),
        })
    };
    while apply(driver).flatten().is_none() {}
}

/// Orphans become strangers, of which there must not be ever more.
pub fn thin_out_strangers(driver: &mut Driver) {
    while strangers(driver).len() > MOST_STRANGERS {
        let strangers = strangers(driver);
        let id = driver.random.pick(&strangers).unwrap();
        end(driver, id);
    }
}

fn fork(driver: &mut Driver) -> Option<()> {
    let (parent, thread) = actor(driver, |_| true)?;
    has_room(driver, parent, 1)?;
    driver.fork(parent, thread);
    Some(())
}

fn fork_several(driver: &mut Driver) -> Option<()> {
    let (parent, thread) = actor(driver, |_| true)?;
    let count = 2 + driver.random.below(4);
    has_room(driver, parent, count)?;
    for _ in 0..count {
        driver.fork(parent, thread);
    }
    Some(())
}

/// Not from the test's own process: its threads may be at work when it is copied.
fn fork_sibling(driver: &mut Driver) -> Option<()> {
    let (id, thread) = actor(driver, |id| id != OWN)?;
    has_room(driver, id, 1)?;
    driver.fork_sibling(id, thread);
    Some(())
}

/// A double fork: the one in the middle ends and is reaped, so that the other one is an orphan.
fn daemon(driver: &mut Driver) -> Option<()> {
    let (parent, thread) = actor(driver, |_| true)?;
    has_room(driver, parent, 2)?;
    let middle = driver.fork(parent, thread);
    let leader = driver.model.processes[&middle].threads[0];
    driver.setsid(middle, leader);
    driver.fork(middle, leader);
    driver.kill_and_reap(middle, thread);
    Some(())
}

fn start_thread(driver: &mut Driver) -> Option<()> {
    let (id, thread) = actor(driver, |_| true)?;
    let threads = driver.model.processes[&id].threads.len();
    (threads < 4 && driver.model.free_wires.len() > 20).then(|| driver.start_thread(id, thread))
}

/// Of a process with other threads, which go on, as its children do.
fn end_thread(driver: &mut Driver) -> Option<()> {
    let (id, thread) = actor(driver, |_| true)?;
    (!thread.is_leader).then(|| driver.end_thread(id, thread))
}

fn end_leader(driver: &mut Driver) -> Option<()> {
    let with_threads = candidates(driver, |id, process| {
        is_mortal(id) && process.can_act() && process.has_leader() && process.threads.len() > 1
    });
    let id = driver.random.pick(&with_threads)?;
    let leader = driver.model.processes[&id].threads.iter().copied().find(|thread| thread.is_leader)?;
    driver.end_thread(id, leader);
    Some(())
}

/// Of anybody, whose children, if any, are orphans.
fn exit(driver: &mut Driver) -> Option<()> {
    let living = candidates(driver, |id, process| is_mortal(id) && !process.is_zombie());
    let id = driver.random.pick(&living)?;
    driver.exit(id);
    Some(())
}

fn exit_of_a_parent(driver: &mut Driver) -> Option<()> {
    let mut parents = candidates(driver, |id, process| is_mortal(id) && !process.is_zombie());
    parents.retain(|&id| driver.model.children(id).next().is_some());
    let id = driver.random.pick(&parents)?;
    driver.exit(id);
    Some(())
}

/// Several at once where somebody looks on.
fn exit_and_reap(driver: &mut Driver) -> Option<()> {
    let count = if driver.is_watched() { 6 } else { 1 };
    for _ in 0..count {
        let mortal = candidates(driver, |id, _| is_mortal(id));
        let id = driver.random.pick(&mortal)?;
        end(driver, id);
    }
    Some(())
}

fn reap(driver: &mut Driver) -> Option<()> {
    let zombies = candidates(driver, |_, process| process.is_zombie());
    let id = driver.random.pick(&zombies)?;
    let thread = reaper(driver, id)?;
    driver.kill_and_reap(id, thread);
    Some(())
}

/// Ends somebody and has somebody else given the process id: a descendant's to a stranger, a stranger's to a
/// descendant, or from one to another.
fn replace(driver: &mut Driver) -> Option<()> {
    driver.can_choose_pids().then_some(())?;
    let (parent, thread) = actor(driver, |_| true)?;
    has_room(driver, parent, 1)?;
    let mortal = candidates(driver, |id, _| is_mortal(id) && id != parent);
    let id = driver.random.pick(&mortal)?;
    let pid = driver.model.processes[&id].pid;
    if end(driver, id) {
        driver.fork_as(parent, thread, pid);
    }
    Some(())
}

fn exec(driver: &mut Driver) -> Option<()> {
    let (id, thread) = actor(driver, is_mortal)?;
    driver.exec(id, thread);
    Some(())
}

fn setsid(driver: &mut Driver) -> Option<()> {
    let (id, thread) = actor(driver, is_mortal)?;
    driver.setsid(id, thread);
    Some(())
}

/// Children that come and go while nobody looks, or while somebody does.
fn burst(driver: &mut Driver) -> Option<()> {
    let (id, thread) = actor(driver, |_| true)?;
    let count = 1 + driver.random.below(20);
    driver.tell(id, thread, Verb::Burst, count);
    Some(())
}

/// Many strangers come, or all that are too many go.
fn crowd(driver: &mut Driver) -> Option<()> {
    let more = if driver.random.one_in(2) { driver.random.below(200) } else { 0 };
    driver.crowd(more);
    Some(())
}

fn is_mortal(id: Id) -> bool {
    ![INIT, STRANGERS, OWN].contains(&id)
}

/// Now and then among the strangers, else among the descendants and the test's own process.
fn candidates(driver: &mut Driver, mut fit: impl FnMut(Id, &Process) -> bool) -> Vec<Id> {
    let strangers = driver.random.one_in(5);
    let model = &driver.model;
    let of_that_kind = |id: Id| id != INIT && strangers != (id == OWN || model.descends_from(id, OWN));
    model.processes.iter().filter(|(&id, process)| of_that_kind(id) && fit(id, process)).map(|(&id, _)| id).collect()
}

/// A thread that can be told to do something, often of the youngest process, so that trees grow deep.
fn actor(driver: &mut Driver, fit: impl Fn(Id) -> bool) -> Option<(Id, Thread)> {
    let fitting = candidates(driver, |id, process| fit(id) && process.can_act());
    let id = match driver.random.below(8) {
        0 if fitting.contains(&OWN) => OWN,
        1 | 2 => *fitting.last()?,
        _ => driver.random.pick(&fitting)?,
    };
    let thread = driver.random.pick(&driver.model.processes[&id].threads)?;
    Some((id, thread))
}

fn strangers(driver: &Driver) -> Vec<Id> {
    let model = &driver.model;
    model.processes.keys().copied().filter(|&id| is_mortal(id) && !model.descends_from(id, OWN)).collect()
}

fn has_room(driver: &Driver, parent: Id, count: usize) -> Option<()> {
    let (there, most) = if parent == OWN || driver.model.descends_from(parent, OWN) {
        (driver.model.descendants().len(), driver.most_descendants())
    } else {
        (strangers(driver).len(), MOST_STRANGERS)
    };
    (there + count <= most && driver.model.free_wires.len() >= count).then_some(())
}

/// Whether it could be reaped as well, which makes its process id free.
fn end(driver: &mut Driver, id: Id) -> bool {
    match reaper(driver, id) {
        Some(thread) => driver.kill_and_reap(id, thread),
        None if !driver.model.processes[&id].is_zombie() => driver.exit(id),
        None => {}
    }
    !driver.model.processes.contains_key(&id)
}

/// A thread of its parent's, unless that is init, which needs none, or a program, which waits for nobody.
fn reaper(driver: &mut Driver, id: Id) -> Option<Thread> {
    let id = driver.model.processes[&id].parent;
    let parent = &driver.model.processes[&id];
    driver.random.pick(&parent.threads).filter(|_| id != INIT && parent.can_act())
}
