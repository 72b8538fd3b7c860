//! Freed memory that the allocator keeps. It stays resident, is judged as used, and may keep the gate shut for ever.
//!
//! Nobody says how much of it there is. The allocator counts its free blocks, and knows neither which pages of them were
//! never touched nor which a trim has given back; the kernel counts resident pages, and does not know which are in use.
//! Between the two are [`OwnMemory::most_kept`], by which it is worth a try to trim, and [`OwnMemory::kept`], which is
//! what people are told.

use std::time::Duration;

use super::threshold::Bounds;
use super::{amount, bounds, damping, floor, limit, Judgement};
use crate::vocabulary::{Level, Reason, Resource, ResourceLimits, MB};

/// The resources against which it counts.
const MEMORY: [Resource; 3] = [Resource::Memory, Resource::CgroupMemory, Resource::MachineMemory];

/// The least time between two looks into the allocator, which locks its arenas one by one and goes through their free
/// blocks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The least time between two trims: pages that the host needs again are filled anew.
const TRIM_EVERY: Duration = Duration::from_secs(10);

/// A look or a trim is not repeated for so many times as long as it took.
const REST: u32 = 100;

/// Less than this is never much.
const LEAST: u64 = MB;

/// The memory of this process, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnMemory {
    pub(crate) resident: u64,
    /// In free blocks of the allocator.
    pub(crate) free: u64,
    /// In blocks of the allocator that are in use.
    pub(crate) in_use: u64,
}

impl OwnMemory {
    /// The most that the allocator may keep: its free blocks, as if all of their pages were resident.
    fn most_kept(&self) -> u64 {
        self.free.min(self.resident)
    }

    /// The memory that the allocator keeps, as if all pages of blocks in use were resident.
    fn kept(&self) -> u64 {
        self.free.min(self.resident.saturating_sub(self.in_use))
    }
}

/// The outcome of a trim, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trimmed {
    pub(crate) free: u64,
    pub(crate) returned: u64,
    pub(crate) kept: u64,
    /// Whether much came back, for the first time since memory has shut the gate.
    pub(crate) has_helped: bool,
    /// Whether it is time for a line about it, and there is something to say.
    pub(crate) is_news: bool,
}

/// The state of the allocator, as it was last seen.
#[derive(Debug, Default)]
pub(super) struct Retained {
    /// The time since which checks have found the gate shut by memory.
    shut_since: Option<Duration>,
    has_helped: bool,
    /// The least that was worth giving back at the last look.
    much: u64,
    /// The bytes that the allocator keeps, where they are much.
    kept: Option<u64>,
    next_look: Duration,
    next_trim: Duration,
    next_line: Duration,
}

impl Retained {
    /// The part that outlives an open gate, and a stop.
    pub(super) fn carried(&self) -> Retained {
        let Retained { next_look, next_trim, next_line, .. } = *self;
        Retained { next_look, next_trim, next_line, ..Retained::default() }
    }
}

/// A resource of memory, as far as it has a limit.
struct Limited {
    usage: u64,
    reserved: u64,
    bounds: Bounds,
    level: Level,
    /// The limit, or the floor.
    whole: u64,
}

impl Limited {
    /// The least of it that would leave the gate open, were it given back: 0 while it does not shut the gate.
    fn least_to_open(&self) -> u64 {
        let to_get_below = |usage: u64, bound: u64| usage.checked_sub(bound).map_or(0, |above| above.saturating_add(1));
        let by_total = to_get_below(self.usage.saturating_add(self.reserved), self.bounds.warn);
        // Held by hysteresis, it is to fall further.
        let by_usage = if self.level == Level::Normal { 0 } else { to_get_below(self.usage, self.bounds.resume) };
        by_total.max(by_usage)
    }
}

impl Judgement {
    /// Notes whether memory shuts the gate, by the check that has just been judged.
    pub(super) fn note_shut_by_memory(&mut self, now: Duration, limits: &ResourceLimits) {
        if self.shut_by_memory(limits).next().is_none() {
            self.retained = self.retained.carried();
        } else {
            self.retained.shut_since.get_or_insert(now);
        }
    }

    /// Whether memory has shut the gate for a settle time, and it is time to look into the allocator.
    pub(crate) fn is_look_due(&self, now: Duration) -> bool {
        let since = self.retained.shut_since;
        since.is_some_and(|since| now.saturating_sub(since) >= self.settle() && now >= self.retained.next_look)
    }

    /// Takes what was found in a look that took so long. Returns `true` if a trim is worth a try.
    pub(crate) fn looked(&mut self, own: &OwnMemory, took: Duration, now: Duration, limits: &ResourceLimits) -> bool {
        // Nothing is, once the gate is open.
        let much = self.much(limits).unwrap_or(u64::MAX);
        let retained = &mut self.retained;
        retained.much = much;
        retained.kept = Some(own.kept()).filter(|kept| *kept >= much);
        retained.next_look = now.saturating_add(LOOK_EVERY.max(took.saturating_mul(REST)));
        own.most_kept() >= much && now >= retained.next_trim
    }

    /// Takes the memory before and after a trim that took so long. It is judged by the look before it: by now a check may
    /// have found the gate open.
    pub(crate) fn trimmed(&mut self, before: &OwnMemory, after: &OwnMemory, took: Duration, now: Duration) -> Trimmed {
        let retained = &mut self.retained;
        let returned = before.resident.saturating_sub(after.resident).min(before.free);
        let free = before.kept().max(returned);
        let kept = after.kept().min(free - returned);
        let [returned_much, kept_much] = [returned, kept].map(|bytes| bytes >= retained.much);
        retained.kept = Some(kept).filter(|_| kept_much);
        retained.next_trim = now.saturating_add(TRIM_EVERY.max(took.saturating_mul(REST)));
        let is_news = (returned_much || kept_much) && now >= retained.next_line;
        if is_news {
            retained.next_line = now.saturating_add(damping::LINE_EVERY);
        }
        let has_helped = returned_much && !std::mem::replace(&mut retained.has_helped, true);
        Trimmed { free, returned, kept, has_helped, is_news }
    }

    /// The bytes that the allocator keeps, where they may be the reason of a verdict.
    pub(super) fn kept_by_allocator(&self, reason: &Reason) -> Option<u64> {
        match reason {
            Reason::Usage { resource, .. } | Reason::TooMuch { resource, .. } if MEMORY.contains(resource) => {
                self.retained.kept
            }
            _ => None,
        }
    }

    /// The least that is worth giving back: a tenth of a limit, or of a floor, that shuts the gate; or a hundredth, if it
    /// is enough to open it. `None` while memory does not shut the gate.
    fn much(&self, limits: &ResourceLimits) -> Option<u64> {
        let tenth = self.shut_by_memory(limits).map(|limited| limited.whole / 10).min()?;
        let to_open = |limited: Limited| limited.least_to_open().max(limited.whole / 100);
        let to_open = self.shut_by_memory(limits).map(to_open).max()?;
        Some(tenth.min(to_open).max(LEAST))
    }

    /// The resources of memory that shut the gate by what is measured and reserved.
    fn shut_by_memory<'a>(&'a self, limits: &'a ResourceLimits) -> impl Iterator<Item = Limited> + 'a {
        let limited = |resource| self.limited(resource, limits);
        MEMORY.into_iter().filter_map(limited).filter(|limited| limited.least_to_open() > 0)
    }

    fn limited(&self, resource: Resource, limits: &ResourceLimits) -> Option<Limited> {
        let found = self.found()?;
        let limit = limit(resource, found, limits)?;
        Some(Limited {
            usage: amount(found, resource)?.usage,
            // Less what the last check has seen of it.
            reserved: self.reserved(resource).saturating_sub(self.seen.get(resource)),
            bounds: bounds(resource, found, limits)?,
            level: *self.levels.get(resource),
            whole: floor(resource, limits).map_or(limit, |floor| floor.amount),
        })
    }
}
