//! The meter's clock: this machine's, moved by an offset that a test may set.
//!
//! Whatever the meter calls now comes from here: the window that times are held against, default
//! times, times of arrival and the forgetting of ids, and the `Date` of answers. It ticks in microseconds,
//! which is what the store keeps. Nothing is ordered by it: events are numbered as they arrive, so a clock
//! that is moved back changes no order. Waiting (latencies, rate limits, how long a fault lasts) goes by the
//! machine's own steady clock.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

/// The furthest that the clock may be moved, either way: about ten years.
pub(crate) const MAX_OFFSET: SignedDuration = SignedDuration::from_hours(87_600);

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Clock {
    offset_ms: AtomicI64,
}

impl Clock {
    pub(crate) fn now(&self) -> Timestamp {
        whole_micros(shifted(Timestamp::now(), self.offset()))
    }

    pub(crate) fn offset(&self) -> SignedDuration {
        SignedDuration::from_millis(self.offset_ms.load(Ordering::Relaxed))
    }

    /// Moves the clock; false if that is further than it may be.
    pub(crate) fn set(&self, offset: SignedDuration) -> bool {
        let fits = offset.unsigned_abs() <= MAX_OFFSET.unsigned_abs();
        if fits {
            self.offset_ms.store(offset.as_millis() as i64, Ordering::Relaxed);
        }
        fits
    }
}

/// A time as the store keeps it. Whatever is kept elsewhere too goes through here, so that it is the same
/// before and after a restart.
pub(crate) fn whole_micros(time: Timestamp) -> Timestamp {
    // What came out of a time fits into one.
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// A time later by `offset`; at the ends of time it stays there.
pub(crate) fn shifted(time: Timestamp, offset: SignedDuration) -> Timestamp {
    let end = if offset.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
    time.checked_add(offset).unwrap_or(end)
}
