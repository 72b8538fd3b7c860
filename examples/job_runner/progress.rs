//! What is shown while the jobs run: one line that changes on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use highwater::ResourceSnapshot;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::printer::{above, Printer};

/// How often plain lines are printed at most.
const PLAIN_GAP: Duration = Duration::from_secs(1);

/// The counts of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) running: usize,
    pub(crate) paused: usize,
    pub(crate) done: usize,
    pub(crate) failed: usize,
}

/// Where progress is shown.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    printer: Printer,
    plain: bool,
    began: Instant,
    /// When the last plain line was printed, and what it said: another is worth printing when that has changed.
    printed: Option<(Instant, Counts, bool)>,
}

impl Progress {
    /// Shows progress on standard output.
    pub(crate) fn new() -> io::Result<Progress> {
        let plain = !io::stdout().is_terminal();
        let target = if plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stdout() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        let printer = Printer::new(bar.clone())?;
        Ok(Progress { bar, printer, plain, began: Instant::now(), printed: None })
    }

    /// Prints above the progress line.
    pub(crate) fn printer(&self) -> &Printer {
        &self.printer
    }

    /// A writer to standard error that leaves the progress line whole.
    pub(crate) fn stderr(&self) -> impl Write + Send + 'static {
        AboveTheBar { bar: self.bar.clone() }
    }

    /// Shows how things stand.
    pub(crate) fn show(&mut self, counts: Counts, latest: Option<&ResourceSnapshot>, held_back: Option<&str>) {
        if self.plain && !self.is_plain_line_due(counts, held_back.is_some()) {
            return;
        }
        let Counts { running, paused, done, failed } = counts;
        let mut line = format!("running {running}, paused {paused}, done {done}, failed {failed}");
        if let Some(snapshot) = latest {
            let processes = snapshot.child_process_count.unwrap_or_default();
            line += &format!("; {processes} processes, {:.1} MB", snapshot.memory_usage_mb());
        }
        if let Some(reason) = held_back {
            line += &format!("; holding back: {reason}");
        }
        if self.plain {
            self.say(&format!("{:6.1} s  {line}", self.began.elapsed().as_secs_f64()));
        } else {
            self.bar.set_message(line);
            self.bar.tick();
        }
    }

    /// Prints a line that stays.
    pub(crate) fn say(&self, line: &str) {
        self.printer.say(line);
    }

    /// Removes the progress line.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn is_plain_line_due(&mut self, counts: Counts, is_held_back: bool) -> bool {
        let now = Instant::now();
        let due = self.printed.map_or(true, |(at, printed, was_held_back)| {
            (printed, was_held_back) != (counts, is_held_back) && now.duration_since(at) >= PLAIN_GAP
        });
        if due {
            self.printed = Some((now, counts, is_held_back));
        }
        due
    }
}

struct AboveTheBar {
    bar: ProgressBar,
}

impl Write for AboveTheBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        above(&self.bar, || io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
