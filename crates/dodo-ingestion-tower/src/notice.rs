//! What an operator should hear of, at most once a minute each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a notice that was told is not repeated.
const REPEAT: Duration = Duration::from_secs(60);

/// One thing that may go wrong, and how often it did.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    occurred: AtomicU64,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    /// How many had occurred by then.
    occurred: u64,
}

impl Notice {
    /// How often it occurred.
    pub(crate) fn count(&self) -> u64 {
        self.occurred.load(Ordering::Relaxed)
    }

    /// Counts one more. When it is time to tell of it: how many it has been since it was last told.
    pub(crate) fn occur(&self) -> Option<u64> {
        self.occur_at(Instant::now())
    }

    fn occur_at(&self, now: Instant) -> Option<u64> {
        let occurred = self.occurred.fetch_add(1, Ordering::Relaxed) + 1;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.at.is_some_and(|at| now.saturating_duration_since(at) < REPEAT) {
            return None;
        }
        let since = occurred.saturating_sub(told.occurred);
        *told = Told { at: Some(now), occurred };
        Some(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_counted_and_told_once_a_minute() {
        let notice = Notice::default();
        let start = Instant::now();
        let told: Vec<_> = [0, 1, 59, 60, 61, 120]
            .map(|seconds| notice.occur_at(start + Duration::from_secs(seconds)))
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(told, [1, 3, 2]);
        assert_eq!(notice.count(), 6);
    }
}
