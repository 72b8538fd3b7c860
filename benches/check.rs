//! What a reading of own memory and a full check cost, with 0, 50 and 1,000 real children, beside the `procfs` and
//! `sysinfo` crates doing the same work: the resident memory of this process, all its descendants, and which of them
//! are zombies. `procfs` reads its own memory also in the way its documentation shows, which opens `/proc/self` each
//! time. And what the optional resources add to a check, in control groups two deep with every limit set, as far as
//! such can be made.

#[path = "../tests/common/groups.rs"]
mod groups;

use std::time::Duration;

use criterion::Criterion;
use groups::Groups;
use highwater::SystemProbe;
use peers::{ByProcfs, BySysinfo, Children};

const POPULATIONS: [usize; 3] = [0, 50, 1000];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for population in POPULATIONS {
        let _children = Children::sleepers(population);
        own_memory(&mut criterion, population);
        full_check(&mut criterion, population);
    }
    optional_resources(&mut criterion);
    criterion.final_summary();
}

fn optional_resources(criterion: &mut Criterion) {
    let groups: Vec<_> = ["memory", "pids"].into_iter().filter_map(Groups::new).collect();
    for groups in &groups {
        groups.limit_amply();
        groups.enter();
    }
    let _children = Children::sleepers(50);
    let mut group = criterion.benchmark_group("full check, 50 children, in limited groups");
    let with = peers::monitor_with(&peers::OPTIONAL);
    group.bench_function("with every resource", |bencher| bencher.iter(|| with.check_now()));
    let without = peers::monitor();
    group.bench_function("with none that is optional", |bencher| bencher.iter(|| without.check_now()));
    for resource in peers::OPTIONAL {
        let with_one = peers::monitor_with(&[resource]);
        group.bench_function(format!("with {resource}"), |bencher| bencher.iter(|| with_one.check_now()));
    }
}

fn own_memory(criterion: &mut Criterion, population: usize) {
    let mut group = criterion.benchmark_group(format!("own memory, {population} children"));

    let probe = SystemProbe::new();
    group.bench_function("highwater", |bencher| bencher.iter(|| probe.memory_bytes().unwrap()));

    group.bench_function("procfs", |bencher| bencher.iter(|| ByProcfs::open().memory_bytes()));
    let procfs = ByProcfs::open();
    group.bench_function("procfs, kept open", |bencher| bencher.iter(|| procfs.memory_bytes()));

    let mut sysinfo = BySysinfo::open();
    group.bench_function("sysinfo", |bencher| bencher.iter(|| sysinfo.memory_bytes()));
}

fn full_check(criterion: &mut Criterion, population: usize) {
    let mut group = criterion.benchmark_group(format!("full check, {population} children"));
    group.sample_size(50).measurement_time(Duration::from_secs(8));

    let monitor = peers::monitor();
    assert_eq!(monitor.check_now().child_process_count, Some(population));
    group.bench_function("highwater", |bencher| bencher.iter(|| monitor.check_now()));

    let procfs = ByProcfs::open();
    assert_eq!(procfs.check().descendants, population);
    group.bench_function("procfs", |bencher| bencher.iter(|| procfs.check()));

    let mut sysinfo = BySysinfo::open();
    assert_eq!(sysinfo.check().descendants, population);
    group.bench_function("sysinfo", |bencher| bencher.iter(|| sysinfo.check()));
}
