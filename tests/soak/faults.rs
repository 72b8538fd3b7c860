//! The faults, each of which ends with a gate that is open again.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use highwater::{ErrorKind, Resource, ResourceMonitor, Work};
use nix::libc;
use nix::sched::{setns, unshare, CloneFlags};
use nix::sys::resource::Resource as Rlimit;
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::{getpid, Pid};

use crate::common::{ms, touched, wait_until, ProcTree};
use crate::host::{limits, Host, MAX_AGE, MEMORY, NUMBERS, PROCESSES, SLOTS, THRESHOLDS};
use crate::means::{forked, leave, Limited, Random, Sleepers};

impl Host {
    /// Another monitor of this process, which is made while something is missing.
    fn another(&self) {
        let monitor = ResourceMonitor::builder(limits(10_000, THRESHOLDS[0])).max_age(MAX_AGE).build().unwrap();
        let snapshot = monitor.check_now();
        self.tally.checks.fetch_add(1, SeqCst);
        let is_read = snapshot.memory_bytes.is_some() && snapshot.child_process_count.is_some();
        let verdict = monitor.verdict();
        self.tally.is(is_read || !verdict.is_accepting(), format_args!("{snapshot}, and {verdict}"));
    }

    /// A monitor that cannot start, for want of a thread, stays closed. It may start: on a stack that the C library has
    /// kept, or with the number of its last thread, which the kernel gives back a moment after that was joined.
    fn without_threads(&self, attempts: usize, mut use_up: impl FnMut()) {
        for _ in 0..attempts {
            self.monitor.stop();
            use_up();
            if let Err(error) = self.monitor.start(ms(50)) {
                self.tally.fault("threads refused");
                self.tally.is(error.kind() == ErrorKind::Thread, error);
                return self.while_closed("stopped, and not started again");
            }
        }
    }

    fn crowd(&self) {
        self.tally.fault("crowds of children");
        let children = Sleepers::up_to(PROCESSES);
        self.tally.is(children.0.len() as u64 == PROCESSES, "there are numbers for a crowd");
        self.while_closed("as many children as may be");
        drop(children);
        self.wait_until_open("the crowd is gone");
    }

    /// Children that come and go, with children of their own, faster than checks.
    fn storm(&self) {
        self.tally.fault("fork storms");
        for _ in 0..10 {
            // Those of one that ends are told to end by the kernel.
            let family = || (0..2).for_each(|_| _ = forked(|| thread::sleep(ms(1))));
            let children: Vec<Pid> = (0..20).map_while(|_| forked(family).ok()).collect();
            children.iter().for_each(|child| _ = waitpid(*child, None));
        }
        wait_until("the storm is over", || self.monitor.check_now().child_process_count == Some(0));
        self.wait_until_open("the storm is over");
    }

    fn without_numbers(&self) {
        let mut children = Sleepers::up_to(PROCESSES);
        // Without a namespace of its own: the limit of the user, which is none for root.
        let limit = Limited::to(Rlimit::RLIMIT_NPROC, 1);
        children.0.append(&mut Sleepers::up_to(NUMBERS).take());
        if children.0.len() as u64 == PROCESSES + NUMBERS {
            return println!("skipped: the numbers of processes do not end here");
        }
        self.tally.fault("numbers of processes used up");
        self.while_closed("no number left");
        // The numbers of its threads, too.
        self.without_threads(20, || children.0.append(&mut Sleepers::up_to(NUMBERS).take()));
        drop((children, limit));
        self.monitor.start(ms(50)).unwrap();
        self.wait_until_open("there are numbers again");
    }

    fn without_descriptors(&self) {
        self.tally.fault("descriptors used up");
        let _limit = Limited::to(Rlimit::RLIMIT_NOFILE, 256);
        let mut files: Vec<OwnedFd> = Vec::new();
        let null = File::open("/dev/null").unwrap();
        files.extend(std::iter::from_fn(|| null.try_clone().ok()).map(OwnedFd::from));
        self.another();
        self.while_closed("no descriptor left");
        drop(files);
        self.wait_until_open("there are descriptors again");
    }

    fn without_address_space(&self) {
        self.tally.fault("address space used up");
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
        // No room for the stack of a thread, and enough for a text.
        let limit = Limited::to(Rlimit::RLIMIT_AS, pages * 4096 + (1 << 20));
        self.another();
        self.without_threads(1, || {});
        drop(limit);
        self.monitor.start(ms(50)).unwrap();
        self.wait_until_open("there is address space again");
    }

    fn without_memory(&self) {
        self.tally.fault("memory used up");
        let memory = touched(MEMORY);
        self.while_closed("as much memory as may be");
        drop(memory);
        self.wait_until_open("the memory is given back");
    }

    fn stopped(&self) {
        self.tally.fault("stops of the process");
        let host = getpid();
        // The length of the stop, for which nothing here can wait.
        let stop = MAX_AGE + MAX_AGE / 5;
        let helper = forked(|| {
            let _ = kill(host, Signal::SIGSTOP);
            thread::sleep(stop);
            let _ = kill(host, Signal::SIGCONT);
        });
        waitpid(helper.unwrap(), None).unwrap();
        self.wait_until_open("it goes on after a stop");
    }

    fn pushed(&self) {
        self.tally.fault("gauges at their threshold");
        let warn = u64::from(self.thresholds.read().unwrap().0);
        self.slots.add(warn * SLOTS / 100);
        self.while_closed("as many slots as may be");
        self.slots.set(0);
    }

    fn restarted(&self) {
        self.tally.fault("stops of the monitor");
        self.monitor.stop();
        self.while_closed("stopped");
        self.monitor.start(ms(50)).unwrap();
        self.wait_until_open("it was started again");
    }

    fn new_limits(&self, random: &mut Random) {
        self.tally.fault("new limits");
        let children = Sleepers::up_to(4);
        self.monitor.check_now();
        self.monitor.update_limits(limits(4, THRESHOLDS[0]));
        let verdict = self.monitor.verdict();
        self.tally.is(verdict.resource() == Some(Resource::Processes), format_args!("4 of 4 processes: {verdict}"));
        let mut thresholds = self.thresholds.write().unwrap();
        *thresholds = THRESHOLDS[random.below(4) as usize];
        self.monitor.update_limits(limits(PROCESSES, *thresholds));
        drop(thresholds);
        drop(children);
        self.wait_until_open("the limits are wide again");
    }

    /// The files of the kernel cannot be read, as far as a monitor of other files is concerned.
    fn unreadable(&self) {
        self.tally.fault("readings failed");
        let tree = ProcTree::new(1);
        let monitor = ResourceMonitor::builder(limits(10, THRESHOLDS[0])).proc_root(tree.root()).build().unwrap();
        monitor.check_now();
        self.tally.is(monitor.is_accepting_work(), monitor.verdict());
        tree.write_statm(b"what is this", true);
        for failures in 1..=5 {
            monitor.check_now();
            let (verdict, is_open) = (monitor.verdict(), monitor.is_accepting_work());
            self.tally
                .is(!is_open && !verdict.is_accepting(), format_args!("{failures} checks have failed: {verdict}"));
            self.tally
                .is(monitor.is_degraded() == (failures == 5), format_args!("after {failures} failures: {verdict}"));
            self.tally.is(monitor.try_admit(Work::new()).is_err(), "a grant after a check that failed");
        }
        tree.set_resident_pages(1);
        monitor.check_now();
        self.tally.is(monitor.is_accepting_work() && !monitor.is_degraded(), monitor.verdict());
        self.tally.checks.fetch_add(7, SeqCst);
    }

    /// Nobody checks any more, and time goes on.
    fn aged(&self) {
        self.tally.fault("checks grown old");
        let monitor = ResourceMonitor::builder(limits(10_000, THRESHOLDS[0])).inline_check(Duration::ZERO);
        let monitor = monitor.max_age(ms(30)).build().unwrap();
        monitor.check_now();
        self.tally.checks.fetch_add(1, SeqCst);
        wait_until("the check is old", || monitor.seconds_since_last_check() > 0.05);
        let (verdict, is_open) = (monitor.verdict(), monitor.is_accepting_work());
        self.tally.is(!is_open && !verdict.is_accepting(), format_args!("an old check: {verdict}"));
    }

    /// The clocks of a child jump an hour ahead.
    fn clock_steps(&self) {
        let (skipped, monitor) = (2, |age| {
            let builder = ResourceMonitor::builder(limits(10_000, THRESHOLDS[0])).inline_check(Duration::ZERO);
            builder.max_age(age).build().unwrap()
        });
        let child = forked(|| {
            let new_time = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
            let monitor = monitor(Duration::from_secs(600));
            monitor.check_now();
            let mut right = monitor.is_accepting_work();
            let entered = unshare(new_time).is_ok()
                && fs::write("/proc/self/timens_offsets", "monotonic 3600 0\nboottime 3600 0\n").is_ok()
                && File::open("/proc/self/ns/time_for_children").is_ok_and(|clock| setns(clock, new_time).is_ok());
            if !entered {
                leave(skipped);
            }
            right &= !monitor.is_accepting_work() && !monitor.verdict().is_accepting();
            monitor.check_now();
            right &= monitor.is_accepting_work() && monitor.seconds_since_last_check() < 600.0;
            leave(i32::from(!right));
        });
        match waitpid(child.unwrap(), None).unwrap() {
            WaitStatus::Exited(_, code) if code == skipped => println!("skipped: no time namespace"),
            status => {
                self.tally.fault("steps of the clocks");
                self.tally.is(matches!(status, WaitStatus::Exited(_, 0)), format_args!("after a step: {status:?}"));
            }
        }
    }

    /// Brings one fault after the other, for so long and at least a round of all, and returns the number of rounds.
    pub fn faults(&self, seconds: u64, random: &mut Random) -> u64 {
        let (begun, mut rounds) = (Instant::now(), 0);
        self.monitor.start(ms(50)).unwrap();
        self.wait_until_open("it was started");
        while rounds == 0 || begun.elapsed() < Duration::from_secs(seconds) {
            let mut left: Vec<usize> = (0..13).collect();
            while !left.is_empty() {
                match left.swap_remove(random.below(left.len() as u64) as usize) {
                    0 => self.crowd(),
                    1 => self.without_numbers(),
                    2 => self.without_descriptors(),
                    3 => self.without_address_space(),
                    4 => self.without_memory(),
                    5 => self.stopped(),
                    6 => self.restarted(),
                    7 => self.new_limits(random),
                    8 => self.unreadable(),
                    9 => self.aged(),
                    10 => self.pushed(),
                    11 => self.storm(),
                    _ => self.clock_steps(),
                }
            }
            rounds += 1;
        }
        rounds
    }
}
