//! What only a meter of one's own can do: begin anew, live at another time, show all that arrived.

use std::sync::atomic::Ordering;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{Meter, rebuild};
use crate::clock::MAX_OFFSET;
use crate::duration;
use crate::refusal::{Answer, Refusal};
use crate::store::{Arrivals, Room, Selection};

/// The meter's clock, as it is shown.
#[derive(Debug, Serialize)]
pub(crate) struct ClockView {
    now: Timestamp,
    offset: String,
}

impl Meter {
    /// Makes everything as it was on the first day.
    pub(crate) fn reset(&self, keep_meters: bool) -> Answer<()> {
        let mut writer = self.inner.store.write();
        writer.clear(keep_meters)?;
        self.inner.resets.fetch_add(1, Ordering::SeqCst);
        self.inner.clock.set(SignedDuration::ZERO);
        let fresh = rebuild(&writer, self.now())?;
        if let Some(limiter) = &self.inner.limiter {
            limiter.forget();
        }
        self.inner.faults.rearm();
        let mut ledger = self.ledger();
        *ledger = fresh;
        self.changed(ledger);
        Ok(())
    }

    pub(crate) fn clock(&self) -> ClockView {
        ClockView { now: self.now(), offset: duration::show(self.clock_offset()) }
    }

    /// How far the meter's clock is from the machine's.
    pub(crate) fn clock_offset(&self) -> SignedDuration {
        self.inner.clock.offset()
    }

    pub(crate) fn set_clock(&self, offset: &str) -> Answer<ClockView> {
        let read = duration::parse_signed(offset).map_err(|problem| {
            Refusal::body(format!("offset is {offset:?}: {problem}; or -90s, for earlier"))
        })?;
        let writer = self.inner.store.write();
        let before = self.clock_offset();
        if !self.inner.clock.set(read) {
            return Err(Refusal::body(format!(
                "offset is {offset}: the clock can be moved by at most {} hours",
                MAX_OFFSET.as_hours()
            )));
        }
        if self.clock_offset() < before {
            // What was late is of late again, and what lies ahead counts as of now, as after a restart.
            let mut fresh = self.ledger().without_events(self.now());
            writer.replay(|call| fresh.apply(call))?;
            *self.ledger() = fresh;
        }
        drop(writer);
        self.changed(self.ledger());
        Ok(self.clock())
    }

    /// The beginning of a look at the events that arrived after `since`.
    pub(crate) fn arrivals_since(&self, since: i64) -> Arrivals {
        Arrivals { resets: self.resets(), since, seen: since, ..Arrivals::default() }
    }

    /// Goes on with a look at the events in the order of their arrival. After a reset all that arrived since
    /// then is meant, and nothing from before it.
    pub(crate) fn arrivals(
        &self,
        of: &Selection,
        room: Room,
        mut arrivals: Arrivals,
    ) -> Answer<Arrivals> {
        loop {
            let resets = self.resets();
            if arrivals.resets != resets {
                arrivals = Arrivals { resets, ..Arrivals::default() };
            }
            self.inner.store.arrivals(of, room, &mut arrivals)?;
            // A reset meanwhile may have put later events behind earlier ones.
            if self.resets() == resets {
                return Ok(arrivals);
            }
        }
    }

    fn resets(&self) -> u64 {
        self.inner.resets.load(Ordering::SeqCst)
    }
}
