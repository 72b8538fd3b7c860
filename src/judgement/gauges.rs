//! Gauges: quantities that only the host knows. It pushes them, and they are judged like what is read.
//!
//! A value stands in its row of the room, where each update is one atomic operation and every asker sees it at once. The
//! judgement keeps name and limit, and takes the values over whenever somebody takes its lock.

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use super::Judgement;
use crate::vocabulary::{
    Error, GaugeName, GaugeReading, GaugeReadings, Measured, Resource, ResourceLimits, MOST_GAUGES,
};

/// The gauges of a monitor, each in its place.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    places: [Option<Gauge>; MOST_GAUGES],
}

/// The number of the last gauge that was made in this process, by any monitor, so that work which was declared for one is
/// never taken for another's. Zero is none, and is passed over when all have been used.
static LAST_NUMBER: AtomicU16 = AtomicU16::new(0);

fn next_number() -> u16 {
    match LAST_NUMBER.fetch_add(1, Relaxed).wrapping_add(1) {
        0 => next_number(),
        number => number,
    }
}

#[derive(Debug, Clone, Copy)]
struct Gauge {
    name: GaugeName,
    number: u16,
    limit: u64,
}

impl Gauges {
    /// The name of the gauge that is in this place now, if the resource is a gauge.
    pub(super) fn name_of(&self, resource: Resource) -> Option<GaugeName> {
        match resource {
            Resource::Gauge(gauge) => self.places[gauge.place()].map(|gauge| gauge.name),
            _ => None,
        }
    }
}

impl Judgement {
    /// The resource as texts call it.
    pub(super) fn named(&self, resource: Resource) -> Resource {
        self.gauges.name_of(resource).map_or(resource, Resource::Gauge)
    }

    /// Makes a gauge, which is judged from now on, and returns the number by which work declares it.
    ///
    /// # Errors
    /// A limit of 0, a name that is taken or is none, or no place that is free.
    pub(crate) fn add_gauge(
        &mut self,
        name: &'static str,
        limit: u64,
        limits: &ResourceLimits,
    ) -> Result<(GaugeName, u16), Error> {
        if limit == 0 {
            return Err(Error::limit(format!("gauge limit 0 of {name} leaves no room for anything")));
        }
        GaugeName::check(name)?;
        let is_taken = |gauge: &Gauge| gauge.name.name() == name;
        if self.gauges.places.iter().flatten().any(is_taken)
            || Resource::READ.iter().any(|read| read.facts().event_key == name)
        {
            return Err(Error::setting(format!("gauge name {name} is taken")));
        }
        // Permits of the one before it may still hold some of what it counted.
        let is_free = |place: &u8| {
            let gauge = Resource::Gauge(GaugeName::of_place(*place));
            self.gauges.places[usize::from(*place)].is_none() && self.reserved(gauge) == 0
        };
        let Some(place) = (0..MOST_GAUGES as u8).find(is_free) else {
            return Err(Error::setting(format!("gauge {name} is one too many: a monitor has at most {MOST_GAUGES}")));
        };
        let name = GaugeName::new(place, name)?;
        let number = next_number();
        self.gauges.places[name.place()] = Some(Gauge { name, number, limit });
        self.forget_gauge(name);
        self.admission.room.set_gauge_number(name, number);
        self.take_gauges();
        self.publish_rejudged(limits);
        Ok((name, number))
    }

    /// Takes a gauge out of the judgement.
    pub(crate) fn remove_gauge(&mut self, name: GaugeName, number: u16, limits: &ResourceLimits) {
        let place = &mut self.gauges.places[name.place()];
        if place.is_some_and(|gauge| gauge.number == number) {
            *place = None;
            self.admission.room.set_gauge_number(name, 0);
            self.forget_gauge(name);
            self.take_gauges();
            self.publish_rejudged(limits);
        }
    }

    /// The next gauge in this place begins at nothing.
    fn forget_gauge(&mut self, name: GaugeName) {
        let gauge = Resource::Gauge(name);
        self.admission.room.set_pushed(name, 0);
        *self.levels.get_mut(gauge) = Default::default();
        *self.climbs.get_mut(gauge) = Default::default();
        *self.damping.get_mut(gauge) = Default::default();
    }

    /// The gauges as they stand.
    pub(crate) fn gauge_readings(&self) -> GaugeReadings {
        self.gauges.places.map(|gauge| {
            let Gauge { name, limit, .. } = gauge?;
            Some(GaugeReading { name, value: self.admission.room.pushed(name), limit })
        })
    }

    /// Takes over what was pushed meanwhile, into the last reading.
    pub(crate) fn take_gauges(&mut self) {
        let readings = self.gauge_readings();
        let Some(Ok(found)) = self.last.as_mut().map(|last| &mut last.found) else { return };
        for (place, reading) in (0_u8..).zip(&readings) {
            let read = found.get_mut(Resource::Gauge(GaugeName::of_place(place)));
            if reading.is_some() || !matches!(read, Ok(None)) {
                *read = Ok(reading.as_ref().map(Measured::from));
            }
        }
    }
}
