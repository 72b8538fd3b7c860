//! Permits that are attached to a process: how each changes what is reserved, and with it the answer to other work.

use std::time::Duration;

use super::attached::{self, AttachedId, End};
use super::{cadence, Judgement, Last};
use crate::vocabulary::{Error, Identity, Resource, ResourceLimits, Work, WorkUsage};

impl Judgement {
    /// Attaches a granted permit, whose cost was reserved, to a process.
    ///
    /// # Errors
    /// Another permit is attached to the same process.
    pub(crate) fn attach(
        &mut self,
        work: &Work,
        root: Identity,
        is_child: bool,
        limits: &ResourceLimits,
    ) -> Result<AttachedId, Error> {
        let id = self.attached.attach(*work, root, is_child)?;
        // Shown before anything is given back, so that the work counts at every instant.
        self.publish_rejudged(limits);
        let room = &self.admission.room;
        for resource in Resource::ALL {
            if attached::is_counted(resource, self.settings.memory_scope) || resource == Resource::Memory {
                room.give_back_of(resource, work);
            } else {
                // Those it has open here can be seen from now on.
                room.release_of(resource, work);
            }
        }
        Ok(id)
    }

    /// The permit that is attached to the process of this number.
    pub(crate) fn attached_to(&self, pid: u32) -> Option<AttachedId> {
        self.attached.attached_to(pid)
    }

    /// Adds granted work, whose cost was reserved, to what an attached permit declared. `false` if that permit is there no
    /// more: then the work stays reserved as it was.
    pub(crate) fn widen(&mut self, id: AttachedId, work: &Work, limits: &ResourceLimits) -> bool {
        if !self.attached.widen(id, work) {
            return false;
        }
        // In this order, as for an attachment.
        self.publish_rejudged(limits);
        self.admission.room.give_back(work);
        true
    }

    /// Takes the process of an attached permit to need so much, what was added to it left aside, if that is more than was
    /// declared.
    pub(crate) fn set_least(&mut self, id: AttachedId, least: &Work, limits: &ResourceLimits) {
        self.attached.set_least(id, least);
        self.publish_rejudged(limits);
    }

    /// Takes work off an attached permit that was added to it, and has ended.
    pub(crate) fn narrow(&mut self, id: AttachedId, work: &Work, limits: &ResourceLimits) {
        self.attached.narrow(id, work);
        self.publish_rejudged(limits);
    }

    /// The usage of an attached permit's work, as the last check has measured it.
    pub(crate) fn usage(&self, id: AttachedId) -> Option<WorkUsage> {
        self.attached.usage(id)
    }

    /// Has an attached permit's work declare so much memory.
    pub(crate) fn declare_memory(&mut self, id: AttachedId, bytes: u64, limits: &ResourceLimits) {
        self.attached.declare_memory(id, bytes);
        self.publish_rejudged(limits);
    }

    /// The amount that an attached permit keeps from others: what it has reserved, and what was measured of it.
    pub(crate) fn held(&self, id: AttachedId, resource: Resource) -> u64 {
        self.attached.held(id, resource, self.settings.memory_scope)
    }

    /// Takes an attached permit back whose work has ended, and of which nothing is left. The processes that the last
    /// check has counted of it are gone.
    pub(crate) fn finish(&mut self, id: AttachedId, limits: &ResourceLimits) {
        let gone = self.attached.finish(id, self.published);
        if let Some(Last { found: Ok(found), .. }) = &mut self.last {
            for resource in [Resource::Processes, Resource::CgroupPids] {
                if let Ok(Some(amount)) = found.get_mut(resource) {
                    amount.usage = amount.usage.saturating_sub(gone);
                }
            }
        }
        self.publish_rejudged(limits);
    }

    /// Takes an attached permit back that was dropped: checks numbered from here see all that it declared. `end_of` says
    /// whether a child has ended.
    pub(crate) fn release(
        &mut self,
        id: AttachedId,
        next_number: u64,
        end_of: impl Fn(u32) -> End,
        limits: &ResourceLimits,
    ) {
        self.attached.release(id, next_number, end_of);
        self.publish_rejudged(limits);
    }

    /// Notes which children of attached permits have ended, unless that was done just now; `end_of` says whether one
    /// has. Returns `true` if that has made room.
    pub(crate) fn note_ends(
        &mut self,
        precise_now: Duration,
        end_of: impl Fn(u32) -> End,
        limits: &ResourceLimits,
    ) -> bool {
        if precise_now.saturating_sub(self.ends_noted_at) <= cadence::REFUSED_BY {
            return false;
        }
        self.ends_noted_at = precise_now;
        let noted = self.attached.note_ends(end_of);
        if noted {
            self.publish_rejudged(limits);
        }
        noted
    }
}
