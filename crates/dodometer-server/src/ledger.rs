//! Running totals of everything stored: who called what, how it went, and what it costs.
//!
//! Invariant: apart from what it keeps of requests, the ledger is a function of the stored events, in
//! the order of their arrival, of the stored meters, and of the time that it is told. It is rebuilt
//! from them when a meter is opened and brought up to date after each commit, so neither a bill nor a
//! view of the page has to read events again. It knows nothing of SQL or HTTP and reads no clock.
//!
//! `rollup` has the calls by time, `bill` what is owed, `view` what the page draws.

mod bill;
mod names;
mod recent;
mod requests;
mod rollup;
mod view;

use std::collections::HashMap;

use jiff::Timestamp;

use crate::billable::Billable;
use crate::latency::Latency;
use crate::metadata::Metadata;

pub(crate) use bill::Metered;
pub use bill::{Bill, CustomerBill, Totals};
pub(crate) use recent::Recent;
pub(crate) use requests::{Refused, Requests};
pub(crate) use view::{Filter, NEWEST, View};

use names::{Names, Symbol};
use recent::Recents;
use rollup::{Key, Rollup};

/// How many endpoints, methods and event names are told apart; they are texts of whoever sends
/// events, who may send a new one with each.
const MOST_ENDPOINTS: usize = 200;
const MOST_METHODS: usize = 20;
const MOST_EVENT_NAMES: usize = 50;

/// The running totals.
pub(crate) struct Ledger {
    /// Every customer: a bill leaves out nobody.
    customers: Names,
    /// By customer.
    tallies: Vec<Tally>,
    event_names: Names,
    endpoints: Names,
    methods: Names,
    calls: u64,
    latency: Latency,
    rollup: Rollup,
    meters: Vec<Metered>,
    by_event_name: HashMap<String, Vec<usize>>,
    counted_by: MeterSets,
    recents: Recents,
    pub(crate) requests: Requests,
}

/// What is kept of a customer for the whole time.
#[derive(Default)]
struct Tally {
    calls: u64,
    latency: Latency,
}

/// One stored event, as far as the ledger looks at it.
pub(crate) struct Call<'a> {
    /// Its place in the order of arrival.
    pub(crate) cursor: i64,
    pub(crate) customer_id: &'a str,
    pub(crate) event_name: &'a str,
    pub(crate) timestamp: Timestamp,
    pub(crate) metadata: &'a Metadata<'a>,
}

impl Ledger {
    /// A ledger of nothing.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            customers: Names::new(usize::MAX),
            tallies: Vec::new(),
            event_names: Names::new(MOST_EVENT_NAMES),
            endpoints: Names::new(MOST_ENDPOINTS),
            methods: Names::new(MOST_METHODS),
            calls: 0,
            latency: Latency::default(),
            rollup: Rollup::new(now.as_second()),
            meters: Vec::new(),
            by_event_name: HashMap::new(),
            counted_by: MeterSets::default(),
            recents: Recents::default(),
            requests: Requests::default(),
        }
    }

    /// A ledger with the same meters and requests, and of no event.
    pub(crate) fn without_events(&self, now: Timestamp) -> Self {
        let mut fresh = Self { requests: self.requests.clone(), ..Self::new(now) };
        for meter in self.meters() {
            fresh.add_meter(meter.clone());
        }
        fresh
    }

    /// Tells the ledger what time it is.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        self.rollup.advance(now.as_second());
    }

    /// Takes a stored event into account.
    pub(crate) fn apply(&mut self, call: &Call<'_>) {
        let Call { customer_id, event_name, timestamp, metadata, .. } = *call;
        let time = metadata.number("response_time_ms");
        let customer = self.customers.symbol(customer_id);
        if self.tallies.len() <= customer.index() {
            self.tallies.resize_with(customer.index() + 1, Tally::default);
        }
        let tally = &mut self.tallies[customer.index()];
        tally.calls += 1;
        self.calls += 1;
        if let Some(time) = time {
            tally.latency.record(time);
            self.latency.record(time);
        }
        let mut counted_by = Vec::new();
        for &index in self.by_event_name.get(event_name).into_iter().flatten() {
            if self.meters[index].apply(call) {
                counted_by.push(index);
            }
        }
        let counted_by = self.counted_by.number(counted_by);
        let named = |names: &mut Names, key: &str| {
            metadata.text(key).map_or(Symbol::NONE, |text| names.symbol(&text))
        };
        let key = Key {
            customer,
            event_name: self.event_names.symbol(event_name),
            endpoint: named(&mut self.endpoints, "endpoint"),
            method: named(&mut self.methods, "method"),
            status: metadata.status(),
            counted_by,
        };
        let bytes = metadata.number("response_bytes").unwrap_or(0.0) as u64;
        self.rollup.record(timestamp.as_second(), key, bytes, time);
        self.recents.push(call, counted_by);
    }

    /// Adds a meter that has counted nothing yet.
    pub(crate) fn add_meter(&mut self, meter: Billable) {
        let indices = self.by_event_name.entry(meter.event_name.clone()).or_default();
        indices.push(self.meters.len());
        self.meters.push(Metered::new(meter));
    }

    /// Every meter, the oldest first.
    pub(crate) fn meters(&self) -> impl DoubleEndedIterator<Item = &Billable> {
        self.meters.iter().map(|metered| &metered.meter)
    }

    /// Every meter with its usage, the oldest first.
    pub(crate) fn metered(&self) -> impl Iterator<Item = &Metered> {
        self.meters.iter()
    }

    pub(crate) fn meter(&self, id: &str) -> Option<&Metered> {
        self.meters.iter().find(|metered| metered.meter.id == id)
    }

    pub(crate) fn meter_mut(&mut self, id: &str) -> Option<&mut Billable> {
        self.meters.iter_mut().map(|metered| &mut metered.meter).find(|meter| meter.id == id)
    }

    /// The one currency of what is billed, other than by the meter `except`.
    pub(crate) fn currency(&self, except: Option<&str>) -> Option<&str> {
        self.metered()
            .filter(|metered| Some(metered.meter.id.as_str()) != except)
            .find_map(|metered| metered.meter.billed_price())
            .map(|price| price.currency.as_str())
    }

    /// Whether an event is billed: a meter counts it that has a price and is not archived.
    fn is_billed(&self, call: &Call<'_>) -> bool {
        let meters = self.by_event_name.get(call.event_name).into_iter().flatten();
        let mut meters = meters.map(|&index| &self.meters[index]);
        meters.any(|metered| metered.meter.billed_price().is_some() && metered.counts(call))
    }
}

/// Sets of meters, each with a number. Few combinations of meters count the same event.
#[derive(Default)]
struct MeterSets {
    numbers: HashMap<Vec<usize>, u32>,
}

impl MeterSets {
    fn number(&mut self, set: Vec<usize>) -> u32 {
        let next = self.numbers.len() as u32;
        *self.numbers.entry(set).or_insert(next)
    }

    /// For each number, whether `holds` for a meter of the set.
    fn any(&self, holds: impl Fn(usize) -> bool) -> Vec<bool> {
        let mut any = vec![false; self.numbers.len()];
        for (set, &number) in &self.numbers {
            any[number as usize] = set.iter().any(|&meter| holds(meter));
        }
        any
    }
}

/// Runs `change` on the value at `key`, made if missing; the key is copied only then.
fn update<V: Default, R>(
    map: &mut HashMap<String, V>,
    key: &str,
    change: impl FnOnce(&mut V) -> R,
) -> R {
    match map.get_mut(key) {
        Some(value) => change(value),
        None => change(map.entry(key.to_owned()).or_default()),
    }
}
