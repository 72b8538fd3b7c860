//! The environment in which clients find a jobserver.
//!
//! ```text
//! MAKEFLAGS=" -j4 --jobserver-auth=7,10"
//! MAKEFLAGS="k -j4 --jobserver-auth=fifo:/tmp/GMfifo42 -- CFLAGS=-O2\ -g"
//! ```
//!
//! Words end at blanks that no backslash stands before; after `--` there are variables alone. The first word, if it begins
//! with neither a dash nor a blank and has no `=`, is a bundle of single letters: an `n` in it means that nothing is run (GNU
//! make manual, "Options/Recursion", "Job Slots").
//!
//! The surprise: the last `--jobserver-auth` wins, and make 4.3 ends at once of one that names a fifo, although `ninja` takes
//! nothing else. Options may be abbreviated (getopt_long(3)), which make reads and the others do not. So a fifo has two
//! faces: its path for all that know it, and `--jobserver-aut=R,W` after it for make of any age.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The variable that make and what it starts read.
pub(super) const MAKEFLAGS: &str = "MAKEFLAGS";

/// The one that cargo and what it starts read first.
pub(super) const CARGO_MAKEFLAGS: &str = "CARGO_MAKEFLAGS";

/// The address of a channel: the descriptor to take tokens from, the one to give them back to, and the fifo if it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address<'a> {
    pub(super) reader: RawFd,
    pub(super) writer: RawFd,
    pub(super) fifo: Option<&'a Path>,
}

impl Address<'_> {
    /// Options that name it, for so many slots, put into those that there are in place of any other jobserver.
    pub(super) fn makeflags(&self, existing: &OsStr, slots: usize) -> OsString {
        let Address { reader, writer, fifo } = self;
        let (bundle, options, variables) = parts(existing.as_bytes());
        let mut flags = bundle.to_vec();
        for option in options.filter(|option| !is_about_jobs(option)) {
            flags.push(b' ');
            flags.extend(option);
        }
        flags.extend(format!(" -j{slots}").as_bytes());
        match fifo {
            Some(path) => {
                flags.extend(b" --jobserver-auth=fifo:");
                flags.extend(path.as_os_str().as_bytes());
                flags.extend(format!(" --jobserver-aut={reader},{writer}").as_bytes());
            }
            None => flags.extend(format!(" --jobserver-auth={reader},{writer}").as_bytes()),
        }
        flags.extend(variables);
        OsString::from_vec(flags)
    }

    /// As cargo itself tells its build scripts.
    pub(super) fn cargo_makeflags(&self) -> OsString {
        let Address { reader, writer, fifo } = self;
        let mut flags = OsString::from(format!("-j --jobserver-fds={reader},{writer} --jobserver-auth="));
        match fifo {
            Some(path) => {
                flags.push("fifo:");
                flags.push(path);
            }
            None => flags.push(format!("{reader},{writer}")),
        }
        flags
    }
}

/// A jobserver that the environment names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    Pipes {
        reader: RawFd,
        writer: RawFd,
    },
    Fifo(PathBuf),
    /// By a word that is none of both.
    Unknown,
}

/// The jobserver that these options name; the last one counts.
pub(super) fn named_in(makeflags: &OsStr) -> Option<Named> {
    let (_, options, _) = parts(makeflags.as_bytes());
    let address = |option: &[u8]| {
        let names: [&[u8]; 2] = [b"--jobserver-auth=", b"--jobserver-fds="];
        names.iter().find_map(|name| Some(option.strip_prefix(*name)?.to_vec()))
    };
    let address = options.filter_map(address).last()?;
    if let Some(path) = address.strip_prefix(b"fifo:") {
        return Some(Named::Fifo(Path::new(OsStr::from_bytes(path)).to_path_buf()));
    }
    let numbers = std::str::from_utf8(&address).ok().and_then(|text| text.split_once(','));
    let numbers = numbers.and_then(|(reader, writer)| Some((reader.parse().ok()?, writer.parse().ok()?)));
    Some(match numbers {
        Some((reader, writer)) => Named::Pipes { reader, writer },
        None => Named::Unknown,
    })
}

/// The bundle of letters, the options, and the variables with the dashes before them.
fn parts(flags: &[u8]) -> (&[u8], impl Iterator<Item = &[u8]>, Vec<u8>) {
    // A backslash with nothing behind it would take the blank before whatever is put there.
    let dangling = flags.iter().rev().take_while(|byte| **byte == b'\\').count() % 2;
    let flags = &flags[..flags.len() - dangling];
    let mut words = words(flags);
    let is_bundle = |word: &&[u8]| flags.starts_with(word) && !word.starts_with(b"-") && !word.contains(&b'=');
    let bundle = if words.first().is_some_and(is_bundle) { words.remove(0) } else { &[] };
    let end = words.iter().position(|word| *word == b"--").unwrap_or(words.len());
    let variables = words.split_off(end).into_iter().flat_map(|word| [b" ", word].concat()).collect();
    (bundle, words.into_iter(), variables)
}

fn words(flags: &[u8]) -> Vec<&[u8]> {
    let mut is_escaped = false;
    let words = flags.split(|byte| {
        let is_end = *byte == b' ' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        is_end
    });
    words.filter(|word| !word.is_empty()).collect()
}

/// Whether an option says how many jobs run at once, or where their tokens are.
fn is_about_jobs(option: &[u8]) -> bool {
    let is_number = |rest: &[u8]| rest.iter().all(u8::is_ascii_digit);
    option.strip_prefix(b"-j").is_some_and(is_number)
        || option == b"--jobs"
        || option.starts_with(b"--jobs=")
        || option.starts_with(b"--jobserver")
}

/// Whatever the flags are: the jobserver that is named in them is the own one and no other, what they say beside stays, and
/// to name it once more changes nothing.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let existing = OsStr::from_bytes(bytes);
    let _ = named_in(existing);
    for fifo in [None, Some(Path::new("/tmp/highwater-7-1"))] {
        let address = Address { reader: 7, writer: 10, fifo };
        let own = fifo.map_or(Named::Pipes { reader: 7, writer: 10 }, |path| Named::Fifo(path.to_owned()));
        assert_eq!(named_in(&address.cargo_makeflags()), Some(own.clone()));
        let flags = address.makeflags(existing, 4);
        assert_eq!(named_in(&flags), Some(own), "{flags:?}");
        let (bundle, options, variables) = parts(bytes);
        let others: Vec<_> = options.filter(|option| !is_about_jobs(option)).collect();
        let (new_bundle, new_options, new_variables) = parts(flags.as_bytes());
        let new: Vec<_> = new_options.collect();
        assert_eq!((new_bundle, &new_variables), (bundle, &variables), "{flags:?}");
        assert_eq!(new.split_at(others.len()).0, others, "{flags:?}");
        assert_eq!(new.len() - others.len(), if fifo.is_some() { 3 } else { 2 }, "{flags:?}");
        assert_eq!(address.makeflags(&flags, 4), flags);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPES: Address<'static> = Address { reader: 7, writer: 10, fifo: None };

    #[test]
    fn what_the_flags_say_beside_is_kept_and_another_jobserver_is_not() {
        for (existing, flags) in [
            ("", " -j4 --jobserver-auth=7,10"),
            ("kw", "kw -j4 --jobserver-auth=7,10"),
            (" -j", " -j4 --jobserver-auth=7,10"),
            ("-j2 -k", " -k -j4 --jobserver-auth=7,10"),
            ("w -j8 --jobserver-auth=3,4 --no-print-directory", "w --no-print-directory -j4 --jobserver-auth=7,10"),
            (" --jobserver-fds=3,4 --jobs=3 -l2", " -l2 -j4 --jobserver-auth=7,10"),
            ("V=1", " V=1 -j4 --jobserver-auth=7,10"),
            ("k\\", "k -j4 --jobserver-auth=7,10"),
            ("k -O\\\\", "k -O\\\\ -j4 --jobserver-auth=7,10"),
            ("k -- A=b\\ c\\ --\\ -j D=e", "k -j4 --jobserver-auth=7,10 -- A=b\\ c\\ --\\ -j D=e"),
        ] {
            assert_eq!(PIPES.makeflags(OsStr::new(existing), 4), flags, "{existing:?}");
        }
    }

    #[test]
    fn a_fifo_has_a_face_for_make_of_any_age() {
        let fifo = Address { fifo: Some(Path::new("/tmp/f")), ..PIPES };
        let flags = fifo.makeflags(OsStr::new(""), 4);
        assert_eq!(flags, " -j4 --jobserver-auth=fifo:/tmp/f --jobserver-aut=7,10");
        assert_eq!(named_in(&flags), Some(Named::Fifo("/tmp/f".into())));
        assert_eq!(fifo.cargo_makeflags(), "-j --jobserver-fds=7,10 --jobserver-auth=fifo:/tmp/f");
        assert_eq!(PIPES.cargo_makeflags(), "-j --jobserver-fds=7,10 --jobserver-auth=7,10");
    }

    #[test]
    fn the_last_jobserver_that_is_named_counts() {
        for (flags, named) in [
            ("", None),
            (" -j4", None),
            ("k -- X=--jobserver-auth=1,2", None),
            (" -j4 --jobserver-auth=fifo:/a --jobserver-fds=3,4", Some(Named::Pipes { reader: 3, writer: 4 })),
            (" --jobserver-auth=3,4 --jobserver-auth=fifo:/a", Some(Named::Fifo("/a".into()))),
            (" --jobserver-auth=3,4,5", Some(Named::Unknown)),
            (" --jobserver-auth=", Some(Named::Unknown)),
        ] {
            assert_eq!(named_in(OsStr::new(flags)), named, "{flags:?}");
        }
    }
}
