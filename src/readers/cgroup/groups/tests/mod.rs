//! Control groups as kernels and container engines lay them out. The texts are in the kernels' own words; names are
//! shortened.

mod changes;
mod faults;
mod hidden;
mod layouts;

use std::path::Path;

use super::*;
use crate::readers::fixture::{Machine, STAT_V1};

const MIB: u64 = 1 << 20;

const MOUNTS_V2: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";

/// As Linux 6.18 shows it with hybrid hierarchies, in part.
const MOUNTS_HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

const PRESSURE: &str = "\
some avg10=1.50 avg60=0.40 avg300=0.08 total=1234567
full avg10=0.25 avg60=0.05 avg300=0.01 total=234567
";

/// Readings of a machine that is laid out.
impl Machine {
    fn cgroups(&self) -> Cgroups {
        Cgroups::new(self.roots())
    }

    fn memory(&self) -> Option<CgroupMemory> {
        read(&mut self.cgroups())
    }

    fn tasks(&self) -> Option<CgroupPids> {
        let mut cgroups = self.cgroups();
        cgroups.refresh().unwrap();
        cgroups.pids().unwrap().0
    }
}

fn read(cgroups: &mut Cgroups) -> Option<CgroupMemory> {
    cgroups.refresh().unwrap();
    cgroups.memory().unwrap().0
}

/// The usage that STAT_V2 makes of that much: 26 MiB of page cache and some slab can be given back.
fn judged_v2(current: u64) -> u64 {
    current - 26 * MIB - 827_392
}

/// Has the next reading be one of so much later.
fn later(cgroups: &mut Cgroups, seconds: u64) -> Option<CgroupMemory> {
    cgroups.refresh().unwrap();
    cgroups.workspace.now += Duration::from_secs(seconds);
    cgroups.memory().unwrap().0
}
