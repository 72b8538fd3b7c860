//! The example `watch` from end to end.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

#[test]
fn the_gate_is_seen_to_close_and_to_open() {
    let mut watch = common::build_example("watch").command().stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap).take(1000);
    for answer in ["  accepting work", "  not accepting work: memory ", "  accepting work"] {
        assert!(lines.any(|line| line.contains(answer)), "never seen: `{answer}`");
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn as_many_lines_as_were_asked_for_are_printed_and_aligned() {
    let output = common::build_example("watch").command().args(["--lines", "5"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let columns = |line: &str| Vec::from_iter(line.match_indices(['[', ']']).map(|(column, _)| column));
    let first = columns(text.lines().next().unwrap());
    assert_eq!(first.len(), 4, "{text}");
    assert!(text.lines().all(|line| line.starts_with("memory ") && columns(line) == first), "{text}");
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.lines().all(|line| line.contains("  machine ") && line.contains(" MB left of ")), "{text}");
    // It is asked on a thread of its own, which the first check does not wait for.
    assert!(text.lines().last().unwrap().contains("  disk "), "{text}");
}
