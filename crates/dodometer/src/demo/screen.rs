//! What the demo shows: lines on standard output, and on a terminal a bar of progress on standard
//! error.

use std::io::{IsTerminal, Write};

use anyhow::Context;
use dodo_ingestion::Stats;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::report::grouped;
use crate::coloured;

const BOLD: &str = "1";
const GREEN: &str = "32";
const YELLOW: &str = "33";

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

    pub(crate) fn progress(&self, calls: u64, stats: &Stats) {
        let Stats { accepted, billed, spooled, requests, .. } = *stats;
        let [accepted, billed, spooled, requests] =
            [accepted, billed, spooled, requests].map(grouped);
        self.bar.set_position(calls);
        self.bar.set_message(format!(
            "accepted {accepted}, billed {billed}, waiting {spooled}, requests {requests}"
        ));
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
