//! A program with privileges that its user does not have. A set-user-ID copy of this test is run by another user, who
//! has filled its environment.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use common::wait_until;
use highwater::{ResourceLimits, ResourceMonitor};
use nix::sys::statvfs::{statvfs, FsFlags};

/// Makes a copy of this test the program that is given privileges.
const PROGRAM: &str = "HIGHWATER_TEST_PROGRAM";

/// Nobody's number, which every system has.
const ANOTHER_USER: u32 = 65534;

#[test]
fn a_user_cannot_have_a_privileged_program_write_for_him() {
    if std::env::var_os(PROGRAM).is_some() {
        return program();
    }
    // Neither the folder of the build nor a private one can be entered by everybody.
    let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    if !nix::unistd::geteuid().is_root() || statvfs(folder.path()).unwrap().flags().contains(FsFlags::ST_NOSUID) {
        println!("skipped: no set-user-ID program can be made here");
        return;
    }
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let program = folder.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut heard = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&pipe).unwrap();

    for (mode, privileged) in [(0o4755, true), (0o755, false)] {
        fs::set_permissions(&program, Permissions::from_mode(mode)).unwrap();
        let mut command = Command::new(&program);
        command.arg("--exact").arg("a_user_cannot_have_a_privileged_program_write_for_him").current_dir("/");
        command.env(PROGRAM, "1").env("MEMORY_PRESSURE_WATCH", &pipe).env("MEMORY_PRESSURE_WRITE", "aGVhcmQ=");
        if privileged {
            command.uid(ANOTHER_USER).gid(ANOTHER_USER);
        }
        let mut said = || {
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            let mut said = String::new();
            // What is empty while nobody writes is at its end, or not ready.
            let _ = heard.read_to_string(&mut said);
            said
        };
        if privileged {
            for _ in 0..5 {
                assert_eq!(said(), "", "mode {mode:o}");
            }
        } else {
            // The program may have read it itself, or have ended before it watched anything.
            wait_until("it was heard", || said() == "heard");
        }
    }
}

/// What a host does, whoever has started it.
fn program() {
    // It must be able to do what its user asks for.
    assert!(nix::unistd::geteuid().is_root());
    let limits = ResourceLimits::builder().max_processes(50).build().unwrap();
    let monitor = ResourceMonitor::new(limits);
    monitor.start(Duration::from_secs(60)).unwrap();
}
