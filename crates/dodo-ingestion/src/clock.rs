//! Time, as the core knows it: a wall clock for stamps, a monotonic one for waiting.
//!
//! Everything above takes a [`Now`] as an argument, so that a test or a simulator can be the clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::process::PerProcess;

/// Milliseconds since 1970-01-01 UTC. Jumps when the machine's clock is set.
pub(crate) type WallMs = i64;
/// Milliseconds since this process first asked. Never goes back.
pub(crate) type MonoMs = u64;

pub(crate) const SECOND_MS: i64 = 1_000;
pub(crate) const MINUTE_MS: i64 = 60 * SECOND_MS;
pub(crate) const HOUR_MS: i64 = 60 * MINUTE_MS;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) wall: WallMs,
    pub(crate) mono: MonoMs,
}

fn epoch() -> Instant {
    static EPOCH: PerProcess<Instant> = PerProcess::new();
    *EPOCH.get_or_init(Instant::now)
}

/// What the machine's clocks read.
pub(crate) fn now() -> Now {
    Now { wall: wall_ms(SystemTime::now()), mono: epoch().elapsed().as_millis() as MonoMs }
}

/// The instant at which [`now`]'s monotonic clock reads `mono`.
pub(crate) fn instant_at(mono: MonoMs) -> Instant {
    let far = Duration::from_secs(24 * 60 * 60);
    epoch() + Duration::from_millis(mono).min(epoch().elapsed() + far)
}

/// A time as milliseconds since 1970-01-01 UTC, negative before it.
pub(crate) fn wall_ms(time: SystemTime) -> WallMs {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}

/// RFC 3339 in UTC with milliseconds, as the billing API takes it: `2026-01-02T03:04:05.678Z`.
/// A time outside of the years -9999 to 9999 is moved to the nearer end.
pub(crate) fn rfc3339(wall: WallMs) -> String {
    let end = if wall < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    format!("{:.3}", jiff::Timestamp::from_millisecond(wall).unwrap_or(end))
}

/// Parses an RFC 3339 time with its offset.
pub(crate) fn parse_rfc3339(text: &str) -> Option<WallMs> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_milliseconds_and_read_with_any_offset() {
        assert_eq!(rfc3339(1_767_323_045_678), "2026-01-02T03:04:05.678Z");
        assert_eq!(parse_rfc3339("2026-01-02T05:04:05.678+02:00"), Some(1_767_323_045_678));
        assert_eq!(parse_rfc3339("2026-01-02 03:04"), None);
    }

    #[test]
    fn times_out_of_range_are_moved_to_the_nearer_end() {
        assert!(rfc3339(i64::MIN).starts_with("-009999-01-"));
        assert!(rfc3339(i64::MAX).starts_with("9999-12-"));
    }

    #[test]
    fn times_before_1970_are_negative() {
        assert_eq!(wall_ms(UNIX_EPOCH - Duration::from_millis(5)), -5);
    }
}
