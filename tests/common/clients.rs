//! The clients of a jobserver that are there.

use std::path::PathBuf;
use std::process::{Command, Stdio};

pub fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: there is no {program}");
    }
    found
}

/// `ninja` of version 1.13 or later, which knows a jobserver: from the path, or where `.ci/run` has put it.
pub fn ninja() -> Option<PathBuf> {
    let places = [concat!(env!("CARGO_MANIFEST_DIR"), "/target/ninja/bin/ninja"), "ninja"].map(PathBuf::from);
    let is_new = |place: &PathBuf| {
        let Ok(output) = Command::new(place).arg("--version").output() else { return false };
        let version = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut numbers = version.trim().split('.').map_while(|number| number.parse::<u32>().ok());
        (numbers.next(), numbers.next()) >= (Some(1), Some(13))
    };
    let found = places.into_iter().find(is_new);
    if found.is_none() {
        println!("skipped: there is no ninja of version 1.13");
    }
    found
}
