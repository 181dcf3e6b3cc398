//! The request budget: how many requests may start, and when.
//!
//! The API allows 100 requests a minute and 10 a second for each key. The hard limits here lie
//! below that, hold over every window of 60 seconds and of one second, and are lowered when the
//! server says 429, so that hosts that share a key converge.

use std::collections::VecDeque;

use crate::clock::{MonoMs, Now, WallMs};
use crate::planted::{Fault, is_planted};

const MINUTE: MonoMs = 60_000;
const SECOND: MonoMs = 1_000;
/// One in so many starts is kept for flush and close.
const RESERVE: u32 = 19;
/// What a clean minute gives back of the full rate after a 429.
const RECOVERY: f64 = 0.1;

/// Counts starts and says when the next may be.
#[derive(Debug)]
pub(crate) struct Budget {
    per_minute: u32,
    per_second: u32,
    /// Starts allowed in any minute now; between one and `per_minute`.
    rate: f64,
    rate_changed: MonoMs,
    /// The starts of the last minute, oldest first.
    starts: VecDeque<MonoMs>,
    not_before: MonoMs,
}

impl Budget {
    pub(crate) fn new(per_minute: u32, per_second: u32) -> Self {
        Self {
            per_minute,
            per_second,
            rate: f64::from(per_minute),
            rate_changed: 0,
            starts: VecDeque::new(),
            not_before: 0,
        }
    }

    /// Counts starts of an earlier sender, given by the wall clock.
    pub(crate) fn inherit(&mut self, starts: &[WallMs], now: Now) {
        if is_planted(Fault::ForgetTheBudget) {
            return;
        }
        let mut ages: Vec<u64> = starts
            .iter()
            .map(|start| u64::try_from(now.wall.saturating_sub(*start)).unwrap_or(0))
            .filter(|age| *age < MINUTE)
            .collect();
        ages.sort_unstable_by(|a, b| b.cmp(a));
        // A process that is younger than the start sees it as its own beginning.
        self.starts = ages.into_iter().map(|age| now.mono.saturating_sub(age)).collect();
    }

    /// When the next request may start: `now` or later.
    pub(crate) fn next_start(&mut self, now: MonoMs, urgent: bool) -> MonoMs {
        self.forget_before(now);
        if is_planted(Fault::IgnoreTheBudget) {
            return now;
        }
        let rate = self.rate as usize;
        let reserve = if urgent { 0 } else { rate / RESERVE as usize };
        let allowed = (rate - reserve).max(1);
        let mut at = now.max(self.not_before);
        if let Some(excess) = self.starts.len().checked_sub(allowed) {
            at = at.max(self.starts[excess] + MINUTE);
        }
        if let Some(excess) = self.starts.len().checked_sub(self.per_second as usize) {
            at = at.max(self.starts[excess] + SECOND);
        }
        if let Some(last) = self.starts.back()
            && !urgent
            && self.starts.len() >= allowed / 2
        {
            at = at.max(last + MINUTE / allowed as MonoMs);
        }
        at
    }

    pub(crate) fn started(&mut self, now: MonoMs) {
        self.starts.push_back(now);
    }

    /// The server said 429.
    pub(crate) fn limited(&mut self, now: MonoMs) {
        self.rate = (self.rate / 2.0).max(1.0);
        self.rate_changed = now;
    }

    /// The server took a request; and said, perhaps, how many are left.
    pub(crate) fn accepted(&mut self, now: MonoMs, remaining: Option<u64>) {
        if self.rate < f64::from(self.per_minute) && now >= self.rate_changed + MINUTE {
            let full = f64::from(self.per_minute);
            self.rate = (self.rate + full * RECOVERY).min(full);
            self.rate_changed = now;
        }
        if remaining == Some(0) {
            self.not_before = now + SECOND;
        }
    }

    fn forget_before(&mut self, now: MonoMs) {
        while self.starts.front().is_some_and(|start| start + MINUTE <= now) {
            self.starts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Starts as many as the budget allows for a while, and returns when.
    fn run(budget: &mut Budget, from: MonoMs, to: MonoMs, urgent: bool) -> Vec<MonoMs> {
        let mut starts = Vec::new();
        let mut now = from;
        while now < to {
            let at = budget.next_start(now, urgent);
            if at > now {
                now = at;
                continue;
            }
            budget.started(now);
            starts.push(now);
        }
        starts
    }

    fn most_in_any(starts: &[MonoMs], window: MonoMs) -> usize {
        let ends = starts.iter().enumerate();
        ends.map(|(i, end)| starts[..=i].iter().filter(|s| **s + window > *end).count())
            .max()
            .unwrap_or(0)
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more(
            per_minute in 1_u32..200, per_second in 1_u32..20,
            urgency in proptest::collection::vec((any::<bool>(), 1_u64..90_000), 1..8),
        ) {
            let mut budget = Budget::new(per_minute, per_second);
            let (mut starts, mut now) = (Vec::new(), 0);
            for (urgent, length) in urgency {
                starts.extend(run(&mut budget, now, now + length, urgent));
                now += length;
            }
            prop_assert!(most_in_any(&starts, MINUTE) <= per_minute as usize);
            prop_assert!(most_in_any(&starts, SECOND) <= per_second as usize);
        }
    }

    #[test]
    fn below_half_starts_are_spaced_and_some_are_reserved() {
        let mut budget = Budget::new(95, 9);
        let starts = run(&mut budget, 0, MINUTE, false);
        assert_eq!(starts.len(), 90);
        let gaps: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(gaps[0], 0);
        assert!(gaps[60..].iter().all(|gap| *gap >= 600), "{gaps:?}");
        assert_eq!(run(&mut budget, MINUTE - 1, MINUTE, true).len(), 5);
    }

    #[test]
    fn a_429_halves_the_rate_and_clean_minutes_give_it_back() {
        let mut budget = Budget::new(95, 9);
        budget.limited(0);
        assert!(run(&mut budget, 0, MINUTE, true).len() <= 47);
        for minute in 1..=6 {
            budget.accepted(minute * MINUTE, None);
        }
        assert!((budget.rate - 95.0).abs() < f64::EPSILON);
        for _ in 0..20 {
            budget.limited(0);
        }
        assert_eq!(run(&mut budget, 7 * MINUTE, 8 * MINUTE, true).len(), 1);
    }

    #[test]
    fn starts_of_an_earlier_sender_count() {
        let now = Now { wall: 1_767_323_045_000, mono: 120_000 };
        let mut budget = Budget::new(10, 9);
        let starts: Vec<_> = (0..10).map(|i| now.wall - 30_000 + i).collect();
        budget.inherit(&starts, now);
        assert_eq!(budget.next_start(now.mono, true), now.mono + 30_000);
        budget.inherit(&[now.wall - 61_000, now.wall + 9_999_999], now);
        assert_eq!(budget.next_start(now.mono, true), now.mono);
    }

    #[test]
    fn when_the_server_says_that_none_are_left_the_next_waits() {
        let mut budget = Budget::new(95, 9);
        budget.accepted(5, Some(0));
        assert_eq!(budget.next_start(5, true), 1_005);
    }
}
