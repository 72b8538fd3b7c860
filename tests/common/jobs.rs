//! A manager with no jobs, but for what a test gives it.

use std::sync::Arc;

use highwater::{BoxError, JobManager, Resource};

type Answer<T> = Box<dyn Fn() -> T + Send + Sync>;

/// A manager that counts one job, has none to name, and does what it is asked: each answer may be a test's own.
pub struct QuietJobs {
    count: Answer<usize>,
    oldest: Answer<Option<String>>,
    pause: Answer<Result<(), BoxError>>,
    cancel: Answer<Result<(), BoxError>>,
    reclaim: Answer<bool>,
    clear: Answer<()>,
}

impl QuietJobs {
    pub fn new() -> QuietJobs {
        let done = || Box::new(|| Ok(()));
        QuietJobs {
            count: Box::new(|| 1),
            oldest: Box::new(|| None),
            pause: done(),
            cancel: done(),
            reclaim: Box::new(|| false),
            clear: Box::new(|| ()),
        }
    }

    pub fn counting(self, count: impl Fn() -> usize + Send + Sync + 'static) -> QuietJobs {
        QuietJobs { count: Box::new(count), ..self }
    }

    pub fn naming(self, oldest: impl Fn() -> Option<String> + Send + Sync + 'static) -> QuietJobs {
        QuietJobs { oldest: Box::new(oldest), ..self }
    }

    pub fn pausing(self, pause: impl Fn() -> Result<(), BoxError> + Send + Sync + 'static) -> QuietJobs {
        QuietJobs { pause: Box::new(pause), ..self }
    }

    pub fn cancelling(self, cancel: impl Fn() -> Result<(), BoxError> + Send + Sync + 'static) -> QuietJobs {
        QuietJobs { cancel: Box::new(cancel), ..self }
    }

    pub fn reclaiming(self, reclaim: impl Fn() -> bool + Send + Sync + 'static) -> QuietJobs {
        QuietJobs { reclaim: Box::new(reclaim), ..self }
    }

    pub fn clearing(self, clear: impl Fn() + Send + Sync + 'static) -> QuietJobs {
        QuietJobs { clear: Box::new(clear), ..self }
    }

    pub fn shared(self) -> Arc<QuietJobs> {
        Arc::new(self)
    }
}

impl JobManager for QuietJobs {
    fn running_count(&self) -> usize {
        (self.count)()
    }

    fn active_job_count(&self) -> usize {
        1
    }

    fn oldest_running_job(&self) -> Option<String> {
        (self.oldest)()
    }

    fn pause_job(&self, _: &str, _: Resource) -> Result<(), BoxError> {
        (self.pause)()
    }

    fn cancel_job(&self, _: &str, _: Resource) -> Result<(), BoxError> {
        (self.cancel)()
    }

    fn reclaim(&self, _: Resource) -> bool {
        (self.reclaim)()
    }

    fn pressure_cleared(&self) {
        (self.clear)();
    }
}
