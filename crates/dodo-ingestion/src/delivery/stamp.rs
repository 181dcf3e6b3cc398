//! The timestamp that an event is sent with.
//!
//! The API refuses what is older than an hour or more than five minutes ahead of its own clock,
//! and this machine's clock may be wrong. So a stamp is made at each attempt: the time at which the
//! call happened, corrected by what the server's `Date` taught about our clock, and moved into the
//! window where it lies outside. Events are deduplicated by id alone, so a resend may carry another.

use crate::clock::{MINUTE_MS, SECOND_MS, WallMs};

/// How far back a stamp may lie: five minutes inside of the API's hour, for requests take time.
const OLDEST_MS: i64 = 55 * MINUTE_MS;
/// How far ahead a stamp may lie: a minute inside of the API's five.
const AHEAD_MS: i64 = 4 * MINUTE_MS;
/// `Date` has whole seconds and travels for a while: a smaller difference teaches nothing.
const LEAST_SKEW_MS: i64 = 5 * SECOND_MS;

/// An event's timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) at: WallMs,
    /// When it happened, by the server's clock, where that is not the stamp.
    pub(crate) moved_from: Option<WallMs>,
}

/// What the stamps of one request are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StampBase {
    skew_ms: i64,
    server_now: WallMs,
}

impl StampBase {
    pub(crate) fn stamp(&self, occurred_at: WallMs) -> Stamp {
        let happened = occurred_at.saturating_add(self.skew_ms);
        let oldest = self.server_now.saturating_sub(OLDEST_MS);
        let at = happened.clamp(oldest, self.server_now.saturating_add(AHEAD_MS));
        Stamp { at, moved_from: (at != happened).then_some(happened) }
    }

    /// Whether the call is older than can be billed at its own time.
    pub(crate) fn is_late(&self, occurred_at: WallMs) -> bool {
        let happened = occurred_at.saturating_add(self.skew_ms);
        happened < self.server_now.saturating_sub(OLDEST_MS)
    }
}

/// How far the server's clock is ahead of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skew {
    ms: i64,
}

impl Skew {
    /// Learns from the server's clock and ours at the same moment.
    pub(crate) fn learn(&mut self, server: WallMs, ours: WallMs) {
        let measured = server.saturating_add(SECOND_MS / 2).saturating_sub(ours);
        let skew = if measured.abs() < LEAST_SKEW_MS { 0 } else { measured };
        if (skew - self.ms).abs() >= LEAST_SKEW_MS {
            self.ms = skew;
        }
    }

    pub(crate) fn base(self, now: WallMs) -> StampBase {
        StampBase { skew_ms: self.ms, server_now: now.saturating_add(self.ms) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::HOUR_MS;

    const NOW: WallMs = 1_767_323_045_000;

    #[test]
    fn a_stamp_is_the_calls_own_time_unless_that_is_outside_of_the_window() {
        let base = Skew::default().base(NOW);
        let at = |offset: i64| base.stamp(NOW + offset);
        assert_eq!(at(-1_000), Stamp { at: NOW - 1_000, moved_from: None });
        assert_eq!(at(-OLDEST_MS), Stamp { at: NOW - OLDEST_MS, moved_from: None });
        let day_ago = NOW - 24 * HOUR_MS;
        let moved = Stamp { at: NOW - OLDEST_MS, moved_from: Some(day_ago) };
        assert_eq!(base.stamp(day_ago), moved);
        assert!(base.is_late(day_ago) && !base.is_late(NOW));
        assert_eq!(at(60_000), Stamp { at: NOW + 60_000, moved_from: None });
        let ahead = Stamp { at: NOW + AHEAD_MS, moved_from: Some(NOW + 290_000) };
        assert_eq!(at(290_000), ahead);
        assert_eq!(base.stamp(i64::MIN).at, NOW - OLDEST_MS);
        assert_eq!(base.stamp(i64::MAX).at, NOW + AHEAD_MS);
    }

    #[test]
    fn skew_is_learnt_when_it_matters() {
        let mut skew = Skew::default();
        skew.learn(NOW, NOW + 3_000);
        assert_eq!(skew, Skew::default());
        skew.learn(NOW, NOW + HOUR_MS);
        let learnt = skew;
        assert_ne!(learnt, Skew::default());
        skew.learn(NOW, NOW + HOUR_MS + 1_000);
        assert_eq!(skew, learnt, "a second is no news");
        let stamp = skew.base(NOW + HOUR_MS).stamp(NOW + HOUR_MS);
        assert!((stamp.at - NOW).abs() <= 1_000, "{stamp:?}");
        skew.learn(NOW, NOW); // the clock was set right
        assert_eq!(skew, Skew::default());
    }
}
