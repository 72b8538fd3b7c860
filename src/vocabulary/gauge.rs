//! Quantities that only the host knows: how they are called, and how they are told apart.

use std::fmt;

use super::Error;

/// The most gauges that a monitor has at once.
pub(crate) const MOST_GAUGES: usize = 8;

/// The longest name of a gauge, in bytes.
const LONGEST_NAME: usize = 63;

/// The name of a gauge, and its place in the monitor: see [`ResourceMonitor::gauge`](crate::ResourceMonitor::gauge).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GaugeName {
    place: u8,
    name: &'static str,
}

impl GaugeName {
    /// The name that the host gave it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The place of a gauge, whichever has it.
    pub(crate) const fn of_place(place: u8) -> GaugeName {
        GaugeName { place, name: "gauge" }
    }

    /// # Errors
    /// A name that is empty, too long, or not of lower-case letters, digits and underscores.
    pub(crate) fn new(place: u8, name: &'static str) -> Result<GaugeName, Error> {
        GaugeName::check(name)?;
        Ok(GaugeName { place, name })
    }

    /// # Errors
    /// As for [`new`](Self::new).
    pub(crate) fn check(name: &str) -> Result<(), Error> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(is_plain) {
            let shown: String = name.chars().take(LONGEST_NAME).collect();
            let text =
                format!("gauge name {shown:?} must be 1 to {LONGEST_NAME} lower-case letters, digits and underscores");
            return Err(Error::setting(text));
        }
        Ok(())
    }

    pub(crate) const fn place(self) -> usize {
        self.place as usize
    }
}

impl fmt::Display for GaugeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A gauge as a check found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GaugeReading {
    /// Its name.
    pub name: GaugeName,
    /// What the host had pushed; 0 if that was less.
    pub value: u64,
    /// Its limit.
    pub limit: u64,
}

/// The gauges of a monitor, each in its place.
pub(crate) type GaugeReadings = [Option<GaugeReading>; MOST_GAUGES];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_word_of_the_log() {
        for name in ["gpu_bytes", "a", "connections2"] {
            assert_eq!(GaugeName::new(3, name).unwrap().to_string(), name);
        }
        let long = "x234567890123456789012345678901234567890123456789012345678901234";
        for name in ["", "GPU", "a b", "a-b", "ü", "a\n", long] {
            assert!(GaugeName::new(0, name).is_err(), "{name:?}");
        }
    }
}
