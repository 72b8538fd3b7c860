//! Does things to real processes, waits until they have taken effect, and compares what is said about them.

use std::collections::VecDeque;
use std::fmt::Write;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use highwater::{Resource, ResourceLimits, ResourceMonitor, ResourceSnapshot, SystemProbe};
use nix::sys::prctl;
use nix::sys::signal::{kill, Signal};
use nix::unistd::{getpid, Pid};
use procfs::process::{all_processes, Process as ProcProcess, Stat};
use procfs::ProcError;

use crate::actor::{Actor, Stage, Verb};
use crate::common::DEADLINE;
use crate::model::{Id, Model, Process, Thread, OWN, STRANGERS};
use crate::ops;
use crate::random::Random;

/// What one test is about.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Orphaned descendants stay descendants.
    pub is_subreaper: bool,
    pub most_descendants: usize,
    /// Strangers that do nothing.
    pub crowd: usize,
}

pub struct Driver {
    plan: Plan,
    seed: u64,
    step: u64,
    pub random: Random,
    pub model: Model,
    stage: Stage,
    own: Actor,
    monitor: ResourceMonitor,
    oracle: SystemProbe,
    /// What the monitor said while things were being done, if it is asked then.
    meanwhile: Option<Vec<ResourceSnapshot>>,
    done: VecDeque<String>,
    reused: usize,
    checked_meanwhile: usize,
}

impl Driver {
    pub fn new(stage: Stage, plan: Plan, seed: u64) -> Driver {
        prctl::set_child_subreaper(plan.is_subreaper).unwrap();
        let pids = [stage.init, stage.strangers, getpid()].map(Pid::as_raw);
        let limits = ResourceLimits::builder().max_processes(1000).build().unwrap();
        // The processes are all that this is about.
        let optional = [
            Resource::CgroupMemory,
            Resource::CgroupPids,
            Resource::OpenFiles,
            Resource::MemoryPressure,
            Resource::CpuPressure,
            Resource::IoPressure,
            Resource::MachineMemory,
            Resource::DiskSpace,
        ];
        let builder = ResourceMonitor::builder(limits);
        Driver {
            plan,
            seed,
            step: 0,
            random: Random(seed),
            model: Model::new(pids, stage.wires.len(), plan.is_subreaper),
            own: Actor::new(stage.wires),
            monitor: optional.into_iter().fold(builder, |builder, resource| builder.ignore(resource)).build().unwrap(),
            oracle: SystemProbe::new(),
            stage,
            meanwhile: None,
            done: VecDeque::new(),
            reused: 0,
            checked_meanwhile: 0,
        }
    }

    pub fn run(mut self, steps: u64) {
        self.crowd(0);
        for step in 1..=steps {
            self.step = step;
            self.meanwhile = self.random.one_in(6).then(Vec::new);
            let before = self.model.descendants();
            let zombies_before: Vec<Id> =
                before.iter().copied().filter(|id| self.model.processes[id].is_zombie()).collect();
            for _ in 0..if self.random.one_in(5) { 2 + self.random.below(3) } else { 1 } {
                ops::apply_one(&mut self);
            }
            ops::thin_out_strangers(&mut self);
            self.compare_meanwhile(&before, &zombies_before);
            self.compare();
        }
        println!(
            "seed {}: {steps} steps, {} process ids reused by force, {} checks meanwhile",
            self.seed, self.reused, self.checked_meanwhile
        );
    }

    /// All is quiet: the numbers are exact.
    fn compare(&mut self) {
        let snapshot = self.monitor.check_now();
        let scan = (self.oracle.child_count().unwrap(), self.oracle.zombies().unwrap());
        let model = self.model.expected();
        if snapshot.child_process_count != Some(scan.0) || snapshot.zombie_pids != scan.1 || scan != model {
            let monitor = (snapshot.child_process_count, snapshot.zombie_pids);
            self.fail(&format!("monitor says {monitor:?}, the scan {scan:?}, the model {model:?}"));
        }
    }

    /// While the tree changes, whoever is there before and after must have been there all the time.
    fn compare_meanwhile(&mut self, before: &[Id], zombies_before: &[Id]) {
        let Some(snapshots) = self.meanwhile.take() else { return };
        self.checked_meanwhile += snapshots.len();
        let after = self.model.descendants();
        let least = before.iter().filter(|id| after.contains(id)).count();
        let lasting = zombies_before.iter().filter(|id| after.contains(id));
        let zombies: Vec<u32> = lasting.map(|id| self.model.processes[id].pid as u32).collect();
        for snapshot in &snapshots {
            if snapshot.child_process_count < Some(least)
                || zombies.iter().any(|pid| !snapshot.zombie_pids.contains(pid))
            {
                let said = (snapshot.child_process_count, &snapshot.zombie_pids);
                self.fail(&format!("meanwhile the monitor said {said:?}; always there: {least}, zombies {zombies:?}"));
            }
        }
    }

    pub fn most_descendants(&self) -> usize {
        self.plan.most_descendants
    }

    pub fn is_watched(&self) -> bool {
        self.meanwhile.is_some()
    }

    pub fn can_choose_pids(&self) -> bool {
        self.stage.is_isolated && !self.is_watched()
    }

    /// Often with a process id that was free a moment ago.
    pub fn fork(&mut self, parent: Id, thread: Thread) -> Id {
        self.choose_pid();
        self.fork_with(Verb::Fork, parent, thread, parent)
    }

    pub fn fork_as(&mut self, parent: Id, thread: Thread, pid: i32) -> Id {
        self.next_pid_is(pid);
        let child = self.fork_with(Verb::Fork, parent, thread, parent);
        self.reused += usize::from(self.model.processes[&child].pid == pid);
        child
    }

    pub fn fork_sibling(&mut self, id: Id, thread: Thread) -> Id {
        self.choose_pid();
        self.fork_with(Verb::ForkSibling, id, thread, self.model.processes[&id].parent)
    }

    fn fork_with(&mut self, verb: Verb, by: Id, thread: Thread, parent: Id) -> Id {
        let wire = self.model.free_wires.pop().unwrap();
        let pid = self.tell(by, thread, verb, wire);
        let id = self.model.add(pid, parent, Some(wire));
        self.note(format!("process {pid} forked"));
        self.settle();
        id
    }

    fn choose_pid(&mut self) {
        if self.can_choose_pids() && self.random.one_in(3) {
            if let Some(pid) = self.random.pick(self.model.freed.make_contiguous()) {
                self.next_pid_is(pid);
            }
        }
    }

    /// If it is free, as the number of a session or a group may not be.
    fn next_pid_is(&mut self, pid: i32) {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
    }

    pub fn start_thread(&mut self, id: Id, thread: Thread) {
        let wire = self.model.free_wires.pop().unwrap();
        self.tell(id, thread, Verb::Thread, wire);
        self.model.add_thread(id, wire);
        self.settle();
    }

    pub fn end_thread(&mut self, id: Id, thread: Thread) {
        self.tell(id, thread, Verb::EndThread, 0);
        self.model.end_thread(id, thread);
        self.settle();
    }

    /// By itself, if it can, or killed.
    pub fn exit(&mut self, id: Id) {
        let process = &self.model.processes[&id];
        let (pid, thread) = (process.pid, process.threads[0]);
        if process.can_act() && self.random.one_in(2) {
            self.tell(id, thread, Verb::Exit, 0);
        } else {
            self.note(format!("kill {pid}"));
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        self.model.exit(id);
        self.settle();
    }

    /// By a thread of its parent's. It may be a zombie already.
    pub fn kill_and_reap(&mut self, id: Id, thread: Thread) {
        let process = &self.model.processes[&id];
        self.tell(process.parent, thread, Verb::KillAndReap, process.pid as usize);
        self.model.exit(id);
        self.model.reap(id);
        self.settle();
    }

    pub fn exec(&mut self, id: Id, thread: Thread) {
        self.tell(id, thread, Verb::Exec, 0);
        self.model.exec(id, thread);
        self.settle();
    }

    pub fn setsid(&mut self, id: Id, thread: Thread) {
        self.tell(id, thread, Verb::Setsid, 0);
    }

    /// So many strangers more than planned.
    pub fn crowd(&mut self, more: usize) {
        let leader = self.model.processes[&STRANGERS].threads[0];
        self.tell(STRANGERS, leader, Verb::Crowd, self.plan.crowd + more);
    }

    /// Has a thread do something, and waits for the answer if there is one.
    pub fn tell(&mut self, id: Id, thread: Thread, verb: Verb, argument: usize) -> i32 {
        let pid = self.model.processes[&id].pid;
        self.note(format!("{verb:?}({argument}) by {pid}, thread {thread:?}"));
        let argument = argument as i32;
        let answer = match thread.wire {
            None => self.own.perform(verb, argument),
            Some(wire) => {
                self.stage.wires.tell(wire, verb, argument);
                match verb {
                    Verb::EndThread | Verb::Exit | Verb::Exec => return pid,
                    _ => self.wait_for("the answer", |driver| driver.stage.wires.answer(wire)),
                }
            }
        };
        if answer < 0 {
            self.fail(&format!("the answer is error {answer}"));
        }
        answer
    }

    /// Waits until `/proc` shows what the model says.
    fn settle(&mut self) {
        for pid in std::mem::take(&mut self.model.changed) {
            self.wait_for(&format!("process {pid} is as it should"), |driver| driver.is_settled(pid).then_some(()));
        }
    }

    fn is_settled(&self, pid: i32) -> bool {
        let stat = ProcProcess::new(pid).and_then(|process| process.stat());
        match (self.model.by_pid(pid), stat) {
            (None, Err(ProcError::NotFound(_))) => true,
            (Some(process), Ok(stat)) => self.is_as(process, &stat),
            _ => false,
        }
    }

    fn is_as(&self, process: &Process, stat: &Stat) -> bool {
        // A leader stays in the number of threads, and seems a zombie when it has ended.
        let threads = process.threads.len() + usize::from(!process.has_leader());
        stat.ppid == self.model.processes[&process.parent].pid
            && (stat.state == 'Z') != process.has_leader()
            && stat.num_threads == threads as i64
            && (stat.comm == "cat") == process.is_program
    }

    fn wait_for<T>(&mut self, what: &str, condition: impl Fn(&Driver) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(value) = condition(self) {
                return value;
            }
            if Instant::now() > deadline {
                self.fail(&format!("timed out waiting until {what}"));
            }
            match &mut self.meanwhile {
                Some(snapshots) => snapshots.push(self.monitor.check_now()),
                None => thread::sleep(Duration::from_micros(20)),
            }
        }
    }

    fn note(&mut self, what: String) {
        self.done.push_back(format!("{}: {what}", self.step));
        if self.done.len() > 30 {
            self.done.pop_front();
        }
    }

    fn fail(&self, what: &str) -> ! {
        let mut text =
            format!("{what}\nHIGHWATER_SEED={}, {:?}, step {}; what was done last:\n", self.seed, self.plan, self.step);
        for done in &self.done {
            let _ = writeln!(text, "  {done}");
        }
        let _ =
            writeln!(text, "the processes there are, without the crowd of {}:", self.model.processes[&STRANGERS].pid);
        let stats: Vec<Stat> = all_processes().unwrap().filter_map(|process| process.ok()?.stat().ok()).collect();
        self.draw(&stats, self.stage.init.as_raw(), 1, &mut text);
        panic!("{text}");
    }

    fn draw(&self, stats: &[Stat], pid: i32, depth: usize, text: &mut String) {
        for stat in stats.iter().filter(|stat| stat.pid == pid) {
            let own = if pid == self.model.processes[&OWN].pid { " <- the test" } else { "" };
            let (state, threads, start) = (stat.state, stat.num_threads, stat.starttime);
            let waits_in = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
            let _ = writeln!(
                text,
                "{:1$}{pid} {state} {threads} threads, started {start}, {2}, in {waits_in}{own}",
                "",
                2 * depth,
                stat.comm
            );
        }
        let crowd = self.model.processes[&STRANGERS].pid;
        for child in stats.iter().filter(|stat| stat.ppid == pid && pid != crowd) {
            self.draw(stats, child.pid, depth + 1, text);
        }
    }
}
