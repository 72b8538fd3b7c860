//! What the monitor may do to jobs, from its own thread. In a forked child, where they are the parent's, nothing.

use super::running::{By, Running, Why};
use super::table::JobTable;
use crate::host::{BoxError, JobManager};
use crate::vocabulary::Resource;

impl JobManager for JobTable {
    fn running_count(&self) -> usize {
        if self.is_inherited() {
            return 0;
        }
        self.state.lock().running.len()
    }

    fn active_job_count(&self) -> usize {
        if self.is_inherited() {
            return 0;
        }
        self.state.lock().running.iter().filter(|job| !job.is_paused()).count()
    }

    fn oldest_running_job(&self) -> Option<String> {
        if self.is_inherited() {
            return None;
        }
        self.state.lock().running.iter().find(|job| !job.is_ending()).map(|job| job.id().to_string())
    }

    fn pause_job(&self, job_id: &str, critical: Resource) -> Result<(), BoxError> {
        // A stopped job keeps its memory, but takes no more and waits for none. What it has of the rest, it keeps.
        if !matches!(critical, Resource::Memory | Resource::CgroupMemory | Resource::MemoryPressure) {
            return Err(format!("a stopped job frees no {critical}").into());
        }
        let mut state = self.lock_with_orphans();
        if state.running.len() == 1 {
            return Err("it runs alone: no other job could end and free memory".into());
        }
        Ok(find(&mut state.running, job_id)?.pause(By::Monitor, &self.processes)?)
    }

    fn cancel_job(&self, job_id: &str, critical: Resource) -> Result<(), BoxError> {
        let mut state = self.lock_with_orphans();
        let is_alone = state.running.len() == 1;
        let job = find(&mut state.running, job_id)?;
        if is_alone {
            // It cannot be run within the limits.
            job.job.job.tries = 0;
        }
        job.end(Why::Shed(critical), self.settings.grace, &self.processes)?;
        drop(state);
        self.bell.signal();
        Ok(())
    }

    fn pressure_cleared(&self) {
        if self.is_inherited() {
            return;
        }
        for job in &mut self.state.lock().running {
            let done = job.resume(By::Monitor, &self.processes);
            job.complain("continue", done);
        }
    }
}

fn find<'a>(running: &'a mut [Running], job_id: &str) -> Result<&'a mut Running, BoxError> {
    let job = running.iter_mut().find(|job| job.id().to_string() == job_id && !job.is_ending());
    job.ok_or_else(|| "it has just ended, or was just told to".into())
}
