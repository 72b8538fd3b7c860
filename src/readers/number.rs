//! Numbers as the kernel writes them.

/// The value of digits and nothing else.
pub(crate) fn parse_u64(field: &[u8]) -> Option<u64> {
    if field.is_empty() {
        return None;
    }
    field.iter().try_fold(0_u64, |number, byte| match byte {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// A number is what its digits say.
#[cfg(any(test, fuzzing))]
pub(super) fn law(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.starts_with('+'));
    assert_eq!(parse_u64(bytes), text.and_then(|text| text.parse().ok()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_digits_and_fits() {
        assert_eq!((parse_u64(b"0"), parse_u64(b"18446744073709551615")), (Some(0), Some(u64::MAX)));
        for no_number in ["", "-1", "+1", " 1", "1x", "18446744073709551616"] {
            assert_eq!(parse_u64(no_number.as_bytes()), None, "{no_number:?}");
        }
    }
}
