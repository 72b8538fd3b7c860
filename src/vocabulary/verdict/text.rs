//! The text of a verdict: the numbers that were compared, in the units that people use.

use std::fmt;
use std::time::Duration;

use super::{Critical, Floor, Reason, Threshold, Usage, Verdict, Watched, WatchedWhy};
use crate::vocabulary::{Resource, Shown, ShownShare, ShownUp, SET_BY_HOST};

impl Floor {
    /// Such as `floor of 1638.4 MB (set by the host)`.
    fn shown(&self, resource: Resource) -> impl fmt::Display + '_ {
        struct ShownFloor<'a>(Resource, &'a Floor);
        impl fmt::Display for ShownFloor<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let ShownFloor(resource, Floor { amount, origin }) = *self;
                write!(f, "floor of {} ({})", Shown(resource, *amount), origin.as_deref().unwrap_or(SET_BY_HOST))
            }
        }
        ShownFloor(resource, self)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.parts.reason {
            Reason::Accepting => "accepting work",
            Reason::TooMuch { .. } | Reason::Behind { .. } => "refused",
            Reason::Watched(Watched { why: WatchedWhy::Full { asked: 1.., .. }, .. }) => "refused",
            _ => "not accepting work",
        })?;
        f.write_str(": ")?;
        match &self.parts.reason {
            Reason::Accepting => self.write_all_usages(f)?,
            Reason::NeverChecked => f.write_str("no check has been taken yet")?,
            Reason::Forked => f.write_str("forked; this process has not checked for itself")?,
            Reason::Stopped => f.write_str("the monitor is stopped")?,
            Reason::Died { thread } => write!(f, "thread {thread} of the monitor has died")?,
            Reason::Degraded { failures, error } => {
                write!(f, "degraded after {failures} failed checks in a row: {error}")?;
            }
            Reason::Failed { error } => write!(f, "the last check failed: {error}")?,
            // The age is rounded up and what it exceeds is rounded down, so that the first always prints larger.
            Reason::Stale { age, max_age } => write!(
                f,
                "the last check is stale: {} ms old, more than max_age {} ms",
                millis_up(*age),
                max_age.as_millis()
            )?,
            Reason::Usage { resource, threshold } => self.write_threshold(f, *resource, *threshold)?,
            Reason::TooMuch { resource, hard } => {
                let usage = self.usage(*resource);
                write_usage(f, *resource, &usage)?;
                match &usage.floor {
                    Some(floor) => write!(f, " would leave no more than half of the {}", floor.shown(*resource))?,
                    None => write!(f, " would reach the hard threshold of {hard} %")?,
                }
            }
            Reason::Watched(watched) => write!(f, "{watched}")?,
            Reason::Ledger { error } => write!(f, "{error}")?,
            Reason::Behind { waiters: 1 } => f.write_str("1 other waits and may not be passed any more")?,
            Reason::Behind { waiters } => write!(f, "{waiters} others wait and may not be passed any more")?,
        }
        if self.parts.never_fits {
            f.write_str(match self.parts.reason {
                Reason::TooMuch { .. } => "; it could never fit",
                _ => "; what was asked for could never fit",
            })?;
        }
        if let Some(waited) = &self.parts.waited {
            write!(f, "; {waited}")?;
        }
        if let Some(exhaustion) = &self.parts.exhaustion {
            write!(f, "; {exhaustion}")?;
        }
        if let Some(bytes) = self.parts.kept_by_allocator {
            let kept = Shown(Resource::Memory, bytes);
            write!(f, "; the allocator keeps {kept} that are free (see return_freed_memory)")?;
        }
        for (resource, error) in &self.parts.unread {
            write!(f, "; {resource} not all judged: {error}")?;
        }
        if let Some((max_age, gap)) = self.parts.unreachable_age {
            let (max_age, gap) = (max_age.as_millis(), millis_up(gap));
            write!(f, "; max_age {max_age} ms cannot be kept: the CPU budget puts {gap} ms between checks")?;
        }
        if let Some(lateness) = self.parts.lateness {
            write!(f, "; the monitor runs late: the last check began {} ms after its time", lateness.as_millis())?;
        }
        Ok(())
    }
}

impl Verdict {
    /// Of every required resource, and of the others as far as there is a limit that they were compared with.
    fn write_all_usages(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for resource in Resource::ALL {
            let usage = self.usage(resource);
            let resource = usage.gauge.map_or(resource, Resource::Gauge);
            if resource.facts().required || usage.limit.is_some() {
                f.write_str(separator)?;
                separator = ", ";
                write_usage(f, resource, &usage)?;
                if let Some(floor) = &usage.floor {
                    write!(f, " above the {}", floor.shown(resource))?;
                }
            }
        }
        Ok(())
    }

    fn write_threshold(&self, f: &mut fmt::Formatter<'_>, resource: Resource, threshold: Threshold) -> fmt::Result {
        let usage = self.usage(resource);
        if let Some(floor) = &usage.floor {
            write_usage(f, resource, &usage)?;
            f.write_str(match threshold {
                Threshold::Background(_) => ", no more than background work leaves above the ",
                Threshold::Warning(_) => " at or below the ",
                Threshold::Hard(_) => " at or below half of the ",
                Threshold::Resume(_) => " not yet enough above the ",
            })?;
            return write!(f, "{}", floor.shown(resource));
        }
        let (name, percent) = match threshold {
            Threshold::Background(percent) => ("background", percent),
            Threshold::Warning(percent) => ("warning", percent),
            Threshold::Hard(percent) => ("hard", percent),
            Threshold::Resume(percent) => {
                // Only measured usage is held against this threshold, so only that is in the percentage.
                let reserved = usage.reserved;
                write_usage(f, resource, &Usage { reserved: 0, others: (0, 0), ..usage })?;
                write!(f, " not yet below the resume threshold of {percent} %")?;
                if reserved > 0 {
                    write!(f, ", and {} reserved", Shown(resource, reserved))?;
                }
                return Ok(());
            }
        };
        write_usage(f, resource, &usage)?;
        write!(f, " at or above the {name} threshold of {percent} %")
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Watched { pid, why } = self;
        write!(f, "process {pid}, which watches over this one, ")?;
        match *why {
            WatchedWhy::Closed(Some(resource)) => write!(f, "has closed its gate because of {resource}"),
            WatchedWhy::Closed(None) => f.write_str("has closed its gate"),
            WatchedWhy::Stale => f.write_str("has not checked for too long"),
            WatchedWhy::Full { resource, measured, reserved, asked, limit } => {
                let limit = Some(limit).filter(|limit| *limit != u64::MAX);
                f.write_str("has no room: ")?;
                write_usage(f, resource, &Usage { measured, reserved, asked, limit, ..Usage::default() })
            }
        }
    }
}

impl fmt::Display for Critical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_usage(f, self.resource, &self.usage)?;
        match &self.usage.floor {
            Some(floor) => write!(f, " at or below half of the {}", floor.shown(self.resource)),
            None => write!(f, " at or above the hard threshold of {} %", self.hard),
        }
    }
}

fn write_usage(f: &mut fmt::Formatter<'_>, resource: Resource, usage: &Usage) -> fmt::Result {
    let Usage { measured, limit, ref floor, ref place, judged_as, .. } = *usage;
    if let (Some(_), Some(all)) = (floor, limit) {
        write!(f, "{resource} {} left", ShownUp(resource, all.saturating_sub(measured)))?;
        write_promised(f, resource, usage, '-')?;
        write!(f, " of {}", Shown(resource, all))?;
        return place.iter().try_for_each(|place| write!(f, " in {}", place.display()));
    }
    write!(f, "{resource} {}", Shown(resource, measured))?;
    write_promised(f, resource, usage, '+')?;
    let limit = match (limit, judged_as) {
        (Some(limit), _) => limit,
        (None, Some(other)) => return write!(f, " (judged as {other})"),
        (None, None) => return f.write_str(" (no limit)"),
    };
    let share = ShownShare { usage: usage.total(), limit };
    write!(f, " of {} ({share})", Shown(resource, limit))?;
    place.iter().try_for_each(|place| write!(f, " in {}", place.display()))
}

/// Such as ` + 100.0 MB reserved + 300.0 MB reserved by 3 others + 50.0 MB asked`.
fn write_promised(f: &mut fmt::Formatter<'_>, resource: Resource, usage: &Usage, sign: char) -> fmt::Result {
    let Usage { reserved, others: (by_others, others), asked, .. } = *usage;
    let own = reserved.saturating_sub(by_others);
    if own > 0 {
        write!(f, " {sign} {} reserved", Shown(resource, own))?;
    }
    if by_others > 0 {
        let noun = if others == 1 { "other" } else { "others" };
        write!(f, " {sign} {} reserved by {others} {noun}", Shown(resource, by_others))?;
    }
    if asked > 0 {
        write!(f, " {sign} {} asked", Shown(resource, asked))?;
    }
    Ok(())
}

fn millis_up(time: Duration) -> u128 {
    (time.as_nanos() + 999_999) / 1_000_000
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::vocabulary::{Error, ErrorKind, PerResource, Waited, MB};

    fn usage(measured: u64, reserved: u64, asked: u64, limit: Option<u64>) -> Usage {
        Usage { measured, reserved, asked, limit, ..Usage::default() }
    }

    fn verdict(reason: Reason, memory: Usage, processes: Usage) -> Verdict {
        let mut usages = PerResource::default();
        *usages.get_mut(Resource::Memory) = Some(memory);
        *usages.get_mut(Resource::Processes) = Some(processes);
        Verdict::new(reason).with_usages(usages)
    }

    fn over(percent: u8) -> Reason {
        Reason::Usage { resource: Resource::Processes, threshold: Threshold::Warning(percent) }
    }

    #[test]
    fn a_verdict_prints_what_it_compared() {
        let memory = usage(12 * MB, 0, 0, Some(1000 * MB));
        let error = Arc::new(Error::new(ErrorKind::Panicked, "the probe panicked"));
        let held = Reason::Usage { resource: Resource::Processes, threshold: Threshold::Resume(75) };
        let heavy = Reason::Usage { resource: Resource::Memory, threshold: Threshold::Warning(80) };
        let too_much = Reason::TooMuch { resource: Resource::Processes, hard: 95 };
        let ms = Duration::from_millis;
        let cases = [
            (
                verdict(Reason::Accepting, memory.clone(), usage(12, 0, 0, Some(50))),
                "accepting work: memory 12.0 MB of 1000.0 MB (1.2 %), processes 12 of 50 (24.0 %)",
            ),
            (
                verdict(Reason::Accepting, usage(12 * MB, MB, 0, None), usage(12, 3, 0, None)),
                "accepting work: memory 12.0 MB + 1.0 MB reserved (no limit), processes 12 + 3 reserved (no limit)",
            ),
            (
                verdict(over(80), memory.clone(), usage(50, 0, 0, Some(60))),
                "not accepting work: processes 50 of 60 (83.3 %) at or above the warning threshold of 80 %",
            ),
            (
                verdict(over(80), memory.clone(), usage(40, 8, 0, Some(60))),
                "not accepting work: processes 40 + 8 reserved of 60 (80.0 %) at or above the warning threshold of 80 %",
            ),
            (
                verdict(held.clone(), memory.clone(), usage(47, 0, 0, Some(60))),
                "not accepting work: processes 47 of 60 (78.3 %) not yet below the resume threshold of 75 %",
            ),
            (
                verdict(held, memory.clone(), usage(45, 2, 0, Some(60))),
                "not accepting work: processes 45 of 60 (75.0 %) not yet below the resume threshold of 75 %, \
                 and 2 reserved",
            ),
            (
                verdict(heavy.clone(), usage(30 * MB, 0, 0, Some(10 * MB)), memory.clone()),
                "not accepting work: memory 30.0 MB of 10.0 MB (300.0 %) at or above the warning threshold of 80 %",
            ),
            (
                verdict(heavy, usage(80 * MB, 0, 0, Some(100 * MB)), memory.clone()).with_never_fits(true),
                "not accepting work: memory 80.0 MB of 100.0 MB (80.0 %) at or above the warning threshold of 80 %; \
                 what was asked for could never fit",
            ),
            (
                verdict(too_much.clone(), memory.clone(), usage(46, 0, 3, Some(50))),
                "refused: processes 46 + 3 asked of 50 (98.0 %) would reach the hard threshold of 95 %",
            ),
            (
                verdict(too_much, memory.clone(), usage(1, 2, 60, Some(50))).with_never_fits(true),
                "refused: processes 1 + 2 reserved + 60 asked of 50 (126.0 %) would reach the hard threshold of 95 %; \
                 it could never fit",
            ),
            (
                Verdict::new(Reason::Stale { age: ms(2300), max_age: ms(2000) }),
                "not accepting work: the last check is stale: 2300 ms old, more than max_age 2000 ms",
            ),
            (
                Verdict::new(Reason::Stale { age: ms(50) + Duration::from_nanos(1), max_age: ms(50) })
                    .with_unreachable_age(Some((ms(50), ms(120)))),
                "not accepting work: the last check is stale: 51 ms old, more than max_age 50 ms; \
                 max_age 50 ms cannot be kept: the CPU budget puts 120 ms between checks",
            ),
            (
                Verdict::new(Reason::Forked).with_lateness(Some(ms(250))),
                "not accepting work: forked; this process has not checked for itself; \
                 the monitor runs late: the last check began 250 ms after its time",
            ),
            (
                verdict(Reason::Behind { waiters: 2 }, memory.clone(), memory.clone())
                    .with_waited(Waited { waited: ms(1500), ..Waited::default() }),
                "refused: 2 others wait and may not be passed any more; waited 1.5 s",
            ),
            (
                verdict(
                    Reason::Usage { resource: Resource::Memory, threshold: Threshold::Background(60) },
                    memory.clone(),
                    memory.clone(),
                ),
                "not accepting work: memory 12.0 MB of 1000.0 MB (1.2 %) at or above the background threshold of 60 %",
            ),
            (
                verdict(
                    Reason::Usage { resource: Resource::Memory, threshold: Threshold::Warning(80) },
                    usage(900 * MB, 0, 0, Some(1000 * MB)),
                    memory.clone(),
                )
                .with_kept_by_allocator(Some(310 * MB)),
                "not accepting work: memory 900.0 MB of 1000.0 MB (90.0 %) at or above the warning threshold of 80 %; \
                 the allocator keeps 310.0 MB that are free (see return_freed_memory)",
            ),
            (Verdict::new(Reason::NeverChecked), "not accepting work: no check has been taken yet"),
            (Verdict::new(Reason::Forked), "not accepting work: forked; this process has not checked for itself"),
            (Verdict::new(Reason::Stopped), "not accepting work: the monitor is stopped"),
            (
                Verdict::new(Reason::Died { thread: "highwater" }),
                "not accepting work: thread highwater of the monitor has died",
            ),
            (
                Verdict::new(Reason::Degraded { failures: 6, error: error.clone() }),
                "not accepting work: degraded after 6 failed checks in a row: the probe panicked",
            ),
            (
                Verdict::new(Reason::Failed { error }),
                "not accepting work: the last check failed: the probe panicked",
            ),
        ];
        for (verdict, expected) in cases {
            assert_eq!(verdict.to_string(), expected);
            assert_eq!(verdict.is_accepting(), expected.starts_with("accepting work: "), "{expected}");
        }
    }

    #[test]
    fn optional_resources_are_listed_where_they_have_a_limit_and_named_where_they_were_not_read() {
        let mut usages = PerResource::from_fn(|_| Some(usage(1, 0, 0, None)));
        let place = Some(Path::new("/cgroup/box").into());
        *usages.get_mut(Resource::CgroupMemory) = Some(Usage { place, ..usage(70 * MB, 0, 0, Some(100 * MB)) });
        *usages.get_mut(Resource::MemoryPressure) = Some(usage(1234, 0, 0, Some(2000)));
        *usages.get_mut(Resource::CgroupPids) = None;
        let error = Arc::new(Error::malformed("/cgroup/box/pids.max".into(), "it is no number"));
        let verdict = Verdict::new(Reason::Accepting).with_usages(usages.clone());
        assert_eq!(
            verdict.with_unread(vec![(Resource::CgroupPids, error)]).to_string(),
            "accepting work: memory 1 byte (no limit), processes 1 (no limit), cgroup memory 70.0 MB of 100.0 MB \
             (70.0 %) in /cgroup/box, memory pressure 12.34 % of 20.00 % (61.7 %); \
             cgroup pids not all judged: malformed /cgroup/box/pids.max: it is no number"
        );
        let threshold = Threshold::Warning(80);
        let closed = Verdict::new(Reason::Usage { resource: Resource::CgroupMemory, threshold }).with_usages(usages);
        assert_eq!(
            closed.to_string(),
            "not accepting work: cgroup memory 70.0 MB of 100.0 MB (70.0 %) in /cgroup/box at or above the warning \
             threshold of 80 %"
        );
    }
}
