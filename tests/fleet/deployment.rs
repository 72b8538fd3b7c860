//! The files in `examples/deploy`, but for what the tests with HAProxy and Prometheus say of theirs.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::common::build_example;
use crate::instance::{deploy, get, Instance};

#[test]
fn the_arguments_in_the_deployment_files_start_a_server_that_answers_their_probes() {
    let unit = fs::read_to_string(deploy("readiness-server.service")).unwrap();
    let command_line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let of_unit: Vec<String> = command_line.split_whitespace().skip(1).map(str::to_owned).collect();
    let pod = fs::read_to_string(deploy("pod.yaml")).unwrap();
    let of_pod = pod.lines().find_map(|line| line.trim().strip_prefix("args: ")).unwrap();
    let of_pod: Vec<String> = serde_json::from_str(of_pod).unwrap();
    let probes: Vec<_> = pod.split("path: ").skip(1).map(|rest| rest.split(',').next().unwrap()).collect();
    assert_eq!(probes, ["/readyz", "/livez"]);
    for arguments in [of_unit, of_pod] {
        let any_port = |argument: &String| match argument.parse::<SocketAddr>() {
            Ok(_) => "127.0.0.1:0".to_owned(),
            Err(_) => argument.clone(),
        };
        let mut command = build_example("readiness_server").command();
        command.args(arguments.iter().map(any_port));
        let instance = Instance::run(command);
        for probe in &probes {
            assert_eq!(get(&instance.url(probe)).0, 200, "{arguments:?} {probe}");
        }
    }
}

#[test]
#[ignore = "run by .ci/run fleet, which installs HAProxy and Prometheus"]
fn the_deployment_files_are_valid() {
    let addresses =
        [("FRONT", "127.0.0.1:1"), ("A", "127.0.0.1:2"), ("A_AGENT", "3"), ("B", "127.0.0.1:4"), ("B_AGENT", "5")];
    let addresses = addresses.map(|(name, value)| (format!("HW_{name}"), value));
    succeeds(Command::new("haproxy").args(["-c", "-f", &deploy("haproxy.cfg")]).envs(addresses));
    succeeds(Command::new("promtool").args(["check", "config", &deploy("prometheus.yml")]));
    // Of a machine with systemd: nothing is installed for it.
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(deploy("readiness-server.service")).unwrap();
    let installed = unit.replace("/usr/local/bin/readiness_server", "/bin/true");
    let file = folder.path().join("readiness-server.service");
    fs::write(&file, installed).unwrap();
    succeeds(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(file));
}

/// Runs to the end, and succeeds without a complaint.
#[track_caller]
fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{command:?}: {said:?}");
}
