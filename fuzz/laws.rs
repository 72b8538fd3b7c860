//! Looks for bytes that break a law of a parser: the one that `HIGHWATER_LAW` names. `.ci/fuzz` builds and runs it.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static LAW: OnceLock<fn(&[u8])> = OnceLock::new();

fn named() -> fn(&[u8]) {
    let name = std::env::var("HIGHWATER_LAW").unwrap_or_default();
    let laws = highwater::laws::all();
    let names: Vec<_> = laws.iter().map(|(name, _)| *name).collect();
    match laws.iter().find(|law| law.0 == name) {
        Some((_, law)) => *law,
        None => panic!("HIGHWATER_LAW={name} is none of {}", names.join(" ")),
    }
}

fuzz_target!(|bytes: &[u8]| LAW.get_or_init(named)(bytes));
