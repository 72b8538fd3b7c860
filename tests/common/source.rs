//! The library's own source text, for tests of what it may hold.

use std::fs;
use std::path::{Path, PathBuf};

/// One line of code: where it stands, and its text without comments.
pub(crate) struct Line {
    pub(crate) file: PathBuf,
    pub(crate) number: usize,
    pub(crate) text: String,
}

/// The code in a folder of `src`, without that of tests.
pub(crate) fn code_in(folder: &Path) -> Vec<Line> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let mut lines = Vec::new();
    for path in entries {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "tests" {
            lines.extend(code_in(&path));
        } else if name.ends_with(".rs") && !["tests.rs", "fixture.rs", "laws.rs"].contains(&name) {
            lines.extend(code_of(&path));
        }
    }
    lines
}

fn code_of(file: &Path) -> Vec<Line> {
    let source = fs::read_to_string(file).unwrap();
    let mut lines = Vec::new();
    // The indentation of an item that is only there in tests. rustfmt ends the item's last line at the same one.
    let mut in_tests = None;
    for (number, line) in source.lines().enumerate() {
        let text = line.split("//").next().unwrap();
        let indentation = text.len() - text.trim_start().len();
        if ["#[cfg(test)]", "#[cfg(any(test, fuzzing))]"].contains(&text.trim()) {
            in_tests = Some(indentation);
        } else if in_tests.is_none() {
            lines.push(Line { file: file.to_owned(), number: number + 1, text: text.to_owned() });
        } else if in_tests == Some(indentation) && text.trim_end().ends_with(['}', ';']) {
            in_tests = None;
        }
    }
    lines
}
