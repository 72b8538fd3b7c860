//! `/proc/<pid>/stat`, proc_pid_stat(5): one process on one line of 52 fields, counted from 1.
//!
//! ```text
//! 4242 (a) Z 1 (x) S 4200 4242 4200 34817 4242 4194304 212 0 0 0 3 1 0 0 20 0 1 0 81520 5562368 1152 ...
//! ```
//!
//! The surprise: field 2, the name in brackets, is the process's own choice, blanks, brackets and newlines included.
//! This one calls itself `a) Z 1 (x`; it sleeps, and its parent is 4200. The fields start after the LAST bracket.

#[cfg(any(test, fuzzing))]
use crate::laws::beginnings;
use crate::readers::number::parse_u64;
use crate::vocabulary::Identity;

/// One process, as far as anybody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// The letter for its state. `X`, `x` and `Z` mean an end, and any other a process that lives, also one that no
    /// kernel has had so far: emulators write a `0`.
    pub(crate) state: u8,
    /// 0 when it has none in this pid namespace.
    pub(crate) parent: u32,
    /// `None` when it was reaped between two halves of the reading: the kernel then says -1.
    pub(crate) group: Option<u32>,
    pub(crate) threads: u64,
    /// When it started, in clock ticks since boot; below zero before the boot of the time namespace that this process
    /// is in.
    pub(crate) start_ticks: i64,
    /// 0 for a zombie.
    pub(crate) resident_pages: u64,
    /// The page faults of all its threads, with and without a read from a disk.
    pub(crate) page_faults: u64,
}

impl Process {
    pub(crate) fn identity(&self) -> Identity {
        Identity { pid: self.pid, start_ticks: self.start_ticks }
    }

    /// Returns `true` if it had been reaped by the time its line was written.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.state, b'X' | b'x') || self.group.is_none()
    }

    /// Returns `true` if it has ended and waits to be reaped. The first thread of a process that ends before the others
    /// is in state `Z` as well, and that process lives.
    pub(crate) fn is_zombie(&self) -> bool {
        self.state == b'Z' && self.threads <= 1
    }
}

/// Field 3, the first after the name.
const STATE: usize = 3;

pub(crate) fn parse(bytes: &[u8]) -> Result<Process, &'static str> {
    let name_start = bytes.iter().position(|&byte| byte == b'(').ok_or("it names no program")?;
    let name_end = bytes.iter().rposition(|&byte| byte == b')').ok_or("it names no program")?;
    let pid = bytes.get(..name_start).and_then(|field| pid(field.strip_suffix(b" ")?));
    let fields = bytes.get(name_end + 1..).and_then(|rest| rest.strip_prefix(b" ")).ok_or("it ends after the name")?;

    let mut fields = fields.split(u8::is_ascii_whitespace);
    let mut next_number = STATE;
    let mut field = |number: usize| {
        let field = fields.nth(number - next_number);
        next_number = number + 1;
        field
    };
    let process = Process {
        pid: pid.ok_or("it does not start with a process id")?,
        state: match field(STATE) {
            Some(&[state]) if state.is_ascii_graphic() => state,
            _ => return Err("field 3 is not a state"),
        },
        parent: field(4).and_then(pid_or_zero).ok_or("field 4 is not a parent")?,
        group: match field(5).ok_or("field 5 is not a process group")? {
            b"-1" => None,
            group => Some(pid_or_zero(group).ok_or("field 5 is not a process group")?),
        },
        page_faults: {
            let minor = field(10).and_then(parse_u64).ok_or("field 10 is not a number of page faults")?;
            minor.saturating_add(field(12).and_then(parse_u64).ok_or("field 12 is not a number of page faults")?)
        },
        threads: field(20).and_then(parse_u64).ok_or("field 20 is not a number of threads")?,
        start_ticks: field(22).and_then(parse_u64).map(signed_ticks).ok_or("field 22 is not a start time")?,
        resident_pages: field(24).and_then(parse_u64).ok_or("field 24 is not a number of pages")?,
    };
    // A number that nothing follows may be half a number.
    field(25).map(|_| process).ok_or("it ends within field 24")
}

/// Returns `true` if the line is that of a process whose first thread has ended or is about to: field 9, its flags, has
/// `PF_EXITING` (`include/linux/sched.h`), which is set before anything of it is taken down.
pub(crate) fn is_ending(bytes: &[u8]) -> bool {
    const EXITING: u64 = 4;
    let fields = bytes.rsplit(|byte| *byte == b')').next().unwrap_or_default();
    let flags = fields.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty()).nth(9 - STATE);
    flags.and_then(parse_u64).is_some_and(|flags| flags & EXITING != 0)
}

/// The signal that a process is stopped by: field 52, which has it while the state is `T` (Linux 5.18). `None` also where this
/// process may not know it, as of a process of another user.
pub(crate) fn stopped_by(bytes: &[u8]) -> Option<i32> {
    let fields = bytes.rsplit(|byte| *byte == b')').next().unwrap_or_default();
    let mut fields = fields.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    if fields.next()? != b"T" {
        return None;
    }
    let signal = fields.nth(52 - STATE - 1).and_then(parse_u64).filter(|&signal| signal > 0)?;
    i32::try_from(signal).ok()
}

/// The start time in ticks of a process that may have started before boot, in a time namespace that is set back.
///
/// The kernel adds the offset in unsigned nanoseconds, which wrap, and divides by those of a tick afterwards: a tick
/// before boot it prints 1844674407370 (2^64 / 10^7). No machine is up for the 292 years to the middle of the range.
fn signed_ticks(printed: u64) -> i64 {
    const TICKS: u64 = u64::MAX / 10_000_000;
    match i64::try_from(printed) {
        Ok(ticks) if printed > TICKS / 2 && printed <= TICKS => ticks - TICKS as i64 - 1,
        Ok(ticks) => ticks,
        // Beyond what is printed of wrapped nanoseconds: wrapped ticks.
        Err(_) => printed as i64,
    }
}

/// A process id as the kernel writes it, which is without leading zeros; there is no process 0.
pub(crate) fn pid(field: &[u8]) -> Option<u32> {
    match field.first() {
        Some(b'1'..=b'9') => pid_or_zero(field),
        _ => None,
    }
}

fn pid_or_zero(field: &[u8]) -> Option<u32> {
    parse_u64(field)?.try_into().ok()
}

/// A process is what stands behind the last bracket, whatever its name; a part of a line is malformed or says the same.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let _ = (is_ending(bytes), pid(bytes));
    assert!(stopped_by(bytes).map_or(true, |signal| signal > 0));
    let Ok(process) = parse(bytes) else { return };
    let [Some(start), Some(end)] =
        [bytes.iter().position(|byte| *byte == b'('), bytes.iter().rposition(|byte| *byte == b')')]
    else {
        panic!("{process:?} has no name")
    };
    let renamed = [&bytes[..=start], b") Z 1 (x\n", &bytes[end..]].concat();
    assert_eq!(parse(&renamed), Ok(process));
    assert!(!process.is_zombie() || !matches!(process.state, b'X' | b'x'));
    let fields: Vec<_> = bytes[end + 2..].split(u8::is_ascii_whitespace).map(String::from_utf8_lossy).collect();
    let number = |field: usize| fields[field - STATE].parse::<u64>().ok();
    assert_eq!(*fields[0], char::from(process.state).to_string());
    assert_eq!((number(4), number(5)), (Some(process.parent.into()), process.group.map(u64::from)));
    assert_eq!((number(20), number(24)), (Some(process.threads), Some(process.resident_pages)));
    // Longer than any program can have, so that a part of the name could be all of a line.
    if end - start <= 16 {
        assert!(beginnings(bytes).filter_map(|part| parse(part).ok()).all(|part| part == process));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::readers::fixture::process;

    const SLEEPING: &str =
        "4242 (sleep) S 4200 4242 4200 34817 4242 4194304 212 0 0 0 3 1 0 0 20 0 1 0 81520 5562368 1152 \
                            18446744073709551615 0 0\n";

    fn parsed(text: impl AsRef<[u8]>) -> Process {
        parse(text.as_ref()).unwrap()
    }

    #[test]
    fn the_fields_are_those_of_the_man_page() {
        let expected = Process {
            pid: 4242,
            state: b'S',
            parent: 4200,
            group: Some(4242),
            threads: 1,
            start_ticks: 81520,
            resident_pages: 1152,
            page_faults: 212,
        };
        assert_eq!(parsed(SLEEPING), expected);
    }

    #[test]
    fn the_signal_that_has_stopped_a_process_is_told_while_it_is_stopped() {
        let line = |state: &str, last: &str| format!("7 (a) T 9) {state}{} {last}\n", " 1".repeat(48));
        assert_eq!(line("T", "21").rsplit(')').next().unwrap().split_whitespace().count(), 52 - 2);
        assert_eq!(stopped_by(line("T", "21").as_bytes()), Some(21));
        for text in [
            line("T", "0"),
            line("T", "x"),
            line("T", "18446744073709551615"),
            line("S", "21"),
            line("t", "5"),
            String::new(),
        ] {
            assert_eq!(stopped_by(text.as_bytes()), None, "{text}");
        }
        assert_eq!(stopped_by(b"7 (a) T 1 1"), None);
    }

    #[test]
    fn a_program_may_call_itself_anything() {
        for name in [") Z 1 (x", "a b", "\n", ")\n) X 1 1 1", "(", ")", "", "((", "4243 (x) Z 1", "\u{fffd}"] {
            assert_eq!(parsed(SLEEPING.replace("sleep", name)), parsed(SLEEPING), "{name:?}");
        }
        let mut bytes = SLEEPING.as_bytes().to_vec();
        bytes[6..11].copy_from_slice(b"\xff\x00\x80) ");
        assert_eq!(parsed(bytes), parsed(SLEEPING));
    }

    #[test]
    fn a_line_cut_short_anywhere_is_malformed_or_says_the_same() {
        for length in 0..SLEEPING.len() {
            match parse(&SLEEPING.as_bytes()[..length]) {
                Ok(process) => assert_eq!(process, parsed(SLEEPING)),
                Err(_) => assert!(length < SLEEPING.find(" 184467").unwrap() + 1),
            }
        }
    }

    #[test]
    fn a_field_of_the_wrong_kind_is_malformed() {
        let cases = [
            ("4242 (", "0 ("),
            ("4242 (", "04242 ("),
            ("4242 (", "4294967296 ("),
            ("4242 (", "("),
            (" S ", " SS "),
            (" S ", " "),
            (" 4200 4242 ", " -4200 4242 "),
            (" 4200 4242 ", " 4200 -2 "),
            (" 4200 4242 ", " 4200 +4242 "),
            (" 81520 ", " 99999999999999999999 "),
            (" 1152 ", " 0x10 "),
        ];
        for (from, to) in cases {
            assert!(parse(SLEEPING.replacen(from, to, 1).as_bytes()).is_err(), "{from:?} / {to:?}");
        }
    }

    #[test]
    fn a_leader_that_ended_before_its_threads_is_no_zombie() {
        let zombie = parsed(process(7, 1).state('Z').line());
        let leader = parsed(process(7, 1).state('Z').threads(2).line());
        assert_eq!((zombie.is_zombie(), leader.is_zombie()), (true, false));
        assert!(!zombie.is_gone() && !leader.is_gone());
    }

    #[test]
    fn a_thread_that_ends_says_so_in_its_flags() {
        assert!(!is_ending(SLEEPING.as_bytes()) && !is_ending(b"") && !is_ending(b"4242 (sleep) S 1 2 3"));
        assert!(is_ending(SLEEPING.replace(" 4194304 ", " 4227084 ").as_bytes()));
        assert!(is_ending(SLEEPING.replace(" 4194304 ", " 4 ").replace("sleep", ") S (0 ").as_bytes()));
    }

    #[test]
    fn a_process_reaped_during_the_reading_is_gone() {
        assert!(parsed(process(7, 1).state('X').line()).is_gone());
        assert!(parsed(process(7, 1).state('x').line()).is_gone());
        assert!(parsed(SLEEPING.replace(" 4200 4242 ", " 0 -1 ")).is_gone());
        assert!(!parsed(SLEEPING).is_gone());
    }

    #[test]
    fn a_state_that_nobody_knows_is_alive() {
        for state in ['0', '?', 'z', 'K', '~'] {
            let process = parsed(process(7, 1).state(state).line());
            assert!(!process.is_gone() && !process.is_zombie(), "{state:?}");
        }
        // All that an emulator says of the process in it.
        let emulated = format!("4242 (qemu) 0 4200 {}\n", "0 ".repeat(40));
        let process = parsed(emulated);
        assert_eq!((process.parent, process.start_ticks), (4200, 0));
        assert!(!process.is_gone() && !process.is_zombie());
    }

    #[test]
    fn times_before_boot_are_in_order_with_those_after_it() {
        let in_order = ["1844674257385", "1844674407369", "1844674407370", "0", "1", "81520", "900000000000"];
        let ticks = in_order.map(|printed| parsed(SLEEPING.replace(" 81520 ", &format!(" {printed} "))).start_ticks);
        assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]), "{ticks:?}");
        assert_eq!(ticks[2..5], [-1, 0, 1]);
        let wrapped = parsed(SLEEPING.replace(" 81520 ", " 18446744073709551615 "));
        assert_eq!(wrapped.start_ticks, -1);
    }

    proptest! {
        #[test]
        fn the_law_holds(bytes: Vec<u8>, text in "[0-9]{1,5} \\([a-z )(\n]{0,16}\\)[0-9A-Z -]{0,90}") {
            law(&bytes);
            law(text.as_bytes());
        }

        #[test]
        fn no_name_changes_what_is_read(name in prop::collection::vec(any::<u8>(), 0..=64)) {
            let (before, after) = SLEEPING.split_once("sleep").unwrap();
            prop_assert_eq!(parsed([before.as_bytes(), &name, after.as_bytes()].concat()), parsed(SLEEPING));
        }
    }
}
