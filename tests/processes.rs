//! Real processes: what is counted, what is seen, what is left alone, what is logged.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::os::unix::net::UnixDatagram;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{
    ensure, in_forked_child, ms, touched, wait_until, without_first_thread, Children, Forked, LogCapture, QuietJobs,
};
use highwater::{ErrorKind, MemoryScope, ResourceLimits, ResourceMonitor, SystemProbe};
use nix::sys::resource::{getrlimit, setrlimit, Resource as Rlimit};
use parking_lot::Mutex;
use rusty_fork::rusty_fork_test;

const MB: usize = 1024 * 1024;

fn limits(processes: u64) -> ResourceLimits {
    ResourceLimits::builder().max_processes(processes).build().unwrap()
}

fn shell(script: &str, stdin: Stdio) -> Child {
    Command::new("sh").arg("-c").arg(script).stdin(stdin).spawn().unwrap()
}

rusty_fork_test! {
    #![rusty_fork(timeout_ms = 600_000)]

    #[test]
    fn fifty_of_sixty_close_the_gate_and_forty_open_it_with_one_log_line_each() {
        let log = LogCapture::install();
        let mut children = Children::sleepers(50);
        let monitor = ResourceMonitor::builder(limits(60)).refresh_after(ms(20)).cpu_budget(1.0).build().unwrap();
        monitor.start(ms(50)).unwrap();
        assert!(!monitor.is_accepting_work());
        let verdict = monitor.verdict().to_string();
        for expected in ["50", "60", "83.3 %"] {
            assert!(verdict.contains(expected), "{verdict}");
        }
        children.end(10);
        wait_until("the gate opens by itself", || monitor.is_accepting_work());
        wait_until("normal is logged", || !log.named("monitor.processes_normal").is_empty());
        monitor.stop();
        let warnings = log.named("monitor.processes_warning");
        assert_eq!((warnings.len(), log.named("monitor.processes_normal").len()), (1, 1), "{:?}", log.events());
        assert_eq!(warnings[0].level, log::Level::Warn);
        assert_eq!((warnings[0].numbers["count"], warnings[0].numbers["limit"]), (50.0, 60.0));
        assert!((warnings[0].numbers["percent"] - 83.333).abs() < 0.01);
        assert_eq!(log.named("monitor.started")[0].numbers["interval_seconds"], 0.05);
        assert_eq!(log.named("monitor.stopped").len(), 1);
    }

    #[test]
    fn the_host_gets_every_exit_status_while_the_monitor_checks() {
        let monitor = ResourceMonitor::builder(limits(100)).cpu_budget(1.0).build().unwrap();
        monitor.start(ms(10)).unwrap();
        for round in 0..100_u8 {
            let mut child = Command::new("sh").arg("-c").arg(format!("exit {round}")).spawn().unwrap();
            if round % 4 == 0 {
                // Long enough a zombie to be seen by a check.
                monitor.check_now();
            }
            assert_eq!(child.wait().unwrap().code(), Some(i32::from(round)));
        }
    }

    #[test]
    fn zombies_are_reported_by_pid_and_stay_the_hosts() {
        let log = LogCapture::install();
        let monitor = ResourceMonitor::builder(limits(100)).cpu_budget(1.0).build().unwrap();
        monitor.start(ms(20)).unwrap();
        let mut child = Command::new("sh").arg("-c").arg("exit 7").spawn().unwrap();
        wait_until("the zombie is seen", || monitor.check_now().zombie_pids == [child.id()]);
        assert_eq!(monitor.check_now().child_process_count, Some(1), "a zombie counts as a process");
        wait_until("the zombie is logged", || !log.named("monitor.zombies_detected").is_empty());
        assert_eq!(log.named("monitor.zombies_detected")[0].numbers["count"], 1.0);
        assert_eq!(child.wait().unwrap().code(), Some(7));
        assert!(monitor.check_now().zombie_pids.is_empty());
    }

    #[test]
    fn a_process_with_a_hostile_name_is_counted() {
        // The name of a process is that of its file: `) Z 1 (x` and a newline.
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join(") Z 1 (x\n");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let child = Command::new(&program).arg("1000").spawn().unwrap();
        let _children = Children(vec![child]);
        let probe = SystemProbe::new();
        assert_eq!(probe.child_count().unwrap(), 1);
        assert!(probe.zombies().unwrap().is_empty());
    }

    #[test]
    fn running_out_of_descriptors_is_a_failed_check_and_own_memory_is_still_read() {
        let monitor = ResourceMonitor::new(limits(100));
        let _children = Children::sleepers(1);
        assert_eq!(monitor.check_now().child_process_count, Some(1));
        let (soft, hard) = getrlimit(Rlimit::RLIMIT_NOFILE).unwrap();
        setrlimit(Rlimit::RLIMIT_NOFILE, 3, hard).unwrap();
        let snapshot = monitor.check_now();
        let (accepting, verdict) = (monitor.is_accepting_work(), monitor.verdict().to_string());
        setrlimit(Rlimit::RLIMIT_NOFILE, soft, hard).unwrap();
        assert!(snapshot.probe_failed() && snapshot.memory_bytes.is_some() && snapshot.child_process_count.is_none());
        assert!(!accepting, "{verdict}");
        assert!(verdict.contains("Too many open files"), "{verdict}");
        assert_eq!(monitor.check_now().child_process_count, Some(1));
        assert!(monitor.is_accepting_work());
    }

    #[test]
    fn a_handful_of_descriptors_is_kept_however_many_processes_there_are() {
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = descriptors();
        let monitor = ResourceMonitor::new(limits(1000));
        monitor.check_now();
        let kept = descriptors() - before;
        assert!(kept <= 16, "{kept}");
        for count in [0, 10, 300] {
            let _children = Children::sleepers(count);
            for _ in 0..3 {
                assert_eq!(monitor.check_now().child_process_count, Some(count));
            }
            assert_eq!(descriptors(), before + kept, "{count} children");
        }
    }

    #[test]
    fn a_child_spawned_in_a_hook_dies_of_sigterm() {
        let ended = Arc::new(Mutex::new(None));
        let (named, status) = (Arc::clone(&ended), Arc::clone(&ended));
        let spawner = QuietJobs::new()
            .naming(move || named.lock().is_none().then(|| "job".to_string()))
            .pausing(|| Err("no".into()))
            .cancelling(move || {
                let mut child = common::sleeper();
                let pid = nix::unistd::Pid::from_raw(child.id() as i32);
                let sent = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
                *status.lock() = Some(child.wait()?);
                sent?;
                Ok(())
            });
        let monitor = ResourceMonitor::builder(limits(1)).cpu_budget(1.0).build().unwrap();
        monitor.set_manager(spawner.shared());
        let _children = Children::sleepers(1);
        monitor.start(ms(20)).unwrap();
        wait_until("the child has ended", || ended.lock().is_some());
        assert_eq!(ended.lock().unwrap().signal(), Some(nix::libc::SIGTERM));
    }

    #[test]
    fn members_of_a_group_are_counted_without_the_one_excluded() {
        let leader = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        let pgid = leader.id();
        let member = Command::new("sleep").arg("1000").process_group(pgid as i32).spawn().unwrap();
        let _children = Children(vec![leader, member]);
        let probe = SystemProbe::new();
        assert_eq!(probe.count_group_members(pgid, 0).unwrap(), 2);
        assert_eq!(probe.count_group_members(pgid, pgid).unwrap(), 1);
        assert_eq!(probe.count_group_members(0, 0).unwrap_err().kind(), ErrorKind::InvalidSetting);
    }

    #[test]
    fn an_independent_reading_agrees_on_a_tree_of_two_hundred_with_zombies_at_two_depths() {
        // Twenty shells that each start nine sleepers and become a tenth.
        let mut children = Children::default();
        for _ in 0..20 {
            children.0.push(shell("for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; exec sleep 1000", Stdio::null()));
        }
        // A child of one more ends when its input does, after the shell has become a sleeper that waits for nobody.
        let mut parent = shell("exec 3<&0; cat <&3 & exec sleep 1000", Stdio::piped());
        let comm = format!("/proc/{}/comm", parent.id());
        wait_until("the shell has become a sleeper", || std::fs::read_to_string(&comm).unwrap() == "sleep\n");
        drop(parent.stdin.take());
        children.0.push(parent);
        let mut own_zombie = Command::new("true").spawn().unwrap();
        let monitor = ResourceMonitor::new(limits(1000));
        let expected = 20 * 10 + 2 + 1;
        wait_until("the tree has grown", || {
            let snapshot = monitor.check_now();
            (snapshot.child_process_count, snapshot.zombie_pids.len()) == (Some(expected), 2)
        });
        let own = std::process::id();
        // `ps` itself is a descendant of ours too: it lists itself, and is left out.
        let listing = Command::new("ps").args(["-e", "-o", "pid=,ppid=,stat=,comm="]).output().unwrap();
        let rows: Vec<(u32, u32, String)> = String::from_utf8(listing.stdout)
            .unwrap()
            .lines()
            .filter_map(|line| {
                let mut fields = line.split_whitespace();
                let (pid, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
                let state = fields.next()?.to_string();
                (fields.next() != Some("ps")).then_some((pid, parent, state))
            })
            .collect();
        let mut known = vec![own];
        let mut counted = Vec::new();
        while let Some(parent) = known.pop() {
            for (pid, _, state) in rows.iter().filter(|row| row.1 == parent) {
                known.push(*pid);
                counted.push((*pid, state.starts_with('Z')));
            }
        }
        let snapshot = monitor.check_now();
        assert_eq!(snapshot.child_process_count, Some(counted.len()));
        assert_eq!(counted.len(), expected);
        let mut zombies: Vec<u32> = counted.iter().filter(|(_, zombie)| *zombie).map(|(pid, _)| *pid).collect();
        zombies.sort_unstable();
        assert_eq!(snapshot.zombie_pids, zombies);
        own_zombie.wait().unwrap();
        // The grandchildren would outlive their parents.
        for (pid, _) in counted {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL);
        }
    }

    #[test]
    fn limits_are_logged_only_when_one_changed() {
        let log = LogCapture::install();
        let monitor = ResourceMonitor::new(limits(10));
        monitor.update_limits(limits(10));
        assert!(log.named("monitor.limits_updated").is_empty());
        monitor.update_limits(limits(20));
        let updates = log.named("monitor.limits_updated");
        assert_eq!((updates[0].numbers["old_max_processes"], updates[0].numbers["new_max_processes"]), (10.0, 20.0));
        assert!(!updates[0].numbers.contains_key("new_max_memory_bytes"), "unset is no number");
    }

    #[test]
    fn memory_in_scope_tree_includes_the_children() {
        let probe = SystemProbe::new();
        let monitor = ResourceMonitor::builder(limits(10)).memory_scope(MemoryScope::Tree).build().unwrap();
        let _children = Children::sleepers(5);
        wait_until("the children's memory is counted", || {
            let tree = monitor.check_now().memory_bytes.unwrap();
            tree > probe.memory_bytes().unwrap() + 5 * 500 * 1024
        });
        assert!(Duration::from_secs_f64(monitor.seconds_since_last_check()) < common::DEADLINE);
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_is_read_through_one_that_lives() {
        in_forked_child(|| {
            // What is kept is kept of the first thread.
            let early = ResourceMonitor::new(limits(100));
            early.check_now();
            without_first_thread(move || {
                let block = touched(64 * MB);
                let late = ResourceMonitor::new(limits(100));
                let _children = Children::sleepers(2);
                let has_block = |memory: Option<u64>| memory.is_some_and(|bytes| bytes > 64 * MB as u64);
                for monitor in [&early, &late] {
                    let snapshot = monitor.check_now();
                    let said = format!("{snapshot}: {}", monitor.verdict());
                    ensure(has_block(snapshot.memory_bytes) && monitor.is_accepting_work(), &said)?;
                    ensure(snapshot.child_process_count == Some(2), &said)?;
                    let listed = std::fs::read_dir("/proc/thread-self/fd").unwrap().count() as u64;
                    ensure(snapshot.open_files.is_some_and(|files| files.count.abs_diff(listed) <= 3), &said)?;
                    ensure(monitor.current_memory_mb().is_some_and(|mb| mb > 64.0), "live reading")?;
                }
                // The thread that reads now need not be the one that did before.
                let elsewhere = std::thread::scope(|scope| scope.spawn(|| early.check_now()).join().unwrap());
                ensure(has_block(elsewhere.memory_bytes), "read by another thread")?;
                drop(block);
                Ok(())
            })
        });
    }

    #[test]
    fn a_child_whose_first_thread_has_ended_counts_with_the_memory_of_the_others() {
        let builder = ResourceMonitor::builder(limits(10)).memory_scope(MemoryScope::Tree);
        let monitor = builder.build().unwrap();
        let child = Forked::run(|| {
            without_first_thread(|| {
                let _block = touched(64 * MB);
                loop {
                    std::thread::sleep(common::DEADLINE);
                }
            })
        });
        let stat = format!("/proc/{}/stat", child.0);
        wait_until("the first thread has ended", || std::fs::read_to_string(&stat).unwrap().contains(") Z "));
        wait_until("the memory of the other is counted", || {
            let memory = monitor.check_now().memory_bytes.unwrap();
            memory > SystemProbe::new().memory_bytes().unwrap() + 64 * MB as u64
        });
        let snapshot = monitor.check_now();
        assert_eq!((snapshot.child_process_count, snapshot.zombie_pids), (Some(1), vec![]));
    }

    #[test]
    fn memory_that_forked_children_share_closes_no_gate_until_they_write_to_it() {
        let mut block = touched(200 * MB);
        let ask = UnixDatagram::pair().unwrap();
        let children: Vec<_> = (0..8)
            .map(|_| {
                Forked::run(|| {
                    // Told to write, once.
                    ask.0.recv(&mut [0; 1]).unwrap();
                    block.iter_mut().step_by(4096).for_each(|byte| *byte = 2);
                    Ok(())
                })
            })
            .collect();
        let limits = ResourceLimits::builder().max_memory_mb(1024).build().unwrap();
        let builder = ResourceMonitor::builder(limits).memory_scope(MemoryScope::Tree);
        let monitor = builder.build().unwrap();
        for _ in 0..3 {
            let memory = monitor.check_now().memory_bytes.unwrap();
            assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
            // What is said is somewhat less than what would close the gate, and surely not less than there is.
            assert!((200 * MB as u64..819 * MB as u64).contains(&memory), "{memory}");
        }
        for _ in &children {
            ask.1.send(&[0]).unwrap();
        }
        wait_until("eight copies are seen", || !monitor.check_now().probe_failed() && !monitor.is_accepting_work());
        wait_until("all of them are counted", || monitor.check_now().memory_bytes > Some(1700 * MB as u64));
        drop((children, block));
        wait_until("they are gone", || monitor.check_now().memory_bytes < Some(100 * MB as u64));
        assert!(monitor.is_accepting_work(), "{}", monitor.verdict());
    }
}
