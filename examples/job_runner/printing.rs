//! All that is printed: what jobs write and what the runner says of them, above the progress line.

use std::io::{self, IsTerminal, Read};

use highwater::{BoxError, Grouping, JobOutput, Origin};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The way to all that is printed, and the progress line, which is hidden where there is no terminal.
pub(crate) fn open(grouping: Option<Grouping>) -> Result<(JobOutput, ProgressBar), BoxError> {
    let is_terminal = io::stdout().is_terminal();
    let target = if is_terminal { ProgressDrawTarget::stdout() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}")?;
    let bar = ProgressBar::with_draw_target(None, target).with_style(style);
    let above = bar.clone();
    let print = move |origin: Origin, text: &mut dyn Read| match is_terminal {
        true => above.suspend(|| origin.stream.print(text)),
        false => origin.stream.print(text),
    };
    let default = if is_terminal { Grouping::Lines } else { Grouping::Whole };
    Ok((JobOutput::new(grouping.unwrap_or(default), print)?, bar))
}
