//! Numbers as texts show them: rounded down, so that what is below a threshold never prints as if it had reached it.

use std::fmt;

use super::{Resource, Unit, MB};

const KB: u64 = 1024;

/// An amount of a resource, with its unit: `12.3 MB`, below one MB `12.3 KB` or `12 bytes`; `50`; `12.34 %`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown(pub(crate) Resource, pub(crate) u64);

/// An amount that is left of a resource: rounded up, so that more than a floor never prints as if it had gone down to
/// it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShownUp(pub(crate) Resource, pub(crate) u64);

/// The share that a usage is of a limit, in percent with one decimal, not clamped: `83.3 %`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShownShare {
    pub(crate) usage: u128,
    pub(crate) limit: u64,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown(resource, amount) = *self;
        write_amount(f, resource, amount, |amount, unit| u128::from(amount) * 10 / u128::from(unit))
    }
}

impl fmt::Display for ShownUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ShownUp(resource, amount) = *self;
        write_amount(f, resource, amount, |amount, unit| {
            (u128::from(amount) * 10 + u128::from(unit - 1)) / u128::from(unit)
        })
    }
}

/// Writes an amount; `tenths` are those of the unit in it.
fn write_amount(
    f: &mut fmt::Formatter<'_>,
    resource: Resource,
    amount: u64,
    tenths: impl Fn(u64, u64) -> u128,
) -> fmt::Result {
    match resource.facts().unit {
        Unit::Bytes if amount == 1 => f.write_str("1 byte"),
        Unit::Bytes if amount < KB => write!(f, "{amount} bytes"),
        Unit::Bytes if amount < MB => write_tenths(f, tenths(amount, KB), "KB"),
        Unit::Bytes => write_tenths(f, tenths(amount, MB), "MB"),
        Unit::Count => write!(f, "{amount}"),
        Unit::Percent => write!(f, "{}.{:02} %", amount / 100, amount % 100),
    }
}

impl fmt::Display for ShownShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_tenths(f, self.usage.saturating_mul(1000) / u128::from(self.limit.max(1)), "%")
    }
}

fn write_tenths(f: &mut fmt::Formatter<'_>, tenths: u128, unit: &str) -> fmt::Result {
    write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_the_largest_unit_of_which_there_is_one() {
        let cases = [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (KB, "1.0 KB"),
            (KB + 102, "1.0 KB"),
            (512 * KB, "512.0 KB"),
            (MB - 1, "1023.9 KB"),
            (MB, "1.0 MB"),
            (2 * MB - 1, "1.9 MB"),
            (1_000_000 * MB, "1000000.0 MB"),
            (u64::MAX, "17592186044415.9 MB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Shown(Resource::Memory, bytes).to_string(), expected);
        }
        assert_eq!(ShownUp(Resource::Memory, MB + 1).to_string(), "1.1 MB");
        assert_eq!(ShownUp(Resource::Memory, 2 * MB).to_string(), "2.0 MB");
        assert_eq!(Shown(Resource::Processes, 7).to_string(), "7");
        assert_eq!(Shown(Resource::MemoryPressure, 1205).to_string(), "12.05 %");
    }

    #[test]
    fn a_share_below_a_threshold_is_never_shown_as_if_it_had_reached_it() {
        let limit = 1_000_000_007;
        let reached = u128::from(limit) * 8 / 10 + 1;
        assert_eq!(ShownShare { usage: reached - 1, limit }.to_string(), "79.9 %");
        assert_eq!(ShownShare { usage: reached, limit }.to_string(), "80.0 %");
        assert_eq!(ShownShare { usage: 0, limit: 0 }.to_string(), "0.0 %");
        assert_eq!(ShownShare { usage: u128::MAX, limit: 1 }.to_string(), format!("{}.5 %", u128::MAX / 10));
    }
}
