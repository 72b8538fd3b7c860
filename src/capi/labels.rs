//! The labels of work from C, which are kept for the life of the process.
//!
//! Rust has a label as a `&'static str`: permits, verdicts and the log name it long after the call that brought it. From
//! C comes a pointer that may be gone by then. So each text is copied once, into a list that only grows: it is walked
//! without a lock, also in a child forked while another thread adds to it, and it is added to by one exchange at its
//! head. A label that is in the list costs its walk, a comparison for each. Labels are meant to be few; the list ends
//! at [`MOST`], so that a program that makes up a label for each request does not grow without bound.

use std::borrow::Cow;
use std::iter::successors;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The largest number of bytes in a label: what `HW_LABEL_SIZE` leaves beside the NUL.
pub(super) const LONGEST: usize = 63;
/// The largest number of labels.
const MOST: usize = 256;
/// The label in place of those for which there is no room.
const OTHERS: &str = "others";

/// The labels of this process.
pub(super) static LABELS: Labels = Labels::new();

/// The names of gauges in this process, which a program that makes up labels does not use up.
pub(super) static GAUGE_NAMES: Labels = Labels::new();

/// A list of labels.
pub(super) struct Labels {
    newest: AtomicPtr<Label>,
}

struct Label {
    text: Box<str>,
    older: Option<&'static Label>,
    /// The number of labels that are older.
    place: usize,
}

impl Labels {
    const fn new() -> Labels {
        Labels { newest: AtomicPtr::new(null_mut()) }
    }

    /// The text as a label. A long one is cut off, bytes that are no UTF-8 are replaced, and an empty text is no label.
    pub(super) fn label(&self, text: &[u8]) -> Option<&'static str> {
        let label = shortened(text);
        if label.is_empty() {
            return None;
        }
        Some(self.kept(&label))
    }

    /// The copy of this text that is kept.
    fn kept(&self, text: &str) -> &'static str {
        loop {
            // Acquire: what is found was written before it was published.
            let head = self.newest.load(Ordering::Acquire);
            // SAFETY: NULL, or a label that was published, and those are never freed or changed.
            let newest: Option<&'static Label> = unsafe { head.as_ref() };
            let mut all = successors(newest, |label| label.older);
            if let Some(known) = all.find(|label| *label.text == *text) {
                return &known.text;
            }
            let place = newest.map_or(0, |newest| newest.place + 1);
            if place == MOST {
                return OTHERS;
            }
            let new = Box::into_raw(Box::new(Label { text: text.into(), older: newest, place }));
            // Release: see above. The list has grown if this fails, perhaps by this very text.
            match self.newest.compare_exchange(head, new, Ordering::Release, Ordering::Relaxed) {
                // SAFETY: it is published now, and so never freed or changed.
                Ok(_) => return unsafe { &(*new).text },
                // SAFETY: it was made above, and nobody else has seen it.
                Err(_) => drop(unsafe { Box::from_raw(new) }),
            }
        }
    }
}

/// At most [`LONGEST`] bytes of the text, and whole characters.
pub(super) fn shortened(text: &[u8]) -> Cow<'_, str> {
    let mut length = text.len().min(LONGEST);
    let is_inside_a_character = |byte: Option<&u8>| byte.is_some_and(|byte| byte & 0xC0 == 0x80);
    if is_inside_a_character(text.get(length)) {
        // A character has at most four bytes; more of this kind are no text.
        length -= (1..4).find(|back| !is_inside_a_character(text.get(length - back))).unwrap_or(0);
    }
    let mut shown = String::from_utf8_lossy(&text[..length]);
    // A replaced byte takes three.
    if shown.len() > LONGEST {
        let mut room = LONGEST;
        while !shown.is_char_boundary(room) {
            room -= 1;
        }
        shown.to_mut().truncate(room);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_copied_once_and_outlives_its_text() {
        static LIST: Labels = Labels::new();
        let mut text = *b"import";
        let label = LIST.label(&text).unwrap();
        let again = LIST.label(&text).unwrap();
        text.fill(b'x');
        assert_eq!((label, label.as_ptr()), ("import", again.as_ptr()));
        assert_eq!(LIST.label(&text), Some("xxxxxx"));
        assert_eq!(LIST.label(b""), None);
    }

    #[test]
    fn a_long_label_is_cut_off_between_characters_and_bytes_that_are_no_text_are_replaced() {
        let long = "x".repeat(62) + "é";
        let wide = "é".repeat(40);
        let cases: [(&[u8], &str); 6] = [
            (long.as_bytes(), &long[..62]),
            (&long.as_bytes()[..63], &long[..62]),
            (wide.as_bytes(), &wide[..62]),
            (b"caf\xe9", "caf\u{fffd}"),
            (&[0xff; 100], &"\u{fffd}".repeat(21)),
            (&[0x80; 100], &"\u{fffd}".repeat(21)),
        ];
        for (text, expected) in cases {
            assert_eq!(shortened(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_label_too_many_is_among_the_others() {
        static LIST: Labels = Labels::new();
        let text = |number: usize| format!("label {number}");
        for number in 0..MOST {
            assert_eq!(LIST.label(text(number).as_bytes()), Some(&*text(number)));
        }
        assert_eq!(LIST.label(text(MOST).as_bytes()), Some(OTHERS));
        assert_eq!(LIST.label(text(7).as_bytes()), Some("label 7"));
    }

    #[test]
    fn threads_that_bring_the_same_label_at_once_get_the_same_copy() {
        static LIST: Labels = Labels::new();
        let bring_all = || {
            let label = |number: usize| LIST.label(format!("label {number}").as_bytes()).unwrap();
            let brought = if cfg!(miri) { 16 } else { MOST };
            (0..brought).map(|number| label(number).as_ptr() as usize).collect::<Vec<_>>()
        };
        let copies: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(bring_all)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(copies.iter().all(|copy| *copy == copies[0]));
    }
}
