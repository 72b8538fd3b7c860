//! A text that is held until it is handed over: in memory, and what is beyond that in a file without a name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::mem;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, process};

/// The most that is held in memory.
const IN_MEMORY: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Held {
    memory: Vec<u8>,
    beyond: Option<File>,
    beyond_length: u64,
}

impl Held {
    /// Holds more. After an error, nothing of it is held.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.beyond.is_none() && self.memory.len() + bytes.len() <= IN_MEMORY {
            self.memory.extend_from_slice(bytes);
            return Ok(());
        }
        let file = match self.beyond.take() {
            Some(file) => file,
            None => file_without_name()?,
        };
        let written = file.write_all_at(bytes, self.beyond_length);
        self.beyond = Some(file);
        written?;
        self.beyond_length += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.beyond_length == 0
    }

    /// Calls `print` with all that is held, and holds nothing any more. If there is nothing, it is not called.
    pub(super) fn hand_over(&mut self, print: impl FnOnce(&mut dyn Read)) {
        if self.is_empty() {
            return;
        }
        let Held { memory, beyond, beyond_length } = mem::take(self);
        match beyond {
            None => print(&mut memory.as_slice()),
            Some(file) => print(&mut memory.chain(FromStart { file, at: 0 }.take(beyond_length))),
        }
    }
}

/// A file, read from its start wherever it was written last.
struct FromStart {
    file: File,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(into, self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

/// A file that nobody can open, and that is gone once it is closed.
fn file_without_name() -> io::Result<File> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let folder = env::temp_dir();
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options.clone().custom_flags(libc::O_TMPFILE).open(&folder).or_else(|_| {
        // Not every file system knows files without a name (open(2)).
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("highwater-{}-{number}", process::id()));
        let file = options.create_new(true).open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed_over(held: &mut Held) -> Vec<u8> {
        let mut text = Vec::new();
        held.hand_over(|read| assert!(read.read_to_end(&mut text).is_ok()));
        text
    }

    #[test]
    fn what_is_held_comes_back_in_its_order_and_once() {
        let mut held = Held::default();
        for length in [0, 1, IN_MEMORY - 1, IN_MEMORY, IN_MEMORY + 1, 5 * IN_MEMORY] {
            let text: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            text.chunks(1000).for_each(|chunk| held.push(chunk).unwrap());
            assert_eq!(held.is_empty(), length == 0);
            assert_eq!(handed_over(&mut held), text, "{length} bytes");
            assert!(held.is_empty());
        }
    }

    #[test]
    fn a_push_that_fails_leaves_what_was_held() {
        let mut held = Held::default();
        held.push(&[b'a'; IN_MEMORY]).unwrap();
        held.push(b"b").unwrap();
        // As if the disk were full.
        held.beyond = Some(File::open("/dev/null").unwrap());
        assert!(held.push(b"c").is_err());
        assert_eq!(held.beyond_length, 1);
    }
}
