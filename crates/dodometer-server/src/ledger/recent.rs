//! The newest events, as the page lists them.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;

use super::Call;

/// How many are kept.
const KEPT: usize = 1000;

/// A line of the list.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Recent {
    /// Its place in the order of arrival.
    cursor: i64,
    pub(super) timestamp: Timestamp,
    pub(super) customer_id: String,
    event_name: String,
    pub(super) endpoint: Option<String>,
    method: Option<String>,
    status_code: Option<String>,
    response_time_ms: Option<f64>,
    billed: bool,
}

impl Recent {
    pub(super) fn of(call: &Call<'_>) -> Self {
        let mut line = Self::default();
        line.set(call);
        line
    }

    pub(super) fn billed(self, billed: bool) -> Self {
        Self { billed, ..self }
    }

    /// Takes over an event, reusing what room the line has.
    fn set(&mut self, call: &Call<'_>) {
        let metadata = call.metadata;
        let owned = |key| metadata.text(key).map(std::borrow::Cow::into_owned);
        self.cursor = call.cursor;
        self.timestamp = call.timestamp;
        call.customer_id.clone_into(&mut self.customer_id);
        call.event_name.clone_into(&mut self.event_name);
        self.endpoint = owned("endpoint");
        self.method = owned("method");
        self.status_code = owned("status_code");
        self.response_time_ms = metadata.number("response_time_ms");
    }
}

/// The newest events by arrival, each with the number of the set of meters that counted it.
#[derive(Default)]
pub(super) struct Recents(VecDeque<(Recent, u32)>);

impl Recents {
    pub(super) fn push(&mut self, call: &Call<'_>, counted_by: u32) {
        let oldest = if self.0.len() == KEPT { self.0.pop_back() } else { None };
        let (mut line, _) = oldest.unwrap_or_default();
        line.set(call);
        self.0.push_front((line, counted_by));
    }

    /// The newest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(Recent, u32)> {
        self.0.iter()
    }
}
