//! The rate limit of the billing API: so many requests of a key in a minute, and so many in a second.
//!
//! Invariant: in any window no more requests of a key are let through than the limit says; a request that is
//! refused does not count. Keys that are no longer used are let go. It knows nothing of HTTP. A meter that is
//! started again has forgotten all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::RateLimit;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
/// So many keys are kept without a look at when they were last used.
const FEW_KEYS: usize = 64;

/// Counts the requests of each key.
pub(crate) struct Limiter {
    limit: RateLimit,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    /// When each key's requests of the last minute came, and perhaps earlier ones, the oldest first.
    came: HashMap<String, VecDeque<Instant>>,
    /// How many keys the last sweep left.
    swept_to: usize,
}

impl Limiter {
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self { limit, keys: Mutex::default() }
    }

    /// Lets a request through, or says for how long there is no room for it.
    pub(crate) fn admit(&self, key: &str, now: Instant) -> Result<(), Duration> {
        let RateLimit { per_minute, per_second } = self.limit;
        let mut keys = self.keys();
        keys.sweep(now);
        let came = keys.came.entry(key.to_owned()).or_default();
        while came.front().is_some_and(|&first| !is_of_late(first, now)) {
            came.pop_front();
        }
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
    }

    /// How many more requests of a key there is room for in this minute.
    pub(crate) fn remaining(&self, key: &str, now: Instant) -> u32 {
        let keys = self.keys();
        let came = keys.came.get(key).into_iter().flatten();
        let came = came.filter(|&&came| is_of_late(came, now)).count();
        self.limit.per_minute.saturating_sub(came as u32)
    }

    /// Begins anew.
    pub(crate) fn forget(&self) {
        *self.keys() = Keys::default();
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    /// Lets go of the keys without a request of late, once there are twice as many as after the last time.
    fn sweep(&mut self, now: Instant) {
        if self.came.len() < (2 * self.swept_to).max(FEW_KEYS) {
            return;
        }
        self.came.retain(|_, came| came.back().is_some_and(|&last| is_of_late(last, now)));
        self.swept_to = self.came.len();
    }
}

fn is_of_late(came: Instant, now: Instant) -> bool {
    now.duration_since(came) < MINUTE
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

    #[test]
    fn keys_that_are_no_longer_used_are_let_go() {
        let limiter = Limiter::new(RateLimit { per_minute: 2, per_second: 2 });
        let start = Instant::now();
        for second in 0..10_000 {
            let now = start + Duration::from_secs(second);
            assert_eq!(limiter.admit(&format!("key {second}"), now), Ok(()));
            limiter.remaining(&format!("asked about {second}"), now);
            if second % 60 == 30 {
                assert_eq!([(); 2].map(|()| limiter.admit("in use", now)), [Ok(()); 2]);
            }
            if second % 60 >= 30 {
                assert!(limiter.admit("in use", now).is_err(), "{second}");
            }
            assert!(limiter.keys().came.len() <= 2 * 64, "{second}");
        }
    }
}
