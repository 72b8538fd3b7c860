//! The pages say what is in the code, and the code holds nothing that they leave out.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)] // where a line stands
#[path = "common/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const LOG_EVENTS: &str = include_str!("../src/guide/log_events.md");
const SETTINGS: &str = include_str!("../src/guide/settings.md");
const README: &str = include_str!("../README.md");
const CONTRIBUTING: &str = include_str!("../CONTRIBUTING.md");
const CHANGELOG: &str = include_str!("../CHANGELOG.md");
const TESTING: &str = include_str!("../src/guide/testing.md");

#[test]
fn the_table_of_log_events_is_that_of_the_code() {
    let mut in_code = BTreeSet::new();
    for line in source::code_in(Path::new("src")) {
        let is_name =
            |name: &&str| ["monitor.", "pgroup.", "jobs.", "jobserver."].iter().any(|layer| name.starts_with(layer));
        in_code.extend(quoted(&line.text).filter(is_name).filter(|name| !name.contains('{')).map(str::to_owned));
        // Those of resources are put together, from a word that stands behind their level, or behind `resource`.
        let word = ["log::Level::Info, ", "log::Level::Warn, ", "log::Level::Error, ", "event_of(*resource, "]
            .iter()
            .find_map(|before| line.text.split_once(before)?.1.strip_prefix('"')?.split('"').next());
        in_code.extend(word.map(|word| match word {
            "unread" | "read_again" => format!("monitor.<optional>_{word}"),
            _ => format!("monitor.<resource>_{word}"),
        }));
    }
    assert_eq!(second_cells(LOG_EVENTS, "| level | event |"), in_code);
}

#[test]
fn the_table_of_resources_is_that_of_the_code() {
    let code = source::code_in(Path::new("src/vocabulary"));
    let keys = code.iter().filter_map(|line| line.text.trim().strip_prefix("event_key: \""));
    let in_code = keys.map(|key| key.trim_end_matches("\",").to_owned()).collect();
    assert_eq!(second_cells(LOG_EVENTS, "| resource |"), in_code);
}

#[test]
fn every_setting_is_in_the_table() {
    let code = ["src/vocabulary", "src/monitor"].map(|folder| source::code_in(Path::new(folder)));
    let setters = code.iter().flatten().filter(|line| line.text.ends_with("-> Self {"));
    let names = setters.filter_map(|line| line.text.trim().strip_prefix("pub fn ")?.split('(').next());
    for name in names {
        assert!(
            SETTINGS.contains(&format!("[`{name}`](ResourceLimitsBuilder::{name})"))
                || SETTINGS.contains(&format!("[`{name}`](ResourceMonitorBuilder::{name})")),
            "{name}"
        );
    }
}

#[test]
fn what_the_pages_name_is_there() {
    for page in [README, CONTRIBUTING] {
        assert!(page.lines().count() <= 150);
        let code = page
            .split('`')
            .skip(1)
            .step_by(2)
            .chain(page.split("](").skip(1).filter_map(|rest| rest.split(')').next()));
        let is_path =
            |name: &&str| ["src/", "tests/", "examples/", "benches/", ".ci/"].iter().any(|top| name.starts_with(top));
        for path in code.filter(is_path) {
            let path = path.split([' ', ':', '#']).next().unwrap();
            assert!(Path::new(path).exists(), "{path} is named, and is not there");
        }
    }
    let folders = fs::read_dir("src").unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    for folder in folders {
        let name = folder.file_name().unwrap().to_str().unwrap();
        assert!(CONTRIBUTING.contains(&format!("`{name}/`")), "CONTRIBUTING.md has no line on src/{name}");
    }
}

#[test]
fn the_pages_and_the_locked_packages_are_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let newest = CHANGELOG.lines().find_map(|line| line.strip_prefix("## ").filter(|name| *name != "Unreleased"));
    let date = newest.and_then(|name| name.strip_prefix(version)?.strip_prefix(" - ")).unwrap();
    assert_eq!(date.split('-').map(str::len).collect::<Vec<_>>(), [4, 2, 2], "{date}");
    let compatible = version.rsplit_once('.').unwrap().0;
    assert!(TESTING.contains(&format!("highwater = {{ version = \"{compatible}\"")));
    for package in [".", "benches", "fuzz"] {
        let locked = fs::read_to_string(Path::new(package).join("Cargo.lock")).unwrap();
        assert!(locked.contains(&format!("name = \"highwater\"\nversion = \"{version}\"\n")), "{package}/Cargo.lock");
    }
}

/// The names in the second column of the table that begins with this head.
fn second_cells(page: &str, head: &str) -> BTreeSet<String> {
    let rows = page.lines().skip_while(|line| !line.starts_with(head)).skip(2).take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| row.split('`').find(|part| row.contains(&format!("| `{part}` |"))))
        .map(str::to_owned)
        .collect()
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}
