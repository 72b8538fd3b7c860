//! Jobs: programs that a host has run under the limits of its monitor.
//!
//! - `job`: a job that is to be started, and the queue of those.
//! - `running`: a job that runs, and in its `control` how it is signalled and ended.
//! - `family`: whose a process is.
//! - `cost`: what jobs of a kind have cost. `width`: how many run at once. `oom`: the kernel's kills. `remaining`: how long
//!   it will take.
//! - `tasks`: limits on threads, which count what others have as well. `terminal`: whether a signal stops the host.
//! - `table`: all of them together. `driver`: the thread of the jobs. `starting`, `endings`: what it does. `manager`: what
//!   the monitor may do to them.
//! - `outcome`, `held_back`, `limiter`, `tally`, `handle`: what the host is told, and what it holds of a job. `report`: what it
//!   tells people.
//! - `permit`: room for a job whose command is not known yet. `output`: what jobs write.
//! - `face`: what the host holds of all. `log`: how its logger is called.

mod cost;
mod driver;
mod endings;
mod face;
mod family;
mod growth;
mod handle;
mod held_back;
mod job;
mod limiter;
mod log;
mod manager;
mod oom;
mod outcome;
mod output;
mod permit;
mod remaining;
mod report;
mod running;
mod starting;
mod table;
mod tally;
mod tasks;
mod terminal;
mod width;

#[cfg(any(test, fuzzing))]
pub(crate) const LAWS: [crate::laws::Law; 5] = [
    ("cpu_ticks", width::law),
    ("task_status", tasks::law),
    ("oom_kills", oom::law),
    ("environ", family::law),
    ("costs", cost::law),
];

pub use self::face::{Jobs, JobsBuilder};
pub use self::handle::JobHandle;
pub use self::held_back::HeldBack;
pub use self::job::Job;
pub use self::limiter::{Limiter, Limiters};
pub use self::outcome::{JobEvent, JobStep, Outcome, Tries};
pub use self::output::{Grouping, JobOutput, Origin, Stream};
pub use self::permit::JobPermit;
pub use self::remaining::Remaining;
pub use self::report::{Extent, Progress, Summary};
pub use self::tally::Tally;
pub use self::tasks::TaskShortage;
