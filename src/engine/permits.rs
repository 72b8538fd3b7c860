//! Granted work: its place among the holders, its attachment to a process, and its end.

use std::sync::{Arc, OnceLock};

use super::core::{Core, Shared};
use super::holders::Place;
use super::waiters::end_of;
use crate::judgement::AttachedId;
use crate::sys::ProcessMark;
use crate::vocabulary::{Error, Work, WorkUsage};

/// Granted work, whose cost is reserved until it is given back.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) work: Work,
    place: Place,
    attached: OnceLock<AttachedId>,
    /// The attached permit that this one is a part of by now.
    joined: OnceLock<AttachedId>,
    mark: ProcessMark,
}

impl Core {
    /// Lists work that was just granted.
    pub(super) fn hold(&self, work: &Work) -> Grant {
        let place = self.holders.add(*work, self.now());
        Grant { work: *work, place, attached: OnceLock::new(), joined: OnceLock::new(), mark: ProcessMark::here() }
    }
}

/// Work that costs nothing, and so needs no admission.
pub(crate) fn hold_nothing(shared: &Arc<Shared>, label: &'static str) -> Result<Grant, Error> {
    let core = shared.current().ok_or_else(|| Error::process("this process was forked since the monitor was made"))?;
    Ok(core.hold(&Work::new().label(label)))
}

/// Attaches granted work to the process that does it.
pub(crate) fn attach(shared: &Arc<Shared>, grant: &Grant, pid: u32) -> Result<(), Error> {
    let Some(core) = core_of(shared, grant) else {
        return Err(Error::process("this process was forked since the permit was granted, which is its parent's"));
    };
    let (root, is_child) = core.config.probe.descendant(pid)?;
    let limits = core.limits.get();
    let mut judgement = core.judgement.lock();
    if grant.attached.get().is_some() {
        return Err(Error::setting(format!("the permit is attached already, and cannot be to process {pid}")));
    }
    let id = judgement.attach(&grant.work, root, is_child, &limits)?;
    // Under the lock, so nobody else has set it since it was looked at.
    let _ = grant.attached.set(id);
    core.holders.set_attached(grant.place, id, pid);
    // In scope `Own` its memory is not this process's any more.
    core.serve(&judgement);
    Ok(())
}

/// Whether a permit is attached to the process of this number.
pub(crate) fn is_attached_to(shared: &Arc<Shared>, pid: u32) -> bool {
    shared.current().is_some_and(|core| core.judgement.lock().attached_to(pid).is_some())
}

/// Makes granted work a part of that which is attached to a process: what a check measures there stands for both. Where
/// nothing is attached to it, the work stays reserved by itself.
pub(crate) fn join(shared: &Arc<Shared>, grant: &Grant, pid: u32) {
    let Some(core) = core_of(shared, grant) else { return };
    core.holders.set_process(grant.place, pid);
    let limits = core.limits.get();
    let mut judgement = core.judgement.lock();
    if grant.joined.get().is_some() || grant.attached.get().is_some() {
        return;
    }
    let Some(id) = judgement.attached_to(pid) else { return };
    if judgement.widen(id, &grant.work, &limits) {
        // Under the lock, so nobody else has set it since it was looked at.
        let _ = grant.joined.set(id);
        core.serve(&judgement);
    }
}

/// Takes a process that a permit is attached to to need so much by itself, if that is more than was declared.
pub(crate) fn set_least(shared: &Arc<Shared>, pid: u32, least: &Work) {
    let Some(core) = shared.current() else { return };
    let limits = core.limits.get();
    let mut judgement = core.judgement.lock();
    if let Some(id) = judgement.attached_to(pid) {
        judgement.set_least(id, least, &limits);
    }
}

/// The usage of the work that is attached to a process, as the last check has measured it.
pub(crate) fn usage_of(shared: &Arc<Shared>, pid: u32) -> Option<WorkUsage> {
    let judgement = shared.current()?.judgement.lock();
    judgement.usage(judgement.attached_to(pid)?)
}

/// Says that granted work is held for long on purpose, which is not logged.
pub(crate) fn expect_long(shared: &Arc<Shared>, grant: &Grant) {
    if let Some(core) = core_of(shared, grant) {
        core.holders.set_known(grant.place);
    }
}

/// The usage of attached work, as the last check has measured it.
pub(crate) fn usage(shared: &Arc<Shared>, grant: &Grant) -> Option<WorkUsage> {
    let id = *grant.attached.get()?;
    core_of(shared, grant)?.judgement.lock().usage(id)
}

/// Has attached work declare so much memory, instead of what it was granted.
pub(crate) fn declare_memory(shared: &Arc<Shared>, grant: &Grant, bytes: u64) {
    let (Some(core), Some(id)) = (core_of(shared, grant), grant.attached.get()) else { return };
    let mut judgement = core.judgement.lock();
    judgement.declare_memory(*id, bytes, &core.limits.get());
    core.serve(&judgement);
}

/// Whether so much more memory than was measured, whatever is reserved, reaches a hard threshold.
pub(crate) fn is_too_much_memory(shared: &Arc<Shared>, bytes: u64) -> bool {
    let core = Core::of(shared);
    core.judgement.lock().is_too_much_memory(bytes, &core.limits.get())
}

/// Gives the room of work back of which nothing is left.
pub(crate) fn finish(shared: &Arc<Shared>, grant: &Grant) {
    let Some(core) = core_of(shared, grant) else { return };
    core.holders.remove(grant.place);
    let is_waited_for = match (grant.attached.get(), grant.joined.get()) {
        (Some(id), _) => {
            core.judgement.lock().finish(*id, &core.limits.get());
            core.admission.room.has_waiters()
        }
        (None, Some(id)) => {
            core.judgement.lock().narrow(*id, &grant.work, &core.limits.get());
            core.admission.room.has_waiters()
        }
        (None, None) => core.admission.finish(&grant.work),
    };
    if is_waited_for {
        core.serve_freshly();
    }
}

/// Gives the room of work back with the first good check that begins from now on: it sees all that was declared.
pub(crate) fn release(shared: &Arc<Shared>, grant: &Grant) {
    let Some(core) = core_of(shared, grant) else { return };
    core.holders.remove(grant.place);
    let Some(id) = grant.attached.get() else {
        core.admission.room.release(&grant.work);
        if core.admission.room.has_waiters() {
            core.see_released();
        }
        return;
    };
    let mut judgement = core.judgement.lock();
    // If its process has ended, there is nothing to wait for.
    judgement.release(*id, core.next_number(), end_of, &core.limits.get());
    core.serve(&judgement);
}

/// The core of the process that the work was granted to, if that is the calling one.
fn core_of<'a>(shared: &'a Arc<Shared>, grant: &Grant) -> Option<&'a Core> {
    shared.current().filter(|_| !grant.mark.is_inherited())
}
