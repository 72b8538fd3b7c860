//! The growth of one resource, and the time that it leaves until the warning threshold.

use std::time::Duration;

/// The number of readings that are remembered. The fastest growth among them counts, so that usage that grows in bursts
/// is still followed closely in the lull between two.
const READINGS: usize = 8;

/// The last readings of one resource.
#[derive(Debug, Default)]
pub(super) struct Climb {
    /// Time and usage of each reading, in a ring: `next` is the place of the next one.
    readings: [Option<(Duration, u64)>; READINGS],
    next: usize,
}

impl Climb {
    /// Adds a reading.
    pub(super) fn record(&mut self, now: Duration, usage: u64) {
        let newest = (self.next + READINGS - 1) % READINGS;
        match &mut self.readings[newest] {
            // Two readings within one step of the clock have no rate between them. They count as one, the larger.
            Some((at, before)) if *at >= now => *before = usage.max(*before),
            _ => {
                self.readings[self.next] = Some((now, usage));
                self.next = (self.next + 1) % READINGS;
            }
        }
    }

    /// The time to reach `threshold` from the newest reading at the fastest recent rate; `None` when there was no
    /// growth.
    pub(super) fn time_to(&self, threshold: u64) -> Option<Duration> {
        time_for(threshold.saturating_sub(self.newest()?.1), self.fastest())
    }

    /// The time to reach `limit`, at the fastest recent rate and at the mean one, and the time of the newest reading, from
    /// which both count; `None` unless usage has grown and is below it.
    pub(super) fn times_to_full(&self, limit: u64) -> Option<(Duration, Duration, Duration)> {
        let ((since, before), (at, usage)) = (self.oldest_first().next()?, self.newest()?);
        let left = limit.checked_sub(usage).filter(|left| *left > 0)?;
        let mean = rate((since, before), (at, usage));
        Some((time_for(left, self.fastest())?, time_for(left, mean)?, at))
    }

    fn oldest_first(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        (0..READINGS).filter_map(|step| self.readings[(self.next + step) % READINGS])
    }

    fn newest(&self) -> Option<(Duration, u64)> {
        self.readings[(self.next + READINGS - 1) % READINGS]
    }

    fn fastest(&self) -> f64 {
        let pairs = self.oldest_first().zip(self.oldest_first().skip(1));
        pairs.map(|(before, after)| rate(before, after)).fold(0.0, f64::max)
    }
}

/// Growth in a second, between two readings of which one is later.
fn rate((since, before): (Duration, u64), (at, usage): (Duration, u64)) -> f64 {
    let time = at.saturating_sub(since).as_secs_f64();
    if time > 0.0 {
        usage.saturating_sub(before) as f64 / time
    } else {
        0.0
    }
}

/// The time in which so much is added at this rate; `None` if nothing is.
fn time_for(amount: u64, rate: f64) -> Option<Duration> {
    // The conversion fails only for a time that is too long to matter.
    (rate > 0.0).then(|| Duration::try_from_secs_f64(amount as f64 / rate).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Milliseconds, and usage.
    type Reading = (u64, u64);

    /// The soonest, at the mean rate, and from when on: milliseconds.
    type Times = (u128, u128, u128);

    fn climb(readings: &[Reading]) -> Climb {
        let mut climb = Climb::default();
        for (ms, usage) in readings {
            climb.record(Duration::from_millis(*ms), *usage);
        }
        climb
    }

    #[test]
    fn the_time_left_is_that_of_the_fastest_recent_growth() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let cases: [(&[Reading], Option<Duration>); 8] = [
            (&[], None),
            (&[(0, 500)], None),
            (&[(0, 500), (1000, 500), (2000, 400)], None),
            (&[(0, 100), (1000, 200)], ms(8000)),
            (&[(0, 100), (1000, 600), (2000, 500)], ms(1000)),
            (&[(0, 100), (1000, 1000)], ms(0)),
            (&[(0, 100), (1000, 5000), (2000, 4999)], ms(0)),
            // Two within a step of the clock are one.
            (&[(0, 100), (1000, 150), (1000, 200), (1000, 180)], ms(8000)),
        ];
        for (readings, expected) in cases {
            assert_eq!(climb(readings).time_to(1000), expected, "{readings:?}");
        }
    }

    #[test]
    fn the_time_until_it_is_full_lies_between_the_fastest_rate_and_the_mean_one() {
        let times = |readings: &[Reading]| {
            let (soonest, at_mean, at) = climb(readings).times_to_full(1000)?;
            Some((soonest.as_millis(), at_mean.as_millis(), at.as_millis()))
        };
        let cases: [(&[Reading], Option<Times>); 7] = [
            (&[], None),
            (&[(0, 500)], None),
            (&[(0, 500), (1000, 500)], None),
            (&[(0, 100), (1000, 200)], Some((8000, 8000, 1000))),
            (&[(0, 100), (1000, 100), (2000, 300)], Some((3500, 7000, 2000))),
            // It came and went.
            (&[(0, 100), (1000, 600), (2000, 100)], None),
            (&[(0, 100), (1000, 1000)], None),
        ];
        for (readings, expected) in cases {
            assert_eq!(times(readings), expected, "{readings:?}");
        }
    }

    #[test]
    fn growth_is_forgotten_after_eight_readings() {
        let mut climb = climb(&[(0, 0), (1000, 100)]);
        for second in 2..8 {
            climb.record(Duration::from_secs(second), 100);
            assert!(climb.time_to(1000).is_some(), "{second}");
        }
        climb.record(Duration::from_secs(8), 100);
        assert_eq!(climb.time_to(1000), None);
    }

    proptest! {
        #[test]
        fn more_headroom_is_never_less_time(
            readings in prop::collection::vec((any::<u32>(), any::<u64>()), 0..20), threshold: u64, more: u64,
        ) {
            let mut climb = Climb::default();
            let mut now = Duration::ZERO;
            for (nanos, usage) in readings {
                now += Duration::from_nanos(nanos.into());
                climb.record(now, usage);
            }
            let time = climb.time_to(threshold);
            let later = climb.time_to(threshold.saturating_add(more));
            prop_assert!(later >= time);
            prop_assert_eq!(later.is_some(), time.is_some());
        }
    }
}
