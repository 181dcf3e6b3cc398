//! What is seen of the steps: a line for each that has ended and, on a terminal, one that names those that run.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};

use super::title;

/// Returns to the beginning of the line and empties it.
const CLEAR: &str = "\r\x1b[2K";

pub(super) struct Screen {
    running: Mutex<Vec<&'static str>>,
    is_terminal: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { running: Mutex::default(), is_terminal: io::stdout().is_terminal() }
    }

    pub(super) fn begun(&self, step: &'static str) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.push(step);
        self.show("", &running);
    }

    pub(super) fn ended(&self, step: &'static str, told: &str) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|other| *other != step);
        self.show(told, &running);
    }

    pub(super) fn say(&self, line: &str) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        self.show(&format!("{line}\n"), &running);
    }

    /// In one piece: another step may begin or end at the same time.
    fn show(&self, told: &str, running: &[&'static str]) {
        let names: Vec<String> = running.iter().map(|step| title(step)).collect();
        let shown = match (self.is_terminal, names.is_empty()) {
            (false, _) => told.to_owned(),
            (true, true) => format!("{CLEAR}{told}"),
            (true, false) => format!("{CLEAR}{told}...  {}", names.join(", ")),
        };
        let mut stdout = io::stdout().lock();
        // A terminal that is gone shows nothing either way.
        let _ = stdout.write_all(shown.as_bytes()).and_then(|()| stdout.flush());
    }
}
