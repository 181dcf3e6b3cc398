//! The rate limit of the billing API: so many requests of a key in a minute, and so many in a second.
//!
//! Invariant: in any window no more requests of a key are let through than the limit says; a request that is
//! refused does not count. It knows nothing of HTTP. A meter that is started again has forgotten all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::RateLimit;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// Counts the requests of each key.
pub(crate) struct Limiter {
    limit: RateLimit,
    /// When the requests of the last minute came, the oldest first.
    came: Mutex<HashMap<String, VecDeque<Instant>>>,
}

impl Limiter {
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self { limit, came: Mutex::default() }
    }

    /// Lets a request through, or says for how long there is no room for it.
    pub(crate) fn admit(&self, key: &str, now: Instant) -> Result<(), Duration> {
        let RateLimit { per_minute, per_second } = self.limit;
        self.with(key, now, |came| {
            for (most, window) in [(per_minute, MINUTE), (per_second, SECOND)] {
                // The one that has to be out of the window before there is room.
                if let Some(&last) = came.iter().rev().nth(most as usize - 1)
                    && now.duration_since(last) < window
                {
                    return Err(window.saturating_sub(now.duration_since(last)));
                }
            }
            came.push_back(now);
            Ok(())
        })
    }

    /// How many more requests of a key there is room for in this minute.
    pub(crate) fn remaining(&self, key: &str, now: Instant) -> u32 {
        self.with(key, now, |came| self.limit.per_minute.saturating_sub(came.len() as u32))
    }

    /// Begins anew.
    pub(crate) fn forget(&self) {
        self.came.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn with<T>(
        &self,
        key: &str,
        now: Instant,
        work: impl FnOnce(&mut VecDeque<Instant>) -> T,
    ) -> T {
        let mut keys = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        let came = keys.entry(key.to_owned()).or_default();
        while came.front().is_some_and(|&first| now.duration_since(first) >= MINUTE) {
            came.pop_front();
        }
        work(came)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_slides() {
        let limiter = Limiter::new(RateLimit { per_minute: 5, per_second: 2 });
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let admit = |key, ms| limiter.admit(key, at(ms)).map_err(|wait| wait.as_millis());
        assert_eq!(limiter.remaining("a", at(0)), 5);
        assert_eq!([admit("a", 0), admit("a", 400), admit("a", 900)], [Ok(()), Ok(()), Err(100)]);
        assert_eq!(admit("b", 900), Ok(()), "another key has a limit of its own");
        assert_eq!([admit("a", 1000), admit("a", 1300)], [Ok(()), Err(100)]);
        assert_eq!(
            [admit("a", 3000), admit("a", 4000), admit("a", 5000)],
            [Ok(()), Ok(()), Err(55_000)]
        );
        assert_eq!((limiter.remaining("a", at(5000)), limiter.remaining("a", at(60_000))), (0, 1));
        assert_eq!([admit("a", 60_000), admit("a", 60_001)], [Ok(()), Err(399)]);
    }
}
