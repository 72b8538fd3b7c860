//! The layers of `src`: what each may import, and where `unsafe` code may stand. Code of tests may import anything.
#![allow(clippy::unwrap_used)]

#[path = "common/source.rs"]
mod source;

use std::fs;
use std::path::Path;

/// From below to above: a folder of `src`, and the folders that it imports from. A new arrow is a decision, made here.
const LAYERS: [(&str, &[&str]); 13] = [
    ("vocabulary", &[]),
    ("sys", &[]),
    ("judgement", &["vocabulary"]),
    ("readers", &["vocabulary", "sys"]),
    ("host", &["vocabulary", "sys", "judgement"]),
    ("engine", &["vocabulary", "sys", "judgement", "readers", "host"]),
    ("pgroup", &["vocabulary", "sys", "readers", "host"]),
    ("jobserver", &["vocabulary", "sys", "host", "engine"]),
    ("jobs", &["vocabulary", "sys", "readers", "host", "engine", "pgroup", "jobserver"]),
    ("ledger", &["vocabulary", "sys", "judgement", "engine"]),
    ("monitor", &["vocabulary", "sys", "readers", "host", "engine", "jobserver", "jobs", "ledger"]),
    ("capi", &["vocabulary", "sys", "host", "jobs", "ledger", "monitor"]),
    ("testing", &["vocabulary", "sys", "readers", "engine", "monitor"]),
];

/// The layers with `unsafe` code and calls of libc. The constants of libc are everybody's.
const UNSAFE: [&str; 2] = ["sys", "capi"];

#[test]
fn a_layer_imports_only_from_those_below_it() {
    let mut faults = Vec::new();
    for (number, (layer, imports)) in LAYERS.iter().enumerate() {
        let below: Vec<&str> = LAYERS[..number].iter().map(|(name, _)| *name).collect();
        assert!(imports.iter().all(|name| below.contains(name)), "{layer} would import from above: {imports:?}");
        for line in source::code_in(&Path::new("src").join(layer)) {
            // `crate::{..}`, `crate::Resource` and enough `super::` reach every layer and name none: faults as well.
            let is_fault = |name: &&str| name != layer && !imports.contains(name);
            let named = words_after("crate::", &line.text).filter(is_fault);
            for name in named.chain(line.text.contains(&root_from(&line.file)).then_some("super::")) {
                faults.push(format!("{}:{}: {layer} imports {name:?}", line.file.display(), line.number));
            }
        }
    }
    assert!(faults.is_empty(), "not what tests/layers.rs allows:\n{}", faults.join("\n"));
}

#[test]
fn only_sys_and_capi_are_unsafe_and_call_libc() {
    let mut faults = Vec::new();
    for (layer, _) in LAYERS.iter().filter(|(layer, _)| !UNSAFE.contains(layer)) {
        for line in source::code_in(&Path::new("src").join(layer)) {
            let calls_libc = words_after("libc::", &line.text).any(|name| !name.starts_with(char::is_uppercase));
            if calls_libc || line.text.split(|c| !is_of_word(c)).any(|word| word == "unsafe") {
                faults.push(format!("{}:{}: {}", line.file.display(), line.number, line.text.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "unsafe code or a call of libc:\n{}", faults.join("\n"));
}

#[test]
fn every_folder_is_a_layer_or_the_guide() {
    let folders = fs::read_dir("src").unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.path().is_dir());
    let mut folders: Vec<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    folders.retain(|name| name != "guide");
    folders.sort();
    let mut layers = LAYERS.map(|(layer, _)| layer);
    layers.sort_unstable();
    assert_eq!(folders, layers);
}

/// The crate's root, as code in this file can say it.
fn root_from(file: &Path) -> String {
    "super::".repeat(file.with_extension("").iter().filter(|part| *part != "mod").count() - 1)
}

fn words_after<'a>(path: &'a str, text: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(path).skip(1).map(|rest| rest.split(|c| !is_of_word(c)).next().unwrap())
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
