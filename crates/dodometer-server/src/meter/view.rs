//! What the page draws, from the ledger and, where that keeps too few events, from the store.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::Meter;
use crate::ledger::{Call, Filter, NEWEST, Recent, View};
use crate::refusal::{Answer, Refusal};
use crate::store::{Period, Selection};

/// How many of a customer's newest events are searched for those of an endpoint.
const MOST_SEARCHED: u32 = 1000;

impl Meter {
    /// What the page draws, the version of the ledger that it was made of, and for how long that was
    /// held.
    pub(crate) fn view(&self, filter: &Filter) -> Answer<(View, u64, Duration)> {
        let mut ledger = self.ledger();
        let held_since = Instant::now();
        let version = *self.inner.changes.borrow();
        // The time is asked for under the lock: the ledger must not be told one from before the clock was
        // moved back.
        let now = self.now();
        let mut view = ledger.view(filter, now);
        let cost = held_since.elapsed();
        drop(ledger);
        if let Some(customer) = &filter.customer
            && view.newest.len() < NEWEST
        {
            view.newest = self.newest_of(customer, filter, now)?;
        }
        Ok((view, version, cost))
    }

    /// The newest events of one customer, of whom the ledger may keep too few.
    fn newest_of(&self, customer: &str, filter: &Filter, now: Timestamp) -> Answer<Vec<Recent>> {
        let of = Selection {
            customer_id: Some(customer.to_owned()),
            period: Period { start: filter.from(now), end: None },
            ..Selection::default()
        };
        let most = if filter.endpoint.is_some() { MOST_SEARCHED } else { NEWEST as u32 };
        let listed = self.inner.store.events(&of, most, 0)?;
        let ledger = self.ledger();
        let mut newest = Vec::new();
        for event in &listed {
            let metadata = event.metadata.as_deref().map_or("{}", RawValue::get);
            let metadata =
                serde_json::from_str(metadata).map_err(|error| Refusal::internal(&error))?;
            let line = ledger.recent(&Call {
                cursor: event.cursor,
                customer_id: &event.customer_id,
                event_name: &event.event_name,
                timestamp: event.timestamp,
                metadata: &metadata,
            });
            if filter.passes(&line, now) {
                newest.push(line);
            }
        }
        newest.truncate(NEWEST);
        Ok(newest)
    }
}
