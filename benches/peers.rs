//! What the benches measure beside the library.
//!
//! The same readings through other crates: the resident memory of this process, all its descendants, and which of them
//! are zombies. What can be kept from one reading to the next is kept. And a semaphore, as programs write it.

use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex};
use std::{fs, thread};

use highwater::{Resource, ResourceLimits, ResourceMonitor};
use procfs::process::{all_processes, Process};
use procfs::ProcError;
use sysinfo::{Pid, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System};

/// The resources that a monitor can leave out.
pub const OPTIONAL: [Resource; 8] = [
    Resource::CgroupMemory,
    Resource::CgroupPids,
    Resource::OpenFiles,
    Resource::MemoryPressure,
    Resource::CpuPressure,
    Resource::IoPressure,
    Resource::MachineMemory,
    Resource::DiskSpace,
];

/// A monitor that reads what the peers read, and nothing that is optional.
pub fn monitor() -> ResourceMonitor {
    monitor_with(&[])
}

/// The same, and these of the optional resources.
pub fn monitor_with(resources: &[Resource]) -> ResourceMonitor {
    let limits = ResourceLimits::builder().max_memory_mb(1 << 20).max_processes(1 << 30).min_free_disk_mb("/", 1);
    let builder = ResourceMonitor::builder(limits.build().unwrap());
    let left_out = OPTIONAL.into_iter().filter(|resource| !resources.contains(resource));
    left_out.fold(builder, |builder, resource| builder.ignore(resource)).build().unwrap()
}

/// Real children, killed and waited for at the end.
pub struct Children(Vec<Child>);

impl Children {
    pub fn sleepers(count: usize) -> Children {
        let mut children = Children(Vec::with_capacity(count));
        for _ in 0..count {
            let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn();
            children.0.push(child.unwrap());
        }
        children
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself, and then there is only its status to take.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a check finds.
pub struct Found {
    pub memory_bytes: u64,
    pub descendants: usize,
    pub zombies: Vec<u32>,
}

struct Row {
    parent: u32,
    pid: u32,
    zombie: bool,
}

impl Found {
    /// Follows the table of all processes down from `own`.
    fn below(own: u32, memory_bytes: u64, mut table: Vec<Row>) -> Found {
        table.sort_unstable_by_key(|row| row.parent);
        let mut found = Found { memory_bytes, descendants: 0, zombies: Vec::new() };
        let mut parents = vec![own];
        while let Some(parent) = parents.pop() {
            let first = table.partition_point(|row| row.parent < parent);
            for row in table[first..].iter().take_while(|row| row.parent == parent) {
                found.descendants += 1;
                parents.push(row.pid);
                if row.zombie {
                    found.zombies.push(row.pid);
                }
            }
        }
        found
    }
}

/// The readings through the `procfs` crate.
pub struct ByProcfs {
    myself: Process,
    page_size: u64,
}

impl ByProcfs {
    pub fn open() -> ByProcfs {
        ByProcfs { myself: Process::myself().unwrap(), page_size: procfs::page_size() }
    }

    pub fn memory_bytes(&self) -> u64 {
        self.myself.statm().unwrap().resident * self.page_size
    }

    pub fn check(&self) -> Found {
        let stats = all_processes().unwrap().map(|process| process.and_then(|process| process.stat()));
        let table = stats.filter_map(|stat| match stat {
            Ok(stat) => {
                let number = |pid: i32| u32::try_from(pid).unwrap();
                let zombie = stat.state == 'Z' && stat.num_threads <= 1;
                Some(Row { parent: number(stat.ppid), pid: number(stat.pid), zombie })
            }
            Err(ProcError::NotFound(_)) => None,
            Err(error) => panic!("{error}"),
        });
        Found::below(number_of(&self.myself), self.memory_bytes(), table.collect())
    }
}

fn number_of(process: &Process) -> u32 {
    u32::try_from(process.pid).unwrap()
}

/// The readings through the `sysinfo` crate, with the narrowest refresh that gives them.
pub struct BySysinfo {
    system: System,
    own: Pid,
}

impl BySysinfo {
    pub fn open() -> BySysinfo {
        BySysinfo { system: System::new().unwrap(), own: sysinfo::get_current_pid().unwrap() }
    }

    pub fn memory_bytes(&mut self) -> u64 {
        self.refresh(ProcessesToUpdate::Some(&[self.own]));
        self.own_memory()
    }

    pub fn check(&mut self) -> Found {
        self.refresh(ProcessesToUpdate::All);
        let table = self.system.processes().values().map(|process| Row {
            parent: process.parent().map_or(0, Pid::as_u32),
            pid: process.pid().as_u32(),
            zombie: process.status() == ProcessStatus::Zombie,
        });
        Found::below(self.own.as_u32(), self.own_memory(), table.collect())
    }

    fn refresh(&mut self, which: ProcessesToUpdate<'_>) {
        let memory_alone = ProcessRefreshKind::nothing().without_tasks().with_memory();
        self.system.refresh_processes_specifics(which, true, memory_alone);
    }

    fn own_memory(&self) -> u64 {
        self.system.process(self.own).unwrap().memory()
    }
}

/// What a program writes that knows the need of each piece of its work. Woken, all look again: no order, no waste of room.
pub struct Semaphore {
    left: Mutex<u64>,
    freed: Condvar,
}

impl Semaphore {
    pub fn new(left: u64) -> Semaphore {
        Semaphore { left: Mutex::new(left), freed: Condvar::new() }
    }

    pub fn acquire(&self, amount: u64) {
        let mut left = self.left.lock().unwrap();
        while *left < amount {
            left = self.freed.wait(left).unwrap();
        }
        *left -= amount;
    }

    pub fn release(&self, amount: u64) {
        *self.left.lock().unwrap() += amount;
        self.freed.notify_all();
    }
}

/// The machine of a run, for the head of its figures.
pub fn machine() -> String {
    format!("{}, {} cores, Linux {}", cpu_model(), thread::available_parallelism().unwrap(), kernel())
}

fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).and_then(|line| line.split_once(':'));
    model.map_or("unknown CPU", |(_, model)| model.trim()).to_string()
}

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.split('-').next().unwrap_or_default().trim().to_string()
}
