//! Pressure stall information, `Documentation/accounting/psi.rst`: the share of time in which tasks waited for memory,
//! or for another resource, whose files look alike.
//!
//! ```text
//! some avg10=0.12 avg60=0.05 avg300=0.01 total=1234567
//! full avg10=0.00 avg60=0.00 avg300=0.00 total=234567
//! ```
//!
//! The surprise: without swap, anonymous memory can grow right up to the limit with no stall at all. Pressure is a
//! reason to look, never a reason not to worry.

use crate::readers::number::parse_u64;

/// The content of one file, whatever it is that tasks wait for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Averages {
    /// The percentage of the last ten seconds in which at least one task waited.
    pub(crate) some_avg10: f64,
    /// The same, of all tasks that were not idle at once.
    pub(crate) full_avg10: f64,
    /// Microseconds in which at least one task has waited since the group was made.
    pub(crate) some_total: u64,
}

pub(crate) fn parse(text: &[u8]) -> Result<Averages, &'static str> {
    const WHAT: &str = "it does not say some and full avg10 and total";
    let lines = || text.split(|byte| *byte == b'\n');
    let value = |kind: &[u8], name: &[u8]| {
        let line = lines().find_map(|line| line.strip_prefix(kind))?;
        line.split(|byte| *byte == b' ').find_map(|field| field.strip_prefix(name))
    };
    let parsed = || {
        let some_avg10 = percent(value(b"some ", b"avg10=")?)?;
        // There is no such line on the whole machine for some resources on old kernels.
        let full_avg10 = value(b"full ", b"avg10=").map_or(Some(0.0), percent)?;
        let some_total = parse_u64(value(b"some ", b"total=")?)?;
        Some(Averages { some_avg10, full_avg10, some_total })
    };
    parsed().ok_or(WHAT)
}

/// A percentage with two decimals, at most 100.
fn percent(field: &[u8]) -> Option<f64> {
    let mut parts = field.splitn(2, |byte| *byte == b'.');
    let (whole, hundredths) = (parts.next()?, parts.next()?);
    let hundredths = parse_u64(hundredths).filter(|_| hundredths.len() == 2)?;
    let hundredths = parse_u64(whole)?.checked_mul(100)?.checked_add(hundredths)?;
    (hundredths <= 100 * 100).then(|| hundredths as f64 / 100.0)
}

/// Averages are percentages, and printed as the kernel does they are the same again.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let Ok(averages) = parse(bytes) else { return };
    let Averages { some_avg10, full_avg10, some_total } = averages;
    assert!((0.0..=100.0).contains(&some_avg10) && (0.0..=100.0).contains(&full_avg10));
    let text = format!("some avg10={some_avg10:.2} total={some_total}\nfull avg10={full_avg10:.2} total=0\n");
    assert_eq!(parse(text.as_bytes()), Ok(averages));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Option<(f64, f64, u64)> {
        let Averages { some_avg10, full_avg10, some_total } = parse(text.as_bytes()).ok()?;
        Some((some_avg10, full_avg10, some_total))
    }

    #[test]
    fn averages_are_percents_with_two_decimals() {
        let text =
            "some avg10=12.34 avg60=5.00 avg300=1.00 total=99\nfull avg10=100.00 avg60=0.00 avg300=0.00 total=9\n";
        assert_eq!(parsed(text), Some((12.34, 100.0, 99)));
        assert_eq!(parsed("some avg10=0.05 avg60=0.00 avg300=0.00 total=0\n"), Some((0.05, 0.0, 0)));
    }

    #[test]
    fn anything_else_is_malformed() {
        for text in [
            "",
            "some avg10=12 total=1\n",
            "some avg10=1.2 total=1\n",
            "some avg10=-1.20 total=1\n",
            "some avg10=100.01 total=1\n",
            "some avg10=0.00 avg60=0.00 avg300=0.00\n",
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
            "some avg10=0.00 total=1\nfull avg10=x total=0\n",
        ] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_law_holds(bytes: Vec<u8>, text in "(some|full) avg10=[0-9.]{0,8} total=[0-9]{0,22}\n?") {
            law(&bytes);
            law(text.as_bytes());
        }
    }
}
