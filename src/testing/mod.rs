#![doc = include_str!("../guide/testing.md")]

mod readings;
mod script;
pub mod verdicts;

use std::sync::Arc;

pub use self::script::Script;
use crate::engine::{self, Config, Core, Shared};
use crate::monitor::{Permit, Readiness, ResourceMonitor, ResourceMonitorBuilder};
use crate::sys::Allocator;
use crate::vocabulary::{Error, ResourceLimits, Verdict, Work};

/// A monitor with default settings, and the script of what it reads and of its time. Nothing is used at first.
pub fn monitor(limits: ResourceLimits) -> (ResourceMonitor, Script) {
    let (script, probe) = Script::new();
    let config =
        Config { probe: Box::new(probe), clock: script.clock(), allocator: Allocator::default(), ..Config::default() };
    let monitor = ResourceMonitor::with_config(config, limits);
    script.follow(monitor.shared());
    (monitor, script)
}

/// As [`monitor`], with settings of the host's. Roots are not read, but must be there.
///
/// # Errors
/// As [`ResourceMonitorBuilder::build`].
pub fn build(builder: ResourceMonitorBuilder) -> Result<(ResourceMonitor, Script), Error> {
    let (script, probe) = Script::new();
    let monitor = builder.build_scripted(Box::new(probe), script.clock())?;
    script.follow(monitor.shared());
    Ok((monitor, script))
}

/// A readiness that always says yes, and grants whatever is asked for. It has no monitor, limits nothing, and never gets
/// stale.
pub fn accepting() -> Readiness {
    let shared = without_monitor();
    engine::check_now(&shared);
    Readiness::new(shared)
}

/// A readiness that always says no, with this verdict. Whoever would wait for room is told so at once.
///
/// # Panics
/// If the verdict is one of an open gate.
pub fn refusing(verdict: Verdict) -> Readiness {
    assert!(!verdict.is_accepting(), "a readiness cannot refuse because of: {verdict}");
    let shared = without_monitor();
    Core::of(&shared).refuse_with(verdict);
    Readiness::new(shared)
}

/// A permit for this work, by an [`accepting`] readiness. It can be held, finished and dropped like any other; no process
/// can be attached to it.
///
/// # Panics
/// If the work is too much to be counted: a large part of what 64 bits hold.
pub fn permit(work: Work) -> Permit {
    match accepting().try_admit(work) {
        Ok(permit) => permit,
        Err(verdict) => panic!("{verdict}"),
    }
}

/// A core without limits that nobody starts or stops, whose clock stands still.
// Nothing is set that could be refused.
#[allow(clippy::expect_used)]
fn without_monitor() -> Arc<Shared> {
    let limits = ResourceLimits::builder().build().expect("there are no limits");
    let (script, probe) = Script::new();
    let config = Config { probe: Box::new(probe), clock: script.clock(), ..Config::default() };
    Arc::new(Shared::new(Core::new(Arc::new(config), limits)))
}
