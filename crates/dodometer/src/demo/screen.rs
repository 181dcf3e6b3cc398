//! What the demo shows: lines on standard output, and on a terminal a bar of progress on standard
//! error.

use std::io::{IsTerminal, Write};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::report::grouped;
use crate::coloured;

const BOLD: &str = "1";
const GREEN: &str = "32";
const YELLOW: &str = "33";

/// How far the demo is.
pub(crate) struct Progress {
    /// Calls that the API answered.
    pub(crate) answered: u64,
    /// Calls that the meter has, billed or not.
    pub(crate) metered: u64,
    /// Requests that the meter answered.
    pub(crate) requests: u64,
}

/// Where the demo is seen.
pub(crate) struct Screen {
    bar: ProgressBar,
    colours: bool,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::hidden();
        Self { bar, colours: coloured(&std::io::stdout()) }
    }

    /// Whether somebody is there to look at it.
    pub(crate) fn is_terminal() -> bool {
        std::io::stdout().is_terminal()
    }

    pub(crate) fn say(&self, line: &str) -> anyhow::Result<()> {
        self.bar
            .suspend(|| {
                let mut out = std::io::stdout().lock();
                writeln!(out, "{line}").and_then(|()| out.flush())
            })
            .context("cannot write to standard output")
    }

    pub(crate) fn heading(&self, line: &str) -> anyhow::Result<()> {
        self.painted(BOLD, line)
    }

    pub(crate) fn success(&self, line: &str) -> anyhow::Result<()> {
        self.painted(GREEN, line)
    }

    pub(crate) fn notice(&self, line: &str) -> anyhow::Result<()> {
        self.painted(YELLOW, line)
    }

    fn painted(&self, colour: &str, line: &str) -> anyhow::Result<()> {
        if self.colours {
            self.say(&format!("\x1b[{colour}m{line}\x1b[0m"))
        } else {
            self.say(line)
        }
    }

    /// Begins to show progress, towards so many calls if their number is known.
    pub(crate) fn begin(&mut self, calls: Option<u64>) -> anyhow::Result<()> {
        let template = match calls {
            Some(_) => "[{elapsed}] {bar:16} {wide_msg}",
            None => "[{elapsed}] {spinner} {wide_msg}",
        };
        self.bar = ProgressBar::with_draw_target(calls, ProgressDrawTarget::stderr())
            .with_style(ProgressStyle::with_template(template)?);
        Ok(())
    }

    pub(crate) fn progress(&self, progress: &Progress) {
        let Progress { answered, metered, requests } = *progress;
        self.bar.set_position(answered);
        let waiting = answered.saturating_sub(metered);
        let [answered, metered, waiting, requests] =
            [answered, metered, waiting, requests].map(grouped);
        self.bar.set_message(format!(
            "answered {answered}, metered {metered}, waiting {waiting}, requests {requests}"
        ));
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
