//! What holds of every parser, whatever bytes it is given. A law stands beside its parser, and panics where it is broken.
//!
//! The fuzzers in `fuzz` look for bytes that break one. Tests, and Miri, try those of their corpora.

/// The name of a law, which is that of its corpus, and the law.
pub type Law = (&'static str, fn(&[u8]));

/// Every law.
pub fn all() -> Vec<Law> {
    let layers: &[&[Law]] = &[
        &crate::sys::LAWS,
        &crate::judgement::LAWS,
        &crate::readers::LAWS,
        &crate::readers::procfs::LAWS,
        &crate::readers::cgroup::LAWS,
        &crate::jobserver::LAWS,
        &crate::jobs::LAWS,
        #[cfg(feature = "capi")]
        &crate::capi::LAWS,
    ];
    layers.concat()
}

/// Beginnings of some bytes, of every length where these are few.
pub(crate) fn beginnings(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    const MOST: usize = 128;
    (0..bytes.len()).step_by(bytes.len() / MOST + 1).filter_map(|length| bytes.get(..length))
}

/// The same bytes behind a line of its own.
pub(crate) fn after_a_line(line: &str, bytes: &[u8]) -> Vec<u8> {
    [line.as_bytes(), b"\n", bytes].concat()
}

/// A number that the bytes begin with, and the bytes after it.
pub(crate) fn number_first(bytes: &[u8]) -> (u64, &[u8]) {
    let (first, rest) = bytes.split_at(bytes.len().min(8));
    (first.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)), rest)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn entries(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// The name is also that of a step of CI, which looks for laws of the C interface.
    #[test]
    fn every_law_holds_of_its_corpus_that_of_capi_too() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        if !corpora.exists() {
            println!("skipped: there are no corpora, as in what was packaged");
            return;
        }
        for (name, law) in all() {
            // Of Miri those of memory that is a caller's or the kernel's, where no monitor is made: it stands for no kernel.
            let of_memory = ["entries", "hw_work", "hw_job_options", "hw_holders", "hw_label", "hw_text"];
            if cfg!(miri) && !of_memory.contains(&name) {
                continue;
            }
            let inputs = entries(&corpora.join(name));
            assert!(!inputs.is_empty(), "{name} has no corpus");
            for input in inputs {
                println!("{}", input.display());
                law(&fs::read(input).unwrap());
            }
        }
        let of_laws: BTreeSet<_> = all().into_iter().map(|(name, _)| corpora.join(name)).collect();
        let others: Vec<_> = entries(&corpora).into_iter().filter(|corpus| !of_laws.contains(corpus)).collect();
        let is_of_capi = |corpus: &PathBuf| corpus.file_name().unwrap().to_str().unwrap().starts_with("hw_");
        assert!(others.iter().all(|corpus| is_of_capi(corpus) && cfg!(not(feature = "capi"))), "no law: {others:?}");
    }

    #[test]
    fn beginnings_are_shorter_and_not_too_many() {
        assert_eq!(beginnings(b"abc").collect::<Vec<_>>(), [&b""[..], b"a", b"ab"]);
        assert!(beginnings(b"").next().is_none() && beginnings(&[0; 100_000]).count() <= 128);
    }
}
