//! The time until something is used up.

use std::fmt;
use std::time::Duration;

use super::Resource;

/// The resource that is used up first if things go on as they have since the last eight checks, and when.
///
/// It is about the limit itself, not about the threshold at which the gate closes; for a resource with a floor, about all
/// that there is. Pressure has no such time. Printed, it is a text such as `memory full in 4 to 9 s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exhaustion {
    /// The resource.
    pub resource: Resource,
    /// The time that is left at the fastest growth between two of those checks.
    pub soonest: Duration,
    /// The time that is left at their mean growth.
    pub at_mean_rate: Duration,
}

/// What eight checks say of a time that is longer is not worth saying.
const HORIZON: Duration = Duration::from_secs(3600);

impl Exhaustion {
    /// `None` where that is too far away to tell.
    pub(crate) fn new(resource: Resource, soonest: Duration, at_mean_rate: Duration) -> Option<Exhaustion> {
        (at_mean_rate <= HORIZON).then_some(Exhaustion { resource, soonest, at_mean_rate })
    }
}

impl fmt::Display for Exhaustion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exhaustion { resource, soonest, at_mean_rate } = *self;
        let (unit, name) = if at_mean_rate < Duration::from_secs(120) { (1, "s") } else { (60, "min") };
        let up = |time: Duration| (time.as_secs() + u64::from(time.subsec_nanos() > 0) + unit - 1) / unit;
        let (from, to) = (soonest.as_secs() / unit, up(at_mean_rate));
        if from == to {
            write!(f, "{resource} full in {to} {name}")
        } else {
            write!(f, "{resource} full in {from} to {to} {name}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_in_a_unit_that_fits_and_not_beyond_the_hour() {
        let text = |soonest, at_mean| {
            let [soonest, at_mean] = [soonest, at_mean].map(Duration::from_millis);
            Exhaustion::new(Resource::Memory, soonest, at_mean).map(|exhaustion| exhaustion.to_string())
        };
        let cases = [
            (4_900, 8_100, Some("memory full in 4 to 9 s")),
            (7_000, 7_000, Some("memory full in 7 s")),
            (0, 300, Some("memory full in 0 to 1 s")),
            (90_000, 600_000, Some("memory full in 1 to 10 min")),
            (1_000, 3_600_000, Some("memory full in 0 to 60 min")),
            (1_000, 3_600_001, None),
        ];
        for (soonest, at_mean, expected) in cases {
            assert_eq!(text(soonest, at_mean).as_deref(), expected, "{soonest} {at_mean}");
        }
    }
}
