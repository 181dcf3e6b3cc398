//! Waiting for what has to come about.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::time::{Duration, Instant};

/// Longer than anything takes on a busy machine: a bound for failures.
pub const PATIENT: Duration = Duration::from_secs(120);

/// So many requests are refused until everything waits: one, and three controls.
pub const UNTIL_HELD: usize = 4;

/// Waits until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENT, "not within {PATIENT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
